"""The HTTP contract, version 1: the only place where wire names live.

Types are strict: a number in quotes is an error, so are NaN and unknown fields. Paths in errors
read like ``requests[17].prompt``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from banditroute.contract.body import Wire
from banditroute.core.budget import MOST_USD
from banditroute.core.mistakes import blame
from banditroute.core.pool import MOST_PRICE_USD, MOST_TOKENS, ModelSpec, Name, Preference

MAX_BATCH = 1_024
MAX_TAGS = 64


class Message(Wire):
    """A chat message; only text counts, other parts are passed over."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    role: Name
    content: str | Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None

    def text(self) -> str:
        """Return the text of the message."""
        if isinstance(self.content, list):
            parts = (part.get("text") for part in self.content)
            return "\n".join(part for part in parts if isinstance(part, str))
        return self.content or ""


class RouteRequest(Wire):
    """Which model should answer this? Send a prompt, messages, an embedding, or both."""

    prompt: str | None = Field(None, min_length=1)
    messages: list[Message] | None = Field(None, min_length=1, fail_fast=True)
    embedding: list[float] | None = Field(None, min_length=1, fail_fast=True)
    pool: Name = "default"
    preference: Preference | None = None
    max_cost_usd: float | None = Field(None, ge=0)
    max_latency_ms: float | None = Field(None, ge=0)
    input_tokens: int | None = Field(None, ge=0, le=MOST_TOKENS)
    max_output_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    models: list[Name] | None = Field(None, min_length=1, fail_fast=True)
    requires: list[Name] | None = Field(None, fail_fast=True)
    session_id: Name | None = None
    tags: dict[Name, Name] | None = Field(None, max_length=MAX_TAGS)
    task: Name | None = None

    @model_validator(mode="after")
    def _something_to_route(self) -> RouteRequest:
        if self.prompt is None and self.messages is None and self.embedding is None:
            raise ValueError("one of prompt, messages or embedding is required")
        if self.prompt is not None and self.messages is not None:
            raise ValueError("send prompt or messages, not both")
        return self

    def text(self) -> str | None:
        """Return the prompt, or the messages as one text; None with an embedding alone."""
        if self.messages is not None:
            return "\n".join(message.text() for message in self.messages)
        return self.prompt


class RouteBatch(Wire):
    """Up to 1,024 requests, decided in one vectorised call."""

    requests: list[RouteRequest] = Field(min_length=1, max_length=MAX_BATCH, fail_fast=True)


class RouteAnswer(Wire):
    """The decision."""

    decision_id: str
    model: str
    fallbacks: list[str]
    propensity: float
    max_output_tokens: int
    policy: str
    policy_version: int
    reserved_cost_usd: float
    expires_at: str


class ErrorDetail(Wire):
    """What went wrong, in the OpenAI shape."""

    message: str
    type: str
    param: str | None
    code: str
    budget: BudgetAnswer | None = None


class ErrorAnswer(Wire):
    """Every answer that is not a success."""

    error: ErrorDetail


class RouteBatchAnswer(Wire):
    """The decisions in the order of the requests; a row that failed holds its error."""

    decisions: list[RouteAnswer | ErrorAnswer]


class FeedbackRequest(Wire):
    """How good, dear and slow an answer was; which of two was better; or how good a session was.

    Of one decision: fields may come apart, in any order. With `preferred_over`: the answer of
    `decision_id` was preferred over that decision's, to the same prompt. With `session_id` in
    place of `decision_id`: the quality of each decision of the session that has none yet.
    """

    decision_id: Name | None = None
    preferred_over: Name | None = None
    session_id: Name | None = None
    pool: Name = "default"
    quality: float | None = Field(None, ge=0, le=1)
    cost_usd: float | None = Field(None, ge=0, le=1_000_000)
    input_tokens: int | None = Field(None, ge=0, le=MOST_TOKENS)
    output_tokens: int | None = Field(None, ge=0, le=MOST_TOKENS)
    latency_ms: float | None = Field(None, ge=0, le=1e9)
    model: Name | None = None
    source: Name | None = None
    key: Name | None = None

    @model_validator(mode="after")
    def _says_something(self) -> FeedbackRequest:
        if self.session_id is not None:
            return self._only("session_id", "pool", "quality", needs="quality")
        if self.preferred_over is not None:
            if self.preferred_over == self.decision_id:
                raise blame("preferred_over", "this is the same decision")
            return self._only("preferred_over", "decision_id", needs="decision_id")
        if self.decision_id is None:
            raise blame("decision_id", "required, where there is no session_id")
        if "pool" in self.model_fields_set:
            raise blame("pool", "comes with a session_id; a decision knows its own")
        fields = (self.quality, self.cost_usd, self.output_tokens, self.latency_ms, self.model)
        if (self.input_tokens is None) != (self.output_tokens is None):
            raise ValueError("input_tokens and output_tokens come together")
        if all(value is None for value in fields):
            raise ValueError(
                "one of quality, cost_usd, tokens, latency_ms, model or preferred_over is required"
            )
        return self

    def _only(self, kind: str, *others: str, needs: str) -> FeedbackRequest:
        """Refuse what does not go with the field that makes this the `kind` it is."""
        if getattr(self, needs) is None:
            raise blame(needs, f"required with {kind}")
        for name in sorted(self.model_fields_set - {kind, *others, "source", "key"}):
            if getattr(self, name) is not None:
                raise blame(name, f"does not go with {kind}")
        return self


class FeedbackBatch(Wire):
    """Up to 1,024 pieces of feedback, stored in one transaction."""

    feedback: list[FeedbackRequest] = Field(min_length=1, max_length=MAX_BATCH, fail_fast=True)


class FeedbackAnswer(Wire):
    """What became of the feedback; of a session, how many decisions took their quality from it."""

    status: Literal["accepted", "duplicate", "superseded", "late"]
    decisions: int | None = None


class FeedbackResult(Wire):
    """What became of one row of a batch, which has a decision_id or a session_id."""

    decision_id: str | None = None
    session_id: str | None = None
    key: str
    status: Literal["accepted", "duplicate", "superseded", "late", "unknown", "conflict"]
    decisions: int | None = None


class FeedbackBatchAnswer(Wire):
    """What became of the rows, in order."""

    results: list[FeedbackResult]


class ScoredPrompt(Wire):
    """A prompt, or its embedding, or both, with the quality of the new model's answer to it."""

    prompt: str | None = Field(None, min_length=1)
    embedding: list[float] | None = Field(None, min_length=1, fail_fast=True)
    task: Name | None = None
    quality: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _something_was_scored(self) -> ScoredPrompt:
        if self.prompt is None and self.embedding is None:
            raise ValueError("one of prompt or embedding is required")
        return self

    def text(self) -> str | None:
        """Return the prompt, None with an embedding alone."""
        return self.prompt


class NewModel(ModelSpec):
    """A model to add; a missing pool is made with default settings.

    With `scored` the policy knows beforehand how good it is, as if it had learned `n_effective`
    outcomes of it, at most as many as are sent.
    """

    pool: Name = "default"
    scored: list[ScoredPrompt] | None = Field(
        None, min_length=1, max_length=MAX_BATCH, fail_fast=True
    )
    n_effective: float = Field(50.0, gt=0, le=1e6)


class ModelAnswer(Wire):
    """A model with the price in force, in US dollars per million tokens."""

    name: str
    input_price: float
    output_price: float
    price_row: int
    draining: bool
    max_output_tokens: int | None
    context_length: int | None
    capabilities: list[str]


class PriorAnswer(Wire):
    """What the scored prompts of a new model were made of."""

    outcomes: int
    clusters: int
    n_effective: float


class AddedModel(ModelAnswer):
    """A model that was added, and what is known of it beforehand."""

    prior: PriorAnswer | None = None


class ModelList(Wire):
    """The models of a pool."""

    data: list[ModelAnswer]


class ModelChange(Wire):
    """What changes about a model; a price gets a new dated row."""

    input_price: float | None = Field(None, ge=0, le=MOST_PRICE_USD)
    output_price: float | None = Field(None, ge=0, le=MOST_PRICE_USD)
    max_output_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    context_length: int | None = Field(None, ge=1, le=MOST_TOKENS)
    capabilities: list[Name] | None = Field(None, fail_fast=True)

    @model_validator(mode="after")
    def _changes_something(self) -> ModelChange:
        if all(value is None for _, value in self):
            raise ValueError("nothing to change")
        return self


Pacing = Literal["history", "zcl", "pacer", "none"]
Usd = Annotated[float, Field(ge=0, le=MOST_USD)]
LEAST_USD = 1e-9


def _kept(amounts: BaseModel) -> None:
    """Refuse amounts that would be kept as nothing: money is whole nano-dollars."""
    for name, value in amounts:
        if name.endswith("_usd") and value is not None and 0.0 < value < LEAST_USD:
            raise blame(name, "money is kept in whole nano-dollars: 1e-9 or more, or 0")


class NewBudget(Wire):
    """A cap on what decisions of a pool may cost; with a tag, those of requests that carry it."""

    name: Name
    pool: Name = "default"
    cap_usd: Usd
    window: Literal["total", "hour", "day", "month", "rolling"] = "total"
    rolling_s: int | None = Field(None, ge=1, le=10 * 365 * 86_400)
    tag: Name | None = None
    value: Name | None = None
    request_ceiling_usd: Usd | None = None
    pacing: Pacing = "history"
    expected_requests: int | None = Field(None, ge=1, le=10**15)
    rate_usd: Usd | None = None
    quality_floor: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> NewBudget:
        if self.quality_floor is not None and self.pacing != "history":
            raise blame("quality_floor", "goes with pacing 'history'")
        _kept(self)
        if self.name in (".", ".."):
            raise blame("name", "no path leads to this name")
        if (self.window == "rolling") != (self.rolling_s is not None):
            raise blame("rolling_s", "goes with window 'rolling', which needs it")
        if (self.tag is None) != (self.value is None):
            raise blame("tag" if self.tag is None else "value", "tag and value come together")
        return self


class BudgetChange(Wire):
    """What changes about a budget; null takes a ceiling, a number of requests or a rate away."""

    cap_usd: Usd | None = None
    top_up_usd: float | None = Field(None, gt=0, le=MOST_USD)
    request_ceiling_usd: Usd | None = None
    pacing: Pacing | None = None
    expected_requests: int | None = Field(None, ge=1, le=10**15)
    rate_usd: Usd | None = None
    quality_floor: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _changes_something(self) -> BudgetChange:
        if not self.model_fields_set:
            raise ValueError("nothing to change")
        _kept(self)
        if {"cap_usd", "top_up_usd"} <= self.model_fields_set:
            raise blame("top_up_usd", "a cap is set or topped up, not both")
        for name in ("cap_usd", "top_up_usd", "pacing"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise blame(name, "cannot be null")
        return self


class BudgetAnswer(Wire):
    """A budget and the sums of its rows in the current window, in US dollars.

    What is not free is settled, reserved by decisions, expired (reserved and not settled in time),
    leased by replicas, or lost (leased by a machine that went down).
    """

    name: str
    pool: str
    window: str
    rolling_s: int | None
    tag: str | None
    value: str | None
    request_ceiling_usd: float | None
    pacing: str
    expected_requests: int | None
    rate_usd: float | None
    quality_floor: float | None
    cap_usd: float
    settled_usd: float
    reserved_usd: float
    expired_usd: float
    leased_usd: float
    lost_usd: float
    free_usd: float
    overruns_usd: float
    requests: int
    resets_at: str | None


class BudgetList(Wire):
    """The budgets of a pool."""

    data: list[BudgetAnswer]


class CancelAnswer(Wire):
    """What became of a decision that was never used."""

    status: Literal["cancelled", "duplicate"]

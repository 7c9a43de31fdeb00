"""The HTTP contract, version 1: the only place that defines the names of fields on the wire.

Types are strict: a number in quotes, NaN and an unknown field are errors. An error names its field
with a path such as ``requests[17].prompt``. The docstrings are shown in the OpenAPI document.
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
    """A chat message; only its text is used, other parts are ignored."""

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
    """A request for a decision: a prompt or messages, an embedding, or both.

    The other fields restrict or guide the choice. Costs are in US dollars, latencies in ms.
    """

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
        """Return the prompt or all messages as one text, None for an embedding alone."""
        if self.messages is not None:
            return "\n".join(message.text() for message in self.messages)
        return self.prompt


class RouteBatch(Wire):
    """Up to 1,024 requests, decided in one call."""

    requests: list[RouteRequest] = Field(min_length=1, max_length=MAX_BATCH, fail_fast=True)


class RouteAnswer(Wire):
    """A decision: the model to ask, and fallbacks in order.

    `propensity` is the probability with which the model was drawn. `reserved_cost_usd` is the
    worst case that was reserved for the answer, until `expires_at`. It holds if the caller limits
    the answer to `max_output_tokens`.
    """

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
    """An error in the form of the OpenAI API, with the budget if one is exceeded."""

    message: str
    type: str
    param: str | None
    code: str
    budget: BudgetAnswer | None = None


class ErrorAnswer(Wire):
    """The answer to a request that failed."""

    error: ErrorDetail


class RouteBatchAnswer(Wire):
    """Decisions in the order of the requests; a request that failed has an error instead."""

    decisions: list[RouteAnswer | ErrorAnswer]


class FeedbackRequest(Wire):
    """Feedback: quality, cost and latency of an answer, a preference, or a session's quality.

    With `decision_id`: what was observed of the answer, quality in [0, 1], cost in US dollars,
    latency in ms. Fields may come in several requests, in any order. With `preferred_over` too:
    the answer of `decision_id` was better than that of the other decision, to the same prompt.
    With `session_id` instead: the quality for all decisions of the session that have none yet.
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
    def _fields_agree(self) -> FeedbackRequest:
        if self.session_id is not None:
            return self._of_kind("session_id", "pool", "quality", requires="quality")
        if self.preferred_over is not None:
            if self.preferred_over == self.decision_id:
                raise blame("preferred_over", "this is the same decision")
            return self._of_kind("preferred_over", "decision_id", requires="decision_id")
        if self.decision_id is None:
            raise blame("decision_id", "required without session_id")
        if "pool" in self.model_fields_set:
            raise blame("pool", "goes with session_id only; a decision has its own pool")
        fields = (self.quality, self.cost_usd, self.output_tokens, self.latency_ms, self.model)
        if (self.input_tokens is None) != (self.output_tokens is None):
            raise ValueError("input_tokens and output_tokens come together")
        if all(value is None for value in fields):
            raise ValueError(
                "one of quality, cost_usd, tokens, latency_ms, model or preferred_over is required"
            )
        return self

    def _of_kind(self, kind: str, *allowed: str, requires: str) -> FeedbackRequest:
        """Refuse fields that do not go with the field that makes this feedback of one kind."""
        if getattr(self, requires) is None:
            raise blame(requires, f"required with {kind}")
        for name in sorted(self.model_fields_set - {kind, *allowed, "source", "key"}):
            if getattr(self, name) is not None:
                raise blame(name, f"does not go with {kind}")
        return self


class FeedbackBatch(Wire):
    """Up to 1,024 items of feedback, stored in one transaction."""

    feedback: list[FeedbackRequest] = Field(min_length=1, max_length=MAX_BATCH, fail_fast=True)


class FeedbackAnswer(Wire):
    """What became of the feedback; for a session, the number of decisions that took the quality."""

    status: Literal["accepted", "duplicate", "superseded", "late"]
    decisions: int | None = None


class FeedbackResult(Wire):
    """What became of one item of a batch, which has a decision_id or a session_id."""

    decision_id: str | None = None
    session_id: str | None = None
    key: str
    status: Literal["accepted", "duplicate", "superseded", "late", "unknown", "conflict"]
    decisions: int | None = None


class FeedbackBatchAnswer(Wire):
    """What became of the items, in their order."""

    results: list[FeedbackResult]


class ScoredPrompt(Wire):
    """A prompt, its embedding or both, and the quality of the new model's answer, in [0, 1]."""

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
    """A model to add; a pool that does not exist is made with default settings.

    Prices are in US dollars per million tokens. With `scored`, the policy starts as if it had
    learned `n_effective` outcomes of the model, at most as many as are sent.
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
    """What the policy learned from the scored prompts of a new model."""

    outcomes: int
    clusters: int
    n_effective: float


class AddedModel(ModelAnswer):
    """A model that was added, and what was learned from its scored prompts."""

    prior: PriorAnswer | None = None


class ModelList(Wire):
    """The models of a pool."""

    data: list[ModelAnswer]


class ModelChange(Wire):
    """What changes about a model; a new price, in US dollars per million tokens, gets a new row."""

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


def _check_amounts(body: BaseModel) -> None:
    """Refuse amounts that would be stored as 0: money is whole nano-dollars."""
    for name, value in body:
        if name.endswith("_usd") and value is not None and 0.0 < value < LEAST_USD:
            raise blame(name, "money is stored in whole nano-dollars: 0, or 1e-9 or more")


class NewBudget(Wire):
    """A cap in US dollars on the decisions of a pool, or on those of requests with one tag."""

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
    def _fields_agree(self) -> NewBudget:
        if self.quality_floor is not None and self.pacing != "history":
            raise blame("quality_floor", "goes with pacing 'history'")
        _check_amounts(self)
        if self.name in (".", ".."):
            raise blame("name", "a path cannot end in this name")
        if (self.window == "rolling") != (self.rolling_s is not None):
            raise blame("rolling_s", "window 'rolling' requires it, and no other window has it")
        if (self.tag is None) != (self.value is None):
            raise blame("tag" if self.tag is None else "value", "tag and value come together")
        return self


class BudgetChange(Wire):
    """What changes about a budget; null removes a ceiling, a number, a rate or a floor."""

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
        _check_amounts(self)
        if {"cap_usd", "top_up_usd"} <= self.model_fields_set:
            raise blame("top_up_usd", "does not go with cap_usd: set the cap or add to it")
        for name in ("cap_usd", "top_up_usd", "pacing"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise blame(name, "cannot be null")
        return self


class BudgetAnswer(Wire):
    """A budget and the sums of its current window, in US dollars.

    Money that is not free is settled, reserved by decisions, expired (reserved and not settled in
    time), leased by replicas, or lost (leased by a machine that went down).
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
    """What became of a decision that was not used."""

    status: Literal["cancelled", "duplicate"]

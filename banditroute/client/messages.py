"""What the clients send and how they read an answer: pure but for the clock.

Nothing here opens a connection or waits; `sync` and `aio` do both.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Required, TypedDict
from urllib.parse import quote

import httpx

IGNORED = "ignored"
UNEXPECTED = "unexpected_answer"


class RouterError(Exception):
    """The router said no, or could not be reached.

    Attributes
    ----------
    status : HTTP status; 0 when there was no answer at all.
    code : a stable word, such as ``budget_exceeded``; ``unreachable`` without an answer.
    param : the field to blame, or None.
    message : one sentence for a person.
    retry_after : seconds that the router asked to wait, or None.
    """

    def __init__(
        self,
        status: int,
        code: str,
        param: str | None,
        message: str,
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{message} ({status} {code})" if status else f"{message} ({code})")
        self.status, self.code, self.param, self.message = status, code, param, message
        self.retry_after = retry_after

    @property
    def away(self) -> bool:
        """Whether the router could not answer now, rather than would not."""
        busy = self.status == 429 and self.code not in ("budget_exceeded", "insufficient_quota")
        return self.status == 0 or self.status >= 500 or busy or self._in_front

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed in a moment."""
        return self._in_front or (self.away and self.status in (0, 429, 502, 503, 504))

    @property
    def _in_front(self) -> bool:
        """Whether a proxy answered that has not heard of the router yet, as at its start."""
        return self.code == UNEXPECTED and self.status in (404, 500)


@dataclass(frozen=True, slots=True)
class Route:
    """A decision; `degraded` when the router was away and this is the caller's default."""

    decision_id: str | None
    model: str
    fallbacks: tuple[str, ...] = ()
    propensity: float | None = None
    max_output_tokens: int | None = None
    policy: str | None = None
    policy_version: int | None = None
    reserved_cost_usd: float | None = None
    expires_at: str | None = None
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class RouteError:
    """A row of a batch that has no decision."""

    code: str
    param: str | None
    message: str


class Ask(TypedDict, total=False):
    """What may be asked of ``POST /v1/route``: one of prompt, messages or embedding, and limits."""

    prompt: str
    messages: Sequence[Mapping[str, Any]]
    embedding: Sequence[float]
    pool: str
    preference: Mapping[str, float]
    max_cost_usd: float
    max_latency_ms: float
    input_tokens: int
    max_output_tokens: int
    models: Sequence[str]
    requires: Sequence[str]
    session_id: str
    tags: Mapping[str, str]
    task: str


class Observed(TypedDict, total=False):
    """What may be said of an answer; quality in [0, 1], cost in US dollars, latency in ms."""

    quality: float | None
    cost_usd: float | None
    input_tokens: int | None
    output_tokens: int | None
    latency_ms: float | None
    model: str | None
    source: str | None
    key: str | None


class By(TypedDict, total=False):
    """Who says so, and the name under which it counts once (else the source)."""

    source: str | None
    key: str | None


class Verdict(By, total=False):
    """What may be said of a session: its quality in [0, 1], and the pool of its decisions."""

    quality: Required[float]
    pool: str


class Properties(TypedDict, total=False):
    """What may be said of a model; prices in US dollars per million tokens."""

    input_price: float
    output_price: float
    max_output_tokens: int
    context_length: int
    capabilities: Sequence[str]


class ScoredPromptFields(TypedDict, total=False):
    """A prompt or its embedding, and how good a new model's answer to it was, in [0, 1]."""

    prompt: str
    embedding: Sequence[float]
    task: str
    quality: float


class NewProperties(Properties, total=False):
    """What may be said of a new model; see the README for `scored` and `n_effective`."""

    scored: Sequence[ScoredPromptFields]
    n_effective: float


class BudgetChangeFields(TypedDict, total=False):
    """What may change about a budget; None takes a ceiling, a number or a rate away."""

    cap_usd: float
    top_up_usd: float
    request_ceiling_usd: float | None
    pacing: str
    expected_requests: int | None
    rate_usd: float | None
    quality_floor: float | None


class BudgetFields(TypedDict, total=False):
    """What may be said of a new budget; `cap_usd` must be."""

    cap_usd: Required[float]
    window: str
    rolling_s: int
    tag: str
    value: str
    request_ceiling_usd: float
    pacing: str
    expected_requests: int
    rate_usd: float
    quality_floor: float


@dataclass(slots=True)
class Call:
    """One answer in the making: set what is known of it, the rest is measured.

    Attributes
    ----------
    route : the decision.
    quality, cost_usd, input_tokens, output_tokens : to set in the body; None is not sent.
    latency_ms : None means the time spent in the body.
    answered_by : the model that answered, when it was not the chosen one.
    """

    route: Route
    quality: float | None = None
    cost_usd: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_ms: float | None = None
    answered_by: str | None = None
    _started: float = field(default_factory=time.monotonic)

    @property
    def model(self) -> str:
        """The model to ask."""
        return self.route.model

    @property
    def max_output_tokens(self) -> int | None:
        """The output tokens that the decision reckons with; None when it is degraded."""
        return None if self.route.degraded else self.route.max_output_tokens

    def observed(self, *, raised: bool, failed_quality: float | None) -> Observed | None:
        """Return the feedback, None where there is nothing to say.

        A body that raised has no latency of its own: a fast failure is not a fast model.
        """
        measured = None if raised else 1_000.0 * (time.monotonic() - self._started)
        quality = failed_quality if raised and self.quality is None else self.quality
        observed = Observed(
            quality=quality,
            cost_usd=self.cost_usd,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            latency_ms=measured if self.latency_ms is None else self.latency_ms,
            model=self.answered_by,
        )
        return observed if any(value is not None for value in observed.values()) else None


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: Mapping[str, Any] | None = None
    pool: str | None = None
    key: str | None = None

    def arguments(self) -> dict[str, Any]:
        headers = {} if self.key is None else {"Idempotency-Key": self.key}
        content = None
        if self.body is not None:
            # Escaped, so that a lone surrogate in a prompt can travel.
            content = json.dumps(self.body, allow_nan=False).encode("ascii")
            headers["Content-Type"] = "application/json"
        return {
            "method": self.method,
            "url": self.path,
            "content": content,
            "headers": headers,
            "params": None if self.pool is None else {"pool": self.pool},
        }


def known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _ask_body(ask: Mapping[str, Any]) -> dict[str, Any]:
    body = known(ask)
    if "embedding" in body:
        body["embedding"] = [float(number) for number in body["embedding"]]
    for name in ("messages", "models", "requires"):
        if name in body:
            body[name] = list(body[name])
    return body


def route_request(ask: Mapping[str, Any], key: str | None) -> Request:
    return Request("POST", "/v1/route", _ask_body(ask), key=key or uuid.uuid4().hex)


def batch_request(asks: Sequence[Mapping[str, Any]], key: str | None) -> Request:
    body = {"requests": [_ask_body(ask) for ask in asks]}
    return Request("POST", "/v1/route/batch", body, key=key or uuid.uuid4().hex)


def feedback_request(decision_id: str, observed: Mapping[str, Any]) -> Request:
    return Request("POST", "/v1/feedback", {"decision_id": decision_id} | known(observed))


def prefer_request(decision_id: str | None, over: str | None, by: By) -> Request | None:
    if decision_id is None or over is None:
        return None
    body = {"decision_id": decision_id, "preferred_over": over}
    return Request("POST", "/v1/feedback", body | known(by))


def session_request(session_id: str, verdict: Verdict) -> Request:
    return Request("POST", "/v1/feedback", {"session_id": session_id} | known(verdict))


def feedback_batch_request(items: Sequence[Mapping[str, Any]]) -> Request | None:
    rows = [known(item) for item in items if not _without_decision(item)]
    return Request("POST", "/v1/feedback/batch", {"feedback": rows}) if rows else None


def decision_request(decision_id: str) -> Request:
    return Request("GET", f"/v1/decisions/{quote(decision_id, safe='')}")


def add_request(name: str, pool: str, properties: Mapping[str, Any]) -> Request:
    body = {"pool": pool, "name": name} | known(properties)
    if "scored" in body:
        body["scored"] = [_ask_body(row) for row in body["scored"]]
    return Request("POST", "/v1/models", body)


def cancel_request(decision_id: str) -> Request:
    return Request("POST", f"/v1/decisions/{quote(decision_id, safe='')}/cancel")


def new_budget_request(name: str, pool: str, terms: Mapping[str, Any]) -> Request:
    return Request("POST", "/v1/budgets", {"pool": pool, "name": name} | known(terms))


def budget_request(
    method: str, name: str, pool: str, change: Mapping[str, Any] | None = None
) -> Request:
    body = None if change is None else dict(change)
    return Request(method, f"/v1/budgets/{quote(name, safe='')}", body, pool=pool)


def model_path(name: str) -> str:
    return f"/v1/models/{quote(name, safe='')}"


def read_route(answer: Mapping[str, Any]) -> Route:
    names = [name for name in Route.__dataclass_fields__ if name in answer]
    fields = {name: answer[name] for name in names if name != "fallbacks"}
    return Route(**fields, fallbacks=tuple(answer.get("fallbacks", ())))


def read_row(row: Mapping[str, Any]) -> Route | RouteError:
    if "error" not in row:
        return read_route(row)
    error = row["error"]
    return RouteError(error["code"], error.get("param"), error["message"])


def read_results(
    items: Sequence[Mapping[str, Any]], answer: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    sent = iter(answer["results"] if answer else ())
    return [
        {"decision_id": item.get("decision_id"), "status": IGNORED}
        if _without_decision(item)
        else dict(next(sent))
        for item in items
    ]


def _without_decision(item: Mapping[str, Any]) -> bool:
    """Return whether an item is about a decision that the router was not there to take."""
    said = known(item).keys()
    alone = "preferred_over" in item and said <= {"decision_id", "source", "key"}
    return alone or not said & {"decision_id", "session_id"}


def failure_of(response: httpx.Response) -> RouterError | None:
    """Return the error that a response stands for, None for a success."""
    if response.is_success:
        return None
    try:
        error = response.json()["error"]
        code, param, message = str(error["code"]), error.get("param"), str(error["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        code, param, message = UNEXPECTED, None, f"unexpected answer {response.status_code}"
    try:
        retry_after = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        retry_after = None
    return RouterError(response.status_code, code, param, message, retry_after=retry_after)


def unreachable(error: httpx.TransportError) -> RouterError:
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    return RouterError(0, "unreachable", None, f"no answer from the router, {reason}")


def read(response: httpx.Response) -> Any:
    try:
        return response.json() if response.content else None
    except ValueError as error:
        message = "the answer is not JSON"
        raise RouterError(response.status_code, "invalid_answer", None, message) from error


def connection(base_url: str, api_key: str | None) -> dict[str, Any]:
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    return {"base_url": base_url, "headers": headers}

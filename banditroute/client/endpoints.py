"""All that the clients do without waiting: what each call sends, and what its answer means.

An `Endpoint` describes a call, an `Exchange` is the course of one. Nothing here opens a connection
or sleeps; `sync` and `aio` do both, each in one short loop.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import quote

import httpx

from banditroute.client.messages import (
    IGNORED,
    UNEXPECTED,
    Ask,
    BudgetChangeFields,
    BudgetFields,
    By,
    Call,
    NewProperties,
    Observed,
    Properties,
    Route,
    RouteError,
    RouterError,
    Verdict,
)
from banditroute.client.retry import Attempts, RetryPolicy

Answer = TypeVar("Answer")
Http = TypeVar("Http")
Transport = TypeVar("Transport")


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request to the router.

    Attributes
    ----------
    method : str
        HTTP method.
    path : str
        Path with all names quoted.
    body : Mapping[str, Any] or None
        The body, sent as JSON.
    pool : str or None
        Pool to name in the query.
    key : str or None
        Idempotency key.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    pool: str | None = None
    key: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of ``httpx.Client.request``."""
        headers = {} if self.key is None else {"Idempotency-Key": self.key}
        content = None
        if self.body is not None:
            # Escaped, so that a lone surrogate in a prompt can be sent.
            content = json.dumps(self.body, allow_nan=False).encode("ascii")
            headers["Content-Type"] = "application/json"
        return {
            "method": self.method,
            "url": self.path,
            "content": content,
            "headers": headers,
            "params": None if self.pool is None else {"pool": self.pool},
        }


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Answer]):
    """What a call sends, and what it returns.

    Attributes
    ----------
    request : Request or None
        What is sent; None sends nothing.
    read : Callable[[Any], Answer]
        Makes the answer of the JSON that came back, None for an empty body and for nothing sent.
    routing : bool
        Whether the call asks for decisions, which a default model replaces in time.
    once : bool
        If True, the request is never sent again.
    instead : Callable[[RetryPolicy, RouterError], Answer] or None
        Returns an answer in place of a failure, or raises it; None raises every failure.
    """

    request: Request | None
    read: Callable[[Any], Answer]
    routing: bool = False
    once: bool = False
    instead: Callable[[RetryPolicy, RouterError], Answer] | None = None


class BaseClient(Generic[Http, Transport]):
    """See `Client`; this is what both clients have in common, all but the waiting."""

    _connect: ClassVar[Callable[..., Any]]
    """The class of the HTTP client."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 10.0,
        retries: int = 3,
        retry_for: float | None = None,
        default_model: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http: Http = self._connect(base_url=base_url, headers=headers, transport=transport)
        self._retry = RetryPolicy(timeout, retries, retry_for, default_model)
        self.retried = 0


class Exchange(Generic[Answer]):
    """One call of a client: the requests to send until there is an answer.

    Parameters
    ----------
    client : BaseClient
        The client that makes the call.
    endpoint : Endpoint
        What to send, and what to return.

    Attributes
    ----------
    answer : Answer
        What the call returns, as soon as `next_request` returns None.
    """

    answer: Answer

    def __init__(self, client: BaseClient[Any, Any], endpoint: Endpoint[Answer]) -> None:
        self._client, self._endpoint = client, endpoint
        self._attempts = Attempts(client._retry, routing=endpoint.routing, once=endpoint.once)
        self._request = endpoint.request
        if endpoint.request is None:
            self.answer = endpoint.read(None)

    def next_request(self) -> dict[str, Any] | None:
        """Return the arguments of ``httpx.Client.request``, None if the call is over."""
        if self._request is None:
            return None
        return self._request.arguments() | {"timeout": self._attempts.timeout_s()}

    def receive(self, outcome: httpx.Response | httpx.TransportError) -> float:
        """Return the seconds to wait before the next step; raise RouterError to give up.

        Parameters
        ----------
        outcome : httpx.Response or httpx.TransportError
            What came of the request.
        """
        try:
            self.answer = self._endpoint.read(_content(outcome))
        except RouterError as failure:
            wait_s = self._attempts.pause_s(failure)
            if wait_s is not None:
                self._client.retried += 1
                return wait_s
            if self._endpoint.instead is None:
                raise
            self.answer = self._endpoint.instead(self._client._retry, failure)
        self._request = None
        return 0.0


_NOT_SENT: Endpoint[str] = Endpoint(None, lambda answer: IGNORED)


def route(ask: Ask, key: str | None) -> Endpoint[Route]:
    """See `Client.route`."""
    request = Request("POST", "/v1/route", _ask_body(ask), key=key or uuid.uuid4().hex)
    return Endpoint(request, _read_route, routing=True, instead=RetryPolicy.default_route)


def route_batch(asks: Sequence[Ask], key: str | None) -> Endpoint[list[Route | RouteError]]:
    """See `Client.route_batch`."""
    body = {"requests": [_ask_body(ask) for ask in asks]}
    return Endpoint(
        Request("POST", "/v1/route/batch", body, key=key or uuid.uuid4().hex),
        lambda answer: [_read_row(row) for row in answer["decisions"]],
        routing=True,
        instead=lambda retry, failure: [retry.default_route(failure) for _ in asks],
    )


def feedback(decision_id: str | None, observed: Observed) -> Endpoint[str]:
    """See `Client.feedback`."""
    if decision_id is None:
        return _NOT_SENT
    body = {"decision_id": decision_id} | _without_none(observed)
    return Endpoint(Request("POST", "/v1/feedback", body), _read_status)


def settle(call: Call, *, raised: bool, failed_quality: float | None) -> Endpoint[str]:
    """Return the endpoint for the feedback at the end of a `decide` block.

    Parameters
    ----------
    call : Call
        What the block observed.
    raised : bool
        See `Call.observed`.
    failed_quality : float or None
        See `Call.observed`.
    """
    observed = call.observed(raised=raised, failed_quality=failed_quality)
    return replace(
        feedback(None if observed is None else call.route.decision_id, observed or Observed()),
        instead=lambda retry, failure: retry.settle_failed(failure, body_raised=raised),
    )


def prefer(decision_id: str | None, over: str | None, by: By) -> Endpoint[str]:
    """See `Client.prefer`."""
    if decision_id is None or over is None:
        return _NOT_SENT
    body = {"decision_id": decision_id, "preferred_over": over} | _without_none(by)
    return Endpoint(Request("POST", "/v1/feedback", body), _read_status)


def session_feedback(session_id: str, verdict: Verdict) -> Endpoint[dict[str, Any]]:
    """See `Client.session_feedback`."""
    body = {"session_id": session_id} | _without_none(verdict)
    return Endpoint(Request("POST", "/v1/feedback", body), _read_object)


def feedback_batch(items: Sequence[Mapping[str, Any]]) -> Endpoint[list[dict[str, Any]]]:
    """See `Client.feedback_batch`."""
    rows = [_without_none(item) for item in items if not _is_ignored(item)]

    def read(answer: Any) -> list[dict[str, Any]]:
        results = iter(answer["results"] if answer else ())
        return [
            {"decision_id": item.get("decision_id"), "status": IGNORED}
            if _is_ignored(item)
            else dict(next(results))
            for item in items
        ]

    return Endpoint(
        Request("POST", "/v1/feedback/batch", {"feedback": rows}) if rows else None, read
    )


def decision(decision_id: str) -> Endpoint[dict[str, Any]]:
    """See `Client.decision`."""
    return Endpoint(Request("GET", _path("decisions", decision_id)), _read_object)


def cancel(decision_id: str | None) -> Endpoint[str]:
    """See `Client.cancel`."""
    if decision_id is None:
        return _NOT_SENT
    return Endpoint(Request("POST", _path("decisions", decision_id) + "/cancel"), _read_status)


def models(pool: str) -> Endpoint[list[dict[str, Any]]]:
    """See `Client.models`."""
    return Endpoint(Request("GET", "/v1/models", pool=pool), _read_list)


def add_model(name: str, pool: str, properties: NewProperties) -> Endpoint[dict[str, Any]]:
    """See `Client.add_model`."""
    body = {"pool": pool, "name": name} | _without_none(properties)
    if "scored" in body:
        body["scored"] = [_ask_body(row) for row in body["scored"]]
    return Endpoint(Request("POST", "/v1/models", body), _read_object)


def set_price(name: str, pool: str, properties: Properties) -> Endpoint[dict[str, Any]]:
    """See `Client.set_price`."""
    request = Request("PATCH", _path("models", name), _without_none(properties), pool=pool)
    return Endpoint(request, _read_object)


def drain_model(name: str, pool: str) -> Endpoint[dict[str, Any]]:
    """See `Client.drain_model`."""
    return Endpoint(Request("DELETE", _path("models", name), pool=pool), _read_object)


def budgets(pool: str) -> Endpoint[list[dict[str, Any]]]:
    """See `Client.budgets`."""
    return Endpoint(Request("GET", "/v1/budgets", pool=pool), _read_list)


def budget(name: str, pool: str) -> Endpoint[dict[str, Any]]:
    """See `Client.budget`."""
    return Endpoint(Request("GET", _path("budgets", name), pool=pool), _read_object)


def add_budget(name: str, pool: str, terms: BudgetFields) -> Endpoint[dict[str, Any]]:
    """See `Client.add_budget`."""
    body = {"pool": pool, "name": name} | _without_none(terms)
    return Endpoint(Request("POST", "/v1/budgets", body), _read_object)


def change_budget(name: str, pool: str, change: BudgetChangeFields) -> Endpoint[dict[str, Any]]:
    """See `Client.change_budget`."""
    request = Request("PATCH", _path("budgets", name), dict(change), pool=pool)
    return Endpoint(request, _read_object, once="top_up_usd" in change)


def drop_budget(name: str, pool: str) -> Endpoint[dict[str, Any]]:
    """See `Client.drop_budget`."""
    return Endpoint(Request("DELETE", _path("budgets", name), pool=pool), _read_object)


def policy(pool: str) -> Endpoint[dict[str, Any]]:
    """See `Client.policy`."""
    return Endpoint(Request("GET", "/v1/policy", pool=pool), _read_object)


def _path(kind: str, name: str) -> str:
    return f"/v1/{kind}/{quote(name, safe='')}"


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _ask_body(ask: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request for a decision, or a scored prompt, as JSON has it."""
    body = _without_none(ask)
    if "embedding" in body:
        body["embedding"] = [float(number) for number in body["embedding"]]
    for name in ("messages", "models", "requires"):
        if name in body:
            body[name] = list(body[name])
    return body


def _is_ignored(item: Mapping[str, Any]) -> bool:
    """Return whether feedback is about a decision that the router did not make."""
    fields = _without_none(item).keys()
    preference_lost = "preferred_over" in item and fields <= {"decision_id", "source", "key"}
    return preference_lost or not fields & {"decision_id", "session_id"}


def _read_object(answer: Any) -> dict[str, Any]:
    return dict(answer or {})


def _read_list(answer: Any) -> list[dict[str, Any]]:
    return list(answer["data"])


def _read_status(answer: Any) -> str:
    return str(answer["status"])


def _read_route(answer: Mapping[str, Any]) -> Route:
    fields = {name: answer[name] for name in Route.__dataclass_fields__ if name in answer}
    return Route(**fields | {"fallbacks": tuple(answer.get("fallbacks", ()))})


def _read_row(row: Mapping[str, Any]) -> Route | RouteError:
    if "error" not in row:
        return _read_route(row)
    error = row["error"]
    return RouteError(error["code"], error.get("param"), error["message"])


def _content(outcome: httpx.Response | httpx.TransportError) -> Any:
    """Return the JSON of a response, None if it is empty; raise RouterError for a failure."""
    if isinstance(outcome, httpx.TransportError):
        reason = f"{type(outcome).__name__}: {outcome}".rstrip(": ")
        raise RouterError(0, "unreachable", None, f"no answer from the router, {reason}")
    if not outcome.is_success:
        raise _refusal(outcome)
    try:
        return outcome.json() if outcome.content else None
    except ValueError as error:
        message = "the answer is not JSON"
        raise RouterError(outcome.status_code, "invalid_answer", None, message) from error


def _refusal(response: httpx.Response) -> RouterError:
    """Return the error that a response other than a success stands for."""
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

"""All that the clients do without waiting.

An `Endpoint` describes a call, an `Exchange` is the course of one. Nothing here opens a connection
or sleeps; `sync` and `aio` do both, each in one short loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import httpx

from banditroute.client.messages import (
    UNEXPECTED,
    RouterError,
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

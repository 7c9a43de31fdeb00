"""The client that blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, Unpack

import httpx

from banditroute.client.messages import (
    IGNORED,
    Ask,
    BudgetChangeFields,
    BudgetFields,
    By,
    Call,
    NewProperties,
    Observed,
    Properties,
    Request,
    Route,
    RouteError,
    RouterError,
    Verdict,
    add_request,
    batch_request,
    budget_request,
    cancel_request,
    connection,
    decision_request,
    failure_of,
    feedback_batch_request,
    feedback_request,
    known,
    model_path,
    new_budget_request,
    prefer_request,
    read,
    read_results,
    read_route,
    read_row,
    route_request,
    session_request,
    unreachable,
)
from banditroute.client.retry import RetryPolicy


class Client:
    """A blocking client; one may be shared by threads.

    Parameters
    ----------
    base_url : where the daemon listens.
    api_key : sent as a bearer token.
    timeout : seconds per attempt; with `default_model` also the limit of a whole route call.
    retries : further attempts after connection errors, timeouts, 502, 503, 504, and a 429 that
        is not about a budget; waits grow exponentially with jitter and honour ``Retry-After``.
    retry_for : seconds to go on retrying, however often; it takes the place of `retries`.
    default_model : what `route` answers when the router is away; without it that is an error.
    transport : an httpx transport, for tests and proxies.

    Attributes
    ----------
    retried : attempts that were repeated since the client was made.

    Notes
    -----
    Every method raises `RouterError` when the router says no or stays away.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 10.0,
        retries: int = 3,
        retry_for: float | None = None,
        default_model: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._patience = RetryPolicy(timeout, retries, retry_for, default_model)
        self._http = httpx.Client(transport=transport, **connection(base_url, api_key))
        self.retried = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def route(self, *, idempotency_key: str | None = None, **ask: Unpack[Ask]) -> Route:
        """Ask which model should answer; see `Ask` for the parameters.

        Parameters
        ----------
        idempotency_key : the same key gives the same answer for 24 hours; default a fresh one
            per call, so that retries of one call cannot decide twice.
        """
        try:
            return read_route(self._send(route_request(ask, idempotency_key), routing=True))
        except RouterError as failure:
            return self._patience.instead(failure)

    def route_batch(
        self, requests: Sequence[Ask], *, idempotency_key: str | None = None
    ) -> list[Route | RouteError]:
        """Ask for up to 1,024 decisions at once; the answers are in the order of `requests`."""
        try:
            answer = self._send(batch_request(requests, idempotency_key), routing=True)
        except RouterError as failure:
            return [self._patience.instead(failure) for _ in requests]
        return [read_row(row) for row in answer["decisions"]]

    def feedback(self, decision_id: str | None, **observed: Unpack[Observed]) -> str:
        """Report an answer; return accepted, duplicate, superseded, late, or ignored for None."""
        if decision_id is None:
            return IGNORED
        return str(self._send(feedback_request(decision_id, observed))["status"])

    def feedback_batch(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Report up to 1,024 answers, each with its ``decision_id``; results in their order."""
        request = feedback_batch_request(items)
        return read_results(items, self._send(request) if request else None)

    def prefer(self, decision_id: str | None, *, over: str | None, **by: Unpack[By]) -> str:
        """Report that an answer was preferred to another one; statuses are those of `feedback`.

        Parameters
        ----------
        decision_id, over : the decisions of the better answer and of the other one.
        """
        request = prefer_request(decision_id, over, by)
        return str(self._send(request)["status"]) if request else IGNORED

    def session_feedback(self, session_id: str, **verdict: Unpack[Verdict]) -> dict[str, Any]:
        """Report how good a session was; return status and how many decisions it rated.

        Its decisions that have no quality yet take this one; see `Verdict` for the parameters.
        """
        return dict(self._send(session_request(session_id, verdict)))

    @contextmanager
    def decide(
        self,
        *,
        failed_quality: float | None = None,
        idempotency_key: str | None = None,
        **ask: Unpack[Ask],
    ) -> Iterator[Call]:
        """Route, run the body, and post feedback with the latency of the body at its end.

        Parameters
        ----------
        failed_quality : quality to report when the body raises and has set none.
        """
        call = Call(self.route(idempotency_key=idempotency_key, **ask))
        raised = True
        try:
            yield call
            raised = False
        finally:
            observed = call.observed(raised=raised, failed_quality=failed_quality)
            try:
                if observed is not None:
                    self.feedback(call.route.decision_id, **observed)
            except RouterError as failure:
                self._patience.settle_failed(failure, body_raised=raised)

    def decision(self, decision_id: str) -> dict[str, Any]:
        """Return why a decision was taken."""
        return dict(self._send(decision_request(decision_id)))

    def models(self, pool: str = "default") -> list[dict[str, Any]]:
        """Return the models of a pool with the prices in force."""
        return list(self._send(Request("GET", "/v1/models", pool=pool))["data"])

    def add_model(
        self, name: str, *, pool: str = "default", **properties: Unpack[NewProperties]
    ) -> dict[str, Any]:
        """Add a model; 409 when it is there already, perhaps by an attempt that seemed lost."""
        return dict(self._send(add_request(name, pool, properties)) or {})

    def set_price(
        self, name: str, *, pool: str = "default", **properties: Unpack[Properties]
    ) -> dict[str, Any]:
        """Change a model's price, or what it can do; nothing has to be learned again."""
        request = Request("PATCH", model_path(name), known(properties), pool=pool)
        return dict(self._send(request) or {})

    def drain_model(self, name: str, *, pool: str = "default") -> None:
        """Choose a model no more."""
        self._send(Request("DELETE", model_path(name), pool=pool))

    def cancel(self, decision_id: str | None) -> str:
        """Give back what a decision reserved that was never used; ignored for None."""
        if decision_id is None:
            return IGNORED
        return str(self._send(cancel_request(decision_id))["status"])

    def budgets(self, pool: str = "default") -> list[dict[str, Any]]:
        """Return the budgets of a pool with what is spent of them."""
        return list(self._send(Request("GET", "/v1/budgets", pool=pool))["data"])

    def budget(self, name: str, *, pool: str = "default") -> dict[str, Any]:
        """Return one budget with what is spent of it."""
        return dict(self._send(budget_request("GET", name, pool)))

    def add_budget(
        self, name: str, *, pool: str = "default", **terms: Unpack[BudgetFields]
    ) -> dict[str, Any]:
        """Make a budget; see `BudgetFields`."""
        return dict(self._send(new_budget_request(name, pool, terms)) or {})

    def change_budget(
        self, name: str, *, pool: str = "default", **change: Unpack[BudgetChangeFields]
    ) -> dict[str, Any]:
        """Change a budget; a top-up is not sent again when its answer is lost."""
        request = budget_request("PATCH", name, pool, change)
        return dict(self._send(request, once="top_up_usd" in change) or {})

    def drop_budget(self, name: str, *, pool: str = "default") -> None:
        """Drop a budget and its ledger."""
        self._send(budget_request("DELETE", name, pool))

    def policy(self, pool: str = "default") -> dict[str, Any]:
        """Return the pool's policy, its version and its state digest."""
        return dict(self._send(Request("GET", "/v1/policy", pool=pool)))

    def _send(self, request: Request, *, routing: bool = False, once: bool = False) -> Any:
        attempts = self._patience.attempts(routing=routing, once=once)
        while True:
            try:
                response = self._http.request(timeout=attempts.timeout(), **request.arguments())
                failure = failure_of(response)
            except httpx.TransportError as error:
                failure = unreachable(error)
            if failure is None:
                return read(response)
            wait = attempts.pause(failure)
            self.retried += 1
            time.sleep(wait)

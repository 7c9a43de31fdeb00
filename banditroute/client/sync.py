"""The client that blocks, and what each call sends; `AsyncClient` makes its methods of these."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self, Unpack
from urllib.parse import quote

import httpx

from banditroute.client.endpoints import Answer, BaseClient, Endpoint, Exchange, Request
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
    Route,
    RouteError,
    Verdict,
)
from banditroute.client.retry import RetryPolicy


class Client(BaseClient[httpx.Client, httpx.BaseTransport]):
    """A client that blocks; several threads may share one.

    Parameters
    ----------
    base_url : str
        URL of the daemon.
    api_key : str or None
        Sent as a bearer token.
    timeout : float
        Seconds per attempt; with `default_model` also the limit of a whole routing call.
    retries : int
        Number of further attempts after connection errors, timeouts, 502, 503, 504, and a 429
        that is not about a budget. Waits grow exponentially with jitter and honour
        ``Retry-After``.
    retry_for : float or None
        Seconds to go on retrying, in place of `retries`.
    default_model : str or None
        Model that `route` answers with while the router is unavailable; None raises the error.
    transport : httpx.BaseTransport or None
        How to connect, for tests and proxies.

    Attributes
    ----------
    retried : int
        Requests that were sent again since the client was made.

    Notes
    -----
    Every method raises `RouterError` if the router refuses the request or stays unavailable.
    """

    _connect = httpx.Client

    def __enter__(self) -> Self:
        """Return the client; it is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def route(self, *, idempotency_key: str | None = None, **ask: Unpack[Ask]) -> Route:
        """Ask which model should answer.

        Parameters
        ----------
        idempotency_key : str or None
            The same key gets the same decision for 24 hours. None makes a new key for each call,
            so that retries of one call cannot decide twice.
        **ask : Unpack[Ask]
            The prompt and what restricts the choice, see `Ask`.

        Returns
        -------
        Route
            The decision, or the default model while the router is unavailable.
        """
        key = idempotency_key or uuid.uuid4().hex
        request = Request("POST", "/v1/route", _ask_body(ask), key=key)
        return self._send(
            Endpoint(request, _read_route, routing=True, instead=RetryPolicy.default_route)
        )

    def route_batch(
        self, requests: Sequence[Ask], *, idempotency_key: str | None = None
    ) -> list[Route | RouteError]:
        """Ask for up to 1,024 decisions at once.

        Parameters
        ----------
        requests : Sequence[Ask]
            What `route` takes, a mapping for each request.
        idempotency_key : str or None
            See `route`.

        Returns
        -------
        list of (Route or RouteError)
            Decisions in the order of `requests`.
        """
        body = {"requests": [_ask_body(ask) for ask in requests]}
        key = idempotency_key or uuid.uuid4().hex
        return self._send(
            Endpoint(
                Request("POST", "/v1/route/batch", body, key=key),
                lambda answer: [_read_row(row) for row in answer["decisions"]],
                routing=True,
                instead=lambda retry, failure: [retry.default_route(failure) for _ in requests],
            )
        )

    def feedback(self, decision_id: str | None, **observed: Unpack[Observed]) -> str:
        """Report what was observed of an answer.

        Parameters
        ----------
        decision_id : str or None
            Id of the decision; None, as of a degraded route, sends nothing.
        **observed : Unpack[Observed]
            Quality, cost, latency and so on, see `Observed`.

        Returns
        -------
        str
            ``accepted``, ``duplicate``, ``superseded``, ``late``, or ``ignored`` if nothing was
            sent.
        """
        return self._send(_feedback(decision_id, observed))

    def feedback_batch(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Report up to 1,024 pieces of feedback of any kind at once.

        Parameters
        ----------
        items : Sequence[Mapping[str, Any]]
            What `feedback`, `prefer` and `session_feedback` take, with ``decision_id``,
            ``preferred_over`` and ``session_id`` as keys.

        Returns
        -------
        list of dict
            What became of each item, in the order of `items`, with a ``status``.
        """
        rows = [_without_none(item) for item in items if not _is_ignored(item)]

        def read(answer: Any) -> list[dict[str, Any]]:
            results = iter(answer["results"] if answer else ())
            return [
                {"decision_id": item.get("decision_id"), "status": IGNORED}
                if _is_ignored(item)
                else dict(next(results))
                for item in items
            ]

        request = Request("POST", "/v1/feedback/batch", {"feedback": rows}) if rows else None
        return self._send(Endpoint(request, read))

    def prefer(self, decision_id: str | None, *, over: str | None, **by: Unpack[By]) -> str:
        """Report that one answer was preferred to another answer to the same prompt.

        Parameters
        ----------
        decision_id : str or None
            Id of the decision with the better answer; None sends nothing.
        over : str or None
            Id of the decision with the other answer; None sends nothing.
        **by : Unpack[By]
            Where the judgement comes from, see `By`.

        Returns
        -------
        str
            A status, see `feedback`.
        """
        fields = {"preferred_over": over, **by}
        return self._send(_feedback(None if over is None else decision_id, fields))

    def session_feedback(self, session_id: str, **verdict: Unpack[Verdict]) -> dict[str, Any]:
        """Report the quality of a whole session, for its decisions that have no quality yet.

        Parameters
        ----------
        session_id : str
            Id that the session's requests had.
        **verdict : Unpack[Verdict]
            The quality and where it comes from, see `Verdict`.

        Returns
        -------
        dict
            ``status``, and in ``decisions`` the number of decisions that took the quality.
        """
        body = {"session_id": session_id} | _without_none(verdict)
        return self._send(Endpoint(Request("POST", "/v1/feedback", body), _read_object))

    @contextmanager
    def decide(
        self,
        *,
        failed_quality: float | None = None,
        idempotency_key: str | None = None,
        **ask: Unpack[Ask],
    ) -> Iterator[Call]:
        """Route, run the block, and post feedback at its end, with its duration as latency.

        Parameters
        ----------
        failed_quality : float or None
            Quality to report if the block raises and has set none.
        idempotency_key : str or None
            See `route`.
        **ask : Unpack[Ask]
            See `route`.

        Yields
        ------
        Call
            The decision; set on it what was observed.
        """
        call = Call(self.route(idempotency_key=idempotency_key, **ask))
        raised = True
        try:
            yield call
            raised = False
        finally:
            self._settle(call, raised=raised, failed_quality=failed_quality)

    def decision(self, decision_id: str) -> dict[str, Any]:
        """Return why a decision was made.

        Parameters
        ----------
        decision_id : str
            Id of the decision.
        """
        return self._send(Endpoint(Request("GET", _path("decisions", decision_id)), _read_object))

    def models(self, pool: str = "default") -> list[dict[str, Any]]:
        """Return the models of a pool with the prices in force.

        Parameters
        ----------
        pool : str
            Name of the pool.
        """
        return self._send(Endpoint(Request("GET", "/v1/models", pool=pool), _read_list))

    def add_model(
        self, name: str, *, pool: str = "default", **properties: Unpack[NewProperties]
    ) -> dict[str, Any]:
        """Add a model to a pool; a pool that does not exist is made.

        Parameters
        ----------
        name : str
            Name of the model.
        pool : str
            Name of the pool.
        **properties : Unpack[NewProperties]
            Prices and what the model can do, see `NewProperties`.

        Returns
        -------
        dict
            The model, with the prior that was made of scored prompts.

        Raises
        ------
        RouterError
            409 if the model exists, perhaps because of an attempt whose answer was lost.
        """
        body = {"pool": pool, "name": name} | _without_none(properties)
        if "scored" in body:
            body["scored"] = [_ask_body(row) for row in body["scored"]]
        return self._send(Endpoint(Request("POST", "/v1/models", body), _read_object))

    def set_price(
        self, name: str, *, pool: str = "default", **properties: Unpack[Properties]
    ) -> dict[str, Any]:
        """Change a model's price or what it can do; nothing has to be learned again.

        Parameters
        ----------
        name : str
            Name of the model.
        pool : str
            Name of the pool.
        **properties : Unpack[Properties]
            What changes, see `Properties`.

        Returns
        -------
        dict
            The model.
        """
        request = Request("PATCH", _path("models", name), _without_none(properties), pool=pool)
        return self._send(Endpoint(request, _read_object))

    def drain_model(self, name: str, *, pool: str = "default") -> None:
        """Stop choosing a model; what was learned from it stays.

        Parameters
        ----------
        name : str
            Name of the model.
        pool : str
            Name of the pool.

        Returns
        -------
        None
            As soon as it is done.
        """
        request = Request("DELETE", _path("models", name), pool=pool)
        return self._send(Endpoint(request, _read_nothing))

    def cancel(self, decision_id: str | None) -> str:
        """Release what was reserved for a decision that will not be used.

        Parameters
        ----------
        decision_id : str or None
            Id of the decision; None sends nothing.

        Returns
        -------
        str
            ``cancelled``, ``duplicate``, or ``ignored`` if nothing was sent.
        """
        if decision_id is None:
            return self._send(_NOT_SENT)
        request = Request("POST", _path("decisions", decision_id) + "/cancel")
        return self._send(Endpoint(request, _read_status))

    def budgets(self, pool: str = "default") -> list[dict[str, Any]]:
        """Return the budgets of a pool with what is spent of them.

        Parameters
        ----------
        pool : str
            Name of the pool.
        """
        return self._send(Endpoint(Request("GET", "/v1/budgets", pool=pool), _read_list))

    def budget(self, name: str, *, pool: str = "default") -> dict[str, Any]:
        """Return a budget with what is spent of it.

        Parameters
        ----------
        name : str
            Name of the budget.
        pool : str
            Name of its pool.
        """
        request = Request("GET", _path("budgets", name), pool=pool)
        return self._send(Endpoint(request, _read_object))

    def add_budget(
        self, name: str, *, pool: str = "default", **terms: Unpack[BudgetFields]
    ) -> dict[str, Any]:
        """Add a budget to a pool.

        Parameters
        ----------
        name : str
            Name of the budget.
        pool : str
            Name of the pool.
        **terms : Unpack[BudgetFields]
            The cap, the window and so on, see `BudgetFields`.

        Returns
        -------
        dict
            The budget.
        """
        body = {"pool": pool, "name": name} | _without_none(terms)
        return self._send(Endpoint(Request("POST", "/v1/budgets", body), _read_object))

    def change_budget(
        self, name: str, *, pool: str = "default", **change: Unpack[BudgetChangeFields]
    ) -> dict[str, Any]:
        """Change a budget; a top-up is not sent again when its answer is lost.

        Parameters
        ----------
        name : str
            Name of the budget.
        pool : str
            Name of its pool.
        **change : Unpack[BudgetChangeFields]
            What changes, see `BudgetChangeFields`.

        Returns
        -------
        dict
            The budget.
        """
        request = Request("PATCH", _path("budgets", name), dict(change), pool=pool)
        return self._send(Endpoint(request, _read_object, once="top_up_usd" in change))

    def drop_budget(self, name: str, *, pool: str = "default") -> None:
        """Delete a budget and its ledger.

        Parameters
        ----------
        name : str
            Name of the budget.
        pool : str
            Name of its pool.

        Returns
        -------
        None
            As soon as it is done.
        """
        request = Request("DELETE", _path("budgets", name), pool=pool)
        return self._send(Endpoint(request, _read_nothing))

    def policy(self, pool: str = "default") -> dict[str, Any]:
        """Return the policy of a pool, its version and the digest of its state.

        Parameters
        ----------
        pool : str
            Name of the pool.
        """
        return self._send(Endpoint(Request("GET", "/v1/policy", pool=pool), _read_object))

    def _settle(self, call: Call, *, raised: bool, failed_quality: float | None) -> str:
        """Post the feedback at the end of a `decide` block; see `Call.observed`."""
        observed = call.observed(raised=raised, failed_quality=failed_quality)
        endpoint = _feedback(call.route.decision_id if observed else None, observed or {})
        return self._send(
            replace(
                endpoint,
                instead=lambda retry, failure: retry.settle_failed(failure, body_raised=raised),
            )
        )

    def _send(self, endpoint: Endpoint[Answer]) -> Answer:
        exchange = Exchange(self, endpoint)
        while (request := exchange.next_request()) is not None:
            try:
                wait_s = exchange.receive(self._http.request(**request))
            except httpx.TransportError as error:
                wait_s = exchange.receive(error)
            if wait_s > 0.0:
                time.sleep(wait_s)
        return exchange.answer


_NOT_SENT: Endpoint[str] = Endpoint(None, lambda _: IGNORED)


def _feedback(decision_id: str | None, fields: Mapping[str, Any]) -> Endpoint[str]:
    """Return the endpoint for feedback on a decision; without one nothing is sent."""
    if decision_id is None:
        return _NOT_SENT
    body = {"decision_id": decision_id} | _without_none(fields)
    return Endpoint(Request("POST", "/v1/feedback", body), _read_status)


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


def _read_nothing(_: Any) -> None:
    """Return nothing of an answer."""


def _read_route(answer: Mapping[str, Any]) -> Route:
    fields = {name: answer[name] for name in Route.__dataclass_fields__ if name in answer}
    return Route(**fields | {"fallbacks": tuple(answer.get("fallbacks", ()))})


def _read_row(row: Mapping[str, Any]) -> Route | RouteError:
    if "error" not in row:
        return _read_route(row)
    error = row["error"]
    return RouteError(error["code"], error.get("param"), error["message"])

"""The client that blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, Unpack

import httpx

from banditroute.client import endpoints
from banditroute.client.endpoints import Answer, BaseClient, Endpoint, Exchange
from banditroute.client.messages import (
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
        return self._send(endpoints.route(ask, idempotency_key))

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
        return self._send(endpoints.route_batch(requests, idempotency_key))

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
        return self._send(endpoints.feedback(decision_id, observed))

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
        return self._send(endpoints.feedback_batch(items))

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
        return self._send(endpoints.prefer(decision_id, over, by))

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
        return self._send(endpoints.session_feedback(session_id, verdict))

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
            self._send(endpoints.settle(call, raised=raised, failed_quality=failed_quality))

    def decision(self, decision_id: str) -> dict[str, Any]:
        """Return why a decision was made.

        Parameters
        ----------
        decision_id : str
            Id of the decision.
        """
        return self._send(endpoints.decision(decision_id))

    def models(self, pool: str = "default") -> list[dict[str, Any]]:
        """Return the models of a pool with the prices in force.

        Parameters
        ----------
        pool : str
            Name of the pool.
        """
        return self._send(endpoints.models(pool))

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
        return self._send(endpoints.add_model(name, pool, properties))

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
        return self._send(endpoints.set_price(name, pool, properties))

    def drain_model(self, name: str, *, pool: str = "default") -> None:
        """Stop choosing a model; what was learned from it stays.

        Parameters
        ----------
        name : str
            Name of the model.
        pool : str
            Name of the pool.
        """
        self._send(endpoints.drain_model(name, pool))

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
        return self._send(endpoints.cancel(decision_id))

    def budgets(self, pool: str = "default") -> list[dict[str, Any]]:
        """Return the budgets of a pool with what is spent of them.

        Parameters
        ----------
        pool : str
            Name of the pool.
        """
        return self._send(endpoints.budgets(pool))

    def budget(self, name: str, *, pool: str = "default") -> dict[str, Any]:
        """Return a budget with what is spent of it.

        Parameters
        ----------
        name : str
            Name of the budget.
        pool : str
            Name of its pool.
        """
        return self._send(endpoints.budget(name, pool))

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
        return self._send(endpoints.add_budget(name, pool, terms))

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
        return self._send(endpoints.change_budget(name, pool, change))

    def drop_budget(self, name: str, *, pool: str = "default") -> None:
        """Delete a budget and its ledger.

        Parameters
        ----------
        name : str
            Name of the budget.
        pool : str
            Name of its pool.
        """
        self._send(endpoints.drop_budget(name, pool))

    def policy(self, pool: str = "default") -> dict[str, Any]:
        """Return the policy of a pool, its version and the digest of its state.

        Parameters
        ----------
        pool : str
            Name of the pool.
        """
        return self._send(endpoints.policy(pool))

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

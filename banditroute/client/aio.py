"""The asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
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


class AsyncClient:
    """The asyncio client; everything is as in `Client`, and awaited."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 10.0,
        retries: int = 3,
        retry_for: float | None = None,
        default_model: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._patience = RetryPolicy(timeout, retries, retry_for, default_model)
        self._http = httpx.AsyncClient(transport=transport, **connection(base_url, api_key))
        self.retried = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def route(self, *, idempotency_key: str | None = None, **ask: Unpack[Ask]) -> Route:
        """Ask which model should answer; see `Client.route`."""
        try:
            return read_route(await self._send(route_request(ask, idempotency_key), routing=True))
        except RouterError as failure:
            return self._patience.instead(failure)

    async def route_batch(
        self, requests: Sequence[Ask], *, idempotency_key: str | None = None
    ) -> list[Route | RouteError]:
        """Ask for up to 1,024 decisions at once; see `Client.route_batch`."""
        try:
            answer = await self._send(batch_request(requests, idempotency_key), routing=True)
        except RouterError as failure:
            return [self._patience.instead(failure) for _ in requests]
        return [read_row(row) for row in answer["decisions"]]

    async def feedback(self, decision_id: str | None, **observed: Unpack[Observed]) -> str:
        """Report an answer; see `Client.feedback`."""
        if decision_id is None:
            return IGNORED
        return str((await self._send(feedback_request(decision_id, observed)))["status"])

    async def feedback_batch(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Report up to 1,024 answers; see `Client.feedback_batch`."""
        request = feedback_batch_request(items)
        return read_results(items, await self._send(request) if request else None)

    async def prefer(self, decision_id: str | None, *, over: str | None, **by: Unpack[By]) -> str:
        """Report that an answer was preferred to another one; see `Client.prefer`."""
        request = prefer_request(decision_id, over, by)
        return str((await self._send(request))["status"]) if request else IGNORED

    async def session_feedback(self, session_id: str, **verdict: Unpack[Verdict]) -> dict[str, Any]:
        """Report how good a session was; see `Client.session_feedback`."""
        return dict(await self._send(session_request(session_id, verdict)))

    @asynccontextmanager
    async def decide(
        self,
        *,
        failed_quality: float | None = None,
        idempotency_key: str | None = None,
        **ask: Unpack[Ask],
    ) -> AsyncIterator[Call]:
        """Route, run the body and post feedback at its end; see `Client.decide`."""
        call = Call(await self.route(idempotency_key=idempotency_key, **ask))
        raised = True
        try:
            yield call
            raised = False
        finally:
            observed = call.observed(raised=raised, failed_quality=failed_quality)
            try:
                if observed is not None:
                    await self.feedback(call.route.decision_id, **observed)
            except RouterError as failure:
                self._patience.settle_failed(failure, body_raised=raised)

    async def decision(self, decision_id: str) -> dict[str, Any]:
        """Return why a decision was taken."""
        return dict(await self._send(decision_request(decision_id)))

    async def models(self, pool: str = "default") -> list[dict[str, Any]]:
        """Return the models of a pool with the prices in force."""
        return list((await self._send(Request("GET", "/v1/models", pool=pool)))["data"])

    async def add_model(
        self, name: str, *, pool: str = "default", **properties: Unpack[NewProperties]
    ) -> dict[str, Any]:
        """Add a model; see `Client.add_model`."""
        return dict(await self._send(add_request(name, pool, properties)) or {})

    async def set_price(
        self, name: str, *, pool: str = "default", **properties: Unpack[Properties]
    ) -> dict[str, Any]:
        """Change a model's price, or what it can do."""
        request = Request("PATCH", model_path(name), known(properties), pool=pool)
        return dict(await self._send(request) or {})

    async def drain_model(self, name: str, *, pool: str = "default") -> None:
        """Choose a model no more."""
        await self._send(Request("DELETE", model_path(name), pool=pool))

    async def cancel(self, decision_id: str | None) -> str:
        """Give back what a decision reserved that was never used; ignored for None."""
        if decision_id is None:
            return IGNORED
        return str((await self._send(cancel_request(decision_id)))["status"])

    async def budgets(self, pool: str = "default") -> list[dict[str, Any]]:
        """Return the budgets of a pool with what is spent of them."""
        return list((await self._send(Request("GET", "/v1/budgets", pool=pool)))["data"])

    async def budget(self, name: str, *, pool: str = "default") -> dict[str, Any]:
        """Return one budget with what is spent of it."""
        return dict(await self._send(budget_request("GET", name, pool)))

    async def add_budget(
        self, name: str, *, pool: str = "default", **terms: Unpack[BudgetFields]
    ) -> dict[str, Any]:
        """Make a budget; see `BudgetFields`."""
        return dict(await self._send(new_budget_request(name, pool, terms)) or {})

    async def change_budget(
        self, name: str, *, pool: str = "default", **change: Unpack[BudgetChangeFields]
    ) -> dict[str, Any]:
        """Change a budget; a top-up is not sent again when its answer is lost."""
        request = budget_request("PATCH", name, pool, change)
        return dict(await self._send(request, once="top_up_usd" in change) or {})

    async def drop_budget(self, name: str, *, pool: str = "default") -> None:
        """Drop a budget and its ledger."""
        await self._send(budget_request("DELETE", name, pool))

    async def policy(self, pool: str = "default") -> dict[str, Any]:
        """Return the pool's policy, its version and its state digest."""
        return dict(await self._send(Request("GET", "/v1/policy", pool=pool)))

    async def _send(self, request: Request, *, routing: bool = False, once: bool = False) -> Any:
        attempts = self._patience.attempts(routing=routing, once=once)
        while True:
            try:
                response = await self._http.request(
                    timeout=attempts.timeout(), **request.arguments()
                )
                failure = failure_of(response)
            except httpx.TransportError as error:
                failure = unreachable(error)
            if failure is None:
                return read(response)
            wait = attempts.pause(failure)
            self.retried += 1
            await asyncio.sleep(wait)

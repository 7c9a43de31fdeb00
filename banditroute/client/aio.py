"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
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


class AsyncClient(BaseClient[httpx.AsyncClient, httpx.AsyncBaseTransport]):
    """See `Client`; methods are awaited, and `transport` is an ``httpx.AsyncBaseTransport``."""

    _connect = httpx.AsyncClient

    async def __aenter__(self) -> Self:
        """Return the client; it is closed at the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the client."""
        await self.close()

    async def close(self) -> None:
        """See `Client.close`."""
        await self._http.aclose()

    async def route(self, *, idempotency_key: str | None = None, **ask: Unpack[Ask]) -> Route:
        """See `Client.route`."""
        return await self._send(endpoints.route(ask, idempotency_key))

    async def route_batch(
        self, requests: Sequence[Ask], *, idempotency_key: str | None = None
    ) -> list[Route | RouteError]:
        """See `Client.route_batch`."""
        return await self._send(endpoints.route_batch(requests, idempotency_key))

    async def feedback(self, decision_id: str | None, **observed: Unpack[Observed]) -> str:
        """See `Client.feedback`."""
        return await self._send(endpoints.feedback(decision_id, observed))

    async def feedback_batch(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """See `Client.feedback_batch`."""
        return await self._send(endpoints.feedback_batch(items))

    async def prefer(self, decision_id: str | None, *, over: str | None, **by: Unpack[By]) -> str:
        """See `Client.prefer`."""
        return await self._send(endpoints.prefer(decision_id, over, by))

    async def session_feedback(self, session_id: str, **verdict: Unpack[Verdict]) -> dict[str, Any]:
        """See `Client.session_feedback`."""
        return await self._send(endpoints.session_feedback(session_id, verdict))

    @asynccontextmanager
    async def decide(
        self,
        *,
        failed_quality: float | None = None,
        idempotency_key: str | None = None,
        **ask: Unpack[Ask],
    ) -> AsyncIterator[Call]:
        """See `Client.decide`."""
        call = Call(await self.route(idempotency_key=idempotency_key, **ask))
        raised = True
        try:
            yield call
            raised = False
        finally:
            await self._send(endpoints.settle(call, raised=raised, failed_quality=failed_quality))

    async def decision(self, decision_id: str) -> dict[str, Any]:
        """See `Client.decision`."""
        return await self._send(endpoints.decision(decision_id))

    async def models(self, pool: str = "default") -> list[dict[str, Any]]:
        """See `Client.models`."""
        return await self._send(endpoints.models(pool))

    async def add_model(
        self, name: str, *, pool: str = "default", **properties: Unpack[NewProperties]
    ) -> dict[str, Any]:
        """See `Client.add_model`."""
        return await self._send(endpoints.add_model(name, pool, properties))

    async def set_price(
        self, name: str, *, pool: str = "default", **properties: Unpack[Properties]
    ) -> dict[str, Any]:
        """See `Client.set_price`."""
        return await self._send(endpoints.set_price(name, pool, properties))

    async def drain_model(self, name: str, *, pool: str = "default") -> None:
        """See `Client.drain_model`."""
        await self._send(endpoints.drain_model(name, pool))

    async def cancel(self, decision_id: str | None) -> str:
        """See `Client.cancel`."""
        return await self._send(endpoints.cancel(decision_id))

    async def budgets(self, pool: str = "default") -> list[dict[str, Any]]:
        """See `Client.budgets`."""
        return await self._send(endpoints.budgets(pool))

    async def budget(self, name: str, *, pool: str = "default") -> dict[str, Any]:
        """See `Client.budget`."""
        return await self._send(endpoints.budget(name, pool))

    async def add_budget(
        self, name: str, *, pool: str = "default", **terms: Unpack[BudgetFields]
    ) -> dict[str, Any]:
        """See `Client.add_budget`."""
        return await self._send(endpoints.add_budget(name, pool, terms))

    async def change_budget(
        self, name: str, *, pool: str = "default", **change: Unpack[BudgetChangeFields]
    ) -> dict[str, Any]:
        """See `Client.change_budget`."""
        return await self._send(endpoints.change_budget(name, pool, change))

    async def drop_budget(self, name: str, *, pool: str = "default") -> None:
        """See `Client.drop_budget`."""
        await self._send(endpoints.drop_budget(name, pool))

    async def policy(self, pool: str = "default") -> dict[str, Any]:
        """See `Client.policy`."""
        return await self._send(endpoints.policy(pool))

    async def _send(self, endpoint: Endpoint[Answer]) -> Answer:
        exchange = Exchange(self, endpoint)
        while (request := exchange.next_request()) is not None:
            try:
                wait_s = exchange.receive(await self._http.request(**request))
            except httpx.TransportError as error:
                wait_s = exchange.receive(error)
            if wait_s > 0.0:
                await asyncio.sleep(wait_s)
        return exchange.answer

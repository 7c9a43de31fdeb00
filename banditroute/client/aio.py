"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, Unpack, cast

import httpx

from banditroute.client.endpoints import Answer, BaseClient, Endpoint, Exchange
from banditroute.client.messages import Ask, Call
from banditroute.client.sync import Client

Parameters = ParamSpec("Parameters")


def _awaited(
    method: Callable[Concatenate[Any, Parameters], Answer],
) -> Callable[Concatenate[Any, Parameters], Coroutine[Any, Any, Answer]]:
    """Return a method of `Client` for `AsyncClient`, whose `_send` has to be awaited."""

    @wraps(method)
    async def call(self: Any, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
        return await cast(Awaitable[Answer], method(self, *args, **kwargs))

    return call


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

    route = _awaited(Client.route)
    route_batch = _awaited(Client.route_batch)
    feedback = _awaited(Client.feedback)
    feedback_batch = _awaited(Client.feedback_batch)
    prefer = _awaited(Client.prefer)
    session_feedback = _awaited(Client.session_feedback)
    decision = _awaited(Client.decision)
    models = _awaited(Client.models)
    add_model = _awaited(Client.add_model)
    set_price = _awaited(Client.set_price)
    drain_model = _awaited(Client.drain_model)
    cancel = _awaited(Client.cancel)
    budgets = _awaited(Client.budgets)
    budget = _awaited(Client.budget)
    add_budget = _awaited(Client.add_budget)
    change_budget = _awaited(Client.change_budget)
    drop_budget = _awaited(Client.drop_budget)
    policy = _awaited(Client.policy)
    _settle = _awaited(Client._settle)

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
            await self._settle(call, raised=raised, failed_quality=failed_quality)

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

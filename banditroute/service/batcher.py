"""Gathering calls that arrive while earlier ones are under way, to work on them as one group.

Deciding and logging sixteen requests costs little more than one. A call that finds nothing under
way starts at once, together with those that are ready in the same turn of the event loop; so
nobody waits for company, and the busier the daemon is, the larger its groups are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from banditroute.core.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGEST_GROUP = 256


class MicroBatcher(Generic[Item, Result]):
    """Calls `work` with groups of items.

    Parameters
    ----------
    work : returns a result for each item, in order; an exception among them is raised for that
        caller alone. If `work` itself fails, each item is tried once more, alone.
    capacity : items that may wait; more are refused as `Unavailable`.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        capacity: int = 4096,
    ) -> None:
        self._work, self._capacity = work, capacity
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """Return the result for `item` once its group is done."""
        if len(self._waiting) >= self._capacity:
            raise Unavailable("too many requests are waiting")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        # Requests that are ready in this very turn of the loop join the first group.
        await asyncio.sleep(0)
        while self._waiting:
            group = self._waiting[:LARGEST_GROUP]
            del self._waiting[:LARGEST_GROUP]
            results = await self._attempt([item for item, _ in group])
            for (_, future), result in zip(group, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._running = None

    async def _attempt(self, items: Sequence[Item]) -> list[Result | Exception]:
        try:
            return list(await self._work(items))
        except Exception as error:
            if len(items) == 1:
                return [error]
        return [(await self._attempt([item]))[0] for item in items]

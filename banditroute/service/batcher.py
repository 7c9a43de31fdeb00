"""Micro-batches: calls that arrive while a group is being worked on form the next group.

To decide and log sixteen requests costs little more than one. A call never waits for other calls
to arrive: if no group is being worked on, it starts at once, with the calls that are ready in the
same turn of the event loop. So groups grow with the load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from banditroute.core.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGEST_GROUP = 256
"""Items that are worked on together, at most."""


class MicroBatcher(Generic[Item, Result]):
    """Calls `work` with groups of items, one group at a time.

    Parameters
    ----------
    work : async callable
        Takes a group of items and returns a result for each, in order. A result that is an
        exception is raised for the caller of that item alone. If `work` itself raises, each item of
        the group is tried once more, alone.
    capacity : int
        Items that may wait; more are refused as `Unavailable`.
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
        """Return the result of `item` once its group is done.

        Raises
        ------
        Unavailable
            If too many items wait.
        """
        if len(self._waiting) >= self._capacity:
            raise Unavailable("too many requests are waiting")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        # Calls that are ready in this turn of the event loop join the first group.
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
        """Return a result or an exception for each item; a group that fails is tried in parts."""
        try:
            return list(await self._work(items))
        except Exception as error:
            if len(items) == 1:
                return [error]
        return [(await self._attempt([item]))[0] for item in items]

"""One writer thread with one connection per process: everything that is written goes through it.

Waiting work is committed in groups, and a caller hears of success only after the commit. A group
that holds feedback, money or settings commits with full durability; one of decisions alone
survives the death of the process but perhaps not of the machine. One failing piece of work never
takes its neighbours down: the group is rolled back and each piece runs again by itself.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from banditroute.errors import unavailable
from banditroute.store.engine import WRITER, set_durability

T = TypeVar("T")


Rows = Sequence[Sequence[Any]]


@dataclass(slots=True)
class _Item:
    work: Callable[[Connection], Any] | Rows
    durable: bool
    settle: Callable[[Any, BaseException | None], None]
    loop: asyncio.AbstractEventLoop | None
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Commits work in groups.

    Parameters
    ----------
    engine : the database.
    insert_rows : inserts the rows given to `append`; those of one group go in together.
    capacity : pieces of work that may wait; more are refused with HTTP 503.
    group : most pieces in one transaction.
    on_durable : called in the writer thread after a durable commit.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        insert_rows: Callable[[Connection, Rows], None],
        capacity: int = 4096,
        group: int = 512,
        on_durable: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine, self._capacity, self._group = engine, capacity, group
        self._insert_rows = insert_rows
        self._on_durable = on_durable
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Pieces of work that wait for a commit."""
        return self._queue.qsize()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    async def write(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Run `work` in a transaction and return its result once that is committed.

        Parameters
        ----------
        work : writes through the connection it is given; it may be run twice, never half.
        durable : whether the commit must survive power loss.
        """
        result: T = await self._wait(work, durable)
        return result

    async def append(self, rows: Rows) -> None:
        """Insert `rows`; return once they are committed, though not safe from power loss."""
        await self._wait(rows, False)

    async def _wait(self, work: Callable[[Connection], Any] | Rows, durable: bool) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self._put(_Item(work, durable, settle, loop))
        return await future

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """Do the same from a thread without an event loop, durably."""
        future: Future[T] = Future()

        def settle(result: Any, error: BaseException | None) -> None:
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self._put(_Item(work, True, settle, None))
        return future.result()

    def close(self) -> None:
        """Commit what waits and stop."""
        self._queue.put(None)
        self._thread.join()

    def _put(self, item: _Item) -> None:
        if self._queue.qsize() >= self._capacity:
            raise unavailable("too many writes are waiting")
        if not self._thread.is_alive():
            raise unavailable("the daemon is stopping")
        self._queue.put(item)

    def _run(self) -> None:
        with self._engine.connect().execution_options(**WRITER) as connection:
            while (first := self._queue.get()) is not None:
                group, last = [first], False
                while len(group) < self._group and not self._queue.empty():
                    item = self._queue.get()
                    if item is None:
                        last = True
                        break
                    group.append(item)
                self._commit(connection, group)
                if last:
                    return

    def _commit(self, connection: Connection, group: list[_Item]) -> None:
        durable = any(item.durable for item in group)
        try:
            set_durability(connection, full=durable)
            with connection.begin():
                # Rows first: feedback in this very group may be about them.
                rows = [row for item in group if not callable(item.work) for row in item.work]
                if rows:
                    self._insert_rows(connection, rows)
                for item in group:
                    if callable(item.work):
                        item.result = item.work(connection)
        except Exception as error:
            if len(group) == 1:
                group[0].error = error
            else:
                for item in group:
                    self._commit(connection, [item])
                return
        if durable:
            self._on_durable()
        by_loop: dict[asyncio.AbstractEventLoop | None, list[_Item]] = {}
        for item in group:
            by_loop.setdefault(item.loop, []).append(item)
        for loop, items in by_loop.items():
            if loop is None:
                _settle(items)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(_settle, items)


def _settle(items: list[_Item]) -> None:
    for item in items:
        item.settle(item.result, item.error)

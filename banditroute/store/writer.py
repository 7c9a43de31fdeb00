"""One writer thread with one connection per process: everything that is written goes through it.

Waiting work is committed in groups, and a caller hears of success only after the commit. A group
that holds feedback, money or settings commits with full durability; one of decisions alone
survives the death of the process but perhaps not of the machine. One failing piece of work never
takes its neighbours down: the group is rolled back and each piece runs again by itself. A group
whose connection breaks is refused whole, and the next one opens another.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from banditroute.core.errors import Unavailable
from banditroute.store.engine import WRITER, set_durability

logger = logging.getLogger("banditroute")
T = TypeVar("T")
Rows = Sequence[Any]


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
        self._queue: queue.SimpleQueue[list[_Item] | None] = queue.SimpleQueue()
        # What the event loop gathers while a group is being committed. One hand-over per group
        # and direction keeps the threads from fighting over the interpreter lock.
        self._gathered: list[_Item] = []
        self._committing = False
        self._lock = threading.Lock()
        self._full: bool | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Pieces of work that wait for a commit."""
        return self._queue.qsize() + len(self._gathered)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive() and not self._ended

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
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self._put(_Item(work, durable, settle, loop))
        return await future

    def write_now(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Do the same from a thread without an event loop."""
        future: Future[T] = Future()

        def settle(result: Any, error: BaseException | None) -> None:
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self._put(_Item(work, durable, settle, None))
        return future.result()

    def close(self) -> None:
        """Commit what waits and stop; what comes later is refused."""
        while self._gathered and not self._ended:
            self._send()
        self._queue.put(None)
        self._thread.join()

    def _put(self, item: _Item) -> None:
        if self.waiting >= self._capacity:
            raise Unavailable("too many writes are waiting")
        if self._ended:
            raise Unavailable("the daemon is stopping")
        if item.loop is None:
            self._queue.put([item])
        else:
            with self._lock:
                self._gathered.append(item)
                idle, self._committing = not self._committing, True
            if idle:
                # Requests that are ready in this very turn of the loop join the group.
                item.loop.call_soon(self._send)
        if self._ended:  # perhaps after the thread looked for the last time
            self._refuse([])

    def _send(self) -> None:
        with self._lock:
            items, self._gathered = self._gathered[: self._group], self._gathered[self._group :]
            self._committing = bool(items)
        if items:
            self._queue.put(items)
        if self._ended:
            self._refuse([])

    def _landed(self, items: list[_Item]) -> None:
        _settle(items)
        self._send()

    def _run(self) -> None:
        group: list[_Item] = []
        try:
            with self._engine.connect().execution_options(**WRITER) as connection:
                while (first := self._queue.get()) is not None:
                    group, last = list(first), False
                    while len(group) < self._group and not self._queue.empty():
                        more = self._queue.get()
                        if more is None:
                            last = True
                            break
                        group += more
                    self._commit(connection, group)
                    group = []
                    if last:
                        return
        finally:
            # Whatever ended this thread, nobody may wait for it for ever.
            self._ended = True
            self._refuse(group)

    def _refuse(self, items: list[_Item]) -> None:
        while not self._queue.empty():
            with suppress(queue.Empty):
                items += self._queue.get_nowait() or []
        for item in items:
            item.error = Unavailable("the daemon is stopping")
        self._answer(items)

    def _commit(self, connection: Connection, group: list[_Item]) -> None:
        durable = any(item.durable for item in group)
        begun = False
        try:
            if durable != self._full:
                set_durability(connection, full=durable)
                self._full = durable
            with connection.begin():
                begun = True
                # Rows first: feedback in this very group may be about them.
                rows = [row for item in group if not callable(item.work) for row in item.work]
                if rows:
                    self._insert_rows(connection, rows)
                for item in group:
                    if callable(item.work):
                        item.result = item.work(connection)
        except Exception as error:
            if isinstance(error, DBAPIError) and (error.connection_invalidated or not begun):
                # Nobody's fault, and no piece would fare better alone. Whether a commit that was
                # cut off came through is not known, so nothing runs again here.
                for item, away in zip(group, _away(error, len(group)), strict=True):
                    item.error = away
            elif len(group) == 1:
                (item,) = group
                item.error = _away(error, 1)[0] if isinstance(error, OperationalError) else error
            else:
                for item in group:
                    self._commit(connection, [item])
                return
        if durable and group[0].error is None:
            try:
                self._on_durable()
            except Exception:
                logger.exception("nobody could be told of a commit")
        self._answer(group)

    def _answer(self, items: list[_Item]) -> None:
        """Let the callers know, each in its own event loop."""
        by_loop: dict[asyncio.AbstractEventLoop | None, list[_Item]] = {}
        for item in items:
            by_loop.setdefault(item.loop, []).append(item)
        for loop, group in by_loop.items():
            if loop is None:
                _settle(group)
            else:
                try:
                    loop.call_soon_threadsafe(self._landed, group)
                except RuntimeError:  # the loop is closed
                    self._send()


def _away(error: DBAPIError, pieces: int) -> list[Unavailable]:
    """Locked, full or gone: nothing was written, and the callers may try again."""
    why = f"the database does not take a write: {str(error.orig).splitlines()[0]}"
    logger.error(why)
    return [Unavailable(why) for _ in range(pieces)]


def _settle(items: list[_Item]) -> None:
    for item in items:
        item.settle(item.result, item.error)

"""The writer: one thread with one connection per process, through which every write goes.

Waiting work is committed in groups, and a caller gets its result only after the commit. A group
with feedback, money or settings survives a power loss. A group of decisions alone survives the
death of the process, but perhaps not a power loss. A piece of work that fails never fails its
neighbours: the group is rolled back, and each piece runs again by itself. If the connection breaks,
the whole group is refused, and the next group opens another connection.
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
    """A piece of work, and the future that gives its caller the result.

    Attributes
    ----------
    work : callable or rows
        What to run in the transaction, or rows to insert.
    durable : bool
        Whether the commit must survive a power loss.
    future : asyncio.Future or concurrent.futures.Future
        What the caller waits for.
    loop : event loop or None
        The caller's; None for a thread without one.
    result, error : object, exception or None
        What became of the work.
    """

    work: Callable[[Connection], Any] | Rows
    durable: bool
    future: asyncio.Future[Any] | Future[Any]
    loop: asyncio.AbstractEventLoop | None
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Commits work in groups.

    Parameters
    ----------
    engine : Engine
        The database.
    insert_rows : callable
        Inserts the rows given to `append`, those of one group together.
    capacity : int
        Pieces of work that may wait; more are refused as `Unavailable`.
    group : int
        Largest number of pieces in one transaction.
    on_durable : callable
        Called in the writer thread after a commit that survives a power loss.
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
        # Work that arrives while a group is being committed. One hand-over per group and direction
        # keeps the threads from competing for the interpreter lock.
        self._pending: list[_Item] = []
        self._committing = False
        self._lock = threading.Lock()
        self._set_durable: bool | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of pieces of work that wait for a commit."""
        return self._queue.qsize() + len(self._pending)

    @property
    def alive(self) -> bool:
        """Whether the thread runs and takes work."""
        return self._thread.is_alive() and not self._ended

    async def write(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Run `work` in a transaction and return its result once that is committed.

        Parameters
        ----------
        work : callable
            Writes through the connection that it is given. It may run twice; only one run is
            committed.
        durable : bool
            Whether the commit must survive a power loss.

        Returns
        -------
        T
            What `work` returned.

        Raises
        ------
        Unavailable
            When too much waits, the writer has stopped or the database does not take a write.
        Exception
            What `work` raised; nothing of it is written then.
        """
        result: T = await self._wait(work, durable)
        return result

    async def append(self, rows: Rows) -> None:
        """Insert rows and return once they are committed; a power loss may undo that."""
        await self._wait(rows, False)

    async def _wait(self, work: Callable[[Connection], Any] | Rows, durable: bool) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._put(_Item(work, durable, future, loop))
        return await future

    def write_now(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Run `work` as `write` does, from a thread without an event loop."""
        future: Future[T] = Future()
        self._put(_Item(work, durable, future, None))
        return future.result()

    def close(self) -> None:
        """Commit what waits, then stop; later work is refused."""
        while self._pending and not self._ended:
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
                self._pending.append(item)
                idle, self._committing = not self._committing, True
            if idle:
                # Requests that are ready in this turn of the event loop join the group.
                item.loop.call_soon(self._send)
        if self._ended:  # perhaps after the thread looked at the queue for the last time
            self._refuse([])

    def _send(self) -> None:
        with self._lock:
            items, self._pending = self._pending[: self._group], self._pending[self._group :]
            self._committing = bool(items)
        if items:
            self._queue.put(items)
        if self._ended:
            self._refuse([])

    def _finish(self, items: list[_Item]) -> None:
        """Resolve a group in the event loop, then send the next one."""
        _resolve(items)
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
            # Whatever ended this thread, no caller may wait for ever.
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
            if durable != self._set_durable:
                set_durability(connection, full=durable)
                self._set_durable = durable
            with connection.begin():
                begun = True
                # Rows first: feedback in the same group may be about them.
                rows = [row for item in group if not callable(item.work) for row in item.work]
                if rows:
                    self._insert_rows(connection, rows)
                for item in group:
                    if callable(item.work):
                        item.result = item.work(connection)
        except Exception as error:
            if isinstance(error, DBAPIError) and (error.connection_invalidated or not begun):
                # No piece of work is the reason, and none would succeed alone. A commit that was
                # cut off may have succeeded, so nothing runs again here.
                for item, fault in zip(group, _refused(error, len(group)), strict=True):
                    item.error = fault
            elif len(group) == 1:
                (item,) = group
                item.error = _refused(error, 1)[0] if isinstance(error, OperationalError) else error
            else:
                for item in group:
                    self._commit(connection, [item])
                return
        if durable and group[0].error is None:
            try:
                self._on_durable()
            except Exception:
                logger.exception("a commit could not be announced")
        self._answer(group)

    def _answer(self, items: list[_Item]) -> None:
        """Give the callers their results, each in its own event loop."""
        by_loop: dict[asyncio.AbstractEventLoop | None, list[_Item]] = {}
        for item in items:
            by_loop.setdefault(item.loop, []).append(item)
        for loop, group in by_loop.items():
            if loop is None:
                _resolve(group)
            else:
                try:
                    loop.call_soon_threadsafe(self._finish, group)
                except RuntimeError:  # the loop is closed
                    self._send()


def _refused(error: DBAPIError, pieces: int) -> list[Unavailable]:
    """Log that the database is locked, full or gone; return a fault for each piece of work."""
    why = f"the database does not take a write: {str(error.orig).splitlines()[0]}"
    logger.error(why)
    return [Unavailable(why) for _ in range(pieces)]


def _resolve(items: list[_Item]) -> None:
    for item in items:
        if item.future.done():  # the caller has given up
            continue
        if item.error is None:
            item.future.set_result(item.result)
        else:
            item.future.set_exception(item.error)

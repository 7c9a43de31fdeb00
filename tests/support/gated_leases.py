"""The leases of a process, with a writer behind a gate and clocks that tests set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from sqlalchemy import Connection, Engine, select

from banditroute.budgets.leases import Leases
from banditroute.budgets.reservation import Reservations
from banditroute.core.budget import Budget
from banditroute.store import budgets, ledger, settlement
from banditroute.store.ledger import BudgetSums
from banditroute.store.log import log_decisions
from banditroute.store.writer import Writer

HOUR_US = 3_600_000_000
NOON_US = 500_000 * HOUR_US
TTL_US = 60_000_000


class Clocks:
    """A wall clock and a monotonic clock."""

    def __init__(self) -> None:
        self.wall_us, self.monotonic_s = NOON_US, 50.0

    def sleep(self, seconds: float) -> None:
        self.wall_us += round(seconds * 1e6)
        self.monotonic_s += seconds


class GatedWriter(Writer):
    """Writes only while its gate is open, and counts the writes."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, insert_rows=log_decisions)
        self.gate, self.count = asyncio.Event(), 0
        self.gate.set()

    async def write(self, work: Callable[[Connection], Any], *, durable: bool = True) -> Any:
        self.count += 1
        await self.gate.wait()
        return await super().write(work, durable=durable)


class GatedLeases:
    """A process that holds leases, with its own writer and clocks."""

    def __init__(self, engine: Engine, clocks: Clocks) -> None:
        self.engine, self.clocks, self.writer = engine, clocks, GatedWriter(engine)
        self.leases = Leases(
            engine,
            self.writer,
            wall_us=lambda: clocks.wall_us,
            monotonic_s=lambda: clocks.monotonic_s,
        )
        self.named = 0

    async def add(self, name: str = "b", **fields: Any) -> Budget:
        terms = {"cap_nano": 1_000_000, "period": "total"} | fields
        added = await self.writer.write(
            lambda connection: budgets.add_budget(connection, "p", name, terms, now_us=NOON_US)
        )
        await self.leases.reload()
        return cast(Budget, added)

    async def call(self, most_nano: int, *tags: dict[str, str]) -> Reservations:
        """Return the reservations of a call: of one request, or of one for each of `tags`."""
        rows = tags or (None,)
        call = await self.leases.reservations("p", rows, [most_nano] * len(rows))
        assert call is not None
        return call

    async def log(self, call: Reservations, *nanos: int) -> list[str]:
        """Take and log a reservation for each row."""
        for row, nano in enumerate(nanos):
            call.take(row, nano)
        return await self.write(call, len(nanos))

    async def write(self, call: Reservations, rows: int = 1) -> list[str]:
        self.named += rows
        holder = self.leases.holder.name[-12:]
        names = [f"{holder}-{self.named - row}" for row in range(rows)]
        now_us = self.clocks.wall_us
        wanted = [
            reservation
            for row, name in enumerate(names)
            for reservation in call.of_decision(
                row, name, now_us=now_us, expires_at_us=now_us + TTL_US
            )
        ]
        await self.writer.write(lambda connection: ledger.reserve(connection, wanted))
        for row in range(rows):
            call.logged(row)
        return names

    async def settle(self, name: str, nano: int) -> None:
        await self.writer.write(lambda connection: settlement.settle(connection, {name: nano}))
        self.leases.refunded()

    async def quiet(self) -> None:
        """Wait for the renewals and solves that no request waits for."""
        current = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not current]
        await asyncio.gather(*others)

    def sums(self, budget: Budget) -> BudgetSums:
        with self.engine.connect() as connection:
            return ledger.sums(connection, budget, now_us=self.clocks.wall_us)

    def rows(self, table: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(table).order_by(*table.primary_key)))


@asynccontextmanager
async def gated_leases(engine: Engine, clocks: Clocks | None = None) -> AsyncIterator[GatedLeases]:
    holder = GatedLeases(engine, clocks or Clocks())
    await holder.leases.start()
    try:
        yield holder
        await holder.quiet()
    finally:
        await asyncio.to_thread(holder.writer.close)


async def turns(count: int = 10) -> None:
    """Let the event loop run other tasks."""
    for _ in range(count):
        await asyncio.sleep(0)


def run(engine: Engine, main: Callable[[GatedLeases], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with gated_leases(engine) as holder:
            await main(holder)

    asyncio.run(whole())


def money(sums: BudgetSums) -> tuple[int, int, int, int]:
    """Return the nano-dollars that are settled, reserved, leased and free."""
    return sums.settled_nano, sums.reserved_nano, sums.leased_nano, sums.free_nano

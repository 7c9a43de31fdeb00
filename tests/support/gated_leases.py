"""A treasury with a writer behind a gate and clocks that tests set."""

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

HOUR = 3_600_000_000
NOON = 500_000 * HOUR
TTL = 60_000_000


class Clocks:
    def __init__(self) -> None:
        self.wall, self.mono = NOON, 50.0

    def sleep(self, seconds: float) -> None:
        self.wall += round(seconds * 1e6)
        self.mono += seconds


class Gated(Writer):
    """Writes one after the other, once its gate is open; counts them."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, insert_rows=log_decisions)
        self.gate, self.count = asyncio.Event(), 0
        self.gate.set()

    async def write(self, work: Callable[[Connection], Any], *, durable: bool = True) -> Any:
        self.count += 1
        await self.gate.wait()
        return await super().write(work, durable=durable)


class Bank:
    """A treasury with a writer and clocks of its own."""

    def __init__(self, engine: Engine, clocks: Clocks) -> None:
        self.engine, self.clocks, self.writer = engine, clocks, Gated(engine)
        self.leases = Leases(
            engine, self.writer, now=lambda: clocks.wall, clock=lambda: clocks.mono
        )
        self.named = 0

    async def add(self, name: str = "b", **fields: Any) -> Budget:
        terms = {"cap_nano": 1_000_000, "period": "total"} | fields
        added = await self.writer.write(
            lambda one: budgets.add_budget(one, "p", name, terms, now_us=NOON)
        )
        await self.leases.reload()
        return cast(Budget, added)

    async def purse(self, need: int, *tags: dict[str, str]) -> Reservations:
        """Return the purse of a call of one request, or of one for each of `tags`."""
        rows = tags or (None,)
        purse = await self.leases.purse("p", rows, [need] * len(rows))
        assert purse is not None
        return purse

    async def log(self, purse: Reservations, *nanos: int) -> list[str]:
        """Take and log a reservation for each row."""
        for row, nano in enumerate(nanos):
            purse.take(row, nano)
        return await self.draw(purse, len(nanos))

    async def draw(self, purse: Reservations, rows: int = 1) -> list[str]:
        self.named += rows
        holder = self.leases.holder.name[-12:]
        names = [f"{holder}-{self.named - row}" for row in range(rows)]
        now = self.clocks.wall
        draws = [
            one
            for row, name in enumerate(names)
            for one in purse.draws(row, name, now=now, expires_at=now + TTL)
        ]
        await self.writer.write(lambda one: ledger.reserve(one, draws))
        for row in range(rows):
            purse.logged(row)
        return names

    async def settle(self, name: str, nano: int) -> None:
        await self.writer.write(lambda one: settlement.settle(one, {name: nano}))
        self.leases.refunded()

    async def quiet(self) -> None:
        """Wait for what is under way beside the requests."""
        current = asyncio.current_task()
        others = [one for one in asyncio.all_tasks() if one is not current]
        await asyncio.gather(*others)

    def sums(self, budget: Budget) -> BudgetSums:
        with self.engine.connect() as connection:
            return ledger.sums(connection, budget, now_us=self.clocks.wall)

    def rows(self, table: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(table).order_by(*table.primary_key)))


@asynccontextmanager
async def bank(engine: Engine, clocks: Clocks | None = None) -> AsyncIterator[Bank]:
    one = Bank(engine, clocks or Clocks())
    await one.leases.start()
    try:
        yield one
        await one.quiet()
    finally:
        await asyncio.to_thread(one.writer.close)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def run(engine: Engine, main: Callable[[Bank], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with bank(engine) as one:
            await main(one)

    asyncio.run(whole())


def money(sums: BudgetSums) -> tuple[int, int, int, int]:
    return sums.settled_nano, sums.reserved_nano, sums.leased_nano, sums.free_nano

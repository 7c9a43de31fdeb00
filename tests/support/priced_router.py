"""Leases with a router and prices of money, and a pacing that notes its calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Engine

from banditroute.budgets.pacing import MoneyPrices
from banditroute.budgets.reservation import Reservations
from banditroute.core.budget import Budget
from banditroute.decide.columns import Decisions
from banditroute.decide.router import Router
from banditroute.store import budgets, ledger, settlement
from banditroute.store.decision_row import Note, as_rows, encode
from banditroute.store.ledger import Holder
from banditroute.store.log import Entry, log_decisions
from banditroute.store.tables import reservations
from policies.pacing.base import Money, Pacing, Window
from policies.pacing.price import PriceTerms
from support.gated_leases import HOUR_US, NOON_US, Clocks, GatedLeases
from support.small_log import Book

TIGHT, AMPLE = 10**8, 10**15
"""Nano-dollars for a hundred requests: far less than free choice costs, and far more."""


class PricedRouter(GatedLeases):
    """A process that holds leases, decides, and prices money."""

    def __init__(self, engine: Engine, clocks: Clocks) -> None:
        super().__init__(engine, clocks)
        self.book = Book(engine, pool="p")
        self.router: Router = self.book.router()
        self.money_prices = self.fresh()

    def fresh(self) -> MoneyPrices:
        """Return prices that know nothing yet, as after a restart."""
        clocks = self.clocks
        return MoneyPrices(
            self.engine,
            self.leases,
            wall_us=lambda: clocks.wall_us,
            monotonic_s=lambda: clocks.monotonic_s,
        )

    async def ask(
        self, n: int = 1, tags: dict[str, str] | None = None
    ) -> tuple[Reservations, Decisions]:
        scored = self.router.score(self.book.requests(n))
        most_nano = scored.reservation_nano.max(axis=1).tolist()
        call = await self.leases.reservations("p", [tags] * n, most_nano)
        assert call is not None
        price = self.money_prices.price(call, n)
        decided = self.router.choose(scored, price=price, purse=call)
        self.money_prices.observe(call, self.router, decided)
        return call, decided

    async def keep(self, call: Reservations, decided: Decisions, tags: str | None = None) -> None:
        """Log what was decided, with its reservations."""
        now_us = self.clocks.wall_us
        self.named += len(decided.chosen)
        notes = [Note(id=f"{self.named - i:08d}", tags=tags) for i in range(len(decided.chosen))]
        encoded = encode(
            decided, notes, pool="p", created_at_us=now_us, expires_at_us=now_us + HOUR_US
        )
        rows = as_rows(encoded)
        entries = [
            Entry(
                row, call.of_decision(i, decision_id, now_us=now_us, expires_at_us=now_us + HOUR_US)
            )
            for i, (row, decision_id) in enumerate(zip(rows, encoded["id"], strict=True))
        ]
        await self.writer.write(lambda connection: log_decisions(connection, entries))
        for i in range(len(rows)):
            call.logged(i)

    async def settle_all(self, nano: int) -> None:
        costs = {row.decision_id: nano for row in self.rows(reservations)}
        await self.writer.write(lambda connection: settlement.settle(connection, costs))

    async def change(self, **fields: Any) -> None:
        await self.writer.write(
            lambda connection: budgets.change_budget(connection, "p", "b", fields, now_us=NOON_US)
        )
        await self.leases.reload()

    async def drop(self) -> None:
        await self.writer.write(lambda connection: budgets.drop_budget(connection, "p", "b"))
        await self.leases.reload()

    async def lease_by_another(self, budget: Budget, nano: int) -> None:
        now_us, other = self.clocks.wall_us, Holder("other", "boot")
        await self.writer.write(
            lambda connection: ledger.lease(
                connection,
                budget,
                other,
                need_nano=nano,
                ideal_nano=0,
                now_us=now_us,
                reclaim_at_us=now_us + HOUR_US,
            )
        )

    async def refresh(self) -> None:
        await self.quiet()
        await self.money_prices.refresh("p", self.router)


@asynccontextmanager
async def priced_router(engine: Engine) -> AsyncIterator[PricedRouter]:
    holder = PricedRouter(engine, Clocks())
    await holder.leases.start()
    try:
        yield holder
        await holder.quiet()
    finally:
        await asyncio.to_thread(holder.writer.close)


def run(engine: Engine, main: Callable[[PricedRouter], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with priced_router(engine) as holder:
            await main(holder)

    asyncio.run(whole())


class Noted(Pacing):
    """A pacing that only notes its calls."""

    mode = "noted"

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[int] = []
        self.money: list[Money] = []
        self.charges: list[float] = []
        self.settles: list[tuple[float, float]] = []
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def _solve(self, window: Window, money: Money) -> PriceTerms:
        self.windows.append(len(window.cost_usd))
        self.money.append(money)
        self.entered.set()
        assert self.go_on.wait(10.0)
        return PriceTerms(low=1.0, high=2.0, share=0.5)

    def charge(self, cost_usd: float, reserved_usd: float) -> None:
        super().charge(cost_usd, reserved_usd)
        self.charges.append(reserved_usd)

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
        super().settle(reserved_usd, cost_usd)
        self.settles.append((reserved_usd, cost_usd))

"""The price of money: when it rises, what it is solved from, and what a restart knows of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from databases import SQLITE
from logbook import Book
from sqlalchemy import Engine
from test_treasury import HOUR, NOON, Bank, Clocks

from banditroute.budget import Budget
from banditroute.frame import Decisions
from banditroute.purse import CallPurse
from banditroute.router import Router
from banditroute.spending import RECENT_S, Spending
from banditroute.store import budgets, ledger, settling
from banditroute.store.codec import Note, encode
from banditroute.store.ledger import Holder
from banditroute.store.log import Entry, log_decisions
from banditroute.store.tables import reservations
from policies.pacing import WINDOW, Money, Pacing, Terms, Window

pytestmark = SQLITE
TIGHT, AMPLE = 10**8, 10**15
"""Nano-dollars for a hundred requests: far less than free choice costs, and far more."""


class Desk(Bank):
    """A bank that also decides, and prices what it decides."""

    def __init__(self, engine: Engine, clocks: Clocks) -> None:
        super().__init__(engine, clocks)
        self.book = Book(engine, pool="p")
        self.router: Router = self.book.router()
        self.spending = self.fresh()

    def fresh(self) -> Spending:
        """Return what a restart has."""
        clocks = self.clocks
        return Spending(
            self.engine, self.treasury, now=lambda: clocks.wall, clock=lambda: clocks.mono
        )

    async def ask(
        self, n: int = 1, tags: dict[str, str] | None = None
    ) -> tuple[CallPurse, Decisions]:
        asks = self.book.asks(n)
        worst = self.router.worst(asks).max(axis=1)
        purse = await self.treasury.purse("p", [tags] * n, worst.tolist())
        assert purse is not None
        price = self.spending.price(purse, n)
        decided = self.router.decide(asks, price=price, purse=purse)
        self.spending.observe(purse, self.router, asks, decided)
        return purse, decided

    async def keep(self, purse: CallPurse, decided: Decisions, tags: str | None = None) -> None:
        """Log what was decided, with its reservations."""
        now = self.clocks.wall
        self.named += len(decided.chosen)
        notes = [Note(id=f"{self.named - i:08d}", tags=tags) for i in range(len(decided.chosen))]
        rows = encode(decided, notes, pool="p", created_at=now, expires_at=now + HOUR)
        entries = [
            Entry(row, purse.draws(i, row[0], now=now, expires_at=now + HOUR))
            for i, row in enumerate(rows)
        ]
        await self.writer.write(lambda one: log_decisions(one, entries))
        for i in range(len(rows)):
            purse.logged(i)

    async def settle_all(self, nano: int) -> None:
        costs = {row.decision_id: nano for row in self.rows(reservations)}
        await self.writer.write(lambda one: settling.settle(one, costs))

    async def change(self, **fields: Any) -> None:
        await self.writer.write(lambda one: budgets.change_budget(one, "p", "b", fields, now=NOON))
        await self.treasury.reload()

    async def drop(self) -> None:
        await self.writer.write(lambda one: budgets.drop_budget(one, "p", "b"))
        await self.treasury.reload()

    async def lease_by_another(self, budget: Budget, nano: int) -> None:
        now, other = self.clocks.wall, Holder("other", "boot")
        await self.writer.write(
            lambda one: ledger.lease(
                one, budget, other, need=nano, ideal=0, now=now, until=now + HOUR
            )
        )

    async def refresh(self) -> None:
        await self.quiet()
        await self.spending.refresh("p", self.router)


@asynccontextmanager
async def desk(engine: Engine) -> AsyncIterator[Desk]:
    one = Desk(engine, Clocks())
    await one.treasury.start()
    try:
        yield one
        await one.quiet()
    finally:
        await asyncio.to_thread(one.writer.close)


def run(engine: Engine, main: Callable[[Desk], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with desk(engine) as one:
            await main(one)

    asyncio.run(whole())


class Noted(Pacing):
    """A mode that does nothing but note what it is told."""

    mode = "noted"

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[int] = []
        self.money: list[Money] = []
        self.charges: list[float] = []
        self.settles: list[tuple[float, float]] = []
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def _solve(self, window: Window, money: Money) -> Terms:
        self.windows.append(len(window.cost))
        self.money.append(money)
        self.entered.set()
        assert self.go_on.wait(10.0)
        return Terms(low=1.0, high=2.0, share=0.5)

    def charge(self, cost: float, reserved: float) -> None:
        super().charge(cost, reserved)
        self.charges.append(reserved)

    def settle(self, reserved: float, cost: float) -> None:
        super().settle(reserved, cost)
        self.settles.append((reserved, cost))


@pytest.fixture(autouse=True)
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solve at every look, however long the last one took."""
    monkeypatch.setattr("banditroute.spending.RESTS", 0.0)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[Noted]:
    """The modes that were made, the newest last."""
    made: list[Noted] = []

    def make(_: str) -> Noted:
        made.append(Noted())
        return made[-1]

    monkeypatch.setattr("banditroute.spending.make_pacing", make)
    return made


@pytest.mark.parametrize("pacing", ["history", "zcl", "pacer"])
@pytest.mark.parametrize(("cap", "binds"), [(TIGHT, True), (AMPLE, False)])
def test_money_has_a_price_where_the_budget_binds_and_only_there(
    engine: Engine, pacing: str, cap: int, binds: bool
) -> None:
    async def main(one: Desk) -> None:
        one.book.feed(30)
        one.router = one.book.router()
        budget = await one.add(cap_nano=cap, pacing=pacing, expected_requests=100)
        for _ in range(24):
            await one.ask()
            await one.quiet()
        await one.refresh()
        terms = one.spending.terms(budget)
        assert (terms.high > 1e-6 or terms.gain > 1e-6) is binds
        _, decided = await one.ask()
        price = decided.price
        assert price.high[0, 0] == terms.high and price.gain[0, 0] == terms.gain
        assert terms.rate == pytest.approx(cap / 1e9 / 100)

    run(engine, main)


def test_a_tight_budget_buys_less_than_an_ample_one(engine: Engine) -> None:
    async def main(one: Desk) -> None:
        await one.add(
            "tight", cap_nano=10**8, scope_tag="t", scope_value="1", expected_requests=10_000
        )
        await one.add(
            "ample", cap_nano=AMPLE, scope_tag="t", scope_value="2", expected_requests=10_000
        )
        spent = {}
        for value in ("1", "2"):
            for _ in range(24):
                await one.ask(tags={"t": value})
                await one.quiet()
            _, decided = await one.ask(40, tags={"t": value})
            spent[value] = float((decided.pmf * decided.cost).sum())
        assert spent["1"] < 0.7 * spent["2"]

    run(engine, main)


def test_a_quality_floor_saves_all_that_quality_does_not_need(engine: Engine) -> None:
    async def main(one: Desk) -> None:
        one.book.feed(30)
        one.router = one.book.router()
        budget = await one.add(cap_nano=AMPLE, expected_requests=100)
        prices = []
        for floor in (None, 0.9, 0.01):
            await one.change(quality_floor=floor)
            await one.ask(20)
            await one.refresh()
            prices.append(one.spending.terms(budget).high)
        assert prices[0] == 0.0 <= prices[1] < prices[2]

    run(engine, main)


def test_without_pacing_money_costs_nothing_and_nothing_is_kept(engine: Engine) -> None:
    async def main(one: Desk) -> None:
        budget = await one.add(cap_nano=10**8, expected_requests=5_000)
        for _ in range(8):
            await one.ask()
            await one.quiet()
        await one.refresh()
        held = one.treasury.slice(budget)
        assert one.spending.terms(budget).high > 0.0 and held.keep > 0
        await one.change(pacing="none")
        await one.refresh()
        (none,) = one.treasury.budgets("p")
        assert one.spending.terms(none) == Terms() and held.keep == 0
        _, decided = await one.ask()
        assert not decided.price.high.any() and not decided.price.gain.any()

    run(engine, main)


def test_another_mode_goes_on_with_the_same_requests_and_a_clean_account(
    engine: Engine, noted: list[Noted]
) -> None:
    async def main(one: Desk) -> None:
        await one.add(expected_requests=10, cap_nano=AMPLE)
        await one.keep(*await one.ask(5))
        await one.settle_all(9)
        await one.refresh()
        assert len(noted) == 1 and noted[0].settles
        await one.change(pacing="zcl")
        await one.refresh()
        assert len(noted) == 2 and noted[1].windows == [5] and noted[1].settles == []

    run(engine, main)


def test_a_price_is_solved_from_what_sql_says_is_left_for_how_many(
    engine: Engine, noted: list[Noted]
) -> None:
    async def main(one: Desk) -> None:
        budget = await one.add(expected_requests=100, cap_nano=10**12)
        await one.keep(*await one.ask(8))
        await one.settle_all(1_000)
        await one.refresh()
        money = noted[0].money[-1]
        assert (money.cap, money.requests) == (1_000.0, 92.0)
        assert money.left == pytest.approx((10**12 - 8_000) / 1e9)
        # What another process has settled is seen as well.
        (reserved, cost) = noted[0].settles[-1]
        assert cost == pytest.approx(8e-6) and reserved > cost
        assert one.sums(budget).settled == 8_000
        await one.refresh()
        assert len(noted[0].settles) == 1  # each once

    run(engine, main)


def test_open_reservations_count_at_what_they_are_expected_to_cost(
    engine: Engine, noted: list[Noted]
) -> None:
    async def main(one: Desk) -> None:
        budget = await one.add(expected_requests=100, cap_nano=10**12)
        await one.keep(*await one.ask(8))
        await one.refresh()
        share = noted[0].expected_share
        assert 0.0 < share < 1.0
        running = one.sums(budget).reserved
        assert noted[0].money[-1].left == pytest.approx((10**12 - share * running) / 1e9)

    run(engine, main)


@pytest.mark.parametrize(
    ("fields", "requests", "rate"),
    [
        ({"period": "hour"}, 1_800.0, np.nan),
        ({"period": "rolling", "rolling_s": 600}, np.inf, 1.0 / 300.0),
        ({"period": "total"}, np.inf, np.nan),
        ({"period": "hour", "expected_requests": 70}, 30.0, np.nan),
        ({"period": "hour", "rate_nano": 5_000}, np.inf, 5e-6),
    ],
)
def test_traffic_forecasts_how_many_requests_are_to_come(
    engine: Engine,
    noted: list[Noted],
    fields: dict[str, Any],
    requests: float,
    rate: float,
) -> None:
    async def main(one: Desk) -> None:
        await one.add(cap_nano=10**9, **fields)
        for _ in range(10):
            await one.keep(*await one.ask(4))
            one.clocks.sleep(8.0)  # half a request per second
        await one.refresh()
        money = noted[0].money[-1]
        left_s = 3_600.0 - 80.0
        wanted = requests * left_s / 3_600.0 if requests == 1_800.0 else requests
        assert money.requests == pytest.approx(wanted, rel=0.02)
        np.testing.assert_allclose(money.rate, rate, rtol=0.02)

    run(engine, main)


def test_traffic_of_long_ago_forecasts_nothing(engine: Engine, noted: list[Noted]) -> None:
    async def main(one: Desk) -> None:
        await one.add(cap_nano=10**12, period="day")
        await one.ask(500)
        one.clocks.sleep(RECENT_S)
        for _ in range(5):
            one.clocks.sleep(10.0)
            await one.ask()
        await one.refresh()
        left_s = 86_400.0 - (one.clocks.wall % (24 * HOUR)) / 1e6
        # A request in ten seconds, or of a minute at the least.
        assert noted[0].money[-1].requests == pytest.approx(5 / 60 * left_s, rel=0.01)

    run(engine, main)


def test_charges_while_a_price_is_being_solved_are_not_lost(
    engine: Engine, noted: list[Noted]
) -> None:
    async def main(one: Desk) -> None:
        await one.add(cap_nano=AMPLE, expected_requests=10)
        await one.ask()
        await one.quiet()
        mode = noted[0]
        mode.entered.clear()
        mode.go_on.clear()
        solving = asyncio.create_task(one.spending.refresh("p", one.router))
        assert await asyncio.to_thread(mode.entered.wait, 10.0)
        _, decided = await one.ask(3)
        assert len(mode.charges) == 1
        # Nobody else solves it meanwhile.
        solved = len(mode.windows)
        await one.spending.refresh("p", one.router)
        assert len(mode.windows) == solved
        mode.go_on.set()
        await solving
        await one.spending.refresh("p", one.router)
        at = range(3), decided.chosen
        assert mode.charges[1:] == pytest.approx((decided.reserved_nano[at] / 1e9).tolist())
        assert mode.count == 4

    run(engine, main)


def test_a_price_is_solved_by_one_thread_at_a_time(
    engine: Engine, noted: list[Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(one: Desk) -> None:
        await one.add(cap_nano=AMPLE, expected_requests=10)
        both = threading.Barrier(2, timeout=0.2)
        solved: list[bool] = []

        def solve(*_: Any) -> None:
            try:
                both.wait()
                solved.append(True)
            except threading.BrokenBarrierError:
                solved.append(False)

        monkeypatch.setattr(one.spending, "_solve_now", solve)
        await one.ask(4)
        await one.ask(4)  # before the loop has turned
        assert next(iter(one.spending._paces.values())).count == 8
        await one.quiet()
        assert solved == [False]

    run(engine, main)


def test_a_failure_leaves_the_price_as_it_was(
    engine: Engine, noted: list[Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(one: Desk) -> None:
        budget = await one.add(cap_nano=AMPLE, expected_requests=10)
        await one.ask()
        await one.refresh()
        before = one.spending.terms(budget)

        def fail(*_: Any) -> Any:
            raise RuntimeError("no window")

        monkeypatch.setattr(one.router, "window", fail)
        await one.refresh()
        assert one.spending.terms(budget) is before and before.high == 2.0
        monkeypatch.undo()
        await one.refresh()
        assert one.spending.terms(budget) is not before

    run(engine, main)


@pytest.mark.parametrize("asked_first", [False, True])
def test_a_restart_looks_back_into_the_log_for_the_requests_that_it_holds(
    engine: Engine, noted: list[Noted], asked_first: bool
) -> None:
    async def main(one: Desk) -> None:
        ours = {"t": "1"}
        budget = await one.add(
            cap_nano=AMPLE, expected_requests=100, scope_tag="t", scope_value="1"
        )
        await one.add("all", cap_nano=AMPLE, pacing="none")
        for tags in ('{"t":"1"}', '{"t":"2"}', None):
            await one.keep(*await one.ask(4, tags=ours if tags == '{"t":"1"}' else None), tags)
        one.clocks.sleep(1.0)
        one.spending = one.fresh()
        noted.clear()
        if asked_first:
            # Its first request must not keep a busy daemon from looking.
            await one.keep(*await one.ask(2, tags=ours), '{"t":"1"}')
        await one.refresh()
        assert noted[0].windows[-1] == 4 + 2 * asked_first
        assert one.spending.terms(budget).high == 2.0
        await one.refresh()
        assert noted[0].windows[-1] == 4 + 2 * asked_first

    run(engine, main)


def test_what_is_remembered_never_pushes_out_what_was_seen(
    engine: Engine, noted: list[Noted]
) -> None:
    async def main(one: Desk) -> None:
        await one.add(cap_nano=AMPLE, expected_requests=100)
        await one.keep(*await one.ask(WINDOW))
        one.clocks.sleep(1.0)
        one.spending = one.fresh()
        _, decided = await one.ask(5)
        await one.refresh()
        pace = next(iter(one.spending._paces.values()))
        assert len(pace.recent) == WINDOW
        newest = np.concatenate([ask.row(i).features for ask, i in list(pace.recent)[-5:]])
        np.testing.assert_array_equal(newest, decided.asks.features)

    run(engine, main)


def test_the_highest_price_of_the_budgets_that_hold_a_row_counts(engine: Engine) -> None:
    async def main(one: Desk) -> None:
        low = await one.add("low", cap_nano=AMPLE)
        high = await one.add("high", cap_nano=AMPLE, scope_tag="t", scope_value="1")
        asks = one.book.asks(2)
        worst = one.router.worst(asks).max(axis=1).tolist()
        purse = await one.treasury.purse("p", [{"t": "1"}, None], worst)
        assert purse is not None and one.spending.price(purse, 2) is not None
        for budget, terms in (
            (low, Terms(low=1.0, high=2.0, share=0.25, gain=5.0, rate=0.5)),
            (high, Terms(low=3.0, high=4.0, share=0.75, gain=1.0, rate=0.75)),
        ):
            pace = one.spending._pace(budget)
            assert pace is not None
            pace.pacing.terms = terms
        price = one.spending.price(purse, 2)
        assert price is not None
        found = np.hstack([price.low, price.high, price.share, price.gain, price.rate])
        np.testing.assert_array_equal(found, [[3, 4, 0.75, 5, 0.5], [1, 2, 0.25, 5, 0.5]])

    run(engine, main)


def test_a_budget_that_is_gone_is_forgotten(engine: Engine, noted: list[Noted]) -> None:
    async def main(one: Desk) -> None:
        budget = await one.add(cap_nano=AMPLE)
        await one.ask()
        await one.refresh()
        assert one.spending.terms(budget).high == 2.0
        await one.drop()
        await one.refresh()
        assert one.spending.terms(budget) == Terms() and one.spending._paces == {}

    run(engine, main)


def test_what_lies_elsewhere_is_shared_by_those_who_hold_leases(
    engine: Engine, noted: list[Noted]
) -> None:
    async def main(one: Desk) -> None:
        budget = await one.add(cap_nano=10**9, expected_requests=100)
        purse, decided = await one.ask()
        await one.keep(purse, decided)
        await one.refresh()
        held = one.treasury.slice(budget)
        assert held.beyond == 10**9 - one.sums(budget).reserved - held.left
        await one.lease_by_another(budget, 10**6)
        await one.refresh()
        money = noted[0].money
        assert money[-1].left == pytest.approx(money[-2].left / 2)
        assert money[-1].requests == pytest.approx(money[-2].requests / 2)

    run(engine, main)


def test_solving_rests_in_proportion_unless_a_price_row_changes(
    engine: Engine, noted: list[Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("banditroute.spending.RESTS", 1e9)

    async def main(one: Desk) -> None:
        await one.add(cap_nano=AMPLE, expected_requests=1_000)
        await one.ask(WINDOW)
        await one.refresh()
        solved = len(noted[0].windows)
        await one.ask(1)
        await one.refresh()
        assert len(noted[0].windows) == solved
        dearer = [
            replace(model, price_id=model.price_id + 100) for model in one.router.frame.models
        ]
        one.router.swap(models=dearer)
        await one.refresh()
        assert len(noted[0].windows) == solved + 1

    run(engine, main)


def test_answers_are_heard_of_once_over_idle_times_and_windows(
    engine: Engine, noted: list[Noted]
) -> None:
    async def main(desk: Desk) -> None:
        await desk.add(cap_nano=AMPLE, period="hour")
        await desk.keep(*await desk.ask(4))
        await desk.settle_all(1_000)
        await desk.refresh()
        desk.clocks.sleep(4.0)
        await desk.treasury.refresh()
        await desk.refresh()
        _, decided = last = await desk.ask()
        await desk.keep(*last)
        await desk.refresh()
        assert [cost for _, cost in noted[-1].settles] == [pytest.approx(4e-6)]
        # The answer to the last one comes when its window is over.
        desk.clocks.sleep(3_600.0)
        await desk.keep(*await desk.ask())
        await desk.refresh()
        await desk.writer.write(lambda one: settling.settle(one, {"00000005": 2_000}))
        await desk.refresh()
        reserved = decided.reserved_nano[0, decided.chosen[0]] / 1e9
        assert noted[-1].settles[1:] == [(pytest.approx(reserved), pytest.approx(2e-6))]

    run(engine, main)

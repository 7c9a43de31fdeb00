"""What a price is solved from: charges, the log, other holders, and when."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine
from support.databases import SQLITE
from support.priced_router import AMPLE, Desk, Noted, run

from banditroute.store import settlement
from policies.pacing.base import WINDOW, PriceTerms

pytestmark = SQLITE


@pytest.fixture(autouse=True)
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solve at every look, however long the last one took."""
    monkeypatch.setattr("banditroute.budgets.pacing.RESTS", 0.0)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[Noted]:
    """The modes that were made, the newest last."""
    made: list[Noted] = []

    def make(_: str) -> Noted:
        made.append(Noted())
        return made[-1]

    monkeypatch.setattr("banditroute.budgets.pacing.make_pacing", make)
    return made


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
        solving = asyncio.create_task(one.money_prices.refresh("p", one.router))
        assert await asyncio.to_thread(mode.entered.wait, 10.0)
        _, decided = await one.ask(3)
        assert len(mode.charges) == 1
        # Nobody else solves it meanwhile.
        solved = len(mode.windows)
        await one.money_prices.refresh("p", one.router)
        assert len(mode.windows) == solved
        mode.go_on.set()
        await solving
        await one.money_prices.refresh("p", one.router)
        at = range(3), decided.chosen
        assert mode.charges[1:] == pytest.approx(
            (decided.scored.reservation_nano[at] / 1e9).tolist()
        )
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

        monkeypatch.setattr(one.money_prices, "_solve_now", solve)
        await one.ask(4)
        await one.ask(4)  # before the loop has turned
        assert next(iter(one.money_prices._paces.values())).count == 8
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
        before = one.money_prices.terms(budget)

        def fail(*_: Any) -> Any:
            raise RuntimeError("no window")

        monkeypatch.setattr(one.router, "score", fail)
        await one.refresh()
        assert one.money_prices.terms(budget) is before and before.high == 2.0
        monkeypatch.undo()
        await one.refresh()
        assert one.money_prices.terms(budget) is not before

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
        one.money_prices = one.fresh()
        noted.clear()
        if asked_first:
            # Its first request must not keep a busy daemon from looking.
            await one.keep(*await one.ask(2, tags=ours), '{"t":"1"}')
        await one.refresh()
        assert noted[0].windows[-1] == 4 + 2 * asked_first
        assert one.money_prices.terms(budget).high == 2.0
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
        one.money_prices = one.fresh()
        _, decided = await one.ask(5)
        await one.refresh()
        pace = next(iter(one.money_prices._paces.values()))
        assert len(pace.recent) == WINDOW
        newest = np.concatenate([ask.row(i).features for ask, i in list(pace.recent)[-5:]])
        np.testing.assert_array_equal(newest, decided.scored.requests.features)

    run(engine, main)


def test_the_highest_price_of_the_budgets_that_hold_a_row_counts(engine: Engine) -> None:
    async def main(one: Desk) -> None:
        low = await one.add("low", cap_nano=AMPLE)
        high = await one.add("high", cap_nano=AMPLE, scope_tag="t", scope_value="1")
        scored = one.router.score(one.book.asks(2))
        most_nano = scored.reservation_nano.max(axis=1).tolist()
        purse = await one.leases.purse("p", [{"t": "1"}, None], most_nano)
        assert purse is not None and one.money_prices.price(purse, 2) is not None
        for budget, terms in (
            (low, PriceTerms(low=1.0, high=2.0, share=0.25, gain=5.0, rate_usd=0.5)),
            (high, PriceTerms(low=3.0, high=4.0, share=0.75, gain=1.0, rate_usd=0.75)),
        ):
            pace = one.money_prices._pace(budget)
            assert pace is not None
            pace.pacing.terms = terms
        price = one.money_prices.price(purse, 2)
        assert price is not None
        found = np.hstack([price.low, price.high, price.share, price.gain, price.rate_usd])
        np.testing.assert_array_equal(found, [[3, 4, 0.75, 5, 0.5], [1, 2, 0.25, 5, 0.5]])

    run(engine, main)


def test_a_budget_that_is_gone_is_forgotten(engine: Engine, noted: list[Noted]) -> None:
    async def main(one: Desk) -> None:
        budget = await one.add(cap_nano=AMPLE)
        await one.ask()
        await one.refresh()
        assert one.money_prices.terms(budget).high == 2.0
        await one.drop()
        await one.refresh()
        assert one.money_prices.terms(budget) == PriceTerms() and one.money_prices._paces == {}

    run(engine, main)


def test_what_lies_elsewhere_is_shared_by_those_who_hold_leases(
    engine: Engine, noted: list[Noted]
) -> None:
    async def main(one: Desk) -> None:
        budget = await one.add(cap_nano=10**9, expected_requests=100)
        purse, decided = await one.ask()
        await one.keep(purse, decided)
        await one.refresh()
        held = one.leases.slice(budget)
        assert held.beyond == 10**9 - one.sums(budget).reserved_nano - held.left
        await one.lease_by_another(budget, 10**6)
        await one.refresh()
        money = noted[0].money
        assert money[-1].left_usd == pytest.approx(money[-2].left_usd / 2)
        assert money[-1].requests == pytest.approx(money[-2].requests / 2)

    run(engine, main)


def test_solving_rests_in_proportion_unless_a_price_row_changes(
    engine: Engine, noted: list[Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("banditroute.budgets.pacing.RESTS", 1e9)

    async def main(one: Desk) -> None:
        await one.add(cap_nano=AMPLE, expected_requests=1_000)
        await one.ask(WINDOW)
        await one.refresh()
        solved = len(noted[0].windows)
        await one.ask(1)
        await one.refresh()
        assert len(noted[0].windows) == solved
        dearer = [
            replace(model, price_id=model.price_id + 100) for model in one.router.columns.models
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
        await desk.leases.refresh()
        await desk.refresh()
        _, decided = last = await desk.ask()
        await desk.keep(*last)
        await desk.refresh()
        assert [cost for _, cost in noted[-1].settles] == [pytest.approx(4e-6)]
        # The answer to the last one comes when its window is over.
        desk.clocks.sleep(3_600.0)
        await desk.keep(*await desk.ask())
        await desk.refresh()
        await desk.writer.write(lambda one: settlement.settle(one, {"00000005": 2_000}))
        await desk.refresh()
        reserved = decided.scored.reservation_nano[0, decided.chosen[0]] / 1e9
        assert noted[-1].settles[1:] == [(pytest.approx(reserved), pytest.approx(2e-6))]

    run(engine, main)

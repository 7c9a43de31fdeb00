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
from support.priced_router import AMPLE, Noted, PricedRouter, run

from banditroute.store import settlement
from policies.pacing.base import WINDOW
from policies.pacing.price import PriceTerms

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
    async def main(holder: PricedRouter) -> None:
        await holder.add(cap_nano=AMPLE, expected_requests=10)
        await holder.ask()
        await holder.quiet()
        mode = noted[0]
        mode.entered.clear()
        mode.go_on.clear()
        solving = asyncio.create_task(holder.money_prices.refresh("p", holder.router))
        assert await asyncio.to_thread(mode.entered.wait, 10.0)
        _, decided = await holder.ask(3)
        assert len(mode.charges) == 1
        # Nobody else solves it meanwhile.
        solved = len(mode.windows)
        await holder.money_prices.refresh("p", holder.router)
        assert len(mode.windows) == solved
        mode.go_on.set()
        await solving
        await holder.money_prices.refresh("p", holder.router)
        at = range(3), decided.chosen
        assert mode.charges[1:] == pytest.approx(
            (decided.scored.reservation_nano[at] / 1e9).tolist()
        )
        assert mode.count == 4

    run(engine, main)


def test_a_price_is_solved_by_one_thread_at_a_time(
    engine: Engine, noted: list[Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(holder: PricedRouter) -> None:
        await holder.add(cap_nano=AMPLE, expected_requests=10)
        both = threading.Barrier(2, timeout=0.2)
        solved: list[bool] = []

        def solve(*_: Any) -> None:
            try:
                both.wait()
                solved.append(True)
            except threading.BrokenBarrierError:
                solved.append(False)

        monkeypatch.setattr(holder.money_prices, "_solve_now", solve)
        await holder.ask(4)
        await holder.ask(4)  # before the loop has turned
        assert next(iter(holder.money_prices._paced.values())).count == 8
        await holder.quiet()
        assert solved == [False]

    run(engine, main)


def test_a_failure_leaves_the_price_as_it_was(
    engine: Engine, noted: list[Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(holder: PricedRouter) -> None:
        budget = await holder.add(cap_nano=AMPLE, expected_requests=10)
        await holder.ask()
        await holder.refresh()
        before = holder.money_prices.terms(budget)

        def fail(*_: Any) -> Any:
            raise RuntimeError("no window")

        monkeypatch.setattr(holder.router, "score", fail)
        await holder.refresh()
        assert holder.money_prices.terms(budget) is before and before.high == 2.0
        monkeypatch.undo()
        await holder.refresh()
        assert holder.money_prices.terms(budget) is not before

    run(engine, main)


@pytest.mark.parametrize("asked_first", [False, True])
def test_a_restart_looks_back_into_the_log_for_the_requests_that_it_holds(
    engine: Engine, noted: list[Noted], asked_first: bool
) -> None:
    async def main(holder: PricedRouter) -> None:
        ours = {"t": "1"}
        budget = await holder.add(
            cap_nano=AMPLE, expected_requests=100, scope_tag="t", scope_value="1"
        )
        await holder.add("all", cap_nano=AMPLE, pacing="none")
        for tags in ('{"t":"1"}', '{"t":"2"}', None):
            await holder.keep(
                *await holder.ask(4, tags=ours if tags == '{"t":"1"}' else None), tags
            )
        holder.clocks.sleep(1.0)
        holder.money_prices = holder.fresh()
        noted.clear()
        if asked_first:
            # Its first request must not keep a busy daemon from looking.
            await holder.keep(*await holder.ask(2, tags=ours), '{"t":"1"}')
        await holder.refresh()
        assert noted[0].windows[-1] == 4 + 2 * asked_first
        assert holder.money_prices.terms(budget).high == 2.0
        await holder.refresh()
        assert noted[0].windows[-1] == 4 + 2 * asked_first

    run(engine, main)


def test_what_is_remembered_never_pushes_out_what_was_seen(
    engine: Engine, noted: list[Noted]
) -> None:
    async def main(holder: PricedRouter) -> None:
        await holder.add(cap_nano=AMPLE, expected_requests=100)
        await holder.keep(*await holder.ask(WINDOW))
        holder.clocks.sleep(1.0)
        holder.money_prices = holder.fresh()
        _, decided = await holder.ask(5)
        await holder.refresh()
        paced = next(iter(holder.money_prices._paced.values()))
        assert len(paced.recent) == WINDOW
        newest = np.concatenate([batch.row(i).features for batch, i in list(paced.recent)[-5:]])
        np.testing.assert_array_equal(newest, decided.scored.requests.features)

    run(engine, main)


def test_the_highest_price_of_the_budgets_that_hold_a_row_counts(engine: Engine) -> None:
    async def main(holder: PricedRouter) -> None:
        low = await holder.add("low", cap_nano=AMPLE)
        high = await holder.add("high", cap_nano=AMPLE, scope_tag="t", scope_value="1")
        scored = holder.router.score(holder.book.requests(2))
        most_nano = scored.reservation_nano.max(axis=1).tolist()
        call = await holder.leases.reservations("p", [{"t": "1"}, None], most_nano)
        assert call is not None and holder.money_prices.price(call, 2) is not None
        for budget, terms in (
            (low, PriceTerms(low=1.0, high=2.0, share=0.25, gain=5.0, rate_usd=0.5)),
            (high, PriceTerms(low=3.0, high=4.0, share=0.75, gain=1.0, rate_usd=0.75)),
        ):
            paced = holder.money_prices._paced_budget(budget)
            assert paced is not None
            paced.pacing.terms = terms
        price = holder.money_prices.price(call, 2)
        assert price is not None
        found = np.hstack([price.low, price.high, price.share, price.gain, price.rate_usd])
        np.testing.assert_array_equal(found, [[3, 4, 0.75, 5, 0.5], [1, 2, 0.25, 5, 0.5]])

    run(engine, main)


def test_a_budget_that_is_gone_is_forgotten(engine: Engine, noted: list[Noted]) -> None:
    async def main(holder: PricedRouter) -> None:
        budget = await holder.add(cap_nano=AMPLE)
        await holder.ask()
        await holder.refresh()
        assert holder.money_prices.terms(budget).high == 2.0
        await holder.drop()
        await holder.refresh()
        assert (
            holder.money_prices.terms(budget) == PriceTerms() and holder.money_prices._paced == {}
        )

    run(engine, main)


def test_what_lies_elsewhere_is_shared_by_those_who_hold_leases(
    engine: Engine, noted: list[Noted]
) -> None:
    async def main(holder: PricedRouter) -> None:
        budget = await holder.add(cap_nano=10**9, expected_requests=100)
        call, decided = await holder.ask()
        await holder.keep(call, decided)
        await holder.refresh()
        lease = holder.leases.local_lease(budget)
        assert lease.beyond_nano == 10**9 - holder.sums(budget).reserved_nano - lease.left_nano
        await holder.lease_by_another(budget, 10**6)
        await holder.refresh()
        money = noted[0].money
        assert money[-1].left_usd == pytest.approx(money[-2].left_usd / 2)
        assert money[-1].requests == pytest.approx(money[-2].requests / 2)

    run(engine, main)


def test_solving_rests_in_proportion_unless_a_price_row_changes(
    engine: Engine, noted: list[Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("banditroute.budgets.pacing.RESTS", 1e9)

    async def main(holder: PricedRouter) -> None:
        await holder.add(cap_nano=AMPLE, expected_requests=1_000)
        await holder.ask(WINDOW)
        await holder.refresh()
        solved = len(noted[0].windows)
        await holder.ask(1)
        await holder.refresh()
        assert len(noted[0].windows) == solved
        dearer = [
            replace(model, price_id=model.price_id + 100) for model in holder.router.columns.models
        ]
        holder.router.swap(models=dearer)
        await holder.refresh()
        assert len(noted[0].windows) == solved + 1

    run(engine, main)


def test_answers_are_heard_of_once_over_idle_times_and_windows(
    engine: Engine, noted: list[Noted]
) -> None:
    async def main(holder: PricedRouter) -> None:
        await holder.add(cap_nano=AMPLE, period="hour")
        await holder.keep(*await holder.ask(4))
        await holder.settle_all(1_000)
        await holder.refresh()
        holder.clocks.sleep(4.0)
        await holder.leases.refresh()
        await holder.refresh()
        _, decided = last = await holder.ask()
        await holder.keep(*last)
        await holder.refresh()
        assert [cost for _, cost in noted[-1].settles] == [pytest.approx(4e-6)]
        # The answer to the last one comes when its window is over.
        holder.clocks.sleep(3_600.0)
        await holder.keep(*await holder.ask())
        await holder.refresh()
        await holder.writer.write(
            lambda connection: settlement.settle(connection, {"00000005": 2_000})
        )
        await holder.refresh()
        reserved = decided.scored.reservation_nano[0, decided.chosen[0]] / 1e9
        assert noted[-1].settles[1:] == [(pytest.approx(reserved), pytest.approx(2e-6))]

    run(engine, main)

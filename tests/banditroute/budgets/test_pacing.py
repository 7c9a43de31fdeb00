"""The price of money: when it rises, what it is solved from, and what a restart knows of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine
from support.databases import SQLITE
from support.gated_leases import HOUR_US
from support.priced_router import AMPLE, TIGHT, Noted, PricedRouter, run

from banditroute.budgets.pacing import RECENT_S
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


@pytest.mark.parametrize("pacing", ["history", "zcl", "pacer"])
@pytest.mark.parametrize(("cap", "binds"), [(TIGHT, True), (AMPLE, False)])
def test_money_has_a_price_where_the_budget_binds_and_only_there(
    engine: Engine, pacing: str, cap: int, binds: bool
) -> None:
    async def main(holder: PricedRouter) -> None:
        holder.book.feed(30)
        holder.router = holder.book.router()
        budget = await holder.add(cap_nano=cap, pacing=pacing, expected_requests=100)
        for _ in range(24):
            await holder.ask()
            await holder.quiet()
        await holder.refresh()
        terms = holder.money_prices.terms(budget)
        assert (terms.high > 1e-6 or terms.gain > 1e-6) is binds
        _, decided = await holder.ask()
        price = decided.price
        assert price.high[0, 0] == terms.high and price.gain[0, 0] == terms.gain
        assert terms.rate_usd == pytest.approx(cap / 1e9 / 100)

    run(engine, main)


def test_a_tight_budget_buys_less_than_an_ample_budget(engine: Engine) -> None:
    async def main(holder: PricedRouter) -> None:
        await holder.add(
            "tight", cap_nano=10**8, scope_tag="t", scope_value="1", expected_requests=10_000
        )
        await holder.add(
            "ample", cap_nano=AMPLE, scope_tag="t", scope_value="2", expected_requests=10_000
        )
        spent = {}
        for value in ("1", "2"):
            for _ in range(24):
                await holder.ask(tags={"t": value})
                await holder.quiet()
            _, decided = await holder.ask(40, tags={"t": value})
            spent[value] = float((decided.pmf * decided.scored.cost_usd).sum())
        assert spent["1"] < 0.7 * spent["2"]

    run(engine, main)


def test_a_quality_floor_saves_all_that_quality_does_not_need(engine: Engine) -> None:
    async def main(holder: PricedRouter) -> None:
        holder.book.feed(30)
        holder.router = holder.book.router()
        budget = await holder.add(cap_nano=AMPLE, expected_requests=100)
        prices = []
        for floor in (None, 0.9, 0.01):
            await holder.change(quality_floor=floor)
            await holder.ask(20)
            await holder.refresh()
            prices.append(holder.money_prices.terms(budget).high)
        assert prices[0] == 0.0 <= prices[1] < prices[2]

    run(engine, main)


def test_without_pacing_money_costs_nothing_and_nothing_is_kept(engine: Engine) -> None:
    async def main(holder: PricedRouter) -> None:
        budget = await holder.add(cap_nano=10**8, expected_requests=5_000)
        for _ in range(8):
            await holder.ask()
            await holder.quiet()
        await holder.refresh()
        lease = holder.leases.local_lease(budget)
        assert holder.money_prices.terms(budget).high > 0.0 and lease.keep_nano > 0
        await holder.change(pacing="none")
        await holder.refresh()
        (none,) = holder.leases.budgets("p")
        assert holder.money_prices.terms(none) == PriceTerms() and lease.keep_nano == 0
        _, decided = await holder.ask()
        assert not decided.price.high.any() and not decided.price.gain.any()

    run(engine, main)


def test_another_mode_goes_on_with_the_same_requests_and_a_clean_account(
    engine: Engine, noted: list[Noted]
) -> None:
    async def main(holder: PricedRouter) -> None:
        await holder.add(expected_requests=10, cap_nano=AMPLE)
        await holder.keep(*await holder.ask(5))
        await holder.settle_all(9)
        await holder.refresh()
        assert len(noted) == 1 and noted[0].settles
        await holder.change(pacing="zcl")
        await holder.refresh()
        assert len(noted) == 2 and noted[1].windows == [5] and noted[1].settles == []

    run(engine, main)


def test_a_price_is_solved_from_what_sql_says_is_left_for_how_many(
    engine: Engine, noted: list[Noted]
) -> None:
    async def main(holder: PricedRouter) -> None:
        budget = await holder.add(expected_requests=100, cap_nano=10**12)
        await holder.keep(*await holder.ask(8))
        await holder.settle_all(1_000)
        await holder.refresh()
        money = noted[0].money[-1]
        assert (money.cap_usd, money.requests) == (1_000.0, 92.0)
        assert money.left_usd == pytest.approx((10**12 - 8_000) / 1e9)
        # What another process has settled is seen as well.
        (reserved, cost) = noted[0].settles[-1]
        assert cost == pytest.approx(8e-6) and reserved > cost
        assert holder.sums(budget).settled_nano == 8_000
        await holder.refresh()
        assert len(noted[0].settles) == 1  # each once

    run(engine, main)


def test_open_reservations_count_at_what_they_are_expected_to_cost(
    engine: Engine, noted: list[Noted]
) -> None:
    async def main(holder: PricedRouter) -> None:
        budget = await holder.add(expected_requests=100, cap_nano=10**12)
        await holder.keep(*await holder.ask(8))
        await holder.refresh()
        share = noted[0].expected_share
        assert 0.0 < share < 1.0
        running = holder.sums(budget).reserved_nano
        assert noted[0].money[-1].left_usd == pytest.approx((10**12 - share * running) / 1e9)

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
    async def main(holder: PricedRouter) -> None:
        await holder.add(cap_nano=10**9, **fields)
        for _ in range(10):
            await holder.keep(*await holder.ask(4))
            holder.clocks.sleep(8.0)  # half a request per second
        await holder.refresh()
        money = noted[0].money[-1]
        left_s = 3_600.0 - 80.0
        wanted = requests * left_s / 3_600.0 if requests == 1_800.0 else requests
        assert money.requests == pytest.approx(wanted, rel=0.02)
        np.testing.assert_allclose(money.rate_usd, rate, rtol=0.02)

    run(engine, main)


def test_traffic_of_long_ago_forecasts_nothing(engine: Engine, noted: list[Noted]) -> None:
    async def main(holder: PricedRouter) -> None:
        await holder.add(cap_nano=10**12, period="day")
        await holder.ask(500)
        holder.clocks.sleep(RECENT_S)
        for _ in range(5):
            holder.clocks.sleep(10.0)
            await holder.ask()
        await holder.refresh()
        left_s = 86_400.0 - (holder.clocks.wall_us % (24 * HOUR_US)) / 1e6
        # A request in ten seconds, or of a minute at the least.
        assert noted[0].money[-1].requests == pytest.approx(5 / 60 * left_s, rel=0.01)

    run(engine, main)

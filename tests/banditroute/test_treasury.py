"""Slices of budgets: who waits for SQL and who does not, and how money comes back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
from databases import POSTGRESQL, SQLITE
from sqlalchemy import Connection, Engine, select

from banditroute.budget import Budget
from banditroute.errors import ApiError, unavailable
from banditroute.purse import CallPurse
from banditroute.store import budgets, ledger, settling
from banditroute.store.ledger import LeaseLost, Sums
from banditroute.store.log import log_decisions
from banditroute.store.tables import leases, reservations
from banditroute.store.writer import Writer
from banditroute.treasury import DENIED_S, IDLE_S, LEASE_S, SAFE_S, Treasury, _needs

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
        self.treasury = Treasury(
            engine, self.writer, now=lambda: clocks.wall, clock=lambda: clocks.mono
        )
        self.named = 0

    async def add(self, name: str = "b", **fields: Any) -> Budget:
        terms = {"cap_nano": 1_000_000, "period": "total"} | fields
        added = await self.writer.write(
            lambda one: budgets.add_budget(one, "p", name, terms, now=NOON)
        )
        await self.treasury.reload()
        return cast(Budget, added)

    async def purse(self, need: int, *tags: dict[str, str]) -> CallPurse:
        """Return the purse of a call of one request, or of one for each of `tags`."""
        rows = tags or (None,)
        purse = await self.treasury.purse("p", rows, [need] * len(rows))
        assert purse is not None
        return purse

    async def log(self, purse: CallPurse, *nanos: int) -> list[str]:
        """Take and log a reservation for each row."""
        for row, nano in enumerate(nanos):
            purse.take(row, nano)
        return await self.draw(purse, len(nanos))

    async def draw(self, purse: CallPurse, rows: int = 1) -> list[str]:
        self.named += rows
        holder = self.treasury.holder.name[-12:]
        names = [f"{holder}-{self.named - row}" for row in range(rows)]
        now = self.clocks.wall
        draws = [
            one
            for row, name in enumerate(names)
            for one in purse.draws(row, name, now=now, expires_at=now + TTL)
        ]
        await self.writer.write(lambda one: ledger.draw(one, draws))
        for row in range(rows):
            purse.logged(row)
        return names

    async def settle(self, name: str, nano: int) -> None:
        await self.writer.write(lambda one: settling.settle(one, {name: nano}))
        self.treasury.refunded()

    async def quiet(self) -> None:
        """Wait for what is under way beside the requests."""
        current = asyncio.current_task()
        others = [one for one in asyncio.all_tasks() if one is not current]
        await asyncio.gather(*others)

    def sums(self, budget: Budget) -> Sums:
        with self.engine.connect() as connection:
            return ledger.sums(connection, budget, now=self.clocks.wall)

    def rows(self, table: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(table).order_by(*table.primary_key)))


@asynccontextmanager
async def bank(engine: Engine, clocks: Clocks | None = None) -> AsyncIterator[Bank]:
    one = Bank(engine, clocks or Clocks())
    await one.treasury.start()
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


def money(sums: Sums) -> tuple[int, int, int, int]:
    return sums.settled, sums.reserved, sums.leased, sums.free


@SQLITE
def test_nothing_is_held_without_a_budget_of_the_pool_and_the_tags(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        assert await one.treasury.purse("p", [None], [10]) is None
        await one.add(scope_tag="team", scope_value="a")
        assert await one.treasury.purse("other", [{"team": "a"}], [10]) is None
        assert await one.treasury.purse("p", [{"team": "b"}, None], [10, 10]) is None
        assert one.rows(leases) == []
        mixed = await one.purse(10, {"team": "b"}, {"team": "a"})
        assert [len(mixed.held(row)) for row in (0, 1)] == [0, 1]
        await one.log(mixed, 500, 10)
        assert [row.reserved_nano for row in one.rows(reservations)] == [10]

    run(engine, main)


def test_a_request_that_fits_never_waits_for_sql(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add()
        await one.log(await one.purse(1_000), 100_000)
        held = one.treasury.slice(budget).left
        assert held == 28_000  # 512 requests of a quarter of what may be needed, less one
        one.writer.gate.clear()
        writes = one.writer.count
        purse = await asyncio.wait_for(one.purse(1_000), 5.0)
        assert purse.headroom(0) == held
        # It is low by now, so more is on its way beside the request, once.
        await turns()
        assert one.writer.count == writes + 1
        await asyncio.wait_for(one.purse(1_000), 5.0)
        await turns()
        assert one.writer.count == writes + 1
        one.writer.gate.set()
        await one.quiet()
        assert purse.headroom(0) > 100_000
        sums = one.sums(budget)
        assert sums.leased == one.treasury.slice(budget).left and sums.reserved == 100_000

    run(engine, main)


def test_a_request_that_does_not_fit_waits_for_one_renewal(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        await one.add()
        await one.purse(1_000)
        await one.quiet()
        writes = one.writer.count
        one.writer.gate.clear()
        tasks = [asyncio.create_task(one.purse(400_000)) for _ in range(3)]
        await turns()
        assert not any(task.done() for task in tasks)
        one.writer.gate.set()
        purses = await asyncio.gather(*tasks)
        assert all(purse.headroom(0) >= 400_000 for purse in purses)
        # The one that came first has brought what all of them had waited for.
        assert one.writer.count == writes + 1

    run(engine, main)


@SQLITE
def test_slices_shrink_near_the_cap(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add(cap_nano=1_000)
        left = []
        for _ in range(3):
            purse = await one.purse(10)
            await one.quiet()
            left.append(purse.headroom(0))
            await one.log(purse, purse.headroom(0))
        assert left[0] == 250 and left[0] > left[1] > left[2] > 10
        assert one.sums(budget).free == 1_000 - sum(left)
        # What is needed is given to the last nano-dollar.
        rest = 1_000 - sum(left)
        assert (await one.purse(5_000)).headroom(0) == rest

    run(engine, main)


def test_what_was_denied_is_not_asked_for_again_until_later_or_a_refund(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        await one.add(cap_nano=100)
        (name,) = await one.log(await one.purse(60), 60)
        assert (await one.purse(50)).headroom(0) == 40
        await one.quiet()
        writes = one.writer.count
        for _ in range(20):
            assert (await one.purse(50)).headroom(0) == 40
        await one.quiet()
        assert one.writer.count == writes
        one.clocks.sleep(DENIED_S)
        assert (await one.purse(50)).headroom(0) == 40
        assert one.writer.count == writes + 1
        await one.settle(name, 1)
        assert (await one.purse(50)).headroom(0) >= 50

    run(engine, main)


@SQLITE
def test_a_top_up_is_had_at_once_by_whoever_was_denied(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        await one.add(cap_nano=100)
        assert (await one.purse(150)).headroom(0) == 100
        await one.writer.write(
            lambda c: budgets.change_budget(c, "p", "b", {}, top_up=900, now=NOON)
        )
        await one.treasury.reload()
        assert (await one.purse(150)).headroom(0) >= 150

    run(engine, main)


@SQLITE
def test_nothing_is_taken_from_a_lease_whose_deadline_has_passed(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        await one.add()
        purse = await one.purse(1_000)
        assert purse.headroom(0) > 0
        one.clocks.mono += SAFE_S  # the wall clock may say what it likes
        assert purse.headroom(0) == 0
        writes = one.writer.count
        again = await one.purse(1_000)
        assert one.writer.count > writes and again.headroom(0) > 0

    run(engine, main)


@SQLITE
def test_of_a_lease_that_others_have_closed_only_what_is_new_counts(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add()
        await one.purse(1_000)
        await one.quiet()
        (lease,) = one.rows(leases)
        await one.writer.write(lambda c: ledger.close(c, [lease.id], now=NOON))
        one.clocks.sleep(SAFE_S)
        purse = await one.purse(1_000)
        await one.quiet()
        assert 0 < purse.headroom(0) == one.sums(budget).leased

    run(engine, main)


@SQLITE
def test_a_lease_in_use_is_renewed_long_before_its_deadline(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add(cap_nano=10**9)
        purse = await one.purse(1_000)
        for _ in range(30):
            one.clocks.sleep(1.0)
            await one.treasury.refresh()
            assert purse.headroom(0) > 0
            await one.purse(1_000)
        (row,) = one.rows(leases)
        assert row.reclaim_at > one.clocks.wall + (LEASE_S - SAFE_S) * 1e6
        assert one.sums(budget).leased == one.treasury.slice(budget).left

    run(engine, main)


def test_a_window_that_ends_gives_back_what_no_decision_is_waiting_for(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add(period="hour")
        old = await one.purse(1_000)
        old.take(0, 600)
        one.clocks.sleep(3_600.0)
        new = await one.purse(1_000)
        await one.log(new, 400)
        await one.treasury.refresh()
        # The decision of the old window can still be logged, and counts there.
        await one.draw(old)
        assert money(one.sums(budget))[:2] == (0, 400)
        await one.treasury.refresh()
        one.clocks.wall -= HOUR
        assert money(one.sums(budget)) == (0, 600, 0, 999_400)

    run(engine, main)


@SQLITE
def test_a_clock_that_is_set_back_finds_the_slice_of_that_window_again(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add(period="hour")
        await one.log(await one.purse(1_000), 300)
        first = one.treasury.slice(budget)
        one.clocks.wall += HOUR
        await one.log(await one.purse(1_000), 200)
        second = one.treasury.slice(budget)
        assert second.lease_id != first.lease_id
        one.clocks.wall -= HOUR
        purse = await one.purse(1_000)
        assert one.treasury.slice(budget) is first
        await one.log(purse, 50)
        await one.treasury.refresh()
        assert one.sums(budget).reserved == 350
        one.clocks.wall += HOUR
        assert money(one.sums(budget)) == (0, 200, 0, 999_800)

    run(engine, main)


def test_an_idle_slice_goes_back_and_one_that_a_decision_waits_for_does_not(
    engine: Engine,
) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add()
        purse = await one.purse(1_000)
        await one.quiet()
        purse.take(0, 500)
        one.clocks.sleep(IDLE_S + 0.1)
        await one.treasury.refresh()
        assert one.sums(budget).leased > 0
        await one.draw(purse)
        await one.treasury.refresh()
        assert money(one.sums(budget)) == (0, 500, 0, 999_500)
        await one.log(await one.purse(1_000), 500)
        assert one.sums(budget).reserved == 1_000

    run(engine, main)


@SQLITE
def test_a_renewal_that_lands_after_its_slice_has_ended_takes_nobody_s_lease(
    engine: Engine,
) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add()
        await one.log(await one.purse(1_000), 120_000)
        one.writer.gate.clear()
        await one.purse(1_000)  # renews beside
        await turns()
        one.clocks.sleep(IDLE_S + 0.1)
        ending = asyncio.create_task(one.treasury.refresh())
        while one.treasury._slices:  # the slice is let go of before SQL hears of it
            await asyncio.sleep(0.001)
        next_one = asyncio.create_task(one.purse(1_000))
        await turns()
        one.writer.gate.set()
        await ending
        purse = await next_one
        await one.treasury.refresh()
        await one.log(purse, 1_000)
        await one.treasury.stop()
        assert money(one.sums(budget)) == (0, 121_000, 0, 879_000)

    run(engine, main)


@SQLITE
def test_a_renewal_that_nobody_goes_on_with_is_given_back(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add()
        await one.log(await one.purse(1_000), 120_000)
        one.writer.gate.clear()
        await one.purse(1_000)
        await turns()
        one.clocks.sleep(IDLE_S + 0.1)
        ending = asyncio.create_task(one.treasury.refresh())
        while one.treasury._slices:
            await asyncio.sleep(0.001)
        one.writer.gate.set()
        await ending
        await one.quiet()
        await one.treasury.refresh()
        assert money(one.sums(budget)) == (0, 120_000, 0, 880_000)

    run(engine, main)


@SQLITE
def test_what_a_large_call_had_leased_goes_back_when_it_is_over(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add()
        await one.log(await one.purse(900_000), 10)
        await one.quiet()
        assert one.sums(budget).leased >= 800_000
        await one.purse(100)
        await one.treasury.refresh()
        kept = one.treasury.slice(budget).left
        assert kept == 1_000_000 // 16 and one.sums(budget).leased == kept

    run(engine, main)


@SQLITE
def test_what_was_not_logged_goes_back_to_the_slice(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add()
        purse = await one.purse(1_000, {}, {}, {})
        await one.quiet()
        held = one.treasury.slice(budget)
        before = held.left
        for row in range(3):
            purse.take(row, 700)
        purse.undo(0)
        assert held.left == before - 1_400 and held.pending == 2
        purse.logged(1)
        purse.undo_all()
        assert held.left == before - 700 and held.pending == 0

    run(engine, main)


def test_a_lease_that_was_closed_elsewhere_costs_one_call_and_no_money(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add()
        purse = await one.purse(1_000)
        await one.quiet()
        (lease,) = one.rows(leases)
        await one.writer.write(lambda c: ledger.close(c, [lease.id], now=NOON))
        with pytest.raises(LeaseLost) as lost:
            await one.log(purse, 900)
        purse.undo_all()
        one.treasury.lost(lost.value.lease_ids)
        await one.log(await one.purse(1_000), 900)
        assert one.sums(budget).reserved == 900
        assert one.sums(budget).leased == one.treasury.slice(budget).left

    run(engine, main)


@POSTGRESQL
def test_two_daemons_share_one_cap_and_one_takes_over_when_the_other_is_dead(
    engine: Engine,
) -> None:
    async def main() -> None:
        clocks = Clocks()
        async with bank(engine, clocks) as first, bank(engine, clocks) as second:
            budget = await first.add(cap_nano=100_000)
            await second.treasury.reload()
            taken = 0
            while True:
                purses = [await one.purse(3_000) for one in (first, second)]
                some = [p.headroom(0) >= 3_000 for p in purses]
                for one, purse, fits in zip((first, second), purses, some, strict=True):
                    if fits:
                        await one.log(purse, 3_000)
                        taken += 3_000
                sums = second.sums(budget)
                assert sums.used <= 100_000 and sums.reserved == taken
                if not any(some):
                    break
            # Between them nothing that a request could have used is left lying about.
            assert taken > 90_000
            await first.quiet()
            clocks.sleep(IDLE_S + 0.1)
            await first.treasury.refresh()
            await second.treasury.refresh()
            assert second.sums(budget).leased == 0
            stale = await first.purse(100_000 - taken)
            assert (await second.purse(1)).headroom(0) == 0
            clocks.sleep(LEASE_S + 0.1)  # of which the first one sees nothing
            await second.treasury.refresh()
            assert (await second.purse(1)).headroom(0) > 0
            with pytest.raises(LeaseLost):
                await first.log(stale, 1)

    asyncio.run(main())


@POSTGRESQL
def test_a_cap_that_was_lowered_elsewhere_holds_at_once(engine: Engine) -> None:
    async def main() -> None:
        clocks = Clocks()
        async with bank(engine, clocks) as first, bank(engine, clocks) as second:
            budget = await first.add(cap_nano=100_000)
            await second.treasury.reload()
            change = {"cap_nano": 1_000}
            await first.writer.write(
                lambda one: budgets.change_budget(one, "p", "b", change, now=NOON)
            )
            assert (await second.purse(50_000)).headroom(0) == 1_000
            assert second.treasury.budgets("p") == [budget]
            await second.treasury.reload()
            assert [one.cap_nano for one in second.treasury.budgets("p")] == [1_000]

    asyncio.run(main())


def test_a_budget_that_was_dropped_elsewhere_holds_nobody(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        await one.add("a")
        await one.add("b")
        await one.writer.write(lambda c: budgets.drop_budget(c, "p", "a"))
        purse = await one.purse(1_000)
        assert [held.budget.name for held in purse.held(0)] == ["b"]
        await one.writer.write(lambda c: budgets.drop_budget(c, "p", "b"))
        await one.treasury.reload()
        assert await one.treasury.purse("p", [None], [1_000]) is None
        await one.quiet()
        await one.treasury.refresh()
        assert one.rows(leases) == []

    run(engine, main)


def test_the_end_gives_everything_back_also_what_is_on_its_way(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        both = [await one.add("a"), await one.add("b", period="hour")]
        await one.log(await one.purse(1_000), 100)
        one.clocks.sleep(3_600.0)
        await one.log(await one.purse(1_000), 120_000)
        await one.purse(1_000)  # renews both beside, from the next turn on
        await one.treasury.stop()
        await one.quiet()
        assert [row.closed_at is None for row in one.rows(leases)] == [False] * 3
        assert [one.sums(budget).leased for budget in both] == [0, 0]

    run(engine, main)


@SQLITE
def test_all_budgets_of_a_request_must_hold(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        whole = await one.add("whole", cap_nano=1_000)
        team = await one.add("team", cap_nano=300, scope_tag="team", scope_value="a")
        ours, others = {"team": "a"}, {"team": "b"}
        purse = await one.purse(400, ours, others)
        assert (purse.headroom(0), purse.headroom(1)) == (300, 800)
        assert (purse.tightest(0).name, purse.tightest(1).name) == ("team", "whole")
        await one.log(purse, 300, 400)
        assert [money(one.sums(b))[1] for b in (whole, team)] == [700, 300]
        names = {row.decision_id for row in one.rows(reservations) if row.budget_id == team.id}
        purse = await one.purse(1, ours)
        assert purse.headroom(0) == 0 and purse.tightest(0).name == "team"
        for name in names:
            await one.settle(name, 20)
        assert [one.sums(b).settled for b in (whole, team)] == [20, 20]
        assert (await one.purse(100, ours)).headroom(0) >= 100

    run(engine, main)


@SQLITE
@pytest.mark.parametrize("ceiling", [0, 250])
def test_no_request_takes_more_than_its_ceiling(engine: Engine, ceiling: int) -> None:
    async def main(one: Bank) -> None:
        await one.add("low", cap_nano=1_000, request_ceiling_nano=ceiling)
        await one.add("wide")
        purse = await one.purse(900_000, {}, {})
        assert purse.headroom(0) == purse.headroom(1) == ceiling
        assert purse.tightest(0).name == "low"
        # Nothing is leased for what no request may take.
        assert one.rows(leases)[0].amount_nano <= max(2 * ceiling, 250)
        purse.take(0, ceiling)
        assert purse.headroom(1) == ceiling

    run(engine, main)


@SQLITE
def test_what_is_kept_for_cheap_answers_is_no_spare_money(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add(cap_nano=1_000)
        purse = await one.purse(100)
        held = one.treasury.slice(budget)
        assert purse.spare(0) >= purse.headroom(0) == 250
        held.keep, held.beyond = 900, 750
        assert (purse.headroom(0), purse.spare(0)) == (250, 100)

    run(engine, main)


@SQLITE
def test_reservations_that_nobody_settles_expire(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add()
        names = await one.log(await one.purse(1_000), 900)
        one.clocks.sleep(TTL / 1e6 + 1)
        await one.treasury.refresh()
        assert (one.sums(budget).reserved, one.sums(budget).expired) == (0, 900)
        await one.settle(names[0], 5)
        assert one.sums(budget).settled == 5 and one.sums(budget).free == 999_995

    run(engine, main)


@SQLITE
def test_sums_are_read_anew_unless_older_ones_will_do(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add()
        (name,) = await one.log(await one.purse(1_000), 900)
        assert (await one.treasury.sums(budget)).settled == 0
        await one.writer.write(lambda connection: settling.settle(connection, {name: 5}))
        seen = [(await one.treasury.sums(budget, stale_s=s)).settled for s in (0.25, 0.0, 0.25)]
        assert seen == [0, 5, 5]
        await one.settle(name, 5)  # in this process money that comes back is known of at once
        assert not one.treasury._read

    run(engine, main)


@SQLITE
def test_an_idle_slice_that_could_not_be_closed_is_not_lost(engine: Engine) -> None:
    async def main(bank: Bank) -> None:
        budget = await bank.add()
        await bank.log(await bank.purse(1_000), 1_000)
        await bank.quiet()
        leased = bank.sums(budget).leased
        bank.clocks.sleep(IDLE_S + 1.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bank.writer, "write", _away)
            with pytest.raises(ApiError):
                await bank.treasury.refresh()
        assert bank.sums(budget).leased == leased
        purse = await bank.purse(1_000)
        assert purse.headroom(0) == leased  # another one has not taken its place
        bank.clocks.sleep(IDLE_S + 1.0)
        await bank.treasury.refresh()
        assert bank.sums(budget).leased == 0

    run(engine, main)


@SQLITE
def test_a_slice_that_could_not_be_cut_down_keeps_all(engine: Engine) -> None:
    async def main(bank: Bank) -> None:
        await bank.add(cap_nano=1_000_000_000)
        await bank.purse(900_000_000)
        purse = await bank.purse(10)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bank.writer, "write", _away)
            with pytest.raises(ApiError):
                await bank.treasury.refresh()
        assert purse.headroom(0) == 900_000_000

    run(engine, main)


async def _away(work: Any, *, durable: bool = True) -> Any:
    raise unavailable("the database does not take a write")


@SQLITE
def test_what_was_leased_for_a_caller_who_went_away_is_there_for_the_next(engine: Engine) -> None:
    async def main(bank: Bank) -> None:
        budget = await bank.add()
        bank.writer.gate.clear()
        asking = asyncio.create_task(bank.purse(1_000))
        await turns()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        bank.writer.gate.set()
        await bank.quiet()
        written = bank.writer.count
        purse = await bank.purse(1_000)
        assert purse.headroom(0) == bank.sums(budget).leased and bank.writer.count == written

    run(engine, main)


@SQLITE
def test_budgets_read_before_are_not_taken_over_after(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, entered = threading.Event(), threading.Event()

    def load(connection: Connection) -> list[Budget]:
        found = budgets.load_budgets(connection)
        if not entered.is_set():
            entered.set()
            assert slow.wait(5.0)
        return found

    monkeypatch.setattr("banditroute.treasury.load_budgets", load)

    async def main(bank: Bank) -> None:
        entered.clear()
        slow.clear()
        earlier = asyncio.create_task(bank.treasury.reload())
        await asyncio.to_thread(entered.wait)
        adding = asyncio.create_task(bank.add())
        await asyncio.sleep(0.05)
        slow.set()
        await asyncio.gather(earlier, adding)
        assert [one.name for one in bank.treasury.budgets("p")] == ["b"]

    slow.set()
    run(engine, main)


@SQLITE
def test_nothing_is_written_while_nobody_asks(engine: Engine) -> None:
    async def main(bank: Bank) -> None:
        budget = await bank.add()
        bank.treasury.slice(budget)  # as whoever prices its money does
        written = bank.writer.count
        await bank.treasury.refresh()
        assert bank.writer.count == written

    run(engine, main)


def test_a_batch_of_many_teams_is_summed_up_once_per_row() -> None:
    known = [Budget(i, "p", f"b{i}", 10**9, "total", None, "team", str(i)) for i in range(3)]
    known[2] = replace(known[2], request_ceiling_nano=5)
    held = [[known[2]], [known[0]], [], [known[0], known[2]]]
    assert _needs(held, [1, 10, 100, 1_000]) == [(known[2], 6), (known[0], 1_010)]

"""Slices of budgets: who waits for SQL and who does not, and how money comes back."""

from __future__ import annotations

import asyncio

from sqlalchemy import Engine
from support.databases import SQLITE
from support.gated_leases import HOUR, NOON, Bank, money, run, turns

from banditroute.budgets.leases import DENIED_S, IDLE_S, LEASE_S, SAFE_S
from banditroute.store import budgets, ledger
from banditroute.store.tables import leases, reservations


@SQLITE
def test_nothing_is_held_without_a_budget_of_the_pool_and_the_tags(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        assert await one.leases.purse("p", [None], [10]) is None
        await one.add(scope_tag="team", scope_value="a")
        assert await one.leases.purse("other", [{"team": "a"}], [10]) is None
        assert await one.leases.purse("p", [{"team": "b"}, None], [10, 10]) is None
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
        held = one.leases.slice(budget).left
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
        assert sums.leased_nano == one.leases.slice(budget).left and sums.reserved_nano == 100_000

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
        assert one.sums(budget).free_nano == 1_000 - sum(left)
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
            lambda c: budgets.change_budget(c, "p", "b", {}, top_up_nano=900, now_us=NOON)
        )
        await one.leases.reload()
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
        await one.writer.write(lambda c: ledger.close(c, [lease.id], now_us=NOON))
        one.clocks.sleep(SAFE_S)
        purse = await one.purse(1_000)
        await one.quiet()
        assert 0 < purse.headroom(0) == one.sums(budget).leased_nano

    run(engine, main)


@SQLITE
def test_a_lease_in_use_is_renewed_long_before_its_deadline(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add(cap_nano=10**9)
        purse = await one.purse(1_000)
        for _ in range(30):
            one.clocks.sleep(1.0)
            await one.leases.refresh()
            assert purse.headroom(0) > 0
            await one.purse(1_000)
        (row,) = one.rows(leases)
        assert row.reclaim_at > one.clocks.wall + (LEASE_S - SAFE_S) * 1e6
        assert one.sums(budget).leased_nano == one.leases.slice(budget).left

    run(engine, main)


def test_a_window_that_ends_gives_back_what_no_decision_is_waiting_for(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add(period="hour")
        old = await one.purse(1_000)
        old.take(0, 600)
        one.clocks.sleep(3_600.0)
        new = await one.purse(1_000)
        await one.log(new, 400)
        await one.leases.refresh()
        # The decision of the old window can still be logged, and counts there.
        await one.draw(old)
        assert money(one.sums(budget))[:2] == (0, 400)
        await one.leases.refresh()
        one.clocks.wall -= HOUR
        assert money(one.sums(budget)) == (0, 600, 0, 999_400)

    run(engine, main)


@SQLITE
def test_a_clock_that_is_set_back_finds_the_slice_of_that_window_again(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add(period="hour")
        await one.log(await one.purse(1_000), 300)
        first = one.leases.slice(budget)
        one.clocks.wall += HOUR
        await one.log(await one.purse(1_000), 200)
        second = one.leases.slice(budget)
        assert second.lease_id != first.lease_id
        one.clocks.wall -= HOUR
        purse = await one.purse(1_000)
        assert one.leases.slice(budget) is first
        await one.log(purse, 50)
        await one.leases.refresh()
        assert one.sums(budget).reserved_nano == 350
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
        await one.leases.refresh()
        assert one.sums(budget).leased_nano > 0
        await one.draw(purse)
        await one.leases.refresh()
        assert money(one.sums(budget)) == (0, 500, 0, 999_500)
        await one.log(await one.purse(1_000), 500)
        assert one.sums(budget).reserved_nano == 1_000

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
        ending = asyncio.create_task(one.leases.refresh())
        while one.leases._slices:  # the slice is let go of before SQL hears of it
            await asyncio.sleep(0.001)
        next_one = asyncio.create_task(one.purse(1_000))
        await turns()
        one.writer.gate.set()
        await ending
        purse = await next_one
        await one.leases.refresh()
        await one.log(purse, 1_000)
        await one.leases.stop()
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
        ending = asyncio.create_task(one.leases.refresh())
        while one.leases._slices:
            await asyncio.sleep(0.001)
        one.writer.gate.set()
        await ending
        await one.quiet()
        await one.leases.refresh()
        assert money(one.sums(budget)) == (0, 120_000, 0, 880_000)

    run(engine, main)


@SQLITE
def test_what_a_large_call_had_leased_goes_back_when_it_is_over(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add()
        await one.log(await one.purse(900_000), 10)
        await one.quiet()
        assert one.sums(budget).leased_nano >= 800_000
        await one.purse(100)
        await one.leases.refresh()
        kept = one.leases.slice(budget).left
        assert kept == 1_000_000 // 16 and one.sums(budget).leased_nano == kept

    run(engine, main)

"""Leases of budgets: which requests wait for SQL, and how money is given back."""

from __future__ import annotations

import asyncio

from sqlalchemy import Engine
from support.databases import SQLITE
from support.gated_leases import HOUR_US, NOON_US, GatedLeases, money, run, turns

from banditroute.budgets.leases import DENIED_S, IDLE_S, LEASE_S, SAFE_S
from banditroute.store import budgets, ledger
from banditroute.store.tables import leases, reservations


@SQLITE
def test_nothing_is_reserved_without_a_budget_of_the_pool_and_the_tags(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        assert await holder.leases.reservations("p", [None], [10]) is None
        await holder.add(scope_tag="team", scope_value="a")
        assert await holder.leases.reservations("other", [{"team": "a"}], [10]) is None
        assert await holder.leases.reservations("p", [{"team": "b"}, None], [10, 10]) is None
        assert holder.rows(leases) == []
        mixed = await holder.call(10, {"team": "b"}, {"team": "a"})
        assert [len(mixed.leases_of(row)) for row in (0, 1)] == [0, 1]
        await holder.log(mixed, 500, 10)
        assert [row.reserved_nano for row in holder.rows(reservations)] == [10]

    run(engine, main)


def test_a_request_that_fits_never_waits_for_sql(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add()
        await holder.log(await holder.call(1_000), 100_000)
        left_nano = holder.leases.local_lease(budget).left_nano
        assert left_nano == 28_000  # 512 requests of a quarter of what may be needed, less one
        holder.writer.gate.clear()
        writes = holder.writer.count
        call = await asyncio.wait_for(holder.call(1_000), 5.0)
        assert call.headroom(0) == left_nano
        # The lease is low now, so it is renewed beside the request, once.
        await turns()
        assert holder.writer.count == writes + 1
        await asyncio.wait_for(holder.call(1_000), 5.0)
        await turns()
        assert holder.writer.count == writes + 1
        holder.writer.gate.set()
        await holder.quiet()
        assert call.headroom(0) > 100_000
        sums = holder.sums(budget)
        assert (
            sums.leased_nano == holder.leases.local_lease(budget).left_nano
            and sums.reserved_nano == 100_000
        )

    run(engine, main)


def test_a_request_that_does_not_fit_waits_for_one_renewal(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        await holder.add()
        await holder.call(1_000)
        await holder.quiet()
        writes = holder.writer.count
        holder.writer.gate.clear()
        tasks = [asyncio.create_task(holder.call(400_000)) for _ in range(3)]
        await turns()
        assert not any(task.done() for task in tasks)
        holder.writer.gate.set()
        calls = await asyncio.gather(*tasks)
        assert all(call.headroom(0) >= 400_000 for call in calls)
        # The first renewal brought what all of them had waited for.
        assert holder.writer.count == writes + 1

    run(engine, main)


@SQLITE
def test_leases_shrink_near_the_cap(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add(cap_nano=1_000)
        left_nano = []
        for _ in range(3):
            call = await holder.call(10)
            await holder.quiet()
            left_nano.append(call.headroom(0))
            await holder.log(call, call.headroom(0))
        assert left_nano[0] == 250 and left_nano[0] > left_nano[1] > left_nano[2] > 10
        assert holder.sums(budget).free_nano == 1_000 - sum(left_nano)
        # What is needed is granted to the last nano-dollar.
        rest_nano = 1_000 - sum(left_nano)
        assert (await holder.call(5_000)).headroom(0) == rest_nano

    run(engine, main)


def test_a_denied_renewal_is_tried_again_only_later_or_after_a_refund(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        await holder.add(cap_nano=100)
        (name,) = await holder.log(await holder.call(60), 60)
        assert (await holder.call(50)).headroom(0) == 40
        await holder.quiet()
        writes = holder.writer.count
        for _ in range(20):
            assert (await holder.call(50)).headroom(0) == 40
        await holder.quiet()
        assert holder.writer.count == writes
        holder.clocks.sleep(DENIED_S)
        assert (await holder.call(50)).headroom(0) == 40
        assert holder.writer.count == writes + 1
        await holder.settle(name, 1)
        assert (await holder.call(50)).headroom(0) >= 50

    run(engine, main)


@SQLITE
def test_a_top_up_ends_the_wait_after_a_denied_renewal(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        await holder.add(cap_nano=100)
        assert (await holder.call(150)).headroom(0) == 100
        await holder.writer.write(
            lambda connection: budgets.change_budget(
                connection, "p", "b", {}, top_up_nano=900, now_us=NOON_US
            )
        )
        await holder.leases.reload()
        assert (await holder.call(150)).headroom(0) >= 150

    run(engine, main)


@SQLITE
def test_nothing_is_taken_from_a_lease_whose_deadline_has_passed(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        await holder.add()
        call = await holder.call(1_000)
        assert call.headroom(0) > 0
        holder.clocks.monotonic_s += SAFE_S  # the wall clock does not matter
        assert call.headroom(0) == 0
        writes = holder.writer.count
        again = await holder.call(1_000)
        assert holder.writer.count > writes and again.headroom(0) > 0

    run(engine, main)


@SQLITE
def test_after_another_holder_closed_a_lease_only_the_new_grant_counts(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add()
        await holder.call(1_000)
        await holder.quiet()
        (lease,) = holder.rows(leases)
        await holder.writer.write(
            lambda connection: ledger.close(connection, [lease.id], now_us=NOON_US)
        )
        holder.clocks.sleep(SAFE_S)
        call = await holder.call(1_000)
        await holder.quiet()
        assert 0 < call.headroom(0) == holder.sums(budget).leased_nano

    run(engine, main)


@SQLITE
def test_a_lease_in_use_is_renewed_long_before_its_deadline(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add(cap_nano=10**9)
        call = await holder.call(1_000)
        for _ in range(30):
            holder.clocks.sleep(1.0)
            await holder.leases.refresh()
            assert call.headroom(0) > 0
            await holder.call(1_000)
        (row,) = holder.rows(leases)
        assert row.reclaim_at > holder.clocks.wall_us + (LEASE_S - SAFE_S) * 1e6
        assert holder.sums(budget).leased_nano == holder.leases.local_lease(budget).left_nano

    run(engine, main)


def test_a_window_that_ends_gives_back_what_no_decision_still_needs(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add(period="hour")
        old = await holder.call(1_000)
        old.take(0, 600)
        holder.clocks.sleep(3_600.0)
        new = await holder.call(1_000)
        await holder.log(new, 400)
        await holder.leases.refresh()
        # The decision of the old window can still be logged, and counts there.
        await holder.write(old)
        assert money(holder.sums(budget))[:2] == (0, 400)
        await holder.leases.refresh()
        holder.clocks.wall_us -= HOUR_US
        assert money(holder.sums(budget)) == (0, 600, 0, 999_400)

    run(engine, main)


@SQLITE
def test_a_clock_that_is_set_back_finds_the_lease_of_that_window_again(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add(period="hour")
        await holder.log(await holder.call(1_000), 300)
        first = holder.leases.local_lease(budget)
        holder.clocks.wall_us += HOUR_US
        await holder.log(await holder.call(1_000), 200)
        second = holder.leases.local_lease(budget)
        assert second.lease_id != first.lease_id
        holder.clocks.wall_us -= HOUR_US
        call = await holder.call(1_000)
        assert holder.leases.local_lease(budget) is first
        await holder.log(call, 50)
        await holder.leases.refresh()
        assert holder.sums(budget).reserved_nano == 350
        holder.clocks.wall_us += HOUR_US
        assert money(holder.sums(budget)) == (0, 200, 0, 999_800)

    run(engine, main)


def test_an_idle_lease_is_given_back_unless_a_decision_is_not_logged_yet(
    engine: Engine,
) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add()
        call = await holder.call(1_000)
        await holder.quiet()
        call.take(0, 500)
        holder.clocks.sleep(IDLE_S + 0.1)
        await holder.leases.refresh()
        assert holder.sums(budget).leased_nano > 0
        await holder.write(call)
        await holder.leases.refresh()
        assert money(holder.sums(budget)) == (0, 500, 0, 999_500)
        await holder.log(await holder.call(1_000), 500)
        assert holder.sums(budget).reserved_nano == 1_000

    run(engine, main)


@SQLITE
def test_a_renewal_that_ends_after_its_lease_leaves_the_next_lease_alone(
    engine: Engine,
) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add()
        await holder.log(await holder.call(1_000), 120_000)
        holder.writer.gate.clear()
        await holder.call(1_000)  # renews beside this call
        await turns()
        holder.clocks.sleep(IDLE_S + 0.1)
        ending = asyncio.create_task(holder.leases.refresh())
        while holder.leases._current:  # the lease is forgotten before it is closed in SQL
            await asyncio.sleep(0.001)
        next_call = asyncio.create_task(holder.call(1_000))
        await turns()
        holder.writer.gate.set()
        await ending
        call = await next_call
        await holder.leases.refresh()
        await holder.log(call, 1_000)
        await holder.leases.stop()
        assert money(holder.sums(budget)) == (0, 121_000, 0, 879_000)

    run(engine, main)


@SQLITE
def test_a_renewal_that_no_lease_goes_on_with_is_given_back(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add()
        await holder.log(await holder.call(1_000), 120_000)
        holder.writer.gate.clear()
        await holder.call(1_000)
        await turns()
        holder.clocks.sleep(IDLE_S + 0.1)
        ending = asyncio.create_task(holder.leases.refresh())
        while holder.leases._current:
            await asyncio.sleep(0.001)
        holder.writer.gate.set()
        await ending
        await holder.quiet()
        await holder.leases.refresh()
        assert money(holder.sums(budget)) == (0, 120_000, 0, 880_000)

    run(engine, main)


@SQLITE
def test_what_a_large_call_leased_is_given_back_afterwards(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add()
        await holder.log(await holder.call(900_000), 10)
        await holder.quiet()
        assert holder.sums(budget).leased_nano >= 800_000
        await holder.call(100)
        await holder.leases.refresh()
        kept_nano = holder.leases.local_lease(budget).left_nano
        assert kept_nano == 1_000_000 // 16 and holder.sums(budget).leased_nano == kept_nano

    run(engine, main)

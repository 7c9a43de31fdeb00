"""Leases of budgets after failures, and beside other holders."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from support.databases import POSTGRESQL, SQLITE
from support.gated_leases import (
    NOON_US,
    TTL_US,
    Clocks,
    GatedLeases,
    gated_leases,
    money,
    run,
    turns,
)

from banditroute.budgets.leases import IDLE_S, LEASE_S, _needs
from banditroute.core.budget import Budget
from banditroute.core.errors import Unavailable
from banditroute.store import budgets, ledger, settlement
from banditroute.store.ledger import LeaseLost
from banditroute.store.tables import leases, reservations


@SQLITE
def test_what_was_not_logged_goes_back_to_the_lease(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add()
        call = await holder.call(1_000, {}, {}, {})
        await holder.quiet()
        lease = holder.leases.local_lease(budget)
        before_nano = lease.left_nano
        for row in range(3):
            call.take(row, 700)
        call.undo(0)
        assert lease.left_nano == before_nano - 1_400 and lease.pending == 2
        call.logged(1)
        call.undo_all()
        assert lease.left_nano == before_nano - 700 and lease.pending == 0

    run(engine, main)


def test_a_lease_that_was_closed_elsewhere_costs_one_call_and_no_money(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add()
        call = await holder.call(1_000)
        await holder.quiet()
        (lease,) = holder.rows(leases)
        await holder.writer.write(
            lambda connection: ledger.close(connection, [lease.id], now_us=NOON_US)
        )
        with pytest.raises(LeaseLost) as lost:
            await holder.log(call, 900)
        call.undo_all()
        holder.leases.lost(lost.value.lease_ids)
        await holder.log(await holder.call(1_000), 900)
        assert holder.sums(budget).reserved_nano == 900
        assert holder.sums(budget).leased_nano == holder.leases.local_lease(budget).left_nano

    run(engine, main)


@POSTGRESQL
def test_two_daemons_share_one_cap_and_one_takes_over_when_the_other_is_dead(
    engine: Engine,
) -> None:
    async def main() -> None:
        clocks = Clocks()
        async with gated_leases(engine, clocks) as first, gated_leases(engine, clocks) as second:
            budget = await first.add(cap_nano=100_000)
            await second.leases.reload()
            taken_nano = 0
            while True:
                calls = [await holder.call(3_000) for holder in (first, second)]
                fit = [call.headroom(0) >= 3_000 for call in calls]
                for holder, call, fits in zip((first, second), calls, fit, strict=True):
                    if fits:
                        await holder.log(call, 3_000)
                        taken_nano += 3_000
                sums = second.sums(budget)
                assert sums.used_nano <= 100_000 and sums.reserved_nano == taken_nano
                if not any(fit):
                    break
            # Hardly anything that a request could have used is left in either lease.
            assert taken_nano > 90_000
            await first.quiet()
            clocks.sleep(IDLE_S + 0.1)
            await first.leases.refresh()
            await second.leases.refresh()
            assert second.sums(budget).leased_nano == 0
            stale = await first.call(100_000 - taken_nano)
            assert (await second.call(1)).headroom(0) == 0
            clocks.sleep(LEASE_S + 0.1)  # the first holder does not refresh
            await second.leases.refresh()
            assert (await second.call(1)).headroom(0) > 0
            with pytest.raises(LeaseLost):
                await first.log(stale, 1)

    asyncio.run(main())


@POSTGRESQL
def test_a_cap_that_was_lowered_elsewhere_holds_at_once(engine: Engine) -> None:
    async def main() -> None:
        clocks = Clocks()
        async with gated_leases(engine, clocks) as first, gated_leases(engine, clocks) as second:
            budget = await first.add(cap_nano=100_000)
            await second.leases.reload()
            change = {"cap_nano": 1_000}
            await first.writer.write(
                lambda connection: budgets.change_budget(
                    connection, "p", "b", change, now_us=NOON_US
                )
            )
            assert (await second.call(50_000)).headroom(0) == 1_000
            assert second.leases.budgets("p") == [budget]
            await second.leases.reload()
            assert [budget.cap_nano for budget in second.leases.budgets("p")] == [1_000]

    asyncio.run(main())


def test_a_budget_that_was_dropped_elsewhere_applies_to_no_request(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        await holder.add("a")
        await holder.add("b")
        await holder.writer.write(lambda connection: budgets.drop_budget(connection, "p", "a"))
        call = await holder.call(1_000)
        assert [lease.budget.name for lease in call.leases_of(0)] == ["b"]
        await holder.writer.write(lambda connection: budgets.drop_budget(connection, "p", "b"))
        await holder.leases.reload()
        assert await holder.leases.reservations("p", [None], [1_000]) is None
        await holder.quiet()
        await holder.leases.refresh()
        assert holder.rows(leases) == []

    run(engine, main)


def test_stopping_gives_everything_back_also_what_a_renewal_brings(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        both = [await holder.add("a"), await holder.add("b", period="hour")]
        await holder.log(await holder.call(1_000), 100)
        holder.clocks.sleep(3_600.0)
        await holder.log(await holder.call(1_000), 120_000)
        await holder.call(1_000)  # renews both beside, from the next turn on
        await holder.leases.stop()
        await holder.quiet()
        assert [row.closed_at is None for row in holder.rows(leases)] == [False] * 3
        assert [holder.sums(budget).leased_nano for budget in both] == [0, 0]

    run(engine, main)


@SQLITE
def test_all_budgets_of_a_request_must_hold(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        whole = await holder.add("whole", cap_nano=1_000)
        team = await holder.add("team", cap_nano=300, scope_tag="team", scope_value="a")
        ours, others = {"team": "a"}, {"team": "b"}
        call = await holder.call(400, ours, others)
        assert (call.headroom(0), call.headroom(1)) == (300, 800)
        assert (call.tightest(0).name, call.tightest(1).name) == ("team", "whole")
        await holder.log(call, 300, 400)
        assert [money(holder.sums(b))[1] for b in (whole, team)] == [700, 300]
        names = {row.decision_id for row in holder.rows(reservations) if row.budget_id == team.id}
        call = await holder.call(1, ours)
        assert call.headroom(0) == 0 and call.tightest(0).name == "team"
        for name in names:
            await holder.settle(name, 20)
        assert [holder.sums(b).settled_nano for b in (whole, team)] == [20, 20]
        assert (await holder.call(100, ours)).headroom(0) >= 100

    run(engine, main)


@SQLITE
@pytest.mark.parametrize("ceiling", [0, 250])
def test_no_request_takes_more_than_its_ceiling(engine: Engine, ceiling: int) -> None:
    async def main(holder: GatedLeases) -> None:
        await holder.add("low", cap_nano=1_000, request_ceiling_nano=ceiling)
        await holder.add("wide")
        call = await holder.call(900_000, {}, {})
        assert call.headroom(0) == call.headroom(1) == ceiling
        assert call.tightest(0).name == "low"
        # Nothing is leased for what no request may take.
        assert holder.rows(leases)[0].amount_nano <= max(2 * ceiling, 250)
        call.take(0, ceiling)
        assert call.headroom(1) == ceiling

    run(engine, main)


@SQLITE
def test_money_that_is_kept_for_the_cheapest_answers_is_not_spare(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add(cap_nano=1_000)
        call = await holder.call(100)
        lease = holder.leases.local_lease(budget)
        assert call.spare(0) >= call.headroom(0) == 250
        lease.keep_nano, lease.beyond_nano = 900, 750
        assert (call.headroom(0), call.spare(0)) == (250, 100)

    run(engine, main)


@SQLITE
def test_reservations_that_nobody_settles_expire(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add()
        names = await holder.log(await holder.call(1_000), 900)
        holder.clocks.sleep(TTL_US / 1e6 + 1)
        await holder.leases.refresh()
        assert (holder.sums(budget).reserved_nano, holder.sums(budget).expired_nano) == (0, 900)
        await holder.settle(names[0], 5)
        assert holder.sums(budget).settled_nano == 5 and holder.sums(budget).free_nano == 999_995

    run(engine, main)


@SQLITE
def test_sums_are_read_anew_unless_older_ones_will_do(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add()
        (name,) = await holder.log(await holder.call(1_000), 900)
        assert (await holder.leases.sums(budget)).settled_nano == 0
        await holder.writer.write(lambda connection: settlement.settle(connection, {name: 5}))
        settled_nano = [
            (await holder.leases.sums(budget, stale_s=s)).settled_nano for s in (0.25, 0.0, 0.25)
        ]
        assert settled_nano == [0, 5, 5]
        await holder.settle(name, 5)  # a refund in this process clears the sums
        assert not holder.leases._last_sums

    run(engine, main)


@SQLITE
def test_an_idle_lease_that_could_not_be_closed_is_not_lost(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add()
        await holder.log(await holder.call(1_000), 1_000)
        await holder.quiet()
        leased_nano = holder.sums(budget).leased_nano
        holder.clocks.sleep(IDLE_S + 1.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(holder.writer, "write", _away)
            with pytest.raises(Unavailable):
                await holder.leases.refresh()
        assert holder.sums(budget).leased_nano == leased_nano
        call = await holder.call(1_000)
        assert call.headroom(0) == leased_nano  # the same lease goes on
        holder.clocks.sleep(IDLE_S + 1.0)
        await holder.leases.refresh()
        assert holder.sums(budget).leased_nano == 0

    run(engine, main)


@SQLITE
def test_a_lease_that_could_not_be_trimmed_keeps_all(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        await holder.add(cap_nano=1_000_000_000)
        await holder.call(900_000_000)
        call = await holder.call(10)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(holder.writer, "write", _away)
            with pytest.raises(Unavailable):
                await holder.leases.refresh()
        assert call.headroom(0) == 900_000_000

    run(engine, main)


async def _away(work: Any, *, durable: bool = True) -> Any:
    raise Unavailable("the database does not take a write")


@SQLITE
def test_what_was_leased_for_a_call_that_was_cancelled_is_there_for_the_next(
    engine: Engine,
) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add()
        holder.writer.gate.clear()
        asking = asyncio.create_task(holder.call(1_000))
        await turns()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        holder.writer.gate.set()
        await holder.quiet()
        written = holder.writer.count
        call = await holder.call(1_000)
        assert (
            call.headroom(0) == holder.sums(budget).leased_nano and holder.writer.count == written
        )

    run(engine, main)


@SQLITE
def test_an_older_reading_of_the_budgets_does_not_undo_a_newer_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, entered = threading.Event(), threading.Event()

    def load(connection: Connection) -> list[Budget]:
        loaded = budgets.load_budgets(connection)
        if not entered.is_set():
            entered.set()
            assert slow.wait(5.0)
        return loaded

    monkeypatch.setattr("banditroute.budgets.leases.load_budgets", load)

    async def main(holder: GatedLeases) -> None:
        entered.clear()
        slow.clear()
        earlier = asyncio.create_task(holder.leases.reload())
        await asyncio.to_thread(entered.wait)
        adding = asyncio.create_task(holder.add())
        await asyncio.sleep(0.05)
        slow.set()
        await asyncio.gather(earlier, adding)
        assert [budget.name for budget in holder.leases.budgets("p")] == ["b"]

    slow.set()
    run(engine, main)


@SQLITE
def test_without_requests_nothing_is_written(engine: Engine) -> None:
    async def main(holder: GatedLeases) -> None:
        budget = await holder.add()
        holder.leases.local_lease(budget)  # as a solve of its price does
        written = holder.writer.count
        await holder.leases.refresh()
        assert holder.writer.count == written

    run(engine, main)


def test_a_batch_of_many_teams_is_summed_up_once_per_row() -> None:
    all_budgets = [Budget(i, "p", f"b{i}", 10**9, "total", None, "team", str(i)) for i in range(3)]
    all_budgets[2] = replace(all_budgets[2], request_ceiling_nano=5)
    first, _, capped = all_budgets
    by_row = [[capped], [first], [], [first, capped]]
    assert _needs(by_row, [1, 10, 100, 1_000]) == [(capped, 6), (first, 1_010)]

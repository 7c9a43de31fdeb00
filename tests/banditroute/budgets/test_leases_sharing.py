"""Slices when something goes wrong, or somebody else has a part in it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from support.databases import POSTGRESQL, SQLITE
from support.gated_leases import NOON, TTL, Bank, Clocks, bank, money, run, turns

from banditroute.budgets.leases import IDLE_S, LEASE_S, _needs
from banditroute.core.budget import Budget
from banditroute.core.errors import Unavailable
from banditroute.store import budgets, ledger, settlement
from banditroute.store.ledger import LeaseLost
from banditroute.store.tables import leases, reservations


@SQLITE
def test_what_was_not_logged_goes_back_to_the_slice(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add()
        purse = await one.purse(1_000, {}, {}, {})
        await one.quiet()
        held = one.leases.slice(budget)
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
        await one.writer.write(lambda c: ledger.close(c, [lease.id], now_us=NOON))
        with pytest.raises(LeaseLost) as lost:
            await one.log(purse, 900)
        purse.undo_all()
        one.leases.lost(lost.value.lease_ids)
        await one.log(await one.purse(1_000), 900)
        assert one.sums(budget).reserved_nano == 900
        assert one.sums(budget).leased_nano == one.leases.slice(budget).left

    run(engine, main)


@POSTGRESQL
def test_two_daemons_share_one_cap_and_one_takes_over_when_the_other_is_dead(
    engine: Engine,
) -> None:
    async def main() -> None:
        clocks = Clocks()
        async with bank(engine, clocks) as first, bank(engine, clocks) as second:
            budget = await first.add(cap_nano=100_000)
            await second.leases.reload()
            taken = 0
            while True:
                purses = [await one.purse(3_000) for one in (first, second)]
                some = [p.headroom(0) >= 3_000 for p in purses]
                for one, purse, fits in zip((first, second), purses, some, strict=True):
                    if fits:
                        await one.log(purse, 3_000)
                        taken += 3_000
                sums = second.sums(budget)
                assert sums.used_nano <= 100_000 and sums.reserved_nano == taken
                if not any(some):
                    break
            # Between them nothing that a request could have used is left lying about.
            assert taken > 90_000
            await first.quiet()
            clocks.sleep(IDLE_S + 0.1)
            await first.leases.refresh()
            await second.leases.refresh()
            assert second.sums(budget).leased_nano == 0
            stale = await first.purse(100_000 - taken)
            assert (await second.purse(1)).headroom(0) == 0
            clocks.sleep(LEASE_S + 0.1)  # of which the first one sees nothing
            await second.leases.refresh()
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
            await second.leases.reload()
            change = {"cap_nano": 1_000}
            await first.writer.write(
                lambda one: budgets.change_budget(one, "p", "b", change, now_us=NOON)
            )
            assert (await second.purse(50_000)).headroom(0) == 1_000
            assert second.leases.budgets("p") == [budget]
            await second.leases.reload()
            assert [one.cap_nano for one in second.leases.budgets("p")] == [1_000]

    asyncio.run(main())


def test_a_budget_that_was_dropped_elsewhere_holds_nobody(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        await one.add("a")
        await one.add("b")
        await one.writer.write(lambda c: budgets.drop_budget(c, "p", "a"))
        purse = await one.purse(1_000)
        assert [held.budget.name for held in purse.held(0)] == ["b"]
        await one.writer.write(lambda c: budgets.drop_budget(c, "p", "b"))
        await one.leases.reload()
        assert await one.leases.purse("p", [None], [1_000]) is None
        await one.quiet()
        await one.leases.refresh()
        assert one.rows(leases) == []

    run(engine, main)


def test_the_end_gives_everything_back_also_what_is_on_its_way(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        both = [await one.add("a"), await one.add("b", period="hour")]
        await one.log(await one.purse(1_000), 100)
        one.clocks.sleep(3_600.0)
        await one.log(await one.purse(1_000), 120_000)
        await one.purse(1_000)  # renews both beside, from the next turn on
        await one.leases.stop()
        await one.quiet()
        assert [row.closed_at is None for row in one.rows(leases)] == [False] * 3
        assert [one.sums(budget).leased_nano for budget in both] == [0, 0]

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
        assert [one.sums(b).settled_nano for b in (whole, team)] == [20, 20]
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
        held = one.leases.slice(budget)
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
        await one.leases.refresh()
        assert (one.sums(budget).reserved_nano, one.sums(budget).expired_nano) == (0, 900)
        await one.settle(names[0], 5)
        assert one.sums(budget).settled_nano == 5 and one.sums(budget).free_nano == 999_995

    run(engine, main)


@SQLITE
def test_sums_are_read_anew_unless_older_ones_will_do(engine: Engine) -> None:
    async def main(one: Bank) -> None:
        budget = await one.add()
        (name,) = await one.log(await one.purse(1_000), 900)
        assert (await one.leases.sums(budget)).settled_nano == 0
        await one.writer.write(lambda connection: settlement.settle(connection, {name: 5}))
        seen = [(await one.leases.sums(budget, stale_s=s)).settled_nano for s in (0.25, 0.0, 0.25)]
        assert seen == [0, 5, 5]
        await one.settle(name, 5)  # in this process money that comes back is known of at once
        assert not one.leases._read

    run(engine, main)


@SQLITE
def test_an_idle_slice_that_could_not_be_closed_is_not_lost(engine: Engine) -> None:
    async def main(bank: Bank) -> None:
        budget = await bank.add()
        await bank.log(await bank.purse(1_000), 1_000)
        await bank.quiet()
        leased = bank.sums(budget).leased_nano
        bank.clocks.sleep(IDLE_S + 1.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bank.writer, "write", _away)
            with pytest.raises(Unavailable):
                await bank.leases.refresh()
        assert bank.sums(budget).leased_nano == leased
        purse = await bank.purse(1_000)
        assert purse.headroom(0) == leased  # another one has not taken its place
        bank.clocks.sleep(IDLE_S + 1.0)
        await bank.leases.refresh()
        assert bank.sums(budget).leased_nano == 0

    run(engine, main)


@SQLITE
def test_a_slice_that_could_not_be_cut_down_keeps_all(engine: Engine) -> None:
    async def main(bank: Bank) -> None:
        await bank.add(cap_nano=1_000_000_000)
        await bank.purse(900_000_000)
        purse = await bank.purse(10)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bank.writer, "write", _away)
            with pytest.raises(Unavailable):
                await bank.leases.refresh()
        assert purse.headroom(0) == 900_000_000

    run(engine, main)


async def _away(work: Any, *, durable: bool = True) -> Any:
    raise Unavailable("the database does not take a write")


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
        assert purse.headroom(0) == bank.sums(budget).leased_nano and bank.writer.count == written

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

    monkeypatch.setattr("banditroute.budgets.leases.load_budgets", load)

    async def main(bank: Bank) -> None:
        entered.clear()
        slow.clear()
        earlier = asyncio.create_task(bank.leases.reload())
        await asyncio.to_thread(entered.wait)
        adding = asyncio.create_task(bank.add())
        await asyncio.sleep(0.05)
        slow.set()
        await asyncio.gather(earlier, adding)
        assert [one.name for one in bank.leases.budgets("p")] == ["b"]

    slow.set()
    run(engine, main)


@SQLITE
def test_nothing_is_written_while_nobody_asks(engine: Engine) -> None:
    async def main(bank: Bank) -> None:
        budget = await bank.add()
        bank.leases.slice(budget)  # as whoever prices its money does
        written = bank.writer.count
        await bank.leases.refresh()
        assert bank.writer.count == written

    run(engine, main)


def test_a_batch_of_many_teams_is_summed_up_once_per_row() -> None:
    known = [Budget(i, "p", f"b{i}", 10**9, "total", None, "team", str(i)) for i in range(3)]
    known[2] = replace(known[2], request_ceiling_nano=5)
    held = [[known[2]], [known[0]], [], [known[0], known[2]]]
    assert _needs(held, [1, 10, 100, 1_000]) == [(known[2], 6), (known[0], 1_010)]

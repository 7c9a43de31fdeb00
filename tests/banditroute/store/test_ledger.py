"""Each property of the ledger by itself; test_ledger_model.py checks all of them together."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, update
from support.databases import SQLITE
from support.one_budget import HOUR, LATER, NOON, A, B, Ledger
from support.small_log import Book

from banditroute.core.budget import Budget
from banditroute.core.errors import CapBelowSpend, InvalidValue, Unavailable, UnknownBudget
from banditroute.store import budgets, ledger, settlement
from banditroute.store.feedback import Post
from banditroute.store.ledger import BudgetSums, Holder, LeaseLost, Reservation
from banditroute.store.tables import decisions, leases, metadata, reservations


@pytest.fixture
def kept(engine: Engine) -> Ledger:
    return Ledger(engine)


def parts(sums: BudgetSums) -> tuple[int, ...]:
    return (
        sums.settled_nano,
        sums.reserved_nano,
        sums.expired_nano,
        sums.leased_nano,
        sums.lost_nano,
        sums.free_nano,
    )


def test_money_is_leased_reserved_and_settled_to_the_nano_dollar(kept: Ledger) -> None:
    lease = kept.lease(need_nano=600)
    assert (lease.granted_nano, lease.fresh) == (600, True)
    assert parts(kept.sums()) == (0, 0, 0, 600, 0, 400)
    kept.reserve(lease.id, 250, 100)
    assert parts(kept.sums()) == (0, 350, 0, 250, 0, 400)
    kept.settle(d0=31)
    # What was reserved and not spent is free at once, for any holder.
    assert parts(kept.sums()) == (31, 100, 0, 250, 0, 619)
    assert kept.free_nano() == 619 and kept.lease(B, need_nano=5_000).granted_nano == 619
    assert kept.sums().requests == 2 and kept.sums().overruns_nano == 0


def test_a_lease_is_small_near_the_cap_and_never_more_than_is_free(kept: Ledger) -> None:
    assert kept.lease(A, ideal_nano=800).granted_nano == 250
    assert kept.lease(B, ideal_nano=800).granted_nano == 187
    assert kept.lease(B, need_nano=500, ideal_nano=800).granted_nano == 500
    assert kept.lease(A, need_nano=500, ideal_nano=800).granted_nano == 63
    assert kept.lease(A, need_nano=500).granted_nano == 0 and kept.free_nano() == 0


def test_a_lease_that_is_too_small_refuses_all_of_a_group(kept: Ledger) -> None:
    lease = kept.lease(need_nano=100)
    with pytest.raises(LeaseLost) as lost:
        kept.reserve(lease.id, 60, 41)
    assert lost.value.lease_ids == (lease.id,) and isinstance(lost.value, Unavailable)
    assert kept.rows(reservations) == [] and parts(kept.sums()) == (0, 0, 0, 100, 0, 900)
    kept.reserve(lease.id, 60, 40)


def test_a_closed_lease_refuses_and_goes_on_fresh(kept: Ledger) -> None:
    lease = kept.lease(need_nano=100)
    kept.reserve(lease.id, 30)
    kept.write(lambda one: ledger.close(one, [lease.id], now_us=NOON))
    assert parts(kept.sums()) == (0, 30, 0, 0, 0, 970)
    with pytest.raises(LeaseLost):
        kept.reserve(lease.id, 1, name="e")
    again = kept.lease(need_nano=70)
    assert (again.id, again.granted_nano, again.fresh) == (lease.id, 70, True)
    kept.reserve(lease.id, 70, name="e")
    with pytest.raises(LeaseLost):
        kept.reserve(lease.id, 1, name="f")


def test_a_part_of_a_lease_goes_back(kept: Ledger) -> None:
    lease = kept.lease(need_nano=100)
    kept.reserve(lease.id, 30)
    kept.write(lambda one: ledger.give_back(one, lease.id, 50))
    assert parts(kept.sums()) == (0, 30, 0, 20, 0, 950)
    kept.write(lambda one: ledger.give_back(one, lease.id, 50))  # of which only 20 are there
    assert parts(kept.sums()) == (0, 30, 0, 20, 0, 950)
    with pytest.raises(ValueError, match="above 0"):
        kept.write(lambda one: ledger.give_back(one, lease.id, -10))
    assert parts(kept.sums()) == (0, 30, 0, 20, 0, 950)


def test_a_cost_above_the_reservation_is_an_overrun(kept: Ledger) -> None:
    lease = kept.lease(need_nano=1_000)
    kept.reserve(lease.id, 600, 400)
    kept.settle(d0=900)
    assert parts(kept.sums()) == (900, 400, 0, 0, 0, 0)
    assert kept.sums().overruns_nano == 300 and kept.free_nano() == -300
    kept.settle(d1=50)
    assert kept.sums().free_nano == 50 and kept.sums().overruns_nano == 300


def test_an_expired_reservation_counts_in_full_and_can_settle_late(
    kept: Ledger,
) -> None:
    lease = kept.lease(need_nano=500)
    kept.reserve(lease.id, 200, 300)
    kept.now = LATER
    assert kept.sums().expired_nano == 0
    kept.now += 1
    assert parts(kept.sums()) == (0, 0, 500, 0, 0, 500)
    kept.settle(d1=10)
    assert parts(kept.sums()) == (10, 0, 200, 0, 0, 790)
    kept.settle(d1=0)  # settled once
    assert kept.sums().settled_nano == 10


def test_late_money_goes_to_the_window_of_its_decision(engine: Engine) -> None:
    kept = Ledger(engine, period="hour")
    lease = kept.lease(need_nano=400)
    kept.reserve(lease.id, 400)
    kept.now += HOUR
    assert parts(kept.sums()) == (0, 0, 0, 0, 0, 1_000) and kept.free_nano() == 1_000
    other = kept.lease(need_nano=100)
    assert other.id != lease.id
    kept.settle(d0=3)
    assert parts(kept.sums()) == (0, 0, 0, 100, 0, 900)
    kept.now -= HOUR
    assert parts(kept.sums()) == (3, 0, 0, 0, 0, 997) and kept.free_nano() == 997


def test_decisions_leave_a_rolling_window_at_their_own_times(engine: Engine) -> None:
    kept = Ledger(engine, period="rolling", rolling_s=60)
    lease = kept.lease(need_nano=1_000)
    kept.reserve(lease.id, 300, expires_at_us=NOON + HOUR)
    kept.now += 40_000_000
    kept.reserve(lease.id, 500, name="e", expires_at_us=NOON + HOUR)
    assert parts(kept.sums()) == (0, 800, 0, 200, 0, 0)
    kept.now += 20_000_000
    # The open lease counts in full until it is closed.
    assert (
        parts(kept.sums())
        == (0, 500, 0, 200, 0, 300)
        == (*parts(kept.sums())[:5], kept.free_nano())
    )
    kept.write(lambda one: ledger.close(one, [lease.id], now_us=kept.now))
    kept.settle(e0=20)
    assert parts(kept.sums()) == (20, 0, 0, 0, 0, 980)
    assert kept.sums().oldest_us == NOON + 40_000_000


@SQLITE
@pytest.mark.parametrize(("boot", "lost"), [("boot-1", 0), ("boot-2", 70)])
def test_a_lease_of_an_earlier_boot_counts_in_full(engine: Engine, boot: str, lost: int) -> None:
    kept = Ledger(engine)
    lease = kept.lease(need_nano=100)
    kept.reserve(lease.id, 30)
    kept.write(lambda one: ledger.reclaim(one, Holder("n", boot), now_us=NOON, alone=True))
    assert parts(kept.sums()) == (0, 30, 0, 0, lost, 970 - lost) and kept.free_nano() == 970 - lost
    with pytest.raises(LeaseLost):
        kept.reserve(lease.id, 1, name="e")
    kept.write(ledger.recount)
    assert kept.sums().lost_nano == lost


def test_others_leave_a_lease_alone_until_its_time_is_over(kept: Ledger) -> None:
    lease = kept.lease(A, need_nano=100)
    kept.reserve(lease.id, 30)
    kept.write(lambda one: ledger.reclaim(one, B, now_us=LATER, alone=False))
    assert kept.sums().leased_nano == 70
    kept.write(lambda one: ledger.reclaim(one, A, now_us=LATER + 1, alone=False))
    assert kept.sums().leased_nano == 70
    kept.write(lambda one: ledger.reclaim(one, B, now_us=LATER + 1, alone=False))
    assert parts(kept.sums()) == (0, 30, 0, 0, 0, 970)
    with pytest.raises(LeaseLost):  # whatever its holder believes
        kept.reserve(lease.id, 1, name="e")


def test_counters_are_rebuilt_from_the_reservations(kept: Ledger) -> None:
    lease = kept.lease(need_nano=500)
    kept.reserve(lease.id, 100, 200, 50)
    kept.settle(d0=30, d1=260)
    before = kept.rows(leases)
    kept.write(lambda one: one.execute(update(leases).values(drawn_nano=1, returned_nano=7)))
    assert kept.rows(leases) != before
    kept.write(ledger.recount)
    assert kept.rows(leases) == before and kept.free_nano() == kept.sums().free_nano == 510


def test_a_cap_is_never_set_below_what_is_spent_and_reserved(kept: Ledger) -> None:
    lease = kept.lease(need_nano=500)
    kept.reserve(lease.id, 100)

    def change(cap: int, top_up: int = 0) -> Budget:
        fields = {"cap_nano": cap} if cap else {}
        changed: Budget = kept.write(
            lambda one: budgets.change_budget(
                one, "p", "b", fields, top_up_nano=top_up, now_us=NOON
            )
        )
        return changed

    with pytest.raises(CapBelowSpend, match="below that"):
        change(499)
    assert kept.rows(metadata.tables["budgets"])[0].cap_nano == 1_000
    assert change(500).cap_nano == 500 and change(0, top_up=25).cap_nano == 525
    kept.write(lambda one: budgets.drop_budget(one, "p", "b"))
    assert kept.rows(reservations) == kept.rows(leases) == []
    with pytest.raises(UnknownBudget, match="no budget"):
        change(1)


def test_a_quality_floor_needs_the_pacing_that_meets_it(kept: Ledger) -> None:
    def change(**fields: Any) -> None:
        kept.write(lambda one: budgets.change_budget(one, "p", "b", fields, now_us=NOON))

    change(quality_floor=0.9)
    with pytest.raises(InvalidValue) as refused:
        change(pacing="zcl")
    assert refused.value.param == "quality_floor"
    change(pacing="zcl", quality_floor=None)


def test_a_budget_added_again_after_a_drop_owes_nothing(engine: Engine) -> None:
    first = Ledger(engine)
    first.reserve(first.lease(need_nano=500).id, 100)
    first.write(lambda one: budgets.drop_budget(one, "p", "b"))
    second = Ledger(engine)
    assert second.budget.id != first.budget.id and second.sums().free_nano == 1_000


def test_a_decision_is_cancelled_once_and_never_after_feedback(book: Book) -> None:
    kept = Ledger(book.engine)
    _, (used, unused) = book.decide(2)
    lease = kept.lease(need_nano=500)
    draws = [Reservation(one, kept.budget.id, lease.id, 0, 100, LATER) for one in (used, unused)]
    kept.write(lambda one: ledger.reserve(one, draws))

    def cancel(name: str) -> str:
        became: str = kept.write(lambda one: settlement.cancel(one, name, now_us=NOON))
        return became

    assert book.send(Post(used, "k", quality=0.5)) == ["accepted"]
    became = [cancel(one) for one in (used, unused, unused, "none")]
    assert became == ["conflict", "cancelled", "duplicate", "unknown"]
    assert parts(kept.sums()) == (0, 100, 0, 300, 0, 600) and kept.sums().requests == 1
    assert {row.id: row.cancelled_at for row in kept.rows(decisions)} == {used: None, unused: NOON}
    # If it was used after all, that is stored, not learned, and all of it is an overrun.
    assert book.send(Post(unused, "k", quality=1.0, cost_usd=7e-9)) == ["superseded"]
    assert parts(kept.sums()) == (7, 100, 0, 300, 0, 593) and kept.sums().overruns_nano == 7
    learned = [row for row in kept.rows(metadata.tables["events"]) if row.decision_id == unused]
    assert learned == []


def test_feedback_settles_with_the_first_cost_that_is_sent(book: Book) -> None:
    kept = Ledger(book.engine)
    _, (one, two) = book.decide(2)
    lease = kept.lease(need_nano=900)
    draws = [Reservation(name, kept.budget.id, lease.id, 0, 300, LATER) for name in (one, two)]
    kept.write(lambda connection: ledger.reserve(connection, draws))
    book.send(Post(one, "judge", quality=0.5))
    assert kept.sums().settled_nano == 0
    sent = [Post(one, "gateway", cost_usd=2.5e-8), Post(one, "again", cost_usd=9e-8)]
    assert book.send(*sent) == ["accepted", "superseded"]
    assert book.send(Post(one, "third", cost_usd=1e-8)) == ["superseded"]
    assert kept.sums().settled_nano == 25 and kept.sums().free_nano == 375
    book.now += 10**15
    assert book.send(Post(two, "late", cost_usd=4e-7)) == ["late"]  # not learned, but paid
    assert kept.sums().settled_nano == 425 and kept.sums().overruns_nano == 100


def test_a_lease_that_was_dropped_is_never_another_budgets(engine: Engine) -> None:
    first = Ledger(engine)
    lease = first.lease(need_nano=500)
    first.write(lambda one: budgets.drop_budget(one, "p", "b"))
    second = Ledger(engine)
    second.lease(need_nano=500)
    with pytest.raises(LeaseLost):
        first.reserve(lease.id, 100)
    assert parts(second.sums()) == (0, 0, 0, 500, 0, 500)


def test_a_cancelled_decision_frees_no_money_when_it_leaves_its_window(book: Book) -> None:
    kept = Ledger(book.engine, period="rolling", rolling_s=60)
    _, (unused,) = book.decide(1)
    lease = kept.lease(need_nano=500)
    kept.write(
        lambda one: ledger.reserve(
            one, [Reservation(unused, kept.budget.id, lease.id, NOON, 100, LATER)]
        )
    )
    assert kept.sums().oldest_us == NOON
    kept.write(lambda one: settlement.cancel(one, unused, now_us=NOON))
    assert kept.sums().oldest_us is None

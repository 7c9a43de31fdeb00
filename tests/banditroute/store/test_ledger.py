"""The ledger against a model of ten lines, and each promise by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from databases import SQLITE
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from logbook import Book
from sqlalchemy import Connection, Engine, select, text, update

from banditroute.budget import Budget
from banditroute.errors import ApiError
from banditroute.store import budgets, ledger, settling
from banditroute.store.engine import WRITER, set_durability
from banditroute.store.feedback import Post
from banditroute.store.ledger import Draw, Holder, LeaseLost, Sums
from banditroute.store.tables import decisions, leases, metadata, reservations

HOUR = 3_600_000_000
NOON = 500_000 * HOUR
A, B = Holder("a", "boot-1"), Holder("b", "boot-1")
LATER = NOON + 15_000_000


class Ledger:
    """The ledger of one budget, a transaction per step."""

    def __init__(self, engine: Engine, **fields: Any) -> None:
        self.engine, self.now = engine, NOON
        terms = {"cap_nano": 1_000, "period": "total"} | fields
        self.budget: Budget = self.write(
            lambda one: budgets.add_budget(one, "p", "b", terms, now=NOON)
        )

    def write(self, work: Callable[[Connection], Any]) -> Any:
        with self.engine.connect().execution_options(**WRITER) as connection:
            set_durability(connection, full=False)  # nothing here loses power
            with connection.begin():
                return work(connection)

    def lease(self, holder: Holder = A, need: int = 0, ideal: int = 0) -> ledger.Lease:
        until = self.now + 15_000_000
        found: ledger.Lease = self.write(
            lambda one: ledger.lease(
                one, self.budget, holder, need=need, ideal=ideal, now=self.now, until=until
            )
        )
        return found

    def draw(self, lease_id: int, *nanos: int, name: str = "d", expires_at: int = LATER) -> None:
        rolling = self.budget.period == "rolling"
        at = self.now if rolling else self.budget.window(self.now)
        draws = [
            Draw(f"{name}{i}", self.budget.id, lease_id, at, nano, expires_at)
            for i, nano in enumerate(nanos)
        ]
        self.write(lambda one: ledger.draw(one, draws))

    def settle(self, **costs: int) -> None:
        self.write(lambda one: settling.settle(one, costs))

    def sums(self) -> Sums:
        with self.engine.connect() as connection:
            return ledger.sums(connection, self.budget, now=self.now)

    def free(self) -> int:
        with self.engine.connect() as connection:
            return ledger.free(connection, self.budget, now=self.now)

    def rows(self, table: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(table)))


@pytest.fixture
def kept(engine: Engine) -> Ledger:
    return Ledger(engine)


def parts(sums: Sums) -> tuple[int, ...]:
    return sums.settled, sums.reserved, sums.expired, sums.leased, sums.lost, sums.free


def test_a_slice_is_leased_drawn_and_settled_to_the_nano_dollar(kept: Ledger) -> None:
    lease = kept.lease(need=600)
    assert (lease.granted, lease.fresh) == (600, True)
    assert parts(kept.sums()) == (0, 0, 0, 600, 0, 400)
    kept.draw(lease.id, 250, 100)
    assert parts(kept.sums()) == (0, 350, 0, 250, 0, 400)
    kept.settle(d0=31)
    # What was reserved and not paid is free at once, for whoever asks next.
    assert parts(kept.sums()) == (31, 100, 0, 250, 0, 619)
    assert kept.free() == 619 and kept.lease(B, need=5_000).granted == 619
    assert kept.sums().requests == 2 and kept.sums().overruns == 0


def test_a_lease_is_small_near_the_cap_and_never_more_than_is_free(kept: Ledger) -> None:
    assert kept.lease(A, ideal=800).granted == 250
    assert kept.lease(B, ideal=800).granted == 187
    assert kept.lease(B, need=500, ideal=800).granted == 500
    assert kept.lease(A, need=500, ideal=800).granted == 63
    assert kept.lease(A, need=500).granted == 0 and kept.free() == 0


def test_a_lease_that_is_too_small_refuses_all_of_a_group(kept: Ledger) -> None:
    lease = kept.lease(need=100)
    with pytest.raises(LeaseLost) as lost:
        kept.draw(lease.id, 60, 41)
    assert lost.value.lease_ids == (lease.id,) and lost.value.status == 503
    assert kept.rows(reservations) == [] and parts(kept.sums()) == (0, 0, 0, 100, 0, 900)
    kept.draw(lease.id, 60, 40)


def test_a_closed_lease_refuses_and_goes_on_fresh(kept: Ledger) -> None:
    lease = kept.lease(need=100)
    kept.draw(lease.id, 30)
    kept.write(lambda one: ledger.close(one, [lease.id], now=NOON))
    assert parts(kept.sums()) == (0, 30, 0, 0, 0, 970)
    with pytest.raises(LeaseLost):
        kept.draw(lease.id, 1, name="e")
    again = kept.lease(need=70)
    assert (again.id, again.granted, again.fresh) == (lease.id, 70, True)
    kept.draw(lease.id, 70, name="e")
    with pytest.raises(LeaseLost):
        kept.draw(lease.id, 1, name="f")


def test_a_part_of_a_lease_goes_back(kept: Ledger) -> None:
    lease = kept.lease(need=100)
    kept.draw(lease.id, 30)
    kept.write(lambda one: ledger.give_back(one, lease.id, 50))
    assert parts(kept.sums()) == (0, 30, 0, 20, 0, 950)
    kept.write(lambda one: ledger.give_back(one, lease.id, 50))  # of which only 20 are there
    assert parts(kept.sums()) == (0, 30, 0, 20, 0, 950)


def test_an_answer_dearer_than_its_reservation_is_an_overrun_in_full(kept: Ledger) -> None:
    lease = kept.lease(need=1_000)
    kept.draw(lease.id, 600, 400)
    kept.settle(d0=900)
    assert parts(kept.sums()) == (900, 400, 0, 0, 0, 0)
    assert kept.sums().overruns == 300 and kept.free() == -300
    kept.settle(d1=50)
    assert kept.sums().free == 50 and kept.sums().overruns == 300


def test_what_nobody_settles_expires_at_what_it_reserved_and_can_be_settled_late(
    kept: Ledger,
) -> None:
    lease = kept.lease(need=500)
    kept.draw(lease.id, 200, 300)
    kept.now = LATER
    assert kept.sums().expired == 0
    kept.now += 1
    assert parts(kept.sums()) == (0, 0, 500, 0, 0, 500)
    kept.settle(d1=10)
    assert parts(kept.sums()) == (10, 0, 200, 0, 0, 790)
    kept.settle(d1=0)  # settled once
    assert kept.sums().settled == 10


def test_late_money_goes_to_the_window_of_its_decision(engine: Engine) -> None:
    kept = Ledger(engine, period="hour")
    lease = kept.lease(need=400)
    kept.draw(lease.id, 400)
    kept.now += HOUR
    assert parts(kept.sums()) == (0, 0, 0, 0, 0, 1_000) and kept.free() == 1_000
    other = kept.lease(need=100)
    assert other.id != lease.id
    kept.settle(d0=3)
    assert parts(kept.sums()) == (0, 0, 0, 100, 0, 900)
    kept.now -= HOUR
    assert parts(kept.sums()) == (3, 0, 0, 0, 0, 997) and kept.free() == 997


def test_decisions_leave_a_rolling_window_at_their_own_times(engine: Engine) -> None:
    kept = Ledger(engine, period="rolling", rolling_s=60)
    lease = kept.lease(need=1_000)
    kept.draw(lease.id, 300, expires_at=NOON + HOUR)
    kept.now += 40_000_000
    kept.draw(lease.id, 500, name="e", expires_at=NOON + HOUR)
    assert parts(kept.sums()) == (0, 800, 0, 200, 0, 0)
    kept.now += 20_000_000
    # The open lease counts in full until it is closed.
    assert parts(kept.sums()) == (0, 500, 0, 200, 0, 300) == (*parts(kept.sums())[:5], kept.free())
    kept.write(lambda one: ledger.close(one, [lease.id], now=kept.now))
    kept.settle(e0=20)
    assert parts(kept.sums()) == (20, 0, 0, 0, 0, 980)
    assert kept.sums().oldest == NOON + 40_000_000


@SQLITE
@pytest.mark.parametrize(("boot", "lost"), [("boot-1", 0), ("boot-2", 70)])
def test_what_an_earlier_boot_left_open_counts_in_full(
    engine: Engine, boot: str, lost: int
) -> None:
    kept = Ledger(engine)
    lease = kept.lease(need=100)
    kept.draw(lease.id, 30)
    kept.write(lambda one: ledger.reclaim(one, Holder("n", boot), now=NOON, alone=True))
    assert parts(kept.sums()) == (0, 30, 0, 0, lost, 970 - lost) and kept.free() == 970 - lost
    with pytest.raises(LeaseLost):
        kept.draw(lease.id, 1, name="e")
    kept.write(ledger.recount)
    assert kept.sums().lost == lost


def test_others_leave_a_lease_alone_until_its_time_is_over(kept: Ledger) -> None:
    lease = kept.lease(A, need=100)
    kept.draw(lease.id, 30)
    kept.write(lambda one: ledger.reclaim(one, B, now=LATER, alone=False))
    assert kept.sums().leased == 70
    kept.write(lambda one: ledger.reclaim(one, A, now=LATER + 1, alone=False))
    assert kept.sums().leased == 70
    kept.write(lambda one: ledger.reclaim(one, B, now=LATER + 1, alone=False))
    assert parts(kept.sums()) == (0, 30, 0, 0, 0, 970)
    with pytest.raises(LeaseLost):  # whatever its holder believes
        kept.draw(lease.id, 1, name="e")


def test_counters_are_rebuilt_from_the_reservations(kept: Ledger) -> None:
    lease = kept.lease(need=500)
    kept.draw(lease.id, 100, 200, 50)
    kept.settle(d0=30, d1=260)
    before = kept.rows(leases)
    kept.write(lambda one: one.execute(update(leases).values(drawn_nano=1, returned_nano=7)))
    assert kept.rows(leases) != before
    kept.write(ledger.recount)
    assert kept.rows(leases) == before and kept.free() == kept.sums().free == 510


def test_a_cap_is_never_set_below_what_is_spent_and_reserved(kept: Ledger) -> None:
    lease = kept.lease(need=500)
    kept.draw(lease.id, 100)

    def change(cap: int, top_up: int = 0) -> Budget:
        fields = {"cap_nano": cap} if cap else {}
        changed: Budget = kept.write(
            lambda one: budgets.change_budget(one, "p", "b", fields, top_up=top_up, now=NOON)
        )
        return changed

    with pytest.raises(ApiError, match="below that") as refused:
        change(499)
    assert (refused.value.status, refused.value.code) == (409, "cap_below_spend")
    assert kept.rows(metadata.tables["budgets"])[0].cap_nano == 1_000
    assert change(500).cap_nano == 500 and change(0, top_up=25).cap_nano == 525
    kept.write(lambda one: budgets.drop_budget(one, "p", "b"))
    assert kept.rows(reservations) == kept.rows(leases) == []
    with pytest.raises(ApiError, match="no budget"):
        change(1)


def test_a_budget_made_anew_owes_nothing(engine: Engine) -> None:
    first = Ledger(engine)
    first.draw(first.lease(need=500).id, 100)
    first.write(lambda one: budgets.drop_budget(one, "p", "b"))
    second = Ledger(engine)
    assert second.budget.id != first.budget.id and second.sums().free == 1_000


def test_a_decision_is_cancelled_once_and_never_after_feedback(book: Book) -> None:
    kept = Ledger(book.engine)
    _, (used, unused) = book.decide(2)
    lease = kept.lease(need=500)
    draws = [Draw(one, kept.budget.id, lease.id, 0, 100, LATER) for one in (used, unused)]
    kept.write(lambda one: ledger.draw(one, draws))

    def cancel(name: str) -> str:
        became: str = kept.write(lambda one: settling.cancel(one, name, now=NOON))
        return became

    assert book.send(Post(used, "k", quality=0.5)) == ["accepted"]
    became = [cancel(one) for one in (used, unused, unused, "none")]
    assert became == ["conflict", "cancelled", "duplicate", "unknown"]
    assert parts(kept.sums()) == (0, 100, 0, 300, 0, 600) and kept.sums().requests == 1
    assert {row.id: row.cancelled_at for row in kept.rows(decisions)} == {used: None, unused: NOON}
    # If it was used after all, that is stored, not learned, and all of it is an overrun.
    assert book.send(Post(unused, "k", quality=1.0, cost_usd=7e-9)) == ["superseded"]
    assert parts(kept.sums()) == (7, 100, 0, 300, 0, 593) and kept.sums().overruns == 7
    learned = [row for row in kept.rows(metadata.tables["events"]) if row.decision_id == unused]
    assert learned == []


def test_feedback_settles_with_the_first_cost_that_is_told(book: Book) -> None:
    kept = Ledger(book.engine)
    _, (one, two) = book.decide(2)
    lease = kept.lease(need=900)
    draws = [Draw(name, kept.budget.id, lease.id, 0, 300, LATER) for name in (one, two)]
    kept.write(lambda connection: ledger.draw(connection, draws))
    book.send(Post(one, "judge", quality=0.5))
    assert kept.sums().settled == 0
    sent = [Post(one, "gateway", cost_usd=2.5e-8), Post(one, "again", cost_usd=9e-8)]
    assert book.send(*sent) == ["accepted", "superseded"]
    assert book.send(Post(one, "third", cost_usd=1e-8)) == ["superseded"]
    assert kept.sums().settled == 25 and kept.sums().free == 375
    book.now += 10**15
    assert book.send(Post(two, "late", cost_usd=4e-7)) == ["late"]  # not learned, but paid
    assert kept.sums().settled == 425 and kept.sums().overruns == 100


SIZES = st.integers(0, 400)


class LedgerMachine(RuleBasedStateMachine):
    """Two holders, three clocks' worth of windows, against dictionaries."""

    engine: Engine
    period = "total"

    def __init__(self) -> None:
        super().__init__()
        with self.engine.begin() as connection:
            for table in metadata.tables:
                connection.execute(text(f"DELETE FROM {table}"))
        span = 60 if self.period == "rolling" else None
        self.kept = Ledger(self.engine, period=self.period, rolling_s=span)
        self.cap = 1_000
        self.held: dict[str, list[int]] = {}  # decision: time, reserved, what it counts, overrun
        self.left: dict[tuple[str, int], int] = {}  # (holder, window): what its lease has left
        self.ids: dict[tuple[str, int], int] = {}

    # The model. ----------------------------------------------------------------------------
    def now_in(self, at: int) -> bool:
        now, budget = self.kept.now, self.kept.budget
        return at > now - 60_000_000 if budget.span_us else budget.window(at) == budget.window(now)

    def used(self) -> int:
        window = self.kept.budget.window(self.kept.now)
        spent = sum(held[2] for held in self.held.values() if self.now_in(held[0]))
        return spent + sum(left for (_, at), left in self.left.items() if at == window)

    @rule(holder=st.sampled_from([A, B]), need=SIZES, ideal=SIZES)
    def lease(self, holder: Holder, need: int, ideal: int) -> None:
        at = holder.name, self.kept.budget.window(self.kept.now)
        free = max(self.cap - self.used(), 0)
        got = self.kept.lease(holder, need, ideal)
        assert got.granted == min(free, max(need, min(ideal, free // 4)))
        assert got.fresh == (at not in self.left)
        self.left[at], self.ids[at] = self.left.get(at, 0) + got.granted, got.id

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), nano=SIZES)
    def draw(self, data: st.DataObject, nano: int) -> None:
        at = data.draw(st.sampled_from(sorted(self.ids)))
        name = f"d{len(self.held)}-"
        rolling = self.kept.budget.span_us
        when, before = self.kept.now, self.kept.now
        if not rolling:
            when = self.kept.now = at[1]  # of the window that the lease is of
        covered = nano <= self.left.get(at, -1)
        try:
            self.kept.draw(self.ids[at], nano, name=name, expires_at=before + 30_000_000)
            assert covered
            self.left[at] -= nano
            self.held[f"{name}0"] = [when, nano, nano, 0]
        except LeaseLost:
            assert not covered
        self.kept.now = before

    @precondition(lambda self: self.held)
    @rule(data=st.data(), cost=st.integers(0, 600))
    def settle(self, data: st.DataObject, cost: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        held = self.held[name]
        self.kept.settle(**{name: cost})
        if len(held) == 4:
            held[2], held[3] = cost, max(cost - held[1], 0)
            held.append(0)  # settled for good

    @precondition(lambda self: self.left)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from(sorted(self.left)))
        self.kept.write(lambda one: ledger.close(one, [self.ids[at]], now=self.kept.now))
        del self.left[at]

    @rule(more=st.integers(1, 300))
    def top_up(self, more: int) -> None:
        self.kept.budget = self.kept.write(
            lambda one: budgets.change_budget(one, "p", "b", {}, top_up=more, now=self.kept.now)
        )
        self.cap += more

    @rule(step=st.sampled_from([-HOUR, -20_000_000, 1, 20_000_000, 61_000_000, HOUR]))
    def clock(self, step: int) -> None:
        self.kept.now += step

    @rule()
    def restart(self) -> None:
        before = self.kept.rows(leases)
        self.kept.write(ledger.recount)
        assert self.kept.rows(leases) == before

    @invariant()
    def agree(self) -> None:
        sums, free = self.kept.sums(), self.kept.free()
        held = [one for one in self.held.values() if self.now_in(one[0])]
        assert sums.used == self.used() and free == self.cap - sums.used
        assert sums.settled == sum(one[2] for one in held if len(one) == 5)
        assert sums.overruns == sum(one[3] for one in held)
        if self.period != "rolling":  # whose past a clock that is set back can fill
            assert sums.used <= sums.cap + sums.overruns


@pytest.mark.parametrize("period", ["total", "hour", "rolling"])
def test_the_ledger_is_the_model(engine: Engine, period: str) -> None:
    machine = type("Machine", (LedgerMachine,), {"engine": engine, "period": period})
    few = 10 if engine.dialect.name == "sqlite" else 4
    machine.TestCase.settings = settings(  # type: ignore[attr-defined]
        max_examples=few,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    machine.TestCase("runTest").runTest()  # type: ignore[attr-defined]


def test_a_lease_that_was_dropped_is_never_another_budgets(engine: Engine) -> None:
    first = Ledger(engine)
    lease = first.lease(need=500)
    first.write(lambda one: budgets.drop_budget(one, "p", "b"))
    second = Ledger(engine)
    second.lease(need=500)
    with pytest.raises(LeaseLost):
        first.draw(lease.id, 100)
    assert parts(second.sums()) == (0, 0, 0, 500, 0, 500)


def test_a_cancelled_decision_brings_no_money_back_by_leaving_its_window(book: Book) -> None:
    kept = Ledger(book.engine, period="rolling", rolling_s=60)
    _, (unused,) = book.decide(1)
    lease = kept.lease(need=500)
    kept.write(
        lambda one: ledger.draw(one, [Draw(unused, kept.budget.id, lease.id, NOON, 100, LATER)])
    )
    assert kept.sums().oldest == NOON
    kept.write(lambda one: settling.cancel(one, unused, now=NOON))
    assert kept.sums().oldest is None

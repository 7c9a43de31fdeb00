"""The ledger against a model in dictionaries, in random steps."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Engine, text
from support.one_budget import HOUR, A, B, Ledger

from banditroute.store import budgets, ledger
from banditroute.store.ledger import Holder, LeaseLost
from banditroute.store.tables import leases, metadata

SIZES = st.integers(0, 400)


class LedgerMachine(RuleBasedStateMachine):
    """Two holders and several windows, against a model in dictionaries."""

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
        return (
            at > now - 60_000_000
            if budget.span_us
            else budget.window_start_us(at) == budget.window_start_us(now)
        )

    def used(self) -> int:
        window = self.kept.budget.window_start_us(self.kept.now)
        spent = sum(held[2] for held in self.held.values() if self.now_in(held[0]))
        return spent + sum(left for (_, at), left in self.left.items() if at == window)

    @rule(holder=st.sampled_from([A, B]), need=SIZES, ideal=SIZES)
    def lease(self, holder: Holder, need: int, ideal: int) -> None:
        at = holder.name, self.kept.budget.window_start_us(self.kept.now)
        free = max(self.cap - self.used(), 0)
        got = self.kept.lease(holder, need, ideal)
        assert got.granted_nano == min(free, max(need, min(ideal, free // 4)))
        assert got.fresh == (at not in self.left)
        self.left[at], self.ids[at] = self.left.get(at, 0) + got.granted_nano, got.id

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
            self.kept.reserve(self.ids[at], nano, name=name, expires_at_us=before + 30_000_000)
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
        self.kept.write(lambda one: ledger.close(one, [self.ids[at]], now_us=self.kept.now))
        del self.left[at]

    @rule(more=st.integers(1, 300))
    def top_up(self, more: int) -> None:
        self.kept.budget = self.kept.write(
            lambda one: budgets.change_budget(
                one, "p", "b", {}, top_up_nano=more, now_us=self.kept.now
            )
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
        sums, free = self.kept.sums(), self.kept.free_nano()
        held = [one for one in self.held.values() if self.now_in(one[0])]
        assert sums.used_nano == self.used() and free == self.cap - sums.used_nano
        assert sums.settled_nano == sum(one[2] for one in held if len(one) == 5)
        assert sums.overruns_nano == sum(one[3] for one in held)
        if self.period != "rolling":  # whose past a clock that is set back can fill
            assert sums.used_nano <= sums.cap_nano + sums.overruns_nano


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

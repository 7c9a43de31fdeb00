"""The offline knapsack against an integer program, and its plain properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from policies.base import Bools, Float64
from policies.pacing.knapsack import REFUSED, Increments, Plan, best_value, least_cost

Case = tuple[Float64, Float64, Bools]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Values (some negative), costs (some equal, some 0) and at least one model for each row."""
    n, k = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    value = rng.choice([rng.normal(0.5, 0.5, (n, k)), rng.integers(-1, 3, (n, k))])
    cost = rng.choice([rng.lognormal(0.0, 1.0, (n, k)), rng.integers(0, 4, (n, k))])
    eligible = rng.random((n, k)) < 0.8
    eligible[:, 0] = True
    return value.astype(np.float64), cost.astype(np.float64), eligible


def least(case: Case) -> float:
    _, cost, eligible = case
    return float(np.where(eligible, cost, np.inf).min(axis=1).sum())


def most(case: Case) -> float:
    _, cost, eligible = case
    return float(np.where(eligible, cost, 0.0).max(axis=1).sum())


def whole(plan: Plan, case: Case) -> tuple[float, float]:
    """Return (value, cost) of the plan without the model that is taken in part."""
    at = np.arange(len(plan.choice)), plan.choice
    return float(case[0][at].sum()), float(case[1][at].sum())


def program(case: Case, budget: float, *, integral: bool) -> float:
    """Return the optimum of the (integer) linear program, by scipy."""
    value, cost, eligible = case
    n, k = value.shape
    once = np.kron(np.eye(n), np.ones(k))
    c, upper = -value.ravel(), eligible.ravel().astype(float)
    if integral:
        found = milp(
            c,
            integrality=np.ones(n * k),
            bounds=Bounds(0, upper),
            constraints=[LinearConstraint(once, 1, 1), LinearConstraint(cost.ravel(), ub=budget)],
            options={"mip_rel_gap": 0.0},
        )
    else:
        found = linprog(
            c,
            A_ub=cost.ravel()[None],
            b_ub=[budget],
            A_eq=once,
            b_eq=np.ones(n),
            bounds=list(zip(np.zeros(n * k), upper, strict=True)),
        )
    assert found.success
    return -float(found.fun)


@settings(max_examples=60, deadline=None)
@given(cases(), st.floats(0.0, 1.0))
def test_relaxation_and_gap_against_scipy(case: Case, part: float) -> None:
    budget = least(case) + part * (most(case) - least(case)) + 1e-9
    plan = best_value(case[0], case[1], budget, case[2])
    assert plan.value == pytest.approx(program(case, budget, integral=False), abs=1e-6)
    best = program(case, budget, integral=True)
    value, cost = whole(plan, case)
    assert cost <= plan.cost + 1e-9 <= budget + 2e-9
    item = 0.0
    if plan.split >= 0:
        row = case[0][plan.split]
        item = float(row[plan.better] - row[plan.choice[plan.split]])
    assert value - 1e-6 <= best <= value + item + 1e-6


@settings(max_examples=60, deadline=None)
@given(cases(), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_more_budget_is_never_worth_less(case: Case, a: float, b: float) -> None:
    levels = [least(case) + part * (most(case) - least(case)) + 1e-9 for part in sorted((a, b))]
    little, much = (best_value(case[0], case[1], budget, case[2]) for budget in levels)
    assert little.value <= much.value + 1e-9


@settings(max_examples=60, deadline=None)
@given(cases(), st.booleans())
def test_increments_are_corners_of_the_upper_hull(case: Case, refusable: bool) -> None:
    value, cost, eligible = case
    found = Increments.of(value, cost, eligible, refusable=refusable)
    assert (found.more_value > 0.0).all() and (found.more_cost > 0.0).all()
    efficiency = found.more_value / found.more_cost
    assert (np.diff(efficiency) <= 1e-12 * efficiency[1:]).all()
    for i in range(len(value)):
        mine = found.row == i
        models = [int(found.base[i]), *found.model[mine].tolist()]
        v = [0.0 if k == REFUSED else value[i, k] for k in models]
        c = [0.0 if k == REFUSED else cost[i, k] for k in models]
        np.testing.assert_allclose(np.diff(v), found.more_value[mine])
        np.testing.assert_allclose(np.diff(c), found.more_cost[mine])
        # No eligible model lies above the hull, from its first corner to beyond its last.
        above = value[i] - np.interp(cost[i], c, v)
        assert (above[eligible[i]] <= 1e-9).all()
        assert not refusable or c[0] == 0.0


@settings(max_examples=60, deadline=None)
@given(cases(), st.floats(0.0, 1.0))
def test_least_cost_is_the_same_frontier_read_the_other_way(case: Case, part: float) -> None:
    budget = least(case) + part * (most(case) - least(case)) + 1e-9
    plan = best_value(case[0], case[1], budget, case[2])
    dual = least_cost(case[0], case[1], plan.value, case[2])
    assert dual.value == pytest.approx(plan.value, abs=1e-9)
    assert dual.cost <= plan.cost + 1e-9
    back = best_value(case[0], case[1], dual.cost + 1e-12, case[2])
    assert back.value == pytest.approx(plan.value, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(cases(), st.floats(0.0, 1.2))
def test_a_budget_is_kept_whatever_it_is_where_requests_may_be_refused(
    case: Case, part: float
) -> None:
    budget = part * most(case)
    plan = best_value(case[0], case[1], budget, case[2], refusable=True)
    assert plan.cost <= budget + 1e-9
    assert plan.value >= -1e-12


def test_a_budget_or_floor_that_cannot_be_met_is_refused() -> None:
    value, cost = np.array([[0.5, 0.9]]), np.array([[1.0, 3.0]])
    with pytest.raises(ValueError, match=r"budget: at least 1"):
        best_value(value, cost, 0.9)
    with pytest.raises(ValueError, match=r"floor: at most 0.9"):
        least_cost(value, cost, 0.91)
    assert best_value(value, cost, 0.9, refusable=True).share == pytest.approx(0.9)


def test_a_request_without_a_model_is_refused() -> None:
    value, cost = np.ones((2, 2)), np.ones((2, 2))
    barred = np.array([[True, True], [False, False]])
    plan = best_value(value, cost, 5.0, barred)
    assert plan.choice.tolist() == [0, REFUSED]
    assert (plan.value, plan.cost) == (1.0, 1.0)

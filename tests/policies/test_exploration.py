"""Exploration: what it may cost, its shares, and the arms that it excludes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import Bools, Float64
from policies.exploration import shares, trial_shares
from policies.laws import greedy
from policies.linucb import LinUCB


def _problem(seed: int, n: int, k: int) -> tuple[Float64, Bools, Float64]:
    """Return a pmf, eligible arms, and costs over four orders of magnitude, some equal or 0."""
    rng = np.random.default_rng(seed)
    eligible = rng.random((n, k)) < 0.8
    cost = 10.0 ** rng.uniform(-6.0, -2.0, size=(n, k))
    cost[rng.random((n, k)) < 0.1] = 0.0
    cost[rng.random((n, k)) < 0.1] = 1e-4
    return greedy(rng.random((n, k)), eligible), eligible, cost


@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 12),
    share=st.floats(1e-6, 0.99),
    cost_share=st.floats(0.0, 1.0),
    spend_rate_usd=st.one_of(st.none(), st.floats(0.0, 1e-2)),
    floor=st.sampled_from([0.0, 0.001, 0.01, 0.5]),
)
def test_the_cap_holds_and_the_floor_is_given(
    seed: int, k: int, share: float, cost_share: float, spend_rate_usd: float | None, floor: float
) -> None:
    pmf, eligible, cost = _problem(seed, 16, k)
    explore, excluded = shares(
        pmf,
        eligible,
        cost,
        share=share,
        cost_share=cost_share,
        spend_rate_usd=spend_rate_usd,
        min_propensity=floor,
    )
    exploit = cost[np.arange(16), pmf.argmax(axis=1)]
    extra = (explore * np.maximum(cost - exploit[:, None], 0.0)).sum(axis=1)
    rate = exploit if spend_rate_usd is None else spend_rate_usd
    assert (extra <= cost_share * rate * (1.0 + 1e-12)).all()

    assert (explore >= 0.0).all() and (explore.sum(axis=1) <= 1.0 + 1e-12).all()
    count = np.maximum(eligible.sum(axis=1, keepdims=True), 1)
    allowed = eligible & ~excluded
    assert (explore[~allowed] == 0.0).all()
    assert (explore >= np.where(allowed, np.minimum(floor, 1.0 / count), 0.0)).all()
    assert (explore <= np.maximum(share, floor * count) / count + 1e-15).all()

    assert not (excluded & ~eligible).any()
    chosen = eligible.any(axis=1)
    assert not excluded[chosen, pmf.argmax(axis=1)[chosen]].any(), "the exploit choice stays"
    no_dearer = cost <= exploit[:, None]
    assert not (excluded & no_dearer).any()

    mixed = LinUCB.pmf(
        {"mean": pmf.astype(np.float32), "bonus": np.zeros(pmf.shape, dtype=np.float32)},
        allowed,
        np.zeros(pmf.shape),
        explore,
    )
    assert (mixed >= -1e-15).all()
    np.testing.assert_allclose(mixed[chosen].sum(axis=1), 1.0, rtol=0, atol=1e-12)


def _one(cost: list[float], **options: float | None) -> tuple[list[float], list[bool]]:
    """Return shares and exclusions where the first arm is the exploit choice."""
    pmf = np.array([[1.0] + [0.0] * (len(cost) - 1)])
    settings = {"share": 0.3, "cost_share": 0.05, "spend_rate_usd": 1.0, "min_propensity": 0.001}
    explore, excluded = shares(
        pmf,
        np.ones(pmf.shape, dtype=np.bool_),
        np.array([cost]),
        **(settings | options),  # type: ignore[arg-type]
    )
    return explore[0].tolist(), excluded[0].tolist()


def test_an_affordable_share_is_uniform() -> None:
    assert _one([1.0, 1.0, 0.5]) == ([0.3 / 3] * 3, [False] * 3)


def test_the_cap_is_split_over_the_more_expensive_arms() -> None:
    explore, excluded = _one([1.0, 2.0, 11.0])
    assert explore == pytest.approx([0.1, 0.025 / 1.0, 0.025 / 10.0])
    assert excluded == [False] * 3


def test_an_arm_whose_floor_breaks_the_cap_is_excluded() -> None:
    explore, excluded = _one([1.0, 2.0, 1_000.0])
    assert explore == pytest.approx([0.1, 0.025, 0.0])
    assert excluded == [False, False, True]


def test_an_arm_that_costs_hardly_more_is_affordable() -> None:
    assert _one([0.0, 1e-310]) == ([0.15, 0.15], [False, False])


def test_the_floor_lifts_a_smaller_share() -> None:
    assert _one([1.0, 1.0], share=0.001, min_propensity=0.01)[0] == [0.01, 0.01]


def test_the_floor_is_at_most_an_even_split() -> None:
    assert _one([1.0, 1.0, 1.0, 1.0], min_propensity=0.5)[0] == [0.25] * 4


def test_without_a_spend_rate_the_exploit_choice_is_the_scale() -> None:
    assert _one([2.0, 4.0], spend_rate_usd=None)[0] == pytest.approx([0.15, 0.05])


def test_at_share_zero_there_is_neither_share_nor_floor() -> None:
    explore, excluded = _one([1.0, 1.0, 1_000.0], share=0.0, min_propensity=0.01)
    assert explore == [0.0] * 3 and excluded == [False] * 3


def test_arms_that_are_not_eligible_get_nothing_and_cost_nothing() -> None:
    pmf = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    eligible = np.array([[True, True, False], [False, False, False]])
    cost = np.array([[1.0, 1.0, np.inf], [1.0, 2.0, 3.0]])
    explore, excluded = shares(
        pmf, eligible, cost, share=0.2, cost_share=0.05, spend_rate_usd=1.0, min_propensity=0.001
    )
    assert explore.tolist() == [[0.1, 0.1, 0.0], [0.0, 0.0, 0.0]]
    assert not excluded.any()


def test_no_arms_no_shares() -> None:
    nothing = np.zeros((2, 0))
    explore, excluded = shares(
        nothing,
        nothing > 0.0,
        nothing,
        share=0.2,
        cost_share=0.05,
        spend_rate_usd=None,
        min_propensity=0.001,
    )
    assert explore.shape == (2, 0) and excluded.shape == (2, 0)


@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 12),
    share=st.floats(1e-6, 0.99),
    uniform=st.sampled_from([0.0, 0.1, 0.9]),
    cost_share=st.floats(0.0, 1.0),
    spend_rate_usd=st.one_of(st.none(), st.floats(0.0, 1e-2)),
)
def test_newcomers_share_the_cap_with_all_arms(
    seed: int, k: int, share: float, uniform: float, cost_share: float, spend_rate_usd: float | None
) -> None:
    pmf, eligible, cost = _problem(seed, 16, k)
    new = np.random.default_rng(seed).random(k) < 0.4
    cap = {"cost_share": cost_share, "spend_rate_usd": spend_rate_usd}
    before, excluded = shares(pmf, eligible, cost, share=uniform, min_propensity=0.0, **cap)  # type: ignore[arg-type]
    allowed = eligible & ~excluded
    after = trial_shares(pmf, allowed, cost, before, arms=new, share=share, **cap)  # type: ignore[arg-type]
    exploit = cost[np.arange(16), pmf.argmax(axis=1)]
    extra = (after * np.maximum(cost - exploit[:, None], 0.0)).sum(axis=1)
    rate = exploit if spend_rate_usd is None else spend_rate_usd
    assert (extra <= cost_share * rate * (1.0 + 1e-9) + 1e-18).all()
    assert (after >= before).all() and (after.sum(axis=1) <= 1.0 + 1e-12).all()
    assert np.array_equal(after[:, ~new], before[:, ~new])
    assert (after[~allowed] == 0.0).all()
    cheap = allowed & new & (cost <= exploit[:, None])
    if uniform == 0.0:
        many = np.broadcast_to((allowed & new).sum(axis=1, keepdims=True), cheap.shape)
        np.testing.assert_allclose(after[cheap], share / many[cheap], rtol=1e-12)
        assert (after[:, new].sum(axis=1) <= share * (1.0 + 1e-12)).all()


def _lifted(cost: list[float], new: list[bool], **options: float | None) -> list[float]:
    """Return the shares of newcomers where the first arm is the exploit choice."""
    pmf = np.array([[1.0] + [0.0] * (len(cost) - 1)])
    settings = {"share": 0.02, "cost_share": 0.05, "spend_rate_usd": 1.0}
    everyone = np.ones(pmf.shape, dtype=np.bool_)
    explore = np.zeros(pmf.shape)
    (row,) = trial_shares(
        pmf,
        everyone,
        np.array([cost]),
        explore,
        arms=np.array(new),
        **(settings | options),  # type: ignore[arg-type]
    ).tolist()
    return list(row)


@pytest.mark.parametrize(
    ("cost", "new", "options", "expected"),
    [
        ([1.0, 0.5, 2.0], [False, True, False], {}, [0.0, 0.02, 0.0]),
        ([1.0, 0.5, 3.0], [False, True, True], {}, [0.0, 0.01, 0.01]),
        ([1.0, 0.5, 11.0], [False, False, True], {}, [0.0, 0.0, 0.005]),
        ([1.0, 11.0, 11.0], [False, True, True], {}, [0.0, 0.0025, 0.0025]),
        ([1.0, 11.0], [False, True], {"cost_share": 0.0}, [0.0, 0.0]),
        ([1.0, 1.0], [False, True], {"cost_share": 0.0}, [0.0, 0.02]),
        ([1.0, 2.0], [False, True], {"spend_rate_usd": 0.1}, [0.0, 0.005]),
        ([2.0, 12.0], [False, True], {"spend_rate_usd": None}, [0.0, 0.01]),
        ([1.0, 1.0], [True, False], {}, [0.02, 0.0]),
        ([1.0, 1.0, 1.0], [True, True, True], {"share": 0.9}, [0.3] * 3),
        ([1.0, 1.0], [False, True], {"share": 0.0}, [0.0, 0.0]),
    ],
)  # fmt: skip
def test_a_newcomer_gets_what_the_cap_pays_for(
    cost: list[float], new: list[bool], options: dict[str, float | None], expected: list[float]
) -> None:
    assert _lifted(cost, new, **options) == pytest.approx(expected, abs=1e-15)


def test_what_a_newcomer_may_cost_is_not_split_with_arms_that_are_none() -> None:
    """Expensive models that are no newcomers have no share, so they use none of the cap."""
    found = _lifted([1.0, 21.0, 101.0, 11.0], [False, False, False, True], share=0.5)
    assert found == pytest.approx([0.0, 0.0, 0.0, 0.05 / 10.0], abs=1e-15)


@pytest.mark.parametrize(("share", "expected"), [(0.05, 0.1), (0.1, 0.1), (0.25, 0.25)])
def test_a_newcomer_s_share_counts_what_the_uniform_one_gives_it(
    share: float, expected: float
) -> None:
    uniform = np.full((1, 3), 0.1)
    found = trial_shares(
        np.array([[1.0, 0.0, 0.0]]),
        np.ones((1, 3), dtype=np.bool_),
        np.ones((1, 3)),
        uniform,
        arms=np.array([False, False, True]),
        share=share,
        cost_share=0.05,
        spend_rate_usd=1.0,
    )
    np.testing.assert_allclose(found, [[0.1, 0.1, expected]], rtol=1e-14)

"""The penalty: its formula, and what follows from it for the choice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import Float64
from policies.laws import greedy
from policies.preference import penalty


def _penalty(cost: Float64, weights: tuple[float, float, float], **options: float) -> Float64:
    n = len(cost)
    settings = {"tau_cost_usd": 1.0, "tau_latency_ms": 1_000.0} | options
    return penalty(cost, np.zeros_like(cost), np.tile(np.array(weights), (n, 1)), **settings)


@pytest.mark.parametrize(
    ("cost", "latency", "weights", "expected"),
    [
        (0.0, 0.0, (0.7, 0.3, 0.0), 0.0),
        (0.01, 0.0, (0.7, 0.3, 0.0), 0.3 * 0.5 / 0.7),
        (0.02, 0.0, (0.7, 0.3, 0.0), 0.3 / 0.7),
        (0.20, 0.0, (0.7, 0.3, 0.0), 0.3 / 0.7),
        (0.01, 2_000.0, (0.5, 0.3, 0.2), (0.3 * 0.5 + 0.2 * 0.25) / 0.5),
        (0.01, 9_000.0, (0.5, 0.0, 0.5), 1.0),
        (0.20, 9_000.0, (1.0, 0.0, 0.0), 0.0),
        (0.01, 2_000.0, (7.0, 3.0, 1.0), (3.0 * 0.5 + 0.25) / 7.0),
    ],
)
def test_the_formula(
    cost: float,
    latency: float,
    weights: tuple[float, float, float],
    expected: float,
) -> None:
    found = penalty(
        np.array([[cost]]),
        np.array([[latency]]),
        np.array([weights]),
        tau_cost_usd=0.02,
        tau_latency_ms=8_000.0,
    )
    assert found.shape == (1, 1)
    assert found[0, 0] == pytest.approx(expected, rel=1e-14, abs=0.0)


def test_each_row_has_its_own_preference() -> None:
    cost = np.array([[0.5, 1.0], [0.5, 1.0]])
    weights = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    found = penalty(cost, np.zeros_like(cost), weights, tau_cost_usd=1.0, tau_latency_ms=1.0)
    assert found.tolist() == [[0.0, 0.0], [0.5, 1.0]]


SCORES = st.lists(st.integers(0, 1_000), min_size=2, max_size=6)


@given(SCORES, st.integers(0, 10_000))
def test_without_quality_the_penalty_alone_ranks(scores: list[int], seed: int) -> None:
    rng, k = np.random.default_rng(seed), len(scores)
    cost = rng.permutation(k)[None] / 1e4 + 1e-4
    fine = _penalty(cost, (0.0, 1.0, 0.0))
    utility = np.array([scores]) / 1e3 - fine
    assert np.argsort(-utility[0]).tolist() == np.argsort(cost[0]).tolist()


@given(SCORES)
def test_without_quality_scores_decide_among_equal_penalties(scores: list[int]) -> None:
    utility = np.array([scores]) / 1e3 - _penalty(np.zeros((1, len(scores))), (0.0, 0.5, 0.5))
    assert utility.argmax() == np.argmax(scores)


@given(
    scores=SCORES,
    seed=st.integers(0, 10_000),
    before=st.integers(0, 100),
    moved=st.integers(1, 100),
    price=st.sampled_from([0.0, 0.25]),
)
def test_weight_moved_from_quality_to_cost_never_buys_a_more_expensive_arm(
    scores: list[int], seed: int, before: int, moved: int, price: float
) -> None:
    k = len(scores)
    cost = np.random.default_rng(seed).integers(0, 80, size=(1, k)) / 64.0
    after = max(before - moved, 0)
    taken = []
    for quality in (before / 100.0, after / 100.0):
        fine = _penalty(cost, (quality, 1.0 - quality, 0.0)) + price * cost
        pmf = greedy(np.array([scores]) / 1e3 - fine, np.ones((1, k), dtype=np.bool_))
        taken.append(np.minimum(cost, 1.0)[pmf > 0.0])
    if after < before:
        assert taken[1].max() <= taken[0].min()


def test_scaling_the_preference_changes_nothing() -> None:
    cost = np.array([[0.1, 0.5, 2.0]])
    np.testing.assert_allclose(
        _penalty(cost, (0.7, 0.3, 0.0)), _penalty(cost, (70.0, 30.0, 0.0)), rtol=1e-14
    )

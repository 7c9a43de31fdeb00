"""Laws that policies share, and the draw: ties, edges, arms without mass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.laws import draw, greedy


def test_greedy_takes_the_best_eligible_arm_and_splits_ties() -> None:
    utility = np.array([[0.1, 0.9, 0.5], [0.5, 0.5, 0.1], [0.1, 0.9, 0.5], [0.0, 0.0, 0.0]])
    eligible = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 0, 0]], dtype=np.bool_)
    expected = [[0, 1, 0], [0.5, 0.5, 0], [0, 0, 1], [0, 0, 0]]
    assert greedy(utility, eligible).tolist() == expected


def test_greedy_ignores_what_an_ineligible_arm_is_worth() -> None:
    utility = np.array([[np.nan, 0.2, np.inf], [-np.inf, -np.inf, 5.0]])
    eligible = np.array([[False, True, False], [True, True, False]])
    assert greedy(utility, eligible).tolist() == [[0, 1, 0], [0.5, 0.5, 0]]


def test_draw_on_an_even_grid_gives_each_arm_its_share() -> None:
    n = 100_000
    pmf = np.array([0.0, 0.125, 0.0, 0.5, 0.375, 0.0])
    u = (np.arange(n) + 0.5) / n
    assert np.bincount(draw(np.tile(pmf, (n, 1)), u), minlength=6).tolist() == (pmf * n).tolist()


@pytest.mark.parametrize(
    ("pmf", "u", "arm"),
    [
        ([0.0, 1.0], 0.0, 1),
        ([0.5, 0.5], 0.5, 1),
        ([0.5, 0.5], np.nextafter(0.5, 0.0), 0),
        ([0.5, 0.5, 0.0], np.nextafter(1.0, 0.0), 1),
        ([0.1] * 10 + [0.0], np.nextafter(1.0, 0.0), 9),
        ([1.0, 0.0], np.nextafter(1.0, 0.0), 0),
        ([0.0, 0.0], 0.5, -1),
    ],
)
def test_draw_at_the_edges(pmf: list[float], u: float, arm: int) -> None:
    assert draw(np.array([pmf]), np.array([u])).tolist() == [arm]


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1.0)), min_size=1, max_size=12),
    st.floats(0.0, 1.0, exclude_max=True),
)
def test_draw_never_falls_on_an_arm_without_mass(weights: list[float], u: float) -> None:
    pmf = np.array([weights]) / max(sum(weights), 1e-300)
    arm = int(draw(pmf, np.array([u]))[0])
    assert arm == -1 if not pmf.any() else pmf[0, arm] > 0.0

"""The base class and the two laws that it lends: greedy choice and the draw."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import Outcome, Policy
from policies.base import draw, greedy
from policies.baselines import Random
from policies.linucb import LinUCB


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


def test_pmf_mixes_the_law_with_absolute_shares() -> None:
    eligible = np.array([[True, True, False]])
    explore = np.array([[0.1, 0.3, 0.0]])
    pmf = Random.pmf({}, eligible, np.zeros((1, 3)), explore)
    np.testing.assert_allclose(pmf, [[0.5 * 0.6 + 0.1, 0.5 * 0.6 + 0.3, 0.0]], rtol=1e-15)


def test_learn_counts_outcomes_and_takes_them_in_order() -> None:
    seen: list[tuple[int, int, int]] = []

    class Recorder(Random):
        def _learn(self, arm: int, outcome: Outcome) -> None:
            seen.append((self.clock, arm, outcome.seq))

    policy = Recorder(dim=1)
    policy.add_arm("a")
    policy.add_arm("b")
    x = np.ones(1, dtype=np.float32)
    policy.learn(Outcome(seq, "d", arm, x, "quality", 1.0) for seq, arm in ((7, "b"), (9, "a")))
    assert seen == [(1, 1, 7), (2, 0, 9)]
    assert policy.clock == 2


def test_scoring_casts_to_float32() -> None:
    policy = LinUCB(dim=2)
    policy.add_arm("a")
    policy.refresh()
    x = np.ones((3, 2), order="F")
    scores = policy.score(x, np.ones((3, 3)))  # type: ignore[arg-type]
    assert {array.dtype for array in scores.values()} == {np.dtype(np.float32)}


def test_installing_a_view_takes_over_its_arms() -> None:
    learner, scorer = LinUCB(dim=1), LinUCB(dim=1)
    for name in ("b", "a"):
        learner.add_arm(name)
    scorer.install(learner.publish())
    assert scorer.arms == ["b", "a"]


def test_reset_of_a_policy_without_an_answer_keeps_its_state() -> None:
    policy = Random(dim=1)
    policy.add_arm("a")
    policy.reset_arm("a")
    assert policy.arms == ["a"]


def test_an_outcome_is_frozen() -> None:
    outcome = Outcome(1, "d", "a", np.ones(1, dtype=np.float32), "quality", 1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        outcome.value = 0.0  # type: ignore[misc]


def test_dim_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="dim: at least 1, not 0"):
        Random(dim=0)


def test_the_base_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Policy(dim=1)  # type: ignore[abstract]

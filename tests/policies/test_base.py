"""The base class and the two laws that it lends: greedy choice and the draw."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policies import Outcome, Policy
from policies.baselines import Random
from policies.linucb import LinUCB


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

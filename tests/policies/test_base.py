"""The base class of policies, and its defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from support.policy_cases import same_bits

from policies import Outcome, Policy
from policies.base import Arrays, Bools, Float32, Float64
from policies.baselines import Random
from policies.laws import greedy
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


class _Means(Policy):
    """The minimum that a policy without context must write."""

    name = "means"

    def __init__(self, *, dim: int) -> None:
        super().__init__(dim=dim)
        self.kept = {"total": np.zeros(0), "count": np.zeros(0)}

    @staticmethod
    def law(scores: Mapping[str, Float32], eligible: Bools, penalty: Float64) -> Float64:
        return greedy(scores["mean"] - penalty, eligible)

    def _learn(self, arm: int, outcome: Outcome) -> None:
        self.kept["total"][arm] += outcome.value
        self.kept["count"][arm] += 1.0

    def _publish(self) -> Arrays:
        count = self.kept["count"] + 1.0
        mean = (self.kept["total"] / count).astype(np.float32)
        return {"mean": mean, "std": (1.0 / count).astype(np.float32)}


def test_a_policy_without_context_needs_a_law_a_step_and_a_view() -> None:
    policy, x = _Means(dim=2), np.ones((3, 2), dtype=np.float32)
    policy.add_arm("a")
    policy.learn([Outcome(1, "d", "a", x[0], "quality", 0.5)])
    policy.add_arm("b")
    policy.learn([Outcome(2, "d", "b", x[0], "quality", 1.0)])
    policy.refresh()
    scores, mean, std = policy.assess(x, np.ones((3, 3)))
    assert mean.tolist() == [[0.25, 0.5]] * 3 and std.tolist() == [[0.5, 0.5]] * 3
    assert same_bits(scores, policy.score(x, np.ones((3, 3))))
    pmf = policy.pmf(scores, np.ones((3, 2), dtype=np.bool_), np.zeros((3, 2)))
    assert pmf.tolist() == [[0.0, 1.0]] * 3
    other = _Means(dim=2)
    other.load(policy.state())
    assert same_bits(other.state(), policy.state())
    other.learn([Outcome(3, "d", "a", x[0], "quality", 1.0)])
    assert policy.kept["count"].tolist() == [1.0, 1.0] and other.kept["count"].tolist() == [
        2.0,
        1.0,
    ]


def test_the_base_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Policy(dim=1)  # type: ignore[abstract]

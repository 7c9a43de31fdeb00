"""PILOT and comparisons: they teach differences, and only rewards teach levels."""

from __future__ import annotations

import numpy as np
import pytest
from support.pilot_priors import GIVEN, QUALITY_ONLY, SIZE, preferences, started
from support.policy_cases import ARMS, DIM, comparisons, contexts, outcomes, same_bits

from policies import Comparison, Outcome, make_policy
from policies.base import Float32, Float64
from policies.linucb import LinUCB
from policies.pilot import Pilot

GAIN = 0.2


def arms_of(policy: Pilot, *names: str) -> Pilot:
    for name in names:
        policy.add_arm(name)
    return policy


def compare(policy: Pilot, winner: str, loser: str, x: Float32, times: int = 1) -> None:
    for _ in range(times):
        policy.compare(Comparison(1, "won", "lost", winner, loser, x))


class World:
    """Four models whose rewards are linear; the larger of two noisy ones is preferred."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([6, seed])
        self.theta = 0.06 * self.rng.normal(size=(4, DIM))
        self.theta[:, -1] = self.rng.uniform(0.4, 0.8, size=4)

    def prompt(self) -> Float32:
        x = self.rng.normal(size=DIM).astype(np.float32)
        x[-1] = 1.0
        return x

    def rewards(self, x: Float32) -> Float64:
        """Return rewards[4], whose noise makes the log-odds of a difference its GAIN-th part."""
        noisy: Float64 = self.theta @ x + self.rng.gumbel(scale=GAIN, size=4) - 0.5772 * GAIN
        return noisy

    def teach(self, policy: Pilot, *, rewards: int, comparisons: int) -> Pilot:
        for i in range(rewards):
            x, arm = self.prompt(), i % 4
            policy.learn([Outcome(i, "d", "abcd"[arm], x, "quality", self.rewards(x)[arm])])
        for _ in range(comparisons):
            x, pair = self.prompt(), self.rng.permutation(4)[:2]
            better, worse = sorted(pair, key=self.rewards(x).__getitem__, reverse=True)
            compare(policy, "abcd"[better], "abcd"[worse], x)
        policy.refresh()
        return policy

    def lost(self, policy: Pilot) -> float:
        """Return the mean difference in worth between the best models and its choices."""
        x = np.stack([self.prompt() for _ in range(300)])
        truth, mean = x @ self.theta.T, policy.estimate(x)[0]
        return float((truth.max(axis=1) - truth[np.arange(300), mean.argmax(axis=1)]).mean())

    def error(self, policy: Pilot) -> float:
        """Return the root mean square error of the differences of means."""
        x = np.stack([self.prompt() for _ in range(300)])
        off = policy.estimate(x)[0] - x @ self.theta.T
        return float((off - off.mean(axis=1, keepdims=True)).std())


def pilot() -> Pilot:
    return arms_of(Pilot(dim=DIM, gain=GAIN), *"abcd")


def test_differences_come_out_of_comparisons_alone() -> None:
    errors, lost = [], []
    for seed in range(4):
        world = World(seed)
        policy = world.teach(pilot(), rewards=0, comparisons=1_500)
        errors.append(world.error(policy))
        lost.append(world.lost(policy))
    assert max(errors) < 0.05 and max(lost) < 0.015


def test_rewards_and_comparisons_know_more_than_rewards() -> None:
    without, both = (
        [
            World(seed).lost(World(seed).teach(pilot(), rewards=40, comparisons=n))
            for seed in range(8)
        ]
        for n in (0, 200)
    )
    saved = np.array(without) - np.array(both)
    assert (saved > 0.0).sum() >= 7 and np.mean(both) < 0.5 * np.mean(without)


def test_without_comparisons_nothing_is_kept_of_them() -> None:
    policy, plain = started(preferences(ARMS[:6])), LinUCB(dim=DIM)
    assert policy.state().keys() == plain.state().keys()
    compare(policy, "good", "best", contexts(1)[0])
    assert "duels/gram" in policy.state()
    again = started(preferences(ARMS[:6]))
    compare(again, "best", "tiny", contexts(1)[0], times=5)
    again.load(started(preferences(ARMS[:6])).state())
    assert again.state().keys() == plain.state().keys()


def test_a_winner_rises_and_a_loser_falls_and_no_other_arm_moves() -> None:
    policy = pilot()
    policy.learn(
        Outcome(i, "d", "abcd"[i % 4], x, "quality", 0.5) for i, x in enumerate(contexts(8))
    )
    policy.refresh()
    x = contexts(1, seed=2)
    before = policy.estimate(x)
    compare(policy, "b", "c", x[0])
    policy.refresh()
    after = policy.estimate(x)
    rise = (after[0] - before[0])[0]
    assert 0.0 < rise[1] < 0.33 and -0.33 < rise[2] < 0.0
    assert rise[0] == rise[3] == 0.0 and (after[1][0, [0, 3]] == before[1][0, [0, 3]]).all()
    assert (after[1][0, [1, 2]] < before[1][0, [1, 2]]).all()


def test_comparisons_teach_nothing_about_the_level_that_two_arms_share() -> None:
    """After a thousand of them the mean of two levels is as uncertain as before, and can move."""
    policy, x = arms_of(Pilot(dim=DIM, gain=GAIN), "a", "b"), np.eye(DIM, dtype=np.float32)[-1:]
    for _ in range(500):
        compare(policy, "a", "b", x[0])
        compare(policy, "b", "a", x[0])
    policy.refresh()
    mean, std = policy.estimate(x)
    np.testing.assert_allclose(mean, 0.7, atol=0.02)
    np.testing.assert_allclose(std, np.sqrt(0.5), atol=0.01)
    policy.learn(Outcome(i, "d", "a", x[0], "quality", 0.2) for i in range(20))
    policy.refresh()
    mean, std = policy.estimate(x)
    np.testing.assert_allclose(mean, 0.2 + 0.5 * 2 / 22, atol=0.02)
    np.testing.assert_allclose(std, np.sqrt(1 / 22), atol=0.02)


@pytest.mark.parametrize("gamma", [1.0, 0.97])
@pytest.mark.parametrize("support", [None, 0.0, 0.8])
def test_combined_with_rewards_it_is_least_squares_with_one_free_level(
    support: float | None, gamma: float
) -> None:
    if support is None:
        policy, precision = arms_of(Pilot(dim=DIM, gamma=gamma), *ARMS), np.full(DIM, 50.0)
        precision[-1] = 1.0
    else:
        policy = started(preferences(support=support), gamma=gamma, **GIVEN)
        precision = np.full(SIZE + 1, 5.0)
        precision[-1] = 2.0 + support * (8.0 - 2.0)
    for i, outcome in enumerate(outcomes(60)):
        policy.learn([outcome])
        if i % 2:
            policy.compare(comparisons(60)[i])
    policy.refresh()
    floats = bool(support)
    d, k = len(precision), len(ARMS)
    a, b = np.zeros((k * d + 1, k * d + 1)), np.zeros(k * d + 1)
    a[-1, -1] = 2.0 / support if support else 0.0
    for arm in range(k):
        (rewards, won), (gram, moment) = (
            (sums.symmetric()[arm] * decay, sums.moment[arm] * decay)
            for sums in (policy.ridge, policy.duels)
            for decay in [gamma ** (policy.clock - int(sums.last[arm]))]
        )
        prior, mean = np.diag(precision), policy.ridge.mean[arm]
        floating = gram + floats * prior
        at = slice(arm * d, arm * d + d)
        a[at, at] = rewards + gram + prior
        a[at, -1] = a[-1, at] = -floating[:, -1]
        a[-1, -1] += floating[-1, -1]
        b[at] = won + moment + prior @ mean
        b[-1] -= moment[-1] + floats * precision[-1] * mean[-1]
    solved = np.linalg.solve(a, b)
    np.testing.assert_allclose(policy.view["theta"], solved[:-1].reshape(k, d), atol=1e-5)
    if not floats:
        joint = np.linalg.inv(a)
        blocks = np.stack([joint[i * d : i * d + d, i * d : i * d + d] for i in range(k)])
        np.testing.assert_allclose(policy.view["inverse"], blocks, atol=1e-5)


def test_the_first_comparison_is_no_jump() -> None:
    prior = preferences(support=1.0)
    plain, compared = started(prior, **GIVEN), started(prior, **GIVEN)
    compare(compared, "good", "fair", contexts(1)[0])
    for policy in (plain, compared):
        policy.learn(outcomes(30))
        policy.refresh()
    x = contexts(20, seed=4)
    for a, b in zip(plain.estimate(x), compared.estimate(x), strict=True):
        assert 0.0 < abs(a - b).max() < 0.2


def test_a_reset_forgets_what_comparisons_said_of_a_level() -> None:
    policy, x = pilot(), np.eye(DIM, dtype=np.float32)[-1:]
    for _ in range(100):
        compare(policy, "a", "b", x[0])
        compare(policy, "b", "a", x[0])
    policy.learn(Outcome(i, "d", "b", x[0], "quality", 0.5) for i in range(50))
    policy.refresh()
    before = policy.estimate(x)
    policy.reset_arm("a")
    policy.refresh()
    assert policy.estimate(x)[1][0, 0] > 1.5 * before[1][0, 0]
    policy.learn(Outcome(i, "d", "a", x[0], "quality", 0.1) for i in range(20))
    policy.refresh()
    assert policy.estimate(x)[0][0, 0] < 0.35


@pytest.mark.parametrize("params", [{"score": "cosine"}, {"gain": 0.0}])
def test_where_odds_have_no_size_comparisons_teach_nothing(params: dict[str, object]) -> None:
    policy = started(preferences(), **params)
    before = policy.state()
    compare(policy, "good", "best", contexts(1)[0])
    assert same_bits(policy.state(), before)


def test_a_preferred_model_is_played() -> None:
    policy = pilot()
    for x in contexts(30):
        for other in "acd":
            compare(policy, "b", other, x)
    policy.refresh()
    scores = policy.score(contexts(1), QUALITY_ONLY)
    pmf = policy.pmf(scores, np.ones((1, 4), dtype=np.bool_), np.zeros((1, 4)))
    assert pmf[0].argmax() == 1


def test_a_reset_before_the_first_comparison_leaves_no_trace_that_a_checkpoint_would_lose() -> None:
    one = make_policy("pilot", dim=DIM)
    for arm in ("a", "b", "c"):
        one.add_arm(arm)
    x = np.ones(DIM, dtype=np.float32)
    one.learn([Outcome(s, "d", "ab"[s % 2], x, "quality", 0.5) for s in range(20)])
    one.reset_arm("a", worth=2.0)
    other = make_policy("pilot", dim=DIM)
    other.load(one.state())
    for policy in (one, other):
        policy.compare(Comparison(21, "d", "e", "b", "c", x))
    mine, theirs = one.state(), other.state()
    assert mine.keys() == theirs.keys()
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)

"""Mistakes of public bandit code that must not be made here, and a comparison with coba.

Each test names the mistake. The LinUCB learner and the argmax law of coba are correct.
"""

from __future__ import annotations

import numpy as np
import pytest
from coba.learners import LinUCBLearner

from policies import Outcome, make_policy
from policies.base import Float32
from policies.linucb import LinUCB
from policies.ridge import RidgeArms
from policies.thompson import Thompson

QUALITY_ONLY = np.array([[1.0, 0.0, 0.0]])


def _linucb(dim: int, arms: int, **params: float) -> LinUCB:
    policy = LinUCB(dim=dim, prior=0.0, **params)  # type: ignore[arg-type]
    for arm in range(arms):
        policy.add_arm(str(arm))
    policy.refresh()
    return policy


def _x(*numbers: float) -> Float32:
    return np.array([numbers], dtype=np.float32)


def test_choices_and_laws_are_those_of_coba() -> None:
    """Step by step on one stream: disjoint arms there are one-hot actions crossed with x."""
    d, arms, rng = 5, 3, np.random.default_rng(4)
    actions = [tuple(float(i == k) for i in range(arms)) for k in range(arms)]
    peer = LinUCBLearner(alpha=0.7, features=["ax"])
    ours = _linucb(d, arms, alpha=0.7, ridge=1.0, level=1.0)
    truth = rng.normal(size=(arms, d))
    for step in range(150):
        x = rng.normal(size=(1, d)).astype(np.float32)
        context = tuple(float(value) for value in x[0])
        theirs = [peer.score(context, actions, action) for action in actions]
        pmf = ours.pmf(ours.score(x, QUALITY_ONLY), np.ones((1, arms), bool), np.zeros((1, arms)))
        assert pmf[0] == pytest.approx(theirs, abs=1e-6), step
        arm = int(pmf[0].argmax())
        reward = float(truth[arm] @ x[0] + 0.1 * rng.normal())
        peer.learn(context, actions[arm], reward, 1.0)
        ours.learn([Outcome(step, "d", str(arm), x[0], "quality", reward)])
        ours.refresh()


@pytest.mark.parametrize("precision", [0.1, 1.0, 50.0])
def test_the_first_width_is_that_of_the_inverse_of_the_regulariser(precision: float) -> None:
    """Mistake: an inverse that starts as a copy of the matrix, wrong unless the ridge is 1."""
    policy = _linucb(2, 1, alpha=1.0, ridge=precision, level=precision)
    x = _x(3.0, 4.0)
    assert policy.score(x, QUALITY_ONLY)["bonus"].item() == pytest.approx(5.0 / precision**0.5)


def test_alpha_scales_the_bonus() -> None:
    """Mistake: alpha lost on its way to the score."""
    x = _x(1.0, 1.0)
    one, two = (_linucb(2, 1, alpha=a).score(x, QUALITY_ONLY)["bonus"] for a in (0.5, 1.0))
    assert two.item() == pytest.approx(2.0 * one.item())


def test_the_propensity_of_an_argmax_is_one() -> None:
    """Mistake: a softmax of scores logged as the propensity of a policy that plays the best arm."""
    policy = _linucb(1, 3, level=1.0)
    policy.learn([Outcome(1, "d", "1", _x(1.0)[0], "quality", 1.0)])
    policy.refresh()
    scores = policy.score(_x(1.0), QUALITY_ONLY)
    assert policy.pmf(scores, np.ones((1, 3), bool), np.zeros((1, 3))).tolist() == [[0, 1, 0]]


def test_the_propensity_of_thompson_is_not_that_of_one_draw() -> None:
    """Mistake: 0 or 1, the law of one sampled score, logged as the probability of the arm."""
    policy = Thompson(dim=1)
    for arm in ("a", "b", "c"):
        policy.add_arm(arm)
    policy.learn([Outcome(1, "d", "b", _x(1.0)[0], "quality", 0.9)])
    policy.refresh()
    scores = policy.score(_x(1.0), QUALITY_ONLY)
    pmf = policy.pmf(scores, np.ones((1, 3), bool), np.zeros((1, 3)))[0]
    assert 0.05 < pmf[0] < pmf[1] < 0.95 and pmf[2] == pytest.approx(pmf[0])


def test_an_idle_arm_forgets_at_the_pace_of_all_outcomes() -> None:
    """Mistake: an arm decays at its own updates only, so an idle arm seems as certain as before."""
    policy = _linucb(1, 2, alpha=1.0, gamma=0.9, level=1.0)
    one = _x(1.0)
    policy.learn([Outcome(1, "d", "0", one[0], "quality", 1.0)] * 20)
    widths = []
    for _ in range(60):
        policy.refresh()
        widths.append(policy.score(one, QUALITY_ONLY)["bonus"][0, 0])
        policy.learn([Outcome(2, "d", "1", one[0], "quality", 1.0)])
    assert (np.diff(widths) > 0.0).all()
    weight = 0.9**59 * (1.0 - 0.9**20) / 0.1
    assert widths[-1] == pytest.approx((1.0 + weight) ** -0.5, rel=1e-6)


def test_forgetting_leaves_the_regulariser_alone() -> None:
    """Mistake: a decayed regulariser, so that an arm's variance grows without bound."""
    policy = _linucb(2, 2, alpha=1.0, gamma=0.5, ridge=4.0, level=1.0)
    x = _x(2.0, 1.0)
    policy.learn([Outcome(1, "d", "1", x[0], "quality", 1.0)] * 5_000)
    policy.refresh()
    first = policy.score(x, QUALITY_ONLY)["bonus"][0, 0]
    assert first == pytest.approx((2.0**2 / 4.0 + 1.0) ** 0.5)


def test_an_outcome_is_learned_once() -> None:
    """Mistake: an assumed reward at once and the real one later, both counted."""
    policy = make_policy("linucb", dim=1)
    policy.add_arm("a")
    policy.learn([Outcome(1, "d", "a", _x(1.0)[0], "quality", 0.3)])
    assert policy.pulls.tolist() == [1] and policy.state()["count"].tolist() == [1.0]


@pytest.mark.slow
def test_a_million_discounted_updates_stay_exact() -> None:
    """Mistake: Sherman-Morrison on a decayed inverse, off by 1e29 after 100,000 steps."""
    n, d, gamma = 1_000_000, 12, 0.999
    rng = np.random.default_rng(5)
    x, r = rng.normal(size=(n, d)).astype(np.float32), rng.random(n)
    arm = rng.integers(2, size=n)
    precision = np.full(d, 10.0)
    ridge = RidgeArms(precision=precision, mean=np.zeros(d), gamma=gamma)
    ridge.grow()
    ridge.grow()
    for i in range(n):
        ridge.update(int(arm[i]), x[i], float(r[i]), i + 1)
    _, inverses = ridge.solve(n)
    for k in range(2):
        mine = np.flatnonzero(arm == k)
        wide = x[mine].astype(np.longdouble)
        weight = np.longdouble(gamma) ** (mine[-1] - mine)
        gram = np.einsum("ni,nj->ij", wide * weight[:, None], wide)
        found = ridge.symmetric()[k]
        assert (np.abs(found - gram) <= 1e-10 * np.abs(gram).max()).all()
        published = inverses[k].astype(np.float32)
        whole = gram * np.longdouble(gamma) ** (n - 1 - mine[-1]) + np.diag(precision)
        direct = np.linalg.inv(whole.astype(np.float64))
        assert np.abs(inverses[k] - direct).max() <= 1e-8 * np.abs(direct).max()
        assert np.abs(published - direct).max() <= 1e-8

"""LinUCB against a slow and simple reference, and against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from policies import Outcome
from policies.base import Float32, Float64, Sums
from policies.linucb import LinUCB

QUALITY_ONLY = np.array([[1.0, 0.0, 0.0]])
# Spelled out: the defaults are there to be tuned, the formulas are not.
PRIOR = {"ridge": 100.0, "level": 1.0, "prior": 0.6}


def _reference(
    log: list[tuple[int, Float32, float]], x: Float64, *, k: int, gamma: float
) -> tuple[Float64, Float64]:
    """Return mean and width of each arm from A = P + sum g^age x x', one row at a time."""
    d = x.shape[1]
    p, m = np.diag([100.0] * (d - 1) + [1.0]), np.array([0.0] * (d - 1) + [0.6])
    mean, width = np.zeros((len(x), k)), np.zeros((len(x), k))
    for arm in range(k):
        a, b = p.copy(), p @ m
        for age, (who, row, reward) in enumerate(reversed(log)):
            if who == arm:
                wide = row.astype(np.float64)
                a += gamma**age * np.outer(wide, wide)
                b += gamma**age * reward * wide
        inverse = np.linalg.inv(a)
        for i, row in enumerate(x):
            mean[i, arm], width[i, arm] = row @ inverse @ b, np.sqrt(row @ inverse @ row)
    return mean, width


@pytest.mark.parametrize("gamma", [1.0, 0.99, 0.8])
def test_scores_are_those_of_the_reference(gamma: float) -> None:
    rng, k, d, n = np.random.default_rng(2), 4, 12, 300
    log = [
        (int(rng.integers(k)), rng.normal(size=d).astype(np.float32), float(rng.random()))
        for _ in range(n)
    ]
    policy = LinUCB(dim=d, alpha=0.3, gamma=gamma, **PRIOR)
    for arm in range(k):
        policy.add_arm(str(arm))
    policy.learn(Outcome(0, "d", str(arm), x, "quality", r) for arm, x, r in log)
    policy.refresh()
    x = rng.normal(size=(20, d)).astype(np.float32)
    mean, width = _reference(log, x.astype(np.float64), k=k, gamma=gamma)
    scores = policy.score(x, np.tile(QUALITY_ONLY, (20, 1)))
    np.testing.assert_allclose(scores["mean"], mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores["bonus"], 0.3 * width, rtol=0, atol=1e-5)
    found, std = policy.estimate(x)
    np.testing.assert_allclose(found, mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(std, width, rtol=0, atol=1e-5)


def test_known_values_on_the_intercept_alone() -> None:
    policy = LinUCB(dim=1, alpha=2.0, **PRIOR)
    policy.add_arm("a")
    policy.add_arm("b")
    one = np.ones((1, 1), dtype=np.float32)
    policy.learn([Outcome(1, "d1", "a", one[0], "quality", 1.0)])
    policy.learn([Outcome(2, "d2", "a", one[0], "quality", 0.5)])
    policy.refresh()
    scores = policy.score(one, QUALITY_ONLY)
    np.testing.assert_allclose(scores["mean"], [[(0.6 + 1.0 + 0.5) / 3.0, 0.6]], rtol=1e-6)
    np.testing.assert_allclose(scores["bonus"], [[2.0 / np.sqrt(3.0), 2.0]], rtol=1e-6)


def test_known_values_with_forgetting() -> None:
    policy = LinUCB(dim=1, gamma=0.5, **PRIOR)
    policy.add_arm("a")
    policy.add_arm("b")
    one = np.ones((1, 1), dtype=np.float32)
    for arm, value in (("a", 1.0), ("b", 0.0), ("a", 0.0)):
        policy.learn([Outcome(0, "d", arm, one[0], "quality", value)])
    policy.refresh()
    mean, std = policy.estimate(one)
    np.testing.assert_allclose(mean, [[(0.6 + 0.25) / 2.25, 0.6 / 1.5]], rtol=1e-6)
    np.testing.assert_allclose(std, [[1.0 / np.sqrt(2.25), 1.0 / np.sqrt(1.5)]], rtol=1e-6)


def test_prior_knowledge_decays_from_when_it_was_taught_and_outcomes_from_their_own_time() -> None:
    """Learn, teach an arm that last learned a while ago, learn: against sums by age."""
    rng, gamma, d = np.random.default_rng(3), 0.9, 3
    x, r = rng.normal(size=(30, d)).astype(np.float32), rng.random(30)
    arms = ["a"] * 8 + ["b"] * 12 + ["b", "a"] * 5
    taught, values = rng.normal(size=(6, d)), rng.random(6)
    policy = LinUCB(dim=d, gamma=gamma, **PRIOR)
    policy.add_arm("a")
    policy.add_arm("b")
    log = [Outcome(0, "d", arm, x[i], "quality", float(r[i])) for i, arm in enumerate(arms)]
    policy.learn(log[:20])
    policy.teach("a", Sums(taught.T @ taught, values @ taught, float(values @ values), 6.0))
    policy.learn(log[20:])
    policy.refresh()
    wide, mine = x.astype(np.float64), np.array(arms) == "a"
    weight = np.append(mine * gamma ** (29.0 - np.arange(30)), np.full(6, gamma**10.0))
    rows, rewards = np.concatenate([wide, taught]), np.append(r, values)
    p, m = np.diag([100.0, 100.0, 1.0]), np.array([0.0, 0.0, 0.6])
    inverse = np.linalg.inv(p + rows.T @ (weight[:, None] * rows))
    theta = inverse @ (p @ m + (weight * rewards) @ rows)
    mean, std = policy.estimate(x[:4])
    np.testing.assert_allclose(mean[:, 0], wide[:4] @ theta, rtol=0, atol=1e-5)
    expected = [np.sqrt(row @ inverse @ row) for row in wide[:4]]
    np.testing.assert_allclose(std[:, 0], expected, rtol=0, atol=1e-5)


def test_the_law_weighs_mean_bonus_and_penalty() -> None:
    scores = {
        "mean": np.array([[0.5, 0.6, 0.4]] * 4, dtype=np.float32),
        "bonus": np.array([[0.25, 0.0, 0.0]] * 4, dtype=np.float32),
    }
    penalty = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    eligible = np.ones((4, 3), dtype=np.bool_)
    eligible[3, 0] = False
    pmf = LinUCB.law(scores, eligible, penalty)
    assert pmf.argmax(axis=1).tolist() == [0, 1, 2, 1]
    assert (np.sort(pmf, axis=1) == [0.0, 0.0, 1.0]).all()


def test_equal_arms_share_the_mass() -> None:
    policy = LinUCB(dim=3)
    for arm in "abc":
        policy.add_arm(arm)
    policy.refresh()
    scores = policy.score(np.ones((1, 3), dtype=np.float32), QUALITY_ONLY)
    eligible = np.array([[True, False, True]])
    assert policy.law(scores, eligible, np.zeros((1, 3))).tolist() == [[0.5, 0.0, 0.5]]


def test_it_learns_which_arm_is_good_where() -> None:
    rng, policy = np.random.default_rng(3), LinUCB(dim=2, ridge=1.0)
    policy.add_arm("left")
    policy.add_arm("right")
    for seq in range(200):
        x = np.array([rng.choice([-1.0, 1.0]), 1.0], dtype=np.float32)
        arm = ("left", "right")[seq % 2]
        policy.learn([Outcome(seq, "d", arm, x, "quality", float((x[0] > 0) == seq % 2))])
    policy.refresh()
    x = np.array([[-1.0, 1.0], [1.0, 1.0]], dtype=np.float32)
    scores = policy.score(x, np.tile(QUALITY_ONLY, (2, 1)))
    pmf = policy.law(scores, np.ones((2, 2), dtype=np.bool_), np.zeros((2, 2)))
    assert pmf.tolist() == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("count", [0, 1, 40])
def test_the_theoretical_width_is_the_radius_of_the_ellipsoid(count: int) -> None:
    rng, d = np.random.default_rng(6), 3
    policy = LinUCB(dim=d, width="theoretical", delta=0.1, noise=0.3, bound=2.0, **PRIOR)
    policy.add_arm("a")
    rows = rng.normal(size=(count, d)).astype(np.float32)
    policy.learn(Outcome(0, "d", "a", row, "quality", 0.5) for row in rows)
    policy.refresh()
    p = np.diag([100.0, 100.0, 1.0])
    a = p + rows.T.astype(np.float64) @ rows.astype(np.float64)
    radius = 0.3 * np.sqrt(2 * np.log(10.0) + np.log(np.linalg.det(a) / np.linalg.det(p))) + 2.0
    x = rng.normal(size=(4, d)).astype(np.float32)
    expected = [[radius * np.sqrt(row @ np.linalg.inv(a) @ row)] for row in x.astype(np.float64)]
    scores = policy.score(x, np.tile(QUALITY_ONLY, (4, 1)))
    np.testing.assert_allclose(scores["bonus"], expected, rtol=1e-5)


def test_the_theoretical_width_covers_the_truth() -> None:
    """At delta .05, in all of 200 streams of 100 rewards in [0, 1], at their last step."""
    rng, missed = np.random.default_rng(7), 0
    for _ in range(200):
        theta = np.array([0.2, -0.1, 0.5])
        policy = LinUCB(dim=3, width="theoretical", ridge=1.0, level=1.0, prior=0.5)
        policy.add_arm("a")
        rows = np.concatenate([rng.uniform(-1, 1, (100, 2)), np.ones((100, 1))], axis=1)
        rows = rows.astype(np.float32)
        wins = rng.random(100) < rows @ theta
        for row, won in zip(rows, wins, strict=True):
            policy.learn([Outcome(0, "d", "a", row, "quality", float(won))])
        policy.refresh()
        scores = policy.score(rows, np.tile(QUALITY_ONLY, (100, 1)))
        missed += bool((np.abs(scores["mean"][:, 0] - rows @ theta) > scores["bonus"][:, 0]).any())
    assert missed <= 10


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", "wide"),
        ("delta", 0.0),
        ("delta", 1.0),
        ("noise", -1.0),
        ("bound", float("nan")),
        ("alpha", -0.5),
        ("alpha", float("nan")),
        ("ridge", 0.0),
        ("ridge", float("nan")),
        ("level", -1.0),
        ("prior", 1.5),
        ("prior", float("nan")),
        ("gamma", 0.0),
    ],
)
def test_bad_parameters_are_refused_by_name(field: str, value: float | str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        LinUCB(dim=2, **{field: value})  # type: ignore[arg-type]

"""The baselines: known values, and k nearest neighbours against a slow search."""

from __future__ import annotations

import numpy as np
import pytest

from policies import Outcome, Policy
from policies.base import Float32, Float64
from policies.baselines import EpsilonGreedy, Fixed, KNearest, Random

QUALITY_ONLY = np.array([[1.0, 0.0, 0.0]])
ALL = np.ones((1, 3), dtype=np.bool_)


def _learned(policy: Policy, rewards: dict[str, list[float]]) -> Policy:
    for arm in rewards:
        policy.add_arm(arm)
    x = np.ones(policy.dim, dtype=np.float32)
    for arm, values in rewards.items():
        policy.learn(Outcome(0, "d", arm, x, "quality", value) for value in values)
    policy.refresh()
    return policy


@pytest.mark.parametrize("kind", [Random, EpsilonGreedy])
def test_context_free_means_by_hand(kind: type[Random] | type[EpsilonGreedy]) -> None:
    policy = _learned(kind(dim=2), {"a": [1.0, 0.0, 0.5], "b": []})
    mean, std = policy.estimate(np.zeros((2, 2), dtype=np.float32))
    m = (1.5 + 1.2) / 5.0
    np.testing.assert_allclose(mean, [[m, 0.6]] * 2, rtol=1e-6)
    np.testing.assert_allclose(
        std, [[np.sqrt(m * (1.0 - m) / 6.0), np.sqrt(0.24 / 3.0)]] * 2, rtol=1e-6
    )


def test_random_ignores_cost_and_quality() -> None:
    policy = _learned(Random(dim=1), {"a": [1.0] * 9, "b": [0.0] * 9, "c": []})
    scores = policy.score(np.ones((1, 1), dtype=np.float32), QUALITY_ONLY)
    penalty = np.array([[0.0, 9.0, 1e9]])
    assert policy.law(scores, ALL, penalty).tolist() == [[1 / 3] * 3]
    two = np.array([[False, True, True]])
    assert policy.law(scores, two, penalty).tolist() == [[0.0, 0.5, 0.5]]


@pytest.mark.parametrize(
    ("eligible", "penalty", "expected"),
    [
        ([1, 1, 1], [0.0, 9.0, 0.0], [0.0, 1.0, 0.0]),
        ([0, 1, 0], [0.0, 9.0, 0.0], [0.0, 1.0, 0.0]),
        ([1, 0, 1], [0.2, 0.0, 0.1], [0.0, 0.0, 1.0]),
        ([1, 0, 1], [0.1, 0.0, 0.1], [0.5, 0.0, 0.5]),
        ([0, 0, 0], [0.1, 0.0, 0.1], [0.0, 0.0, 0.0]),
    ],
)
def test_fixed_plays_its_arm_or_the_cheapest(
    eligible: list[int], penalty: list[float], expected: list[float]
) -> None:
    policy = _learned(Fixed(dim=1, arm="b"), {"a": [1.0], "b": [0.0], "c": []})
    scores = policy.score(np.ones((1, 1), dtype=np.float32), QUALITY_ONLY)
    pmf = policy.law(scores, np.array([eligible], dtype=np.bool_), np.array([penalty]))
    assert pmf.tolist() == [expected]


def test_fixed_on_an_arm_that_is_not_there_yet_plays_the_cheapest() -> None:
    policy = _learned(Fixed(dim=1, arm="z"), {"a": [], "b": []})
    x = np.ones((1, 1), dtype=np.float32)
    two = np.ones((1, 2), dtype=np.bool_)
    pmf = policy.law(policy.score(x, QUALITY_ONLY), two, np.array([[0.2, 0.1]]))
    assert pmf.tolist() == [[0.0, 1.0]]
    policy.add_arm("z")
    policy.refresh()
    pmf = policy.law(policy.score(x, QUALITY_ONLY), ALL, np.array([[0.2, 0.1, 0.3]]))
    assert pmf.tolist() == [[0.0, 0.0, 1.0]]


def test_fixed_without_an_arm_takes_none() -> None:
    policy = Fixed(dim=1)
    with pytest.raises(ValueError, match="^arm: required"):
        policy.add_arm("a")
    assert policy.arms == []


def test_epsilon_greedy_law() -> None:
    policy = _learned(EpsilonGreedy(dim=1, epsilon=0.3), {"a": [1.0], "b": [0.0], "c": []})
    scores = policy.score(np.ones((1, 1), dtype=np.float32), QUALITY_ONLY)
    pmf = policy.law(scores, ALL, np.zeros((1, 3)))
    np.testing.assert_allclose(pmf, [[0.8, 0.1, 0.1]], rtol=1e-6)
    pmf = policy.law(scores, ALL, np.array([[0.5, 0.0, 0.0]]))
    np.testing.assert_allclose(pmf, [[0.1, 0.1, 0.8]], rtol=1e-6)
    pmf = policy.law(scores, np.array([[True, True, False]]), np.array([[0.5, 0.0, 0.0]]))
    np.testing.assert_allclose(pmf, [[0.15, 0.85, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_epsilon_greedy_at_its_ends(epsilon: float) -> None:
    policy = _learned(EpsilonGreedy(dim=1, epsilon=epsilon), {"a": [1.0], "b": [], "c": []})
    scores = policy.score(np.ones((1, 1), dtype=np.float32), QUALITY_ONLY)
    expected = [1 / 3] * 3 if epsilon else [1.0, 0.0, 0.0]
    assert policy.law(scores, ALL, np.zeros((1, 3))).tolist() == [expected]


def _neighbours(
    log: list[tuple[int, Float32, float]], row: Float64, *, arm: int, k: int, distance: str
) -> list[float]:
    """Return the rewards of the k nearest outcomes of `arm`, newest first among equals."""
    found = []
    for age, (who, x, reward) in enumerate(reversed(log)):
        if who == arm:
            wide = x.astype(np.float64)
            if distance == "cosine":
                length = np.sqrt((wide @ wide) * (row @ row)) or 1.0
                far = -(wide @ row) / length
            else:
                far = float(((wide - row) ** 2).sum())
            found.append((round(far, 9), age, reward))
    return [reward for _, _, reward in sorted(found)[:k]]


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("n", [0, 7, 60, 61, 150])
def test_knn_is_the_slow_search_over_what_it_remembers(distance: str, n: int) -> None:
    rng, arms, memory, k = np.random.default_rng(4), 3, 60, 5
    log = [
        (int(rng.integers(arms)), rng.normal(size=4).astype(np.float32), float(rng.random()))
        for _ in range(n)
    ]
    policy = KNearest(dim=4, k=k, memory=memory, distance=distance, alpha=0.2)
    for arm in range(arms):
        policy.add_arm(str(arm))
    policy.learn(Outcome(0, "d", str(arm), x, "quality", r) for arm, x, r in log)
    policy.refresh()
    x = rng.normal(size=(12, 4)).astype(np.float32)
    scores = policy.score(x, np.tile(QUALITY_ONLY, (12, 1)))
    mean, std = policy.estimate(x)
    assert scores["mean"].tobytes() == mean.tobytes()
    for i, row in enumerate(x.astype(np.float64)):
        for arm in range(arms):
            near = _neighbours(log[-memory:], row, arm=arm, k=k, distance=distance)
            m = (sum(near) + 1.2) / (len(near) + 2.0)
            assert mean[i, arm] == pytest.approx(m, abs=1e-6)
            assert std[i, arm] == pytest.approx(np.sqrt(m * (1 - m) / (len(near) + 3)), abs=1e-6)
            assert scores["bonus"][i, arm] == pytest.approx(0.2 / np.sqrt(1 + len(near)), abs=1e-6)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_knn_prefers_the_newer_of_equal_neighbours(distance: str) -> None:
    policy = KNearest(dim=2, k=1, memory=3, distance=distance)
    policy.add_arm("a")
    x = np.array([[0.5, 1.0]], dtype=np.float32)
    for reward, mean in ((0.0, 0.4), (1.0, 2.2 / 3.0), (0.0, 0.4), (1.0, 2.2 / 3.0)):
        policy.learn([Outcome(0, "d", "a", x[0], "quality", reward)])
        policy.refresh()
        assert policy.estimate(x)[0][0, 0] == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_knn_breaks_ties_alike_in_a_batch_and_alone(distance: str) -> None:
    rng, dim, n, k = np.random.default_rng(6), 47, 201, 20
    policy = KNearest(dim=dim, k=k, distance=distance)
    policy.add_arm("a")
    point, rewards = rng.normal(size=dim).astype(np.float32), rng.random(n)
    sides = np.where(rng.random(n) < 0.5, 1.0, -1.0).astype(np.float32)
    policy.learn(
        Outcome(0, "d", "a", side * point, "quality", float(r))
        for side, r in zip(sides, rewards, strict=True)
    )
    policy.refresh()
    x = rng.normal(size=(33, dim)).astype(np.float32)
    newest = [rewards[sides == side][-k:].sum() for side in np.sign(x @ point)]
    expected = (np.array(newest) + 1.2) / (k + 2.0)
    np.testing.assert_allclose(policy.estimate(x)[0][:, 0], expected, rtol=1e-6)
    for row, mean in zip(x, expected, strict=True):
        np.testing.assert_allclose(policy.estimate(row[None])[0], mean, rtol=1e-6)


def test_knn_law_weighs_mean_bonus_and_penalty() -> None:
    scores = {"mean": np.float32([[0.5, 0.6, 0.4]] * 4), "bonus": np.float32([[0.25, 0, 0]] * 4)}
    penalty = np.array([[0.0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0], [2e9, 1e9, 1.5e9]])
    pmf = KNearest.law(scores, np.ones((4, 3), dtype=np.bool_), penalty)
    assert pmf.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]


def test_knn_cosine_ignores_length_and_euclidean_does_not() -> None:
    log = [
        Outcome(1, "d1", "a", np.array([10.0, 0.0], dtype=np.float32), "quality", 1.0),
        Outcome(2, "d2", "a", np.array([0.5, 0.5], dtype=np.float32), "quality", 0.0),
    ]
    x = np.array([[1.0, 0.0]], dtype=np.float32)
    found = {}
    for distance in ("cosine", "euclidean"):
        policy = KNearest(dim=2, k=1, distance=distance)
        policy.add_arm("a")
        policy.learn(log)
        policy.refresh()
        found[distance] = float(policy.estimate(x)[0][0, 0])
    assert found["cosine"] > 0.6 > found["euclidean"]


def test_knn_forgets_an_arm_that_left_its_memory() -> None:
    policy = KNearest(dim=1, k=2, memory=4)
    policy.add_arm("a")
    policy.add_arm("b")
    x = np.ones((1, 1), dtype=np.float32)
    policy.learn([Outcome(0, "d", "a", x[0], "quality", 1.0)])
    policy.learn(Outcome(0, "d", "b", x[0], "quality", 0.0) for _ in range(4))
    policy.refresh()
    np.testing.assert_allclose(policy.estimate(x)[0], [[0.6, 1.2 / 4.0]], rtol=1e-6)
    bonus = policy.score(x, QUALITY_ONLY)["bonus"]
    np.testing.assert_allclose(bonus, [[0.1, 0.1 / np.sqrt(3.0)]], rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Random, "prior", 1.1),
        (Random, "prior", float("nan")),
        (EpsilonGreedy, "epsilon", -0.1),
        (EpsilonGreedy, "epsilon", 1.1),
        (EpsilonGreedy, "prior", -1.0),
        (KNearest, "k", 0),
        (KNearest, "memory", 0),
        (KNearest, "alpha", -0.1),
        (KNearest, "alpha", float("nan")),
        (KNearest, "distance", "manhattan"),
    ],
)
def test_bad_parameters_are_refused_by_name(
    kind: type[Policy], field: str, value: float | str
) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        kind(dim=2, **{field: value})

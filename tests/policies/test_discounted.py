"""Discounting against slow, obvious references in long double: indices, widths, ages."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from support.spells import ARMS, DIM, log, trained

from policies import Outcome, make_policy
from policies.base import Float64, Sums
from policies.discounted import DUCB, UNTRIED, DLinUCB, DThompson
from policies.ridge import next_position
from policies.thompson import Thompson

LD = np.longdouble


def slow_indices(
    outcomes: Sequence[Outcome], arms: Sequence[str], *, gamma: float, xi: float, bound: float
) -> list[float]:
    """Return X_a + 2 B sqrt(xi log n / N_a) by the formula of the paper, sum by sum."""
    t = len(outcomes)
    counts, sums = [], []
    for arm in arms:
        weights = [LD(gamma) ** (t - s) for s, o in enumerate(outcomes, start=1) if o.arm == arm]
        values = [LD(o.value) for o in outcomes if o.arm == arm]
        counts.append(sum(weights, LD(0)))
        sums.append(sum((w * v for w, v in zip(weights, values, strict=True)), LD(0)))
    n = sum(counts, LD(0))
    padded = []
    for count, total in zip(counts, sums, strict=True):
        if count == 0:
            padded.append(math.inf)
            continue
        width = 2 * bound * np.sqrt(xi * max(np.log(n), LD(0)) / count)
        padded.append(float(total / count + width))
    return padded


@pytest.mark.parametrize("gamma", [1.0, 0.998, 0.9, 0.6])
@pytest.mark.parametrize("seed", range(4))
def test_indices_are_those_of_the_slow_reference(gamma: float, seed: int) -> None:
    rng = np.random.default_rng([9, seed])
    xi, bound = float(rng.uniform(0.01, 2.0)), float(rng.uniform(0.5, 2.0))
    for n in (0, 1, 2, 7, 60, 300):
        outcomes = log(n, seed)
        policy = trained(DUCB(dim=DIM, gamma=gamma, xi=xi, bound=bound), outcomes, ARMS)
        wanted = slow_indices(outcomes, ARMS, gamma=gamma, xi=xi, bound=bound)
        scores = policy.score(np.ones((1, DIM), np.float32), np.ones((1, 3)))
        found = (scores["mean"][0] + scores["bonus"][0]).tolist()
        for got, index in zip(found, wanted, strict=True):
            if index < UNTRIED:
                assert got == pytest.approx(index, rel=2e-6)
            else:  # infinite, or beyond where a bonus is held
                assert got >= UNTRIED


def test_a_tried_arm_never_hides_one_that_is_not_and_those_are_drawn_alike() -> None:
    policy = trained(DUCB(dim=DIM, gamma=0.9), log(80, 3, ("a", "b")), ARMS)
    scores = policy.score(np.ones((1, DIM), np.float32), np.ones((1, 3)))
    pmf = policy.pmf(scores, np.ones((1, 4), np.bool_), np.zeros((1, 4)))
    assert pmf.tolist() == [[0.0, 0.0, 0.5, 0.5]]
    assert np.isfinite(scores["bonus"]).all()


def test_no_bonus_before_a_logarithm_is_positive() -> None:
    policy = trained(DUCB(dim=DIM, gamma=0.9), log(1, 1, ("a",)), ("a",))
    assert policy.view["bonus"].tolist() == [0.0]


def test_publishing_in_between_changes_no_bit() -> None:
    for name in ("d-ucb", "d-linucb", "d-thompson"):
        outcomes = log(120, 3)
        one = trained(make_policy(name, dim=DIM, params={"gamma": 0.95}), outcomes)
        other = make_policy(name, dim=DIM, params={"gamma": 0.95})
        trained(other, [])
        for outcome in outcomes:
            other.learn([outcome])
            other.refresh()
        mine, theirs = one.state(), other.state()
        assert all(mine[key].tobytes() == theirs[key].tobytes() for key in mine), name


def test_a_half_life_halves() -> None:
    policy = DUCB(dim=DIM, half_life=50.0)
    first = Outcome(1, "d", "a", np.ones(DIM, np.float32), "quality", 1.0)
    rest = log(50, 1, ("b",))
    trained(policy, [first, *rest])
    count = policy.gamma ** (policy.clock - policy.kept["last"]) * policy.kept["count"]
    assert count[0] == pytest.approx(0.5, rel=1e-12)


def test_a_reset_keeps_so_many_outcomes_as_of_now() -> None:
    policy = trained(DUCB(dim=DIM, gamma=0.99), log(200, 2, ("a", "b")), ("a", "b"))
    before = policy.view["index"].copy()
    policy.reset_arm("a", shift=-0.1, worth=3.0)
    policy.refresh()
    assert policy.kept["count"][0] == pytest.approx(3.0)  # type: ignore[attr-defined]
    assert policy.view["index"][0] == pytest.approx(before[0] - 0.1, abs=1e-6)
    assert policy.view["index"][1] == before[1]


# --- D-LinUCB ------------------------------------------------------------------------------------


def slow_matrices(outcomes: Sequence[Outcome], arm: str, gamma: float) -> tuple[Float64, Float64]:
    """Return V and W of one arm; the regulariser is restored at every step, as published."""
    precision = np.diag(np.array([50.0] * (DIM - 1) + [1.0], dtype=LD))
    v, w, g = precision.copy(), precision.copy(), LD(gamma)
    for outcome in outcomes:
        x = outcome.x.astype(LD) if outcome.arm == arm else np.zeros(DIM, dtype=LD)
        v = g * v + np.outer(x, x) + (1 - g) * precision
        w = g * g * w + np.outer(x, x) + (1 - g * g) * precision
    return v, w


def solved(v: Float64, x: Float64) -> Float64:
    """Return V^-1 x in long double, by Gauss-Jordan."""
    rows = np.concatenate([v, x[:, None]], axis=1).astype(LD)
    for k in range(len(v)):
        rows[k] = rows[k] / rows[k, k]
        for i in range(len(v)):
            if i != k:
                rows[i] = rows[i] - rows[i, k] * rows[k]
    return rows[:, -1]


@pytest.mark.parametrize("gamma", [0.999, 0.97, 0.8])
def test_the_width_is_that_of_the_second_matrix(gamma: float) -> None:
    outcomes = log(400, 5)
    policy = trained(DLinUCB(dim=DIM, gamma=gamma, alpha=1.0), outcomes, ARMS)
    x = log(20, 6)
    for outcome in x:
        scores = policy.score(outcome.x[None], np.ones((1, 3)))
        for k, arm in enumerate(ARMS):
            v, w = slow_matrices(outcomes, arm, gamma)
            y = solved(v, outcome.x.astype(LD))
            assert scores["bonus"][0, k] == pytest.approx(float(np.sqrt(y @ w @ y)), rel=1e-5)


def test_the_second_matrix_is_not_the_first_as_in_the_published_code() -> None:
    """With V in place of W the width would be that of plain discounting, which is wider."""
    outcomes = log(400, 5)
    ours = trained(DLinUCB(dim=DIM, gamma=0.97, alpha=1.0), outcomes)
    plain = trained(make_policy("linucb", dim=DIM, params={"gamma": 0.97, "alpha": 1.0}), outcomes)
    x = np.stack([o.x for o in log(50, 6)])
    mine, theirs = ours.estimate(x), plain.estimate(x)
    np.testing.assert_allclose(mine[0], theirs[0], rtol=0, atol=1e-6)
    assert (mine[1] < theirs[1]).all() and (theirs[1] / mine[1]).max() > 1.2


def test_without_forgetting_it_is_linucb() -> None:
    outcomes = log(200, 7)
    ours = trained(DLinUCB(dim=DIM, gamma=1.0), outcomes)
    plain = trained(make_policy("linucb", dim=DIM), outcomes)
    x = np.stack([o.x for o in log(20, 8)])
    for mine, theirs in zip(ours.estimate(x), plain.estimate(x), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)


def test_the_theoretical_width_is_that_of_w_and_never_above_the_published_bound() -> None:
    gamma, delta, noise, bound = 0.97, 0.1, 0.4, 1.5
    outcomes = log(300, 9)
    params = {"width": "theoretical", "delta": delta, "noise": noise, "bound": bound}
    params |= {"ridge": 2.0, "level": 2.0, "gamma": gamma}
    policy = trained(make_policy("d-linucb", dim=DIM, params=params), outcomes)
    largest = max(float(o.x @ o.x) for o in outcomes)
    t = len(outcomes)
    summed = largest * (1.0 - gamma ** (2 * t)) / (2.0 * DIM * (1.0 - gamma**2))
    published = noise * math.sqrt(2.0 * math.log(1.0 / delta) + DIM * math.log1p(summed)) + bound
    for k, arm in enumerate(ARMS[:3]):
        precision = 2.0 * np.eye(DIM)
        weights = [gamma ** (2 * (t - s)) for s, o in enumerate(outcomes, 1) if o.arm == arm]
        x = np.stack([o.x for o in outcomes if o.arm == arm]).astype(np.float64)
        w = (x * np.array(weights)[:, None]).T @ x + precision
        gained = np.linalg.slogdet(w)[1] - np.linalg.slogdet(precision)[1]
        radius = noise * math.sqrt(2.0 * math.log(1.0 / delta) + gained) + bound
        assert policy.view["width"][k] == pytest.approx(radius, rel=1e-5)
        assert policy.view["width"][k] <= published + 1e-6


def test_teaching_and_resetting_reach_both_matrices() -> None:
    lesson = Sums(np.eye(DIM) * 4.0, np.ones(DIM), 1.0, 4.0)
    policy, untaught = (trained(DLinUCB(dim=DIM, gamma=0.99), log(100, 3)) for _ in range(2))
    policy.teach("b", lesson)
    for ridge, before in ((policy.ridge, untaught.ridge), (policy.squared, untaught.squared)):
        added = ridge.matrices(100)[1] - before.matrices(100)[1]
        np.testing.assert_allclose(added, lesson.gram, rtol=0, atol=1e-9)
    policy.reset_arm("b", worth=2.0)
    for ridge in (policy.ridge, policy.squared):
        assert ridge.level_counts(100)[1] == pytest.approx(2.0)


# --- discounted Thompson -------------------------------------------------------------------------


def test_thompson_s_arms_all_age_to_the_position_at_which_they_are_weighed() -> None:
    policy = trained(DThompson(dim=DIM, gamma=0.95), log(64, 4))
    assert policy.ridge.last.tolist() == [64, 64, 64]
    for k, arm in enumerate(ARMS[:3]):
        weights = [0.95 ** (64 - s) for s, o in enumerate(log(64, 4), 1) if o.arm == arm]
        assert policy.ridge.level_counts(64)[k] == pytest.approx(sum(weights), rel=1e-9)
        assert policy.ridge.count[k] == pytest.approx(sum(weights), rel=1e-9)


def test_thompson_that_forgets_takes_stock_every_32_outcomes_for_ever() -> None:
    forgetful, faithful = DThompson(dim=DIM, gamma=0.99), Thompson(dim=DIM)
    trained(forgetful, [])
    trained(faithful, [])
    taken: dict[str, list[int]] = {"forgetful": [], "faithful": []}
    before = {"forgetful": forgetful.due, "faithful": faithful.due}
    for outcome in log(2_200, 2):
        for name, policy in (("forgetful", forgetful), ("faithful", faithful)):
            policy.learn([outcome])
            if policy.due != before[name]:
                taken[name].append(policy.clock)
                before[name] = policy.due
    assert taken["forgetful"] == [4, 8, 16, *range(32, 2_201, 32)]
    expected, at = [], next_position(0)
    while at <= 2_200:
        expected.append(at)
        at = next_position(at)
    assert taken["faithful"] == expected


def test_thompson_forgets_what_an_arm_once_was() -> None:
    rng = np.random.default_rng(0)
    x = np.ones((1, DIM), dtype=np.float32)

    def spell(arm: str, level: float, n: int, at: int) -> list[Outcome]:
        return [
            Outcome(
                at + i, "d", arm, x[0], "quality", float(np.clip(level + 0.1 * rng.normal(), 0, 1))
            )
            for i in range(n)
        ]

    story = [o for k in range(100) for o in (*spell("a", 0.9, 2, k), *spell("b", 0.6, 2, k))]
    story += [o for k in range(100) for o in (*spell("a", 0.3, 2, k), *spell("b", 0.6, 2, k))]
    estimates = {}
    for kind in (DThompson, Thompson):
        policy = trained(
            kind(dim=DIM) if kind is Thompson else kind(dim=DIM, half_life=40.0), story
        )
        estimates[kind.name] = policy.estimate(x)[0][0, 0]
    assert estimates["d-thompson"] < 0.4 < estimates["thompson"]

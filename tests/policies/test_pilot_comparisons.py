"""Comparisons as sums, against the joint update of both arms that they represent."""

from __future__ import annotations

import numpy as np
import pytest

from policies.base import Float64
from policies.pilot_comparisons import Duels

D, GAIN = 3, 0.2
X = np.array([0.5, -1.0, 1.0], dtype=np.float32)
SCALE = np.pi**2 / 6


def duels(*, gamma: float = 1.0, levels: tuple[float, ...] = (0.7, 0.5, 0.6)) -> Duels:
    one = Duels(precision=np.array([5.0, 5.0, 1.0]), mean=np.zeros(D), gamma=gamma)
    for arm, level in enumerate(levels):
        one.grow()
        one.anchor_arm(arm, precision=np.array([5.0, 5.0, 1.0 + arm]), mean=np.array([0, 0, level]))
    return one


def joint(before: Duels, winner: int, loser: int) -> tuple[Float64, Float64, Float64]:
    """Return mean[2, D] and covariances[2, D, D] by Laplace's step on both arms at once."""
    theta, inverse = before.solve(0)
    mean = np.concatenate([theta[winner], theta[loser]])
    cov = np.zeros((2 * D, 2 * D))
    cov[:D, :D], cov[D:, D:] = inverse[winner], inverse[loser]
    row = np.concatenate([X, -X]).astype(np.float64)
    p = 1.0 / (1.0 + np.exp(-row @ mean / GAIN))
    fisher = p * (1.0 - p) / GAIN**2 * (GAIN**2 * SCALE)
    gain = cov @ row / (1.0 / fisher + row @ cov @ row)
    mean = mean + gain * (1.0 - p) / GAIN / (p * (1.0 - p) / GAIN**2)
    cov = cov - np.outer(gain, row @ cov)
    return mean.reshape(2, D), cov[:D, :D], cov[D:, D:]


@pytest.mark.parametrize(("winner", "loser"), [(0, 1), (1, 0), (2, 0)])
def test_one_comparison_moves_both_arms_as_their_joint_update_would(
    winner: int, loser: int
) -> None:
    one = duels()
    one.add_comparison(1, 2, X, GAIN, 0)
    mean, won, lost = joint(one, winner, loser)
    one.add_comparison(winner, loser, X, GAIN, 0)
    theta, inverse = one.solve(0)
    np.testing.assert_allclose(theta[[winner, loser]], mean, rtol=1e-9)
    np.testing.assert_allclose(inverse[winner], won, rtol=1e-9)
    np.testing.assert_allclose(inverse[loser], lost, rtol=1e-9)


def test_no_comparison_is_worth_more_or_moves_more_than_its_bound() -> None:
    for levels in ((0.5, 0.5, 0.5), (9.0, -9.0, 0.0), (-400.0, 400.0, 0.0), (1e6, -1e6, 0.0)):
        one = duels(levels=levels)
        before = one.solve(0)[0]
        widths = [one.predict(arm, X.astype(float), 0)[1] for arm in range(3)]
        one.add_comparison(0, 1, X, GAIN, 0)
        moved = (one.solve(0)[0] - before) @ X
        assert all(np.isfinite(part).all() for part in one.state().values())
        assert (one.count <= SCALE / 4 + 1e-12).all() and (one.count[:2] > 0.0).all()
        assert -1e-9 <= moved[0] <= GAIN * SCALE * widths[0]
        assert -GAIN * SCALE * widths[1] <= moved[1] <= 1e-9
        assert moved[2] == 0.0


def test_of_two_alike_one_rises_as_far_as_the_other_falls() -> None:
    one = Duels(precision=np.ones(D), mean=np.zeros(D))
    one.grow(), one.grow()
    one.add_comparison(0, 1, X, GAIN, 0)
    theta = one.solve(0)[0]
    assert theta[0] @ X > 0.02
    np.testing.assert_allclose(theta[0], -theta[1], atol=1e-15)


def test_opposite_opinions_cancel() -> None:
    one = Duels(precision=np.ones(D), mean=np.zeros(D))
    one.grow(), one.grow()
    for i in range(400):
        one.add_comparison(i % 2, 1 - i % 2, X, GAIN, 0)
    assert abs((one.solve(0)[0] @ X) @ [1.0, -1.0]) < 0.01


def test_a_thousand_wins_end_where_odds_of_a_thousand_would() -> None:
    one = Duels(precision=np.ones(D), mean=np.zeros(D))
    one.grow(), one.grow()
    gaps = []
    for _ in range(1_000):
        one.add_comparison(0, 1, X, GAIN, 0)
        gaps.append(float(one.solve(0)[0] @ X @ [1.0, -1.0]))
    assert (np.diff(gaps) > 0.0).all()
    assert 5.0 < gaps[-1] / GAIN < 10.0
    assert gaps[-1] - gaps[499] < GAIN
    assert one.count.max() < 20.0, "sure odds teach little"


def test_a_surprise_leaves_no_residual_for_rewards() -> None:
    one = Duels(precision=np.full(D, 1e9), mean=np.array([0.0, 0.0, 0.5]))
    for arm, level in enumerate((-1.0, 1.0)):
        one.grow()
        one.anchor_arm(arm, precision=np.full(D, 1e9), mean=np.array([0, 0, level]))
    one.add_comparison(0, 1, X, GAIN, 0)
    error, _ = one.residuals(*one.solve(0))
    np.testing.assert_allclose(error, 0.0, atol=1e-6)


def test_comparisons_are_forgotten_at_the_pace_of_outcomes() -> None:
    one = duels(gamma=0.9)
    one.add_comparison(0, 1, X, GAIN, 5)
    kept = one.count[0]
    assert (one.last[:2] == 5).all()
    one.add_comparison(0, 2, X, GAIN, 8)
    fresh = one.count[2]
    assert one.count[0] - kept * 0.9**3 == pytest.approx(fresh, rel=0.5)
    late = one.solve(400)[0]
    np.testing.assert_allclose(late, duels().solve(0)[0], atol=1e-12)

"""Comparisons as sums: Bradley-Terry on a ridge, one comparison at a time.

A comparison tells a difference, and nothing of the level that two arms share; so its sums are
kept apart from those of rewards, and whoever joins them lets their level float.
"""

from __future__ import annotations

import math

import numpy as np

from policies.base import Float32, Sums
from policies.ridge import RidgeArms


class Duels(RidgeArms):
    """Arm a is preferred over b at x with log-odds ``d / gain``, d = x.theta_a - x.theta_b.

    Notes
    -----
    So it is when rewards have Gumbel noise of scale `gain` and the larger of two is preferred.
    The variance of that noise, ``gain^2 pi^2 / 6``, is the unit of all precisions here: one
    outcome is worth 1. Let p be the probability of what was seen, at the means of both arms, and
    v_a, v_b their variances. Laplace's step takes it for an outcome ``d + gain / p`` of the
    difference, worth ``w = p (1 - p) pi^2 / 6``. The marginals of the joint update are those of

        ``x.theta_a + gain / p``, worth ``w / (1 + w v_b)``, as an outcome of the preferred arm, and
        ``x.theta_b - gain / p``, worth ``w / (1 + w v_a)``, as one of the other arm:

    never worth more than ``pi^2 / 24``. Worth times ``gain / p`` stays below ``gain pi^2 / 6``,
    however surprising, so no step is larger than that times the variance of its arm.
    """

    def fight(self, winner: int, loser: int, x: Float32, gain: float, clock: int) -> None:
        """Add that `winner` was preferred over `loser` at `x`, at fold position `clock`."""
        wide = x.astype(np.float64)
        (mean, variance), (other, spread) = (
            self.belief(arm, wide, clock) for arm in (winner, loser)
        )
        p = 1.0 / (1.0 + math.exp(min(-(mean - other) / gain, _FAR)))
        worth = max(p * (1.0 - p), _LEAST) * _UNIT
        push = (1.0 - p) * _UNIT * gain
        outer = np.outer(wide, wide)
        for arm, level, sign, unsure in (
            (winner, mean, 1.0, spread),
            (loser, other, -1.0, variance),
        ):
            share = 1.0 / (1.0 + worth * unsure)
            own, moved = worth * share, sign * push * share
            # Its residual is a surprise about a preference, and no noise of rewards: left out.
            square = level * (own * level + 2.0 * moved)
            self.add(arm, Sums(own * outer, (own * level + moved) * wide, square, own), clock)


_UNIT = math.pi**2 / 6.0
_FAR, _LEAST = 500.0, 1e-9  # beyond, floats overflow; below, sums would round to nothing

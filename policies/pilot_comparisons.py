"""Comparisons as sums: a Bradley-Terry model on ridge regressions, one comparison at a time.

A comparison is evidence of a difference, and none of the level that two arms share. So its sums
must be kept apart from those of rewards, and the level stays free when the two are combined.
"""

from __future__ import annotations

import math

import numpy as np

from policies.base import Float32, Sums
from policies.ridge import RidgeArms


class Duels(RidgeArms):
    """Sums of comparisons: a is preferred over b at x with log-odds ``d / gain``.

    Here d is ``x.theta_a - x.theta_b``.

    Parameters
    ----------
    precision : float64[d]
        See `RidgeArms`.
    mean : float64[d]
        See `RidgeArms`.
    gamma : float, default 1.0
        See `RidgeArms`.

    Notes
    -----
    The model holds when rewards have Gumbel noise of scale `gain` and the larger of two is
    preferred. The variance of that noise, ``gain^2 pi^2 / 6``, is the unit of all precisions here:
    one outcome is worth 1. Let p be the probability of the observed preference, at the means of
    both arms, and v_a, v_b their variances. Laplace's method treats the comparison as an outcome
    ``d + gain / p`` of the difference, worth ``w = p (1 - p) pi^2 / 6``. The marginals of the joint
    update are those of two outcomes:

        ``x.theta_a + gain / p``, worth ``w / (1 + w v_b)``, of the preferred arm, and
        ``x.theta_b - gain / p``, worth ``w / (1 + w v_a)``, of the other arm.

    Neither is worth more than ``pi^2 / 24``. Its worth times ``gain / p`` stays below
    ``gain pi^2 / 6``, however surprising the comparison is. So no step is larger than that times
    the variance of its arm.
    """

    def add_comparison(self, winner: int, loser: int, x: Float32, gain: float, clock: int) -> None:
        """Add a comparison.

        Parameters
        ----------
        winner : int
            The preferred arm.
        loser : int
            The other arm.
        x : float32[d]
            Features of the prompt.
        gain : float
            Reward per unit of log-odds, above 0.
        clock : int
            Fold position.
        """
        wide = x.astype(np.float64)
        mean, variance = self.predict(winner, wide, clock)
        loser_mean, loser_variance = self.predict(loser, wide, clock)
        p = 1.0 / (1.0 + math.exp(min(-(mean - loser_mean) / gain, _MOST_LOG_ODDS)))
        worth = max(p * (1.0 - p), _LEAST_VARIANCE) * _UNIT
        push = (1.0 - p) * _UNIT * gain
        outer = np.outer(wide, wide)
        for arm, level, sign, rival_variance in (
            (winner, mean, 1.0, loser_variance),
            (loser, loser_mean, -1.0, variance),
        ):
            share = 1.0 / (1.0 + worth * rival_variance)
            own, moved = worth * share, sign * push * share
            # Its residual is left out: it is a surprise about a preference, not noise of rewards.
            square = level * (own * level + 2.0 * moved)
            self.add(arm, Sums(own * outer, (own * level + moved) * wide, square, own), clock)


_UNIT = math.pi**2 / 6.0
_MOST_LOG_ODDS = 500.0
"""Above it the exponential overflows."""
_LEAST_VARIANCE = 1e-9
"""Below it sums would round to 0."""

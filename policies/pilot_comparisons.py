"""A Bradley-Terry model as sums of ridge regressions that grow by one comparison at a time.

A comparison is evidence of the difference between two arms. It says nothing about the level that
both arms share. So the sums of comparisons must be kept apart from the sums of rewards. When the
two are combined, comparisons leave the level free.
"""

from __future__ import annotations

import math

import numpy as np

from policies.base import Float32, Sums
from policies.ridge import RidgeArms


class Duels(RidgeArms):
    """Sums of comparisons: arm a is preferred over arm b at x with log-odds ``d / gain``.

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
    The model holds if rewards have Gumbel noise of scale `gain` and the arm with the larger reward
    is preferred. The variance of that noise is ``gain^2 pi^2 / 6``. All precisions here are in
    units of its inverse, so one outcome is worth 1. Let p be the probability of the observed
    preference at the means of both arms, and let v_a and v_b be the variances of these means.
    Laplace's method treats the comparison as an outcome ``d + gain / p`` of the difference d, worth
    ``w = p (1 - p) pi^2 / 6``. The marginals of the joint update are those of two outcomes:

        ``x.theta_a + gain / p``, worth ``w / (1 + w v_b)``, of the preferred arm, and
        ``x.theta_b - gain / p``, worth ``w / (1 + w v_a)``, of the other arm.

    Each of the two is worth at most ``pi^2 / 24``. Its worth times ``gain / p`` stays below
    ``gain pi^2 / 6``, even for the most surprising comparison. So no step of an arm's mean is
    larger than ``gain pi^2 / 6`` times the variance of that mean.
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
        winner_mean, winner_variance = self.predict(winner, wide, clock)
        loser_mean, loser_variance = self.predict(loser, wide, clock)
        p = 1.0 / (1.0 + math.exp(min(-(winner_mean - loser_mean) / gain, _MOST_LOG_ODDS)))
        worth = max(p * (1.0 - p), _LEAST_VARIANCE) * _UNIT
        push = (1.0 - p) * _UNIT * gain
        outer = np.outer(wide, wide)
        for arm, mean, sign, rival_variance in (
            (winner, winner_mean, 1.0, loser_variance),
            (loser, loser_mean, -1.0, winner_variance),
        ):
            share = 1.0 / (1.0 + worth * rival_variance)
            arm_worth, arm_push = worth * share, sign * push * share
            moment = arm_worth * mean + arm_push
            # The residual is left out: it measures a surprising preference, not noise of rewards.
            square = mean * (arm_worth * mean + 2.0 * arm_push)
            self.add(arm, Sums(arm_worth * outer, moment * wide, square, arm_worth), clock)


_UNIT = math.pi**2 / 6.0
_MOST_LOG_ODDS = 500.0
"""Log-odds are capped here, because the exponential of a much larger number overflows."""
_LEAST_VARIANCE = 1e-9
"""Least value of p (1 - p): sums of a smaller one would round to 0."""

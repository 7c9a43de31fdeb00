"""Models of the cost and the latency of a request, beside the policy's model of quality.

Both learn from the same log as the policy, in the same fold. Neither is ever mixed with quality in
one number. The statistics of the cost model hold no money: it learns the output tokens of a model
as a multiple of the prior's, so a new price row moves its prediction at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.base import Arrays, ByArm, Float32, Float64, Outcome, Sums, sums_of
from policies.params import arm_prior
from policies.ridge import RidgeArms, next_position

MOST_TIMES_PRIOR = 64.0
"""Largest multiple of the prior that one outcome may report.

Without this limit, one wrong bill could make a model look too expensive to be tried again.
"""
LEAST_TIMES_PRIOR = 1.0 / 64.0
"""Smallest multiple."""

_SLOPES = 30.0  # prior precision of the slopes
_PSEUDO = 3.0  # observations that the prior of the level, and that of the variance, are worth
_VARIANCE, _MOST_VARIANCE = 0.25, 1.0  # of the residuals: prior, and largest
_LEVEL = -0.5 * _VARIANCE  # with it the mean of the lognormal is the prior's


class CostModel(ByArm):
    """Cost of a request: its input tokens at their price, plus a regression of its output tokens.

    Parameters
    ----------
    dim : int
        Number of features d; the last one is the intercept.

    Notes
    -----
    Each arm has a ridge regression of y = log(output tokens / the prior's output tokens) on the
    features of the request. The prior precision of the slopes is 30, around the slopes that arms
    have in common; the prior of the level is worth 3 observations. With v_a the residual variance
    (with 3 pseudo-observations of .25, at most 1), the prediction is the mean of a lognormal,
    ``exp(theta_a.x + v_a / 2)``. Before anything is learned it is the prior's. The common slopes,
    weighted by outcomes, are computed again at fixed positions of this model's own count.
    """

    SAVED = ("common",)

    def __init__(self, *, dim: int) -> None:
        super().__init__(dim=dim)
        precision, self.common = arm_prior(dim, ridge=_SLOPES, level=_PSEUDO, prior=_LEVEL)
        self.clock, self.due = 0, next_position(0)
        self.ridge = RidgeArms(precision=precision, mean=self.common)

    def _grow(self) -> None:
        self.ridge.grow()

    def adopt(self, prior: Mapping[str, NDArray[Any]]) -> None:
        """Start from the sums of cost in a fitted prior, if it has any.

        Parameters
        ----------
        prior : mapping from str to array
            The arrays of `sums_of` under the prefix ``cost_``.
        """
        self.prior_sums = sums_of(prior, prefix="cost_")

    def learn(self, outcome: Outcome) -> None:
        """Fold one reported cost; where output is free of charge there is nothing to learn.

        Parameters
        ----------
        outcome : Outcome
            Of field ``cost``.

        Raises
        ------
        KeyError
            For an arm that was not added.
        ValueError
            For a value that is not finite.
        """
        arm = self._position(outcome.arm)
        if not math.isfinite(outcome.value):
            raise ValueError(f"value: finite, not {outcome.value}")
        y = log_ratio_of(outcome)
        if y is not None:
            self.clock += 1
            self.ridge.update(arm, outcome.x, y, self.clock)
            if self.clock >= self.due:
                self._align()
                self.due = next_position(self.clock)

    def _teach(self, arm: int, sums: Sums) -> None:
        self.ridge.add(arm, sums, self.clock)
        self._align()

    def _align(self) -> None:
        """Compute the common slopes, and make them the prior mean of all arms."""
        theta, _ = self.ridge.solve(self.clock)
        self.common = self.ridge.count @ theta / max(float(self.ridge.count.sum()), 1.0)
        self.common[-1] = _LEVEL
        self.ridge.anchor(precision=self.ridge.fresh[0], mean=self.common)

    def _state(self) -> Arrays:
        return {"at": np.array([self.clock, self.due])} | self.ridge.state()

    def _load(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.clock, self.due = state["at"].tolist()
        self.ridge.load(state)
        self.ridge.anchor(precision=self.ridge.fresh[0], mean=self.common)

    def publish(self) -> Arrays:
        """Return the arrays that prediction reads: theta[K, d], half the residual variance[K]."""
        smear = _smear(*self.ridge.cached_residuals(self.clock))
        thetas = [self.ridge.solve_one(arm, self.clock)[0] for arm in range(len(self.arms))]
        theta = np.array(thetas, dtype=np.float32).reshape(-1, len(self.common))
        return {"theta": theta, "smear": smear.astype(np.float32)}

    def expect(self, outcome: Outcome) -> float:
        """Return the cost of a decision that the outcomes learned so far predict.

        Parameters
        ----------
        outcome : Outcome
            An outcome of that decision; its value is not read.

        Returns
        -------
        float
            US dollars.
        """
        arm = self.arms.index(outcome.arm)
        theta, inverse = self.ridge.solve_one(arm, self.clock)
        residuals = self.ridge.residuals(theta[None], inverse[None], slice(arm, arm + 1))
        power = float(outcome.x @ theta + _smear(*residuals)[0])
        output = outcome.cost_prior_usd - outcome.input_cost_usd
        return outcome.input_cost_usd + math.exp(min(max(power, _LEAST), _MOST)) * output

    def predict(
        self,
        x: Float32,
        input_cost_usd: Float64,
        output_prior_usd: Float64,
        *,
        columns: NDArray[np.intp] | None = None,
    ) -> Float64:
        """Return the predicted cost of n requests.

        Parameters
        ----------
        x : float32[n, d]
            Features.
        input_cost_usd : float64[n, K]
            Cost of the input tokens.
        output_prior_usd : float64[K]
            Cost of the prior's output tokens.
        columns : int[K] or None
            Positions of the K arms; None for all arms in order.

        Returns
        -------
        float64[n, K]
            US dollars.
        """
        theta, smear = self.view["theta"], self.view["smear"]
        if columns is not None:
            theta, smear = theta[columns], smear[columns]
        power = np.minimum(np.maximum(x @ theta.T + smear, _LEAST), _MOST)
        return input_cost_usd + np.exp(power, dtype=np.float64) * output_prior_usd


def _smear(error: Float64, freedom: Float64) -> Float64:
    """Return half the residual variance[K] of squared residuals over their degrees of freedom."""
    variance = (error + _PSEUDO * _VARIANCE) / (freedom + _PSEUDO)
    # Answers that cost nothing do not fit a lognormal; the cap keeps the prediction from growing.
    smear: Float64 = 0.5 * np.minimum(variance, _MOST_VARIANCE)
    return smear


_LEAST, _MOST = math.log(LEAST_TIMES_PRIOR), math.log(MOST_TIMES_PRIOR)


def log_ratio(ratio: float) -> float:
    """Return the logarithm of a multiple of the prior.

    Parameters
    ----------
    ratio : float
        The multiple; it is clipped to [`LEAST_TIMES_PRIOR`, `MOST_TIMES_PRIOR`].

    Returns
    -------
    float
        The logarithm.
    """
    return math.log(min(max(ratio, LEAST_TIMES_PRIOR), MOST_TIMES_PRIOR))


def log_ratio_of(outcome: Outcome) -> float | None:
    """Return the y of `CostModel` for a reported cost.

    Parameters
    ----------
    outcome : Outcome
        Of field ``cost``.

    Returns
    -------
    float or None
        None where output tokens are free of charge.
    """
    output = outcome.cost_prior_usd - outcome.input_cost_usd
    return log_ratio((outcome.value - outcome.input_cost_usd) / output) if output > 0.0 else None


class LatencyModel(ByArm):
    """Mean latency of each arm in milliseconds, 0 before its first observation."""

    def __init__(self) -> None:
        super().__init__(dim=0)
        self.kept = {"total": np.zeros(0), "count": np.zeros(0)}

    def learn(self, outcome: Outcome) -> None:
        """Fold one observed latency.

        Parameters
        ----------
        outcome : Outcome
            Of field ``latency``.

        Raises
        ------
        KeyError
            For an arm that was not added.
        """
        arm = self._position(outcome.arm)
        self.kept["total"][arm] += outcome.value
        self.kept["count"][arm] += 1.0

    def publish(self) -> Arrays:
        """Return the mean of each arm, the only array that prediction reads."""
        return {"mean": self.kept["total"] / np.maximum(self.kept["count"], 1.0)}

    def predict(self, n: int) -> Float64:
        """Return the predicted latency of n requests.

        Parameters
        ----------
        n : int
            Number of requests.

        Returns
        -------
        float64[n, K]
            Milliseconds; 0 for an arm without an observation.
        """
        mean = self.view["mean"]
        filled = np.empty((n, len(mean)))
        filled[:] = mean
        return filled

"""What a request will cost and how long it will take: models beside the quality model.

Both learn from the same log as the policy and are part of the same fold, but never meet quality
in one number. The cost model keeps money out of its statistics: it learns how many times the
prior output tokens a model really writes, so a new price row moves its prediction at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.base import Arrays, Float32, Float64, Outcome, Sums, sums_of
from policies.ridge import RidgeArms, next_position

MOST_TIMES_PRIOR = 64.0
LEAST_TIMES_PRIOR = 1.0 / 64.0
"""What one outcome may claim: a single wrong bill must not price a model out for good."""

_SLOPES, _PSEUDO, _VARIANCE, _MOST_VARIANCE = 30.0, 3.0, 0.25, 1.0
_LEVEL = -0.5 * _VARIANCE


class CostModel:
    """Input tokens x price, plus a regression on the features of output tokens x price.

    Parameters
    ----------
    dim : number of features; the last one is the intercept.

    Notes
    -----
    y = log(output tokens / the prior's output tokens) is a ridge per arm on the features of the
    request: precision 30 on slopes, around the slopes that arms have in common, and 3
    pseudo-observations of the prior on the level. With v_a the residual variance (3
    pseudo-observations of .25, at most 1), the prediction is the mean of a lognormal,
    ``exp(theta_a.x + v_a / 2)``: the prior's before anything is learned. The common slopes,
    weighted by outcomes, are taken anew at fixed positions of this model's own count.
    """

    def __init__(self, *, dim: int) -> None:
        precision = np.full(dim, _SLOPES)
        precision[-1] = _PSEUDO
        self.arms: list[str] = []
        self.clock, self.due = 0, next_position(0)
        self.common = np.zeros(dim)
        self.common[-1] = _LEVEL
        self.ridge = RidgeArms(precision=precision, mean=self.common)
        self.lessons: dict[str, Sums] = {}
        self.view: Arrays = {}

    def add_arm(self, name: str) -> None:
        """Add an arm; one that was here before keeps what it has learned."""
        if name not in self.arms:
            self.arms.append(name)
            self.ridge.grow()
            if name in self.lessons:
                self.teach(name, self.lessons[name])

    def adopt(self, prior: Mapping[str, NDArray[Any]]) -> None:
        """Start from the ``cost_`` sums of a fitted prior, where it has any; see `sums_of`."""
        self.lessons = sums_of(prior, prefix="cost_")

    def learn(self, outcome: Outcome) -> None:
        """Fold one realised cost; where output is free of charge there is nothing to learn."""
        if outcome.arm not in self.arms:
            raise KeyError(outcome.arm)
        if not math.isfinite(outcome.value):
            raise ValueError(f"value: finite, not {outcome.value}")
        y = lesson(outcome)
        if y is not None:
            self.clock += 1
            self.ridge.update(self.arms.index(outcome.arm), outcome.x, y, self.clock)
            if self.clock >= self.due:
                self._align()
                self.due = next_position(self.clock)

    def teach(self, name: str, sums: Sums) -> None:
        """Add to an arm what imaginary outcomes have taught of y; unknown arms are a KeyError."""
        if name not in self.arms:
            raise KeyError(name)
        sums.check(len(self.common))
        self.ridge.add(self.arms.index(name), sums, self.clock)
        self._align()

    def _align(self) -> None:
        """Draw all arms to the slopes that they have in common."""
        theta, _ = self.ridge.solve(self.clock)
        self.common = self.ridge.count @ theta / max(float(self.ridge.count.sum()), 1.0)
        self.common[-1] = _LEVEL
        self.ridge.anchor(precision=self.ridge.fresh[0], mean=self.common)

    def state(self) -> Arrays:
        """Return the sums as plain arrays."""
        own: Arrays = {"arms": np.array(self.arms, dtype=np.str_), "common": self.common.copy()}
        return own | {"at": np.array([self.clock, self.due])} | self.ridge.state()

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over a `state`."""
        self.arms = [str(name) for name in state["arms"]]
        self.common = np.array(state["common"], dtype=np.float64)
        self.clock, self.due = (int(position) for position in state["at"])
        self.ridge.load(state)
        self.ridge.anchor(precision=self.ridge.fresh[0], mean=self.common)

    def publish(self) -> Arrays:
        """Return theta[K, d] and half the residual variance[K], all that prediction reads."""
        smear = _smear(*self.ridge.cached_residuals(self.clock))
        thetas = [self.ridge.solve_one(arm, self.clock)[0] for arm in range(len(self.arms))]
        theta = np.array(thetas, dtype=np.float32).reshape(-1, len(self.common))
        return {"theta": theta, "smear": smear.astype(np.float32)}

    def install(self, view: Arrays) -> None:
        """Predict from a published `view`."""
        self.view = view

    def refresh(self) -> None:
        """Publish and install in one step."""
        self.install(self.publish())

    def expect(self, outcome: Outcome) -> float:
        """Return the US dollars that what was learned by now predicts for a decision."""
        arm = self.arms.index(outcome.arm)
        theta, inverse = self.ridge.solve_one(arm, self.clock)
        left = self.ridge.residuals(theta[None], inverse[None], slice(arm, arm + 1))
        power = float(outcome.x @ theta + _smear(*left)[0])
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
        """Return predicted US dollars[n, K].

        Parameters
        ----------
        x : float32[n, d], features of the requests.
        input_cost_usd : float64[n, K], US dollars for the input tokens.
        output_prior_usd : float64[K], US dollars for the prior's output tokens.
        columns : int[K], the arms asked about; None means all, in order.
        """
        theta, smear = self.view["theta"], self.view["smear"]
        if columns is not None:
            theta, smear = theta[columns], smear[columns]
        power = np.minimum(np.maximum(x @ theta.T + smear, _LEAST), _MOST)
        return input_cost_usd + np.exp(power, dtype=np.float64) * output_prior_usd


def _smear(error: Float64, freedom: Float64) -> Float64:
    """Return half the residual variance[K] of squared residuals over their degrees of freedom."""
    variance = (error + _PSEUDO * _VARIANCE) / (freedom + _PSEUDO)
    # Answers that cost nothing are no lognormal: they must not make a model look dear.
    smear: Float64 = 0.5 * np.minimum(variance, _MOST_VARIANCE)
    return smear


_LEAST, _MOST = math.log(LEAST_TIMES_PRIOR), math.log(MOST_TIMES_PRIOR)


def log_ratio(ratio: float) -> float:
    """Return the logarithm of a multiple of the prior, held between the two limits."""
    return math.log(min(max(ratio, LEAST_TIMES_PRIOR), MOST_TIMES_PRIOR))


def lesson(outcome: Outcome) -> float | None:
    """Return what a realised cost teaches, the y of `CostModel`; None where output is free."""
    output = outcome.cost_prior_usd - outcome.input_cost_usd
    return log_ratio((outcome.value - outcome.input_cost_usd) / output) if output > 0.0 else None


class LatencyModel:
    """The mean latency of each arm in milliseconds, 0 before the first observation."""

    def __init__(self) -> None:
        self.arms: list[str] = []
        self.total, self.count = np.zeros((2, 0))
        self.view: Float64 = np.zeros(0)

    def add_arm(self, name: str) -> None:
        """Add an arm; one that was here before keeps what it has learned."""
        if name not in self.arms:
            self.arms.append(name)
            self.total, self.count = np.append(self.total, 0.0), np.append(self.count, 0.0)

    def learn(self, outcome: Outcome) -> None:
        """Fold one observed latency."""
        if outcome.arm not in self.arms:
            raise KeyError(outcome.arm)
        arm = self.arms.index(outcome.arm)
        self.total[arm] += outcome.value
        self.count[arm] += 1.0

    def state(self) -> Arrays:
        """Return sums and counts as plain arrays."""
        names = np.array(self.arms, dtype=np.str_)
        return {"arms": names, "total": self.total.copy(), "count": self.count.copy()}

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over a `state`."""
        self.arms = [str(name) for name in state["arms"]]
        self.total = np.array(state["total"], dtype=np.float64)
        self.count = np.array(state["count"], dtype=np.float64)

    def publish(self) -> Arrays:
        """Return the mean of each arm, the only thing that prediction reads."""
        return {"mean": self.total / np.maximum(self.count, 1.0)}

    def install(self, view: Arrays) -> None:
        """Predict from a published `view`."""
        self.view = np.asarray(view["mean"], dtype=np.float64)

    def refresh(self) -> None:
        """Publish and install in one step."""
        self.install(self.publish())

    def predict(self, n: int) -> Float64:
        """Return predicted milliseconds[n, K]."""
        filled = np.empty((n, len(self.view)))
        filled[:] = self.view
        return filled

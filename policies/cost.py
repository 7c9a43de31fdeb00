"""What a request will cost and how long it will take: models beside the quality model.

Both learn from the same log as the policy and are part of the same fold, but never meet quality
in one number. The cost model keeps money out of its statistics: it learns how many times the
prior output tokens a model really writes, so a new price row moves its prediction at once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from policies.base import Arrays, Float32, Float64, Outcome

MOST_TIMES_PRIOR = 64.0
"""What one outcome may claim: a single wrong bill must not price a model out for good."""


class _Means:
    """A running mean per arm with a prior worth `weight` observations."""

    def __init__(self, *, prior: float, weight: float) -> None:
        self.prior, self.weight = prior, weight
        self.arms: list[str] = []
        self.total = np.zeros(0)
        self.count = np.zeros(0)
        self.view: Float64 = np.zeros(0)

    def add_arm(self, name: str) -> None:
        """Add an arm; one that was here before keeps what it has learned."""
        if name not in self.arms:
            self.arms.append(name)
            self.total = np.append(self.total, 0.0)
            self.count = np.append(self.count, 0.0)

    def _add(self, arm: str, value: float) -> None:
        if arm not in self.arms:
            raise KeyError(arm)
        k = self.arms.index(arm)
        self.total[k] += value
        self.count[k] += 1.0

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
        weight = self.count + self.weight
        seen = np.where(weight > 0.0, weight, 1.0)
        mean = np.where(weight > 0.0, (self.total + self.prior * self.weight) / seen, self.prior)
        return {"mean": mean}

    def install(self, view: Arrays) -> None:
        """Predict from a published `view`."""
        self.view = np.asarray(view["mean"], dtype=np.float64)

    def refresh(self) -> None:
        """Publish and install in one step."""
        self.install(self.publish())


class CostModel(_Means):
    """Input tokens x price, plus a learned mean of output tokens x price.

    The mean is kept as a multiple of the output tokens that the cost prior assumes, with three
    pseudo-observations of the prior.
    """

    def __init__(self) -> None:
        super().__init__(prior=1.0, weight=3.0)

    def learn(self, outcome: Outcome) -> None:
        """Fold one realised cost; where output is free of charge there is nothing to learn."""
        output = outcome.cost_prior - outcome.input_cost
        if output > 0.0:
            ratio = (outcome.value - outcome.input_cost) / output
            self._add(outcome.arm, min(max(ratio, 0.0), MOST_TIMES_PRIOR))

    def predict(
        self,
        x: Float32,
        input_cost: Float64,
        output_prior: Float64,
        *,
        columns: NDArray[np.intp] | None = None,
    ) -> Float64:
        """Return predicted US dollars[n, K].

        Parameters
        ----------
        x : float32[n, d], features of the requests.
        input_cost : float64[n, K], US dollars for the input tokens.
        output_prior : float64[K], US dollars for the prior's output tokens.
        columns : int[K], the arms asked about; None means all, in order.
        """
        ratio = self.view if columns is None else self.view[columns]
        return input_cost + ratio * output_prior


class LatencyModel(_Means):
    """The mean latency of each arm in milliseconds, 0 before the first observation."""

    def __init__(self) -> None:
        super().__init__(prior=0.0, weight=0.0)

    def learn(self, outcome: Outcome) -> None:
        """Fold one observed latency."""
        self._add(outcome.arm, outcome.value)

    def predict(self, n: int) -> Float64:
        """Return predicted milliseconds[n, K]."""
        filled = np.empty((n, len(self.view)))
        filled[:] = self.view
        return filled

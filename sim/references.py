"""What a result is judged against: mixes and oracles that see the whole matrix of labels.

References are computed in hindsight on the very rows that a policy was scored on. They must never
be fed to a policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.knapsack import best_value

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class References:
    """The levels that a router has to be compared with, on one set of rows.

    Attributes
    ----------
    models : K names.
    quality, cost : float64[K], mean of each model; cost in US dollars per request.
    oracle : (quality, cost) of the best answer to every prompt, the cheapest among equals; at a
        budget rate that of the knapsack, which then may split one prompt and, where not even the
        cheapest answers fit, refuse some.
    """

    models: tuple[str, ...]
    quality: Float64
    cost: Float64
    oracle: tuple[float, float]

    @classmethod
    def of(
        cls,
        models: Sequence[str],
        quality: Float64,
        cost: Float64,
        *,
        budget_rate: float | None = None,
    ) -> References:
        """Compute from quality[n, K] and cost[n, K] without NaN, n at least 1.

        Parameters
        ----------
        budget_rate : US dollars per request that the oracle may spend; None for any sum.
        """
        budget = math.inf if budget_rate is None else budget_rate * len(cost)
        short = float(cost.min(axis=1).sum()) > budget
        plan = best_value(quality, cost, budget, refusable=short)
        return cls(
            models=tuple(models),
            quality=quality.mean(axis=0),
            cost=cost.mean(axis=0),
            oracle=(plan.value / len(cost), plan.cost / len(cost)),
        )

    @classmethod
    def mean(cls, several: Sequence[References]) -> References:
        """Return the mean of references to the same models on several sets of rows."""
        oracle = np.mean([one.oracle for one in several], axis=0)
        return cls(
            models=several[0].models,
            quality=np.mean([one.quality for one in several], axis=0),
            cost=np.mean([one.cost for one in several], axis=0),
            oracle=(float(oracle[0]), float(oracle[1])),
        )

    @property
    def random(self) -> tuple[float, float]:
        """(quality, cost) of choosing uniformly."""
        return float(self.quality.mean()), float(self.cost.mean())

    @property
    def best_single(self) -> int:
        """Index of the model of the highest mean quality, the cheapest among equals."""
        return int(np.lexsort((self.cost, -self.quality))[0])

    def frontier(self) -> Float64:
        """Return the (cost, quality)[m, 2] corners of the zero router, cost ascending.

        The zero router is the best mix of two models that does not look at the prompt: the upper
        left convex hull of the models' means, from the cheapest model on.
        """
        corners: list[tuple[float, float]] = []
        for k in np.lexsort((-self.quality, self.cost)):
            c, q = float(self.cost[k]), float(self.quality[k])
            if corners and (q <= corners[-1][1] or c <= corners[-1][0]):
                continue
            while len(corners) > 1 and _bends_up(corners[-2], corners[-1], (c, q)):
                corners.pop()
            corners.append((c, q))
        return np.array(corners)

    def zero(self, cost: float) -> float:
        """Return the zero router's quality at a mean cost; flat beyond both of its ends."""
        corners = self.frontier()
        return float(np.interp(cost, corners[:, 0], corners[:, 1]))


def _bends_up(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Tell whether b lies on or below the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])

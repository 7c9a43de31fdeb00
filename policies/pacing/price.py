"""The price of money: what a binding budget adds to the penalty, before the pmf.

A price between two values is a mix of two laws, so propensities stay exact; a threshold leaves
out what gains too little quality for its money. Pure functions, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from policies.base import Bools, Float32, Float64, Policy


@dataclass(frozen=True, slots=True)
class Price:
    """What money costs in n decisions; every attribute is float64[n, 1].

    Attributes
    ----------
    low, high : two prices in quality units per US dollar, low <= high.
    share : probability of `low`; anything where both are equal.
    gain : least quality per US dollar, both over the cheapest eligible model, that a model must
        be expected to bring; 0 leaves nothing out.
    rate : US dollars that a request may spend on the average, NaN where no budget says.
    """

    low: Float64
    high: Float64
    share: Float64
    gain: Float64
    rate_usd: Float64

    @classmethod
    def flat(
        cls,
        n: int,
        low: float = 0.0,
        high: float | None = None,
        *,
        share: float = 1.0,
        gain: float = 0.0,
        rate_usd: float = np.nan,
    ) -> Price:
        """Return the same price for n decisions; without `high` it is `low`."""
        values = low, low if high is None else high, share, gain, rate_usd
        return cls(*(np.full((n, 1), value, dtype=np.float64) for value in values))

    @classmethod
    @lru_cache(maxsize=64)
    def none(cls, n: int) -> Price:
        """Return the price of n decisions for which money costs nothing; not to be written to."""
        return cls.flat(n)

    def take(self, rows: slice) -> Price:
        """Return the price of some of the decisions."""
        parts = self.low, self.high, self.share, self.gain, self.rate_usd
        return Price(*(part[rows] for part in parts))


def priced(
    kind: type[Policy],
    scores: Mapping[str, Float32],
    eligible: Bools,
    penalty: Float64,
    cost_usd: Float64,
    price: Price,
    explore: Float64 | None = None,
) -> Float64:
    """Return the pmf[n, K] of a kind of policy at a price of money, mixed where the price is.

    Parameters
    ----------
    scores, eligible, penalty, explore : see `Policy.pmf`; the penalty without money's part.
    cost : float64[n, K], predicted US dollars.
    """
    low = kind.pmf(scores, eligible, penalty + price.low * cost_usd, explore)
    if np.array_equal(price.low, price.high):
        return low
    high = kind.pmf(scores, eligible, penalty + price.high * cost_usd, explore)
    mixed: Float64 = np.where(
        price.low == price.high, low, price.share * low + (1.0 - price.share) * high
    )
    return mixed


def cheapest(cost_usd: Float64, eligible: Bools) -> NDArray[np.intp]:
    """Return the column[n] of the least predicted cost[n, K] among the eligible models."""
    found: NDArray[np.intp] = np.where(eligible, cost_usd, np.inf).argmin(axis=1)
    return found


def poor(mean: Float32, cost_usd: Float64, eligible: Bools, gain: Float64) -> Bools:
    """Return the eligible models[n, K] that gain too little for their money.

    Parameters
    ----------
    mean : float32[n, K], expected quality.
    cost : float64[n, K], predicted US dollars.
    gain : float64[n, 1], see `Price`.

    Notes
    -----
    Gains are counted from the cheapest eligible model, the one that every request can have: it is
    never left out, whatever its quality, so no threshold leaves a request without a model.
    """
    if not mean.size or not gain.any():
        return np.zeros(mean.shape, dtype=np.bool_)
    at = np.arange(len(cost_usd)), cheapest(cost_usd, eligible)
    more = np.where(eligible, cost_usd - cost_usd[at][:, None], 0.0)
    better = np.asarray(mean - mean[at][:, None], dtype=np.float64)
    # A model at the very cost of the cheapest costs nothing more: there is no ratio to refuse.
    return eligible & (more > 0.0) & (better < gain * more)

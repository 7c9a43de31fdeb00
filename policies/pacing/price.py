"""The price of money: what a binding budget adds to the penalty, before the pmf.

All are pure functions, and no row depends on another row of its batch.

A price between two values is a mixture of two laws, so propensities stay exact. A threshold leaves
out models that gain too little quality for their cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from policies.base import Bools, Float32, Float64, Policy


@dataclass(frozen=True, slots=True)
class PriceTerms:
    """The price of the next decisions.

    Attributes
    ----------
    low : float
        The lower of two prices, in quality units per US dollar.
    high : float
        The higher price, in quality units per US dollar.
    share : float
        Probability of `low`.
    gain : float
        Threshold in quality units per US dollar, see `Price`.
    rate_usd : float
        US dollars that a request may cost on the average, NaN where no budget sets it.
    keep_usd : float
        US dollars that a reservation must leave in the budget, unless it is of a request's
        cheapest model: they pay for the cheapest answers to requests still to come.
    """

    low: float = 0.0
    high: float = 0.0
    share: float = 1.0
    gain: float = 0.0
    rate_usd: float = np.nan
    keep_usd: float = 0.0

    def rows(self, n: int) -> Price:
        """Return these terms for n decisions.

        Parameters
        ----------
        n : int
            Number of decisions.

        Returns
        -------
        Price
            The price, without `keep_usd`.
        """
        values = self.low, self.high, self.share, self.gain, self.rate_usd
        return Price(*(np.full((n, 1), value, dtype=np.float64) for value in values))


@dataclass(frozen=True, slots=True)
class Price:
    """The price of money in n decisions.

    Attributes
    ----------
    low : float64[n, 1]
        The lower of two prices, in quality units per US dollar.
    high : float64[n, 1]
        The higher price, in quality units per US dollar.
    share : float64[n, 1]
        Probability of `low`; any value where both prices are equal.
    gain : float64[n, 1]
        Threshold in quality units per US dollar: what a model must be expected to gain. Quality
        and cost are counted over those of the cheapest eligible model. 0 leaves no model out.
    rate_usd : float64[n, 1]
        US dollars that a request may cost on the average, NaN where no budget sets it.
    """

    low: Float64
    high: Float64
    share: Float64
    gain: Float64
    rate_usd: Float64

    @classmethod
    @lru_cache(maxsize=64)
    def none(cls, n: int) -> Price:
        """Return the price of n decisions without a budget; its arrays must not be written to.

        Parameters
        ----------
        n : int
            Number of decisions.

        Returns
        -------
        Price
            Prices of 0; calls of the same n may return the same object.
        """
        return PriceTerms().rows(n)

    def take(self, rows: slice) -> Price:
        """Return the price of some of the decisions.

        Parameters
        ----------
        rows : slice
            The decisions.

        Returns
        -------
        Price
            Views of these rows.
        """
        return Price(*(getattr(self, name)[rows] for name in self.__slots__))


def priced(
    kind: type[Policy],
    scores: Mapping[str, Float32],
    eligible: Bools,
    penalty: Float64,
    cost_usd: Float64,
    price: Price,
    explore: Float64 | None = None,
) -> Float64:
    """Return the law of a policy at a price of money.

    Parameters
    ----------
    kind : type of Policy
        The policy's class.
    scores : mapping from str to float32[n, K]
        See `Policy.pmf`.
    eligible : bool[n, K]
        See `Policy.pmf`.
    penalty : float64[n, K]
        See `Policy.pmf`, without the price of money.
    cost_usd : float64[n, K]
        Predicted cost.
    price : Price
        The price; a mixed price gives a mixture of the laws at its two prices.
    explore : float64[n, K] or None
        See `Policy.pmf`.

    Returns
    -------
    float64[n, K]
        Probability of every arm.
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
    """Return the eligible model of the lowest predicted cost.

    Parameters
    ----------
    cost_usd : float64[n, K]
        Predicted cost.
    eligible : bool[n, K]
        Eligible models.

    Returns
    -------
    int[n]
        Its column; 0 where no model is eligible.
    """
    columns: NDArray[np.intp] = np.where(eligible, cost_usd, np.inf).argmin(axis=1)
    return columns


def below_gain(mean: Float32, cost_usd: Float64, eligible: Bools, gain: Float64) -> Bools:
    """Return the eligible models that gain too little quality for their cost.

    Parameters
    ----------
    mean : float32[n, K]
        Expected quality.
    cost_usd : float64[n, K]
        Predicted cost.
    eligible : bool[n, K]
        Eligible models.
    gain : float64[n, 1]
        Threshold in quality units per US dollar, see `Price`.

    Returns
    -------
    bool[n, K]
        True for a model that the threshold leaves out.

    Notes
    -----
    Gains are counted over the cheapest eligible model. It is never left out, so no threshold leaves
    a request without a model.
    """
    if not mean.size or not gain.any():
        return np.zeros(mean.shape, dtype=np.bool_)
    least = np.arange(len(cost_usd)), cheapest(cost_usd, eligible)
    more_usd = np.where(eligible, cost_usd - cost_usd[least][:, None], 0.0)
    better = np.asarray(mean - mean[least][:, None], dtype=np.float64)
    # A model of the same cost as the cheapest has no gain per dollar that could be too small.
    return eligible & (more_usd > 0.0) & (better < gain * more_usd)

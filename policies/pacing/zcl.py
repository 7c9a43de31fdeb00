"""The mode `zcl`: a threshold that rises with what is spent, for the worst case."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from policies import params
from policies.pacing.base import Money, Pacing, PriceTerms, Window, usd_per_request
from policies.pacing.price import cheapest

_NOTHING = 1e30
"""A threshold in quality per US dollar that no model passes."""


class Zcl(Pacing):
    """A threshold on quality per dollar that rises with what is spent: ON-MCKP [1]_, in bins [2]_.

    Parameters
    ----------
    lower, upper : bounds L and U of quality per US dollar over the cheapest model; 0 for either
        to estimate it from the recent requests.
    bin_size : requests of a bin; 0 for a single bin of the whole window, of which the horizon then
        must be known.
    spread : the least and the most that estimated U / L may be, as exp(1) and exp(spread).

    Notes
    -----
    A model is left out whose gain per dollar, both over the cheapest eligible model, is below
    ``Psi(z) = (U e / L)^z (L / e)``, z the share of the bin's money that is spent. Money is counted
    above the cheapest models' floor, as it was billed. Of the models that are left the policy takes
    the best, so its own law stands. The cheapest is never left out: no request is without a model,
    and no value is negative that matters.

    With L and U known, every cost at most a small part of the budget and one bin, the value is at
    least the optimum's over ``ln(U / L) + 2``, on any order of requests. Of estimated bounds (the
    5th and 95th percentile of the best gains per dollar in the window) no ratio is claimed.

    A bin gets its share of the money left, so what one bin leaves rolls over to the next. When what
    is left would pay for free choice on all requests to come, nothing is left out: at the end of a
    window that is the sniping of the original.

    Cold start: before any window nothing but the cheapest is bought; the first one has the bounds
    of the policy's prior, whose gains are of its prices alone.

    References
    ----------
    .. [1] Zhou, Chakrabarty, Lukose (2008). Budget constrained bidding in keyword auctions and
       online knapsack problems. WINE.
    .. [2] Panda, Magazine, Devaguptapu, Takemori, Sharma (2025). Adaptive LLM routing under
       budget constraints. Findings of EMNLP.
    """

    mode = "zcl"
    moves = True

    def __init__(
        self,
        *,
        lower: float = 0.0,
        upper: float = 0.0,
        bin_size: int = 100,
        spread: float = 8.0,
    ) -> None:
        super().__init__()
        params.not_negative(lower=lower, upper=upper)
        params.positive(spread=spread)
        if bin_size < 0:
            raise ValueError(f"bin_size: at least 0, not {bin_size}")
        if 0.0 < upper < lower:
            raise ValueError(f"upper: at least lower, {lower:g}, not {upper:g}")
        self.lower, self.upper, self.bin_size, self.spread = lower, upper, bin_size, spread
        self._bounds = (lower, upper)
        self._snipe = False
        self._bin_end = -1
        self._bin_money_usd = self._bin_spent_usd = 0.0
        self._bin_count = 0

    def _cold(self, rate_usd: float) -> PriceTerms:
        lower, upper = self._bounds
        return PriceTerms(gain=psi(0.0, lower, upper) if lower and upper else _NOTHING)

    def _solve(self, window: Window, money: Money) -> PriceTerms:
        rate_usd = usd_per_request(money)
        if not math.isfinite(rate_usd):
            return PriceTerms()
        self._estimate(window)
        known = math.isfinite(money.requests) and math.isfinite(money.left_usd)
        left = money.requests if known else math.inf
        if self.count >= self._bin_end:
            size = min(self.bin_size or left, left)
            if not math.isfinite(size):
                raise ValueError("bin_size: above 0 where the horizon is not known")
            self._bin_end = self.count + max(int(size), 1)
            self._bin_money_usd = max(rate_usd - self._floor_usd, 0.0) * size
            self._bin_spent_usd, self._bin_count = self.spent_usd, self.count
        free = window.expected_usd(0.0, window.within(money.left_usd))
        self._snipe = known and free * money.requests <= money.left_usd
        return PriceTerms(gain=self._threshold())

    def charge(self, cost_usd: float, reserved_usd: float) -> None:
        super().charge(cost_usd, reserved_usd)
        self.terms = replace(self.terms, gain=self._threshold())

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
        super().settle(reserved_usd, cost_usd)
        self.terms = replace(self.terms, gain=self._threshold())

    def _threshold(self) -> float:
        lower, upper = self._bounds
        if self._snipe or not (lower > 0.0 and math.isfinite(self._bin_money_usd)):
            return 0.0
        floor = self._floor_usd * (self.count - self._bin_count)
        spent = self.spent_usd - self._bin_spent_usd - floor
        z = min(max(spent / self._bin_money_usd, 0.0), 1.0) if self._bin_money_usd > 0.0 else 1.0
        return psi(z, lower, upper)

    def _estimate(self, window: Window) -> None:
        """Set L and U, from the window where they are not given."""
        at = (
            np.arange(len(window.cost_usd))[:, None],
            cheapest(window.cost_usd, window.eligible)[:, None],
        )
        more = np.where(window.eligible, window.cost_usd - window.cost_usd[at], 0.0)
        gain = np.where(
            more > 0.0, (window.mean - window.mean[at]) / np.where(more > 0, more, 1), 0
        )
        best = gain.max(axis=1, initial=0.0)
        best = best[best > 0.0]
        lower, upper = self._bounds
        if len(best):
            lower, upper = np.quantile(best, (0.05, 0.95)).tolist()
            lower = min(max(lower, upper * math.exp(-self.spread)), upper / math.e)
        self._bounds = self.lower or lower, self.upper or max(upper, self.lower)


def psi(z: float, lower: float, upper: float) -> float:
    """Return the least worth of a dollar when the share z of the budget is spent."""
    return float((upper * math.e / lower) ** z * (lower / math.e))

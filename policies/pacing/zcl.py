"""The mode `zcl`: a threshold that rises with the money spent, for the worst case."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from policies import params
from policies.pacing.base import Money, Pacing, Window, usd_per_request
from policies.pacing.price import PriceTerms, cheapest

_NEVER = 1e30
"""A threshold in quality units per US dollar that no model reaches."""


class Zcl(Pacing):
    """A threshold on quality per dollar that rises with the money spent: ON-MCKP [1]_ in bins [2]_.

    Parameters
    ----------
    lower : float, default 0.0
        Lower bound L of quality units per US dollar over the cheapest model; 0 to estimate it from
        the recent requests.
    upper : float, default 0.0
        Upper bound U, likewise.
    bin_size : int, default 100
        Requests of a bin; 0 for a single bin of the whole window, whose number of requests must
        then be known.
    spread : float, default 8.0
        Estimated bounds have U / L between exp(1) and exp(spread).

    Notes
    -----
    A model is left out when its gain per dollar, over the cheapest eligible model, is below
    ``Psi(z) = (U e / L)^z (L / e)``, where z is the part of the bin's money that is spent. Money is
    counted above the cost of the cheapest models, as it was billed. The policy's own law chooses
    among the models that are left. The cheapest model is never left out, so every request has one,
    and gains are never negative where they count.

    With known L and U, costs that are small parts of the budget, and one bin, the value is at least
    the optimum divided by ``ln(U / L) + 2``, for any order of requests. With estimated bounds (the
    5th and 95th percentile of the best gains per dollar in the window) no ratio is claimed.

    A bin gets its part of the money left, so money that a bin leaves goes to later bins. When the
    money left pays for free choice on all requests to come, no model is left out. At the end of a
    window that is the sniping of the original.

    Cold start: before any window only the cheapest models are bought. The first window takes its
    bounds from the policy's prior, whose gains come from its prices alone.

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
        return PriceTerms(gain=psi(0.0, lower, upper) if lower and upper else _NEVER)

    def _solve(self, window: Window, money: Money) -> PriceTerms:
        rate_usd = usd_per_request(money)
        if not math.isfinite(rate_usd):
            return PriceTerms()
        self._estimate(window)
        has_horizon = math.isfinite(money.requests) and math.isfinite(money.left_usd)
        requests = money.requests if has_horizon else math.inf
        if self.count >= self._bin_end:
            size = min(self.bin_size or requests, requests)
            if not math.isfinite(size):
                raise ValueError("bin_size: above 0 where the horizon is not known")
            self._bin_end = self.count + max(int(size), 1)
            self._bin_money_usd = max(rate_usd - self._floor_usd, 0.0) * size
            self._bin_spent_usd, self._bin_count = self.spent_usd, self.count
        free_choice_usd = window.expected_usd(0.0, window.within(money.left_usd))
        self._snipe = has_horizon and free_choice_usd * money.requests <= money.left_usd
        return PriceTerms(gain=self._threshold())

    def charge(self, cost_usd: float, reserved_usd: float) -> None:
        """See `Pacing.charge`."""
        super().charge(cost_usd, reserved_usd)
        self.terms = replace(self.terms, gain=self._threshold())

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
        """See `Pacing.settle`."""
        super().settle(reserved_usd, cost_usd)
        self.terms = replace(self.terms, gain=self._threshold())

    def _threshold(self) -> float:
        lower, upper = self._bounds
        if self._snipe or not (lower > 0.0 and math.isfinite(self._bin_money_usd)):
            return 0.0
        floor_usd = self._floor_usd * (self.count - self._bin_count)
        spent_usd = self.spent_usd - self._bin_spent_usd - floor_usd
        if self._bin_money_usd <= 0.0:
            return psi(1.0, lower, upper)
        return psi(min(max(spent_usd / self._bin_money_usd, 0.0), 1.0), lower, upper)

    def _estimate(self, window: Window) -> None:
        """Set L and U; estimate from the window those that are not parameters."""
        cost_usd, eligible = window.cost_usd, window.eligible
        least = np.arange(len(cost_usd))[:, None], cheapest(cost_usd, eligible)[:, None]
        more_usd = np.where(eligible, cost_usd - cost_usd[least], 0.0)
        better, none = window.mean - window.mean[least], np.zeros(more_usd.shape)
        gain = np.divide(better, more_usd, out=none, where=more_usd > 0.0)
        best = gain.max(axis=1, initial=0.0)
        best = best[best > 0.0]
        lower, upper = self._bounds
        if len(best):
            lower, upper = np.quantile(best, (0.05, 0.95)).tolist()
            lower = min(max(lower, upper * math.exp(-self.spread)), upper / math.e)
        self._bounds = self.lower or lower, self.upper or max(upper, self.lower)


def psi(z: float, lower: float, upper: float) -> float:
    """Return the threshold of the mode `zcl`, ``(U e / L)^z (L / e)``.

    Parameters
    ----------
    z : float
        Part of the money that is spent, in [0, 1].
    lower : float
        The bound L, in quality units per US dollar.
    upper : float
        The bound U, in quality units per US dollar.

    Returns
    -------
    float
        Quality units per US dollar.
    """
    return float((upper * math.e / lower) ** z * (lower / math.e))

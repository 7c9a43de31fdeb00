"""The mode `pacer`: a price that every bill moves. It needs neither a horizon nor feedback."""

from __future__ import annotations

import math
from dataclasses import replace

from policies import params
from policies.pacing.base import LEAST, MOST, WARM, Money, Pacing, Window, usd_per_request
from policies.pacing.price import PriceTerms

_TINY = 1e-12


class Pacer(Pacing):
    """Online mirror descent on the dual of the budget [1]_: every bill moves the price.

    Parameters
    ----------
    step : float, default 0.03
        Step of the logarithm of the price, per request's worth of money, above 0.

    Notes
    -----
    ``log lambda += step (x / target - 1)``. When a request is charged, x is its reservation; when
    its bill is known, the step is corrected to the bill. So where feedback never comes, money stays
    unspent, and the budget holds. Steps are relative, so no scale of money or quality has to be
    known. Over T requests the mean cost differs from the target by the part
    ``log(lambda_T / lambda_0) / (step T)`` of it, and no more.

    Cold start: each solve within the first 64 requests sets the price at which all requests so far,
    as the present snapshot sees them, would have cost the target. Before any request the price is
    one quality per target. After that only bills move it.

    References
    ----------
    .. [1] Balseiro, Lu, Mirrokni (2023). The best of many worlds: dual mirror descent for online
       allocation problems. Operations Research.
    """

    mode = "pacer"
    moves = True

    def __init__(self, *, step: float = 0.03) -> None:
        super().__init__()
        params.positive(step=step)
        self.step = step
        self._log: float | None = None
        self._target_usd = math.nan

    def _solve(self, window: Window, money: Money) -> PriceTerms:
        rate_usd = usd_per_request(money)
        if not math.isfinite(rate_usd):
            return PriceTerms()
        self._target_usd = max(rate_usd, _TINY)
        if self._log is None or self.count < WARM:
            _, price, _ = self._price_of_spending(window, self._target_usd, money.left_usd)
            self._log = math.log(max(price, self._bounds()[0]))
        return self._terms()

    def charge(self, cost_usd: float, reserved_usd: float) -> None:
        """See `Pacing.charge`."""
        super().charge(cost_usd, reserved_usd)
        self._move(reserved_usd / self._target_usd - 1.0)

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
        """See `Pacing.settle`."""
        super().settle(reserved_usd, cost_usd)
        self._move((cost_usd - reserved_usd) / self._target_usd)

    def _move(self, excess: float) -> None:
        if self._log is not None:
            low, high = (math.log(bound) for bound in self._bounds())
            self._log = min(max(self._log + self.step * excess, low), high)
            self.terms = self._terms()

    def _bounds(self) -> tuple[float, float]:
        return LEAST / self._target_usd, MOST / self._target_usd

    def _terms(self) -> PriceTerms:
        assert self._log is not None
        price = math.exp(self._log)
        return replace(self.terms, low=price, high=price)

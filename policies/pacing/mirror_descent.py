"""The mode `pacer`: a price that every bill moves; no horizon and no feedback needed."""

from __future__ import annotations

import math
from dataclasses import replace

from policies import params
from policies.pacing.base import (
    LEAST,
    MOST,
    WARM,
    Money,
    Pacing,
    PriceTerms,
    Window,
    price_where,
    usd_per_request,
)

_TINY = 1e-12


class Pacer(Pacing):
    """A price that every bill moves: online mirror descent on the budget's dual [1]_.

    Parameters
    ----------
    step : of the price's logarithm, per budgeted request of money.

    Notes
    -----
    ``log lambda += step (x / target - 1)``, x the reservation when a request is charged, corrected
    to its bill when that is known: feedback that never comes leaves money unspent, never a budget
    broken. Steps are relative, so no scale of money or quality has to be known; over T requests
    mean spend is off the target by ``log(lambda_T / lambda_0) / (step T)`` of it and no more.

    Cold start: at each solve of the first 64 requests, the price at which those so far, as now
    seen, would have cost the target; without a window one quality per target. Then bills decide.

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
            target_usd = max(self._target_usd, 1.02 * self._floor_usd)
            open_to = window.within(money.left_usd)
            _, price, _ = price_where(
                lambda price: window.expected_usd(price, open_to),
                target_usd,
                guess=self.terms.high,
                scale=1.0 / target_usd,
            )
            self._log = math.log(max(price, self._bounds()[0]))
        return self._terms()

    def charge(self, cost_usd: float, reserved_usd: float) -> None:
        super().charge(cost_usd, reserved_usd)
        self._move(reserved_usd / self._target_usd - 1.0)

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
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

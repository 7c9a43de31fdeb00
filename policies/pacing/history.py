"""The mode `history`: the price at which recent requests would have cost what the next ones may."""

from __future__ import annotations

import math
from functools import cache, partial

import numpy as np

from policies import params
from policies.base import Bools
from policies.pacing.base import (
    WARM_EVERY,
    Money,
    Pacing,
    PriceTerms,
    Window,
    price_where,
    usd_per_request,
)

_TIE = 1e-3
"""Plans whose worth differs by no more than this part count as equal."""

_NEGLIGIBLE = 0.02


class History(Pacing):
    """The threshold that would have met the target on the recent requests (S-MCKP [1]_).

    Parameters
    ----------
    carry : without a horizon, how many requests' worth of unspent money is remembered.
    debt : and of overspent money.
    horizon : over how many requests either is made up for.
    quality_floor : mean quality that is to be met at the least cost, in [0, 1]; 0 for none. The
        highest price at which the window still meets it is taken, unless the budget wants a higher.

    Notes
    -----
    The price of money is the knapsack's least efficiency ``dv / dc``: the law at a price takes
    every request's last increment above it. Expected spend of the window at a price is exact, the
    law having no draw in it; between two prices that enclose the target their laws are mixed.

    With n requests to come, free money ``F = left - n m`` is spent in phases: a model whose
    reservation is above what is free is out of reach from there on. For each phase there is a price
    at which the money up to its end lasts for just n requests; the last of those worth most is
    taken. So dear models are bought early, while they can be afforded, where that pays; and nothing
    is planned for that no reservation will let through.

    Without a horizon the target is the rate, and a part of what was saved or overspent. It is at
    least 1.02 of what the cheapest models cost: no price can do better, and a router that pays any
    price not to try the others would never learn that one of them is cheaper. With neither horizon
    nor rate there is nothing to aim at, and money costs nothing.

    Cold start: before the first request the window is that request, as the prior sees it; then all
    requests so far, seen anew every 4 until there are 64. The price itself rations what is dear and
    not known, so nothing is forced.

    References
    ----------
    .. [1] Zhou, Naroditskiy (2008). Algorithm for stochastic multiple-choice knapsack problem and
       application to keywords bidding. WWW.
    """

    mode = "history"

    def __init__(
        self,
        *,
        carry: float = 12.0,
        debt: float = 60.0,
        horizon: float = 75.0,
        quality_floor: float = 0.0,
    ) -> None:
        super().__init__()
        params.not_negative(carry=carry, debt=debt)
        params.positive(horizon=horizon)
        params.share(quality_floor=quality_floor)
        self.carry, self.debt, self.horizon = carry, debt, horizon
        self.quality_floor = quality_floor
        self._balance_usd = self._seen_usd = 0.0
        self._counted = 0
        self._phase_usd = math.inf
        self._solved = (0, 0.0)

    def due(self, count: int) -> bool:
        """Return whether to solve anew: also when half the money of a phase has gone since."""
        since, spent = count - self._solved[0], self.spent_usd - self._solved[1]
        gone = spent - self._floor_usd * since > 0.5 * self._phase_usd
        return super().due(count) or (gone and since >= WARM_EVERY)

    def _solve(self, window: Window, money: Money) -> PriceTerms:
        rate_usd = usd_per_request(money)
        guess = self.terms.high
        self._phase_usd, self._solved = math.inf, (self.count, self.spent_usd)
        low, high, share = 0.0, 0.0, 1.0
        if math.isfinite(rate_usd):
            if math.isfinite(money.requests) and math.isfinite(money.left_usd):
                low, high, share = self._lasting(window, money, guess)
            else:
                target = max(rate_usd + self._owed(rate_usd) / self.horizon, 1.02 * self._floor_usd)
                open_to = window.within(money.left_usd)
                low, high, share = price_where(
                    lambda price: window.expected_usd(price, open_to),
                    target,
                    guess=guess,
                    scale=1.0 / target,
                )
        if self.quality_floor > 0.0:
            scale = 1.0 / float(np.where(window.eligible, window.cost_usd, 0.0).max(initial=1e-12))
            lenient = price_where(window.quality, self.quality_floor, guess=guess, scale=scale)
            low, high, share = max((low, high, share), lenient, key=lambda one: one[1])
        return PriceTerms(low, high, share)

    def _owed(self, rate_usd: float) -> float:
        """Return what was saved (or, below 0, overspent) against the rate, in US dollars."""
        saved = rate_usd * (self.count - self._counted) - (self.spent_usd - self._seen_usd)
        self._balance_usd = min(
            max(self._balance_usd + saved, -self.debt * rate_usd), self.carry * rate_usd
        )
        self._counted, self._seen_usd = self.count, self.spent_usd
        return self._balance_usd

    def _lasting(self, window: Window, money: Money, guess: float) -> tuple[float, float, float]:
        """Return the prices at which free money lasts for the requests to come."""
        free = money.left_usd - self._floor_usd * money.requests
        dear = 1.0 / max(usd_per_request(money), 1e-12)
        stages = _stages(window, free)
        self._phase_usd = stages[0][1] if stages else math.inf
        if not stages:
            price = max(guess, dear)
            return price, price, 1.0

        @cache
        def outcome(price: float, stage: int) -> tuple[float, float]:
            # Plans look at the same prices, and some laws are slow to evaluate.
            return window.outcome(price, stages[stage][0])

        def pace(price: float, count: int) -> float:
            """Return requests to come over those that the money of some stages lasts for."""
            lasts = 0.0
            for stage in range(count):
                more = outcome(price, stage)[1] - self._floor_usd
                if more * money.requests <= 1e-9 * stages[stage][1]:
                    return 0.0
                lasts += stages[stage][1] / more
            return money.requests / lasts

        def worth(price: float) -> float:
            """Return what all requests to come are worth at a price, as the stages pass."""
            left, total = money.requests, 0.0
            for stage, (_, amount) in enumerate(stages):
                value, cost = outcome(price, stage)
                lasts = min(amount / max(cost - self._floor_usd, 1e-300), left)
                total, left = total + lasts * value, left - lasts
            return total + left * cheap

        plans = [
            price_where(partial(pace, count=count), 1.0, guess=guess, scale=dear)
            for count in range(1, len(stages) + 1)
        ]
        if len(plans) == 1:
            return plans[0]
        cheap, _ = window.outcome(
            dear, window.only(np.zeros(window.cost_usd.shape[1], dtype=np.bool_))
        )
        values = [worth(high) for _, high, _ in plans]
        # Worth is an estimate; money that is left over is worth nothing for sure.
        enough = max(values) - _TIE * abs(max(values))
        return plans[max(k for k, value in enumerate(values) if value >= enough)]


def _stages(window: Window, free: float) -> list[tuple[Bools, float]]:
    """Return, first to last, which models are in reach and how much of the free money that is for.

    A model's last purchase is made with no more free than its reservation, and what that gives
    back is what it cannot spend. The purchase may take more than what was left for its phase, so
    one is put by: a later phase that is short of money costs more than one that has some over.
    Less than a fiftieth of the free money counts as nothing: it binds at the very end, for which
    no plan is worth the time it takes.
    """
    count = np.maximum(window.eligible.sum(axis=0), 1)
    cost = np.where(window.eligible, window.cost_usd, 0.0).sum(axis=0) / count
    back = np.where(window.eligible, window.reservation_usd, 0.0).sum(axis=0) / count - cost
    reach = np.where(window.eligible.any(axis=0), back, np.inf)
    reach[reach < _NEGLIGIBLE * free] = 0.0
    stages: list[tuple[Bools, float]] = []
    upper = free
    for mark in sorted({0.0, *reach[reach < free].tolist()}, reverse=True):
        open_to = window.only(reach <= mark)
        if upper > mark and (open_to.sum(axis=1) > 1).any():
            stages.append((open_to, upper - mark))
            last = float(cost[reach == mark].max(initial=0.0)) if mark > 0.0 else 0.0
            upper = max(mark - last, 0.0)
    return stages

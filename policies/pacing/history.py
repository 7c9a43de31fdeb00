"""The mode `history`: the price at which recent requests would have cost what the next ones may."""

from __future__ import annotations

import math
from functools import cache, partial
from operator import itemgetter

import numpy as np

from policies import params
from policies.base import Bools
from policies.pacing.base import WARM_EVERY, Money, Pacing, Window, price_where, usd_per_request
from policies.pacing.price import PriceTerms

_TIE = 1e-3
"""Plans whose worth differs by no more than this part count as equal."""

_NEGLIGIBLE = 0.02
"""Part of the free money below which no phase is planned."""


class History(Pacing):
    """The price that would have met the target on the recent requests (S-MCKP [1]_).

    Parameters
    ----------
    carry : float, default 12.0
        Without a horizon, how much unspent money is remembered, in requests' worth, at least 0.
    debt : float, default 60.0
        How much overspent money is remembered, likewise.
    horizon : float, default 75.0
        Number of requests over which either is made up for, above 0.
    quality_floor : float, default 0.0
        Mean quality that is met at the least cost, in [0, 1]; 0 for none. The mode takes the
        highest price at which the window still meets it, unless the budget needs a higher one.

    Notes
    -----
    The price of money is the least efficiency ``dv / dc`` of the knapsack: the law at a price takes
    every request's last increment above it. The expected cost of the window at a price is exact,
    since laws are not sampled. Between two prices that enclose the target, their laws are mixed.

    With n requests to come, the free money ``F = left - n m`` is spent in phases, m being the mean
    cost of the cheapest models. A model whose reservation exceeds the free money is out of reach
    from then on. For each phase there is a price at which the money up to its end lasts for exactly
    n requests; the last phase of the highest worth is taken. So expensive models are bought early,
    while they are within reach, where that pays, and no plan needs a reservation that is refused.

    Without a horizon the target is the rate, plus a part of what was saved and minus a part of what
    was overspent. It is at least 1.02 of the cost of the cheapest models: no price can reach less,
    and a router that pays any price to avoid the other models would never learn that one of them is
    cheaper. With neither horizon nor rate there is no target, and money costs nothing.

    Cold start: before the first request the window is that request, as the prior sees it. Then it
    holds all requests so far, scored again every 4 until there are 64. The price alone rations
    models that are expensive and uncertain; no choice is forced.

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
        """Return whether to solve again, also after half the money of a phase was spent.

        Parameters
        ----------
        count : int
            Number of decisions that were charged so far.

        Returns
        -------
        bool
            See `Pacing.due`.
        """
        since, spent_usd = count - self._solved[0], self.spent_usd - self._solved[1]
        is_half_spent = spent_usd - self._floor_usd * since > 0.5 * self._phase_usd
        return super().due(count) or (is_half_spent and since >= WARM_EVERY)

    def _solve(self, window: Window, money: Money) -> PriceTerms:
        rate_usd = usd_per_request(money)
        self._phase_usd, self._solved = math.inf, (self.count, self.spent_usd)
        prices = 0.0, 0.0, 1.0
        if math.isfinite(rate_usd):
            if math.isfinite(money.requests) and math.isfinite(money.left_usd):
                prices = self._lasting(window, money)
            else:
                target_usd = rate_usd + self._saved_usd(rate_usd) / self.horizon
                prices = self._price_of_spending(window, target_usd, money.left_usd)
        if self.quality_floor > 0.0:
            scale = 1.0 / float(np.where(window.eligible, window.cost_usd, 0.0).max(initial=1e-12))
            for_quality = price_where(
                window.quality, self.quality_floor, guess=self.terms.high, scale=scale
            )
            prices = max(prices, for_quality, key=itemgetter(1))
        return PriceTerms(*prices)

    def _saved_usd(self, rate_usd: float) -> float:
        """Return the US dollars that were saved (below 0: overspent) against the rate."""
        saved_usd = rate_usd * (self.count - self._counted) - (self.spent_usd - self._seen_usd)
        least, most = -self.debt * rate_usd, self.carry * rate_usd
        self._balance_usd = min(max(self._balance_usd + saved_usd, least), most)
        self._counted, self._seen_usd = self.count, self.spent_usd
        return self._balance_usd

    def _lasting(self, window: Window, money: Money) -> tuple[float, float, float]:
        """Return the prices at which free money lasts for the requests to come."""
        guess, free_usd = self.terms.high, money.left_usd - self._floor_usd * money.requests
        scale = 1.0 / max(usd_per_request(money), 1e-12)
        phases = _phases(window, free_usd)
        self._phase_usd = phases[0][1] if phases else math.inf
        if not phases:
            price = max(guess, scale)
            return price, price, 1.0

        @cache
        def outcome(price: float, phase: int) -> tuple[float, float]:
            # Plans evaluate the same prices, and some laws are slow.
            return window.outcome(price, phases[phase][0])

        def shortage(price: float, count: int) -> float:
            """Return the requests to come over those that the money of some phases lasts for."""
            requests = 0.0
            for phase in range(count):
                more_usd = outcome(price, phase)[1] - self._floor_usd
                if more_usd * money.requests <= 1e-9 * phases[phase][1]:
                    return 0.0
                requests += phases[phase][1] / more_usd
            return money.requests / requests

        def worth(price: float) -> float:
            """Return the utility of all requests to come, at a price, over the phases."""
            requests, total = money.requests, 0.0
            for phase, (_, amount_usd) in enumerate(phases):
                utility, cost_usd = outcome(price, phase)
                served = min(amount_usd / max(cost_usd - self._floor_usd, 1e-300), requests)
                total, requests = total + served * utility, requests - served
            return total + requests * cheapest_utility

        plans = [
            price_where(partial(shortage, count=count), 1.0, guess=guess, scale=scale)
            for count in range(1, len(phases) + 1)
        ]
        if len(plans) == 1:
            return plans[0]
        no_models = np.zeros(window.cost_usd.shape[1], dtype=np.bool_)
        cheapest_utility, _ = window.outcome(scale, window.only(no_models))
        values = [worth(high) for _, high, _ in plans]
        # Worth is an estimate, but money that is left over is certainly worth nothing.
        enough = max(values) - _TIE * abs(max(values))
        return plans[max(k for k, value in enumerate(values) if value >= enough)]


def _phases(window: Window, free_usd: float) -> list[tuple[Bools, float]]:
    """Return the phases in order: which models are within reach, and the free money spent in it.

    A model's last purchase is made when the free money equals its reservation. What that
    reservation gives back can no longer be spent on the model. The purchase may cost more than what
    is left for its phase, so the cost of one is set aside: a shortage in a later phase costs more
    than a surplus. Less than a fiftieth of the free money is ignored: it binds only at the very
    end, and no plan for that is worth its time.
    """
    count = np.maximum(window.eligible.sum(axis=0), 1)
    cost_usd = np.where(window.eligible, window.cost_usd, 0.0).sum(axis=0) / count
    back_usd = np.where(window.eligible, window.reservation_usd, 0.0).sum(axis=0) / count - cost_usd
    reach_usd = np.where(window.eligible.any(axis=0), back_usd, np.inf)
    reach_usd[reach_usd < _NEGLIGIBLE * free_usd] = 0.0
    phases: list[tuple[Bools, float]] = []
    upper_usd = free_usd
    for end_usd in sorted({0.0, *reach_usd[reach_usd < free_usd].tolist()}, reverse=True):
        eligible = window.only(reach_usd <= end_usd)
        if upper_usd > end_usd and (eligible.sum(axis=1) > 1).any():
            phases.append((eligible, upper_usd - end_usd))
            last_usd = float(cost_usd[reach_usd == end_usd].max(initial=0.0))
            upper_usd = max(end_usd - last_usd, 0.0)
    return phases

"""What a result is compared with: the zero router and the oracle, which see all labels.

Baselines are computed in hindsight on the very rows that a policy was scored on. They must never
be shown to a policy. Like a policy, they choose only among the models on offer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from policies.base import Bools, Float64
from policies.pacing.knapsack import REFUSED, Plan, best_value


@dataclass(frozen=True, slots=True)
class Offer:
    """The requests at which the same models were on offer.

    Attributes
    ----------
    share : float
        Share of all requests.
    quality, cost_usd : float64[K]
        Means of each model, NaN for those not on offer; cost in US dollars per request.
    """

    share: float
    quality: Float64
    cost_usd: Float64


def group_by_offer(quality: Float64, cost_usd: Float64, offered: Bools | None) -> tuple[Offer, ...]:
    """Return one `Offer` for each set of models that was on offer.

    Parameters
    ----------
    quality, cost_usd : float64[n, K]
        Labels; cost in US dollars.
    offered : bool[n, K] or None
        Models on offer; None for all. Requests with nothing on offer get an `Offer` of NaN.
    """
    if offered is None or offered.all():
        return (Offer(1.0, quality.mean(axis=0), cost_usd.mean(axis=0)),)
    sets, member = np.unique(offered, axis=0, return_inverse=True)
    offers = []
    for k, on_offer in enumerate(sets):
        rows = member.reshape(-1) == k
        means = [
            np.where(on_offer, labels[rows].mean(axis=0), np.nan) for labels in (quality, cost_usd)
        ]
        offers.append(Offer(float(rows.mean()), means[0], means[1]))
    return tuple(offers)


@dataclass(frozen=True, slots=True)
class Frontier:
    """The zero router: the best mix of models that does not look at the prompt.

    It sees which models are on offer and nothing else of a request. Where the offer changes, it
    spends its money where a dollar buys the most quality.

    Attributes
    ----------
    corners : float64[m, 2]
        (cost, quality) of each corner, cost in US dollars per request, ascending. The first corner
        plays the cheapest models.
    arms : int[m, offers]
        The model that each corner plays at each offer, -1 with nothing on offer. Between two
        corners they are mixed.
    """

    corners: Float64
    arms: NDArray[np.intp]

    @classmethod
    def of(cls, offers: Sequence[Offer]) -> Frontier:
        """Return the zero router of some offers: their upper left convex hulls, put together."""
        hulls = [hull(offer.cost_usd, offer.quality) for offer in offers]
        now = np.array([arms[0] if arms else -1 for arms in hulls], dtype=np.intp)
        steps = []
        for k, (offer, arms) in enumerate(zip(offers, hulls, strict=True)):
            for a, b in zip(arms, arms[1:], strict=False):
                more_usd = offer.cost_usd[b] - offer.cost_usd[a]
                more_quality = offer.quality[b] - offer.quality[a]
                steps.append((-float(more_quality / more_usd), k, b))
        played = [now]
        # The steps of one offer come in the order of its hull, because its slopes fall.
        for _, k, arm in sorted(steps):
            now = now.copy()
            now[k] = arm
            played.append(now)
        table = np.array(played)
        corners = np.zeros((len(table), 2))
        for k, offer in enumerate(offers):
            if hulls[k]:
                means = np.column_stack([offer.cost_usd, offer.quality])
                corners += offer.share * means[table[:, k]]
        return cls(corners, table)

    def quality_at(self, cost_usd: float) -> float:
        """Return the quality at a mean cost per request; flat beyond both ends."""
        return float(np.interp(cost_usd, self.corners[:, 0], self.corners[:, 1]))

    def slope(self, cost_usd: float) -> float:
        """Return the quality per further US dollar at a mean cost, 0 beyond the last corner."""
        k, _ = self.mix_at(cost_usd)
        if k + 1 == len(self.corners):
            return 0.0
        more_usd, more_quality = self.corners[k + 1] - self.corners[k]
        return float(more_quality / more_usd)

    def mix_at(self, cost_usd: float) -> tuple[int, float]:
        """Return the corner played at a mean cost, and the share of the next one mixed in."""
        costs = self.corners[:, 0]
        k = int(np.searchsorted(costs, cost_usd, side="right")) - 1
        if k < 0 or k + 1 == len(costs):
            return max(k, 0), 0.0
        return k, float((cost_usd - costs[k]) / (costs[k + 1] - costs[k]))


def hull(cost_usd: Float64, quality: Float64) -> list[int]:
    """Return the corners of the non-decreasing upper hull of K points, cost ascending.

    Parameters
    ----------
    cost_usd, quality : float64[K]
        The points; those with a NaN are left out.

    Returns
    -------
    list of int
        Indices of the corners. The first is the cheapest point, the best among equals.
    """
    corners: list[int] = []
    points = list(zip(cost_usd.tolist(), quality.tolist(), strict=True))
    for k in np.lexsort((-quality, cost_usd)).tolist():
        c, q = points[k]
        if math.isnan(c) or math.isnan(q):
            continue
        if corners and (q <= points[corners[-1]][1] or c <= points[corners[-1]][0]):
            continue
        while len(corners) > 1 and _bends_up(points[corners[-2]], points[corners[-1]], (c, q)):
            corners.pop()
        corners.append(k)
    return corners


def oracle_plan(
    quality: Float64,
    cost_usd: Float64,
    offered: Bools | None = None,
    *,
    budget_rate_usd: float | None = None,
) -> Plan:
    """Return the best answer to every prompt, the cheapest among equals.

    Parameters
    ----------
    quality, cost_usd : float64[n, K]
        Labels; cost in US dollars.
    offered : bool[n, K] or None
        Models on offer; None for all.
    budget_rate_usd : float or None
        US dollars per request that may be spent on average; None for no budget. With a budget the
        plan is that of the knapsack. It may split one prompt between two models, and refuses some
        prompts where the budget does not even pay for the cheapest answers.
    """
    if budget_rate_usd is None:
        budget_usd, short = math.inf, False
    else:
        budget_usd = budget_rate_usd * len(cost_usd)
        open_usd = cost_usd if offered is None else np.where(offered, cost_usd, np.inf)
        least_usd = open_usd.min(axis=1)
        short = float(least_usd[np.isfinite(least_usd)].sum()) > budget_usd
    return best_value(quality, cost_usd, budget_usd, offered, refusable=short)


def plan_values(plan: Plan, values: Float64) -> Float64:
    """Return float64[n], the values[n, K] of the models in a plan, 0 where it refuses."""
    rows = np.arange(len(values))
    column = np.where(plan.choice == REFUSED, 0.0, values[rows, plan.choice])
    if plan.split >= 0:
        column[plan.split] += plan.share * (values[plan.split, plan.better] - column[plan.split])
    return column


@dataclass(frozen=True)
class References:
    """The levels that a router is compared with, on one set of rows.

    Attributes
    ----------
    models : tuple of str
        K names.
    oracle : (float, float)
        Quality and cost in US dollars per request of `oracle_plan`.
    offers : tuple of Offer
        The sets of models on offer, which share all requests.
    """

    models: tuple[str, ...]
    oracle: tuple[float, float]
    offers: tuple[Offer, ...]

    @classmethod
    def of(
        cls,
        models: Sequence[str],
        quality: Float64,
        cost_usd: Float64,
        *,
        offered: Bools | None = None,
        budget_rate_usd: float | None = None,
        plan: Plan | None = None,
    ) -> References:
        """Compute the references to n requests, at least one.

        Parameters
        ----------
        models : sequence of str
            K names.
        quality, cost_usd : float64[n, K]
            Labels without NaN; cost in US dollars.
        offered : bool[n, K] or None
            Models on offer; None for all.
        budget_rate_usd : float or None
            US dollars per request that the oracle may spend; None for no budget.
        plan : Plan or None
            The `oracle_plan` of these arguments, if it was computed already.
        """
        if plan is None:
            plan = oracle_plan(quality, cost_usd, offered, budget_rate_usd=budget_rate_usd)
        oracle = plan.value / len(cost_usd), plan.cost / len(cost_usd)
        return cls(tuple(models), oracle, group_by_offer(quality, cost_usd, offered))

    @classmethod
    def mean(cls, several: Sequence[References]) -> References:
        """Return the mean of references to the same models on equally many rows each."""
        oracle = np.mean([references.oracle for references in several], axis=0)
        offers = _merged([references.offers for references in several])
        return cls(several[0].models, (float(oracle[0]), float(oracle[1])), offers)

    @cached_property
    def quality(self) -> Float64:
        """Mean of each model while it was on offer, float64[K]; NaN where that was never."""
        return _pooled(self.offers, [offer.quality for offer in self.offers])

    @cached_property
    def cost_usd(self) -> Float64:
        """Mean cost of each model while it was on offer, float64[K], in US dollars per request."""
        return _pooled(self.offers, [offer.cost_usd for offer in self.offers])

    @property
    def random(self) -> tuple[float, float]:
        """Quality and cost in US dollars of choosing uniformly among the models on offer."""
        offers = [offer for offer in self.offers if not np.isnan(offer.quality).all()]
        quality = sum(offer.share * float(np.nanmean(offer.quality)) for offer in offers)
        return quality, sum(offer.share * float(np.nanmean(offer.cost_usd)) for offer in offers)

    @property
    def best_single(self) -> int:
        """Index of the model of the highest mean quality, the cheapest among equals.

        It is one of those that were on offer at all times, if there are any.
        """
        absent = np.isnan([offer.quality for offer in self.offers]).any(axis=0)
        quality = self.quality if absent.all() else np.where(absent, np.nan, self.quality)
        return int(np.lexsort((self.cost_usd, -quality))[0])

    @property
    def cost_span_usd(self) -> tuple[float, float]:
        """US dollars per request when every offer plays its cheapest, or most expensive, model."""
        offers = [offer for offer in self.offers if not np.isnan(offer.cost_usd).all()]
        low_usd = sum(offer.share * float(np.nanmin(offer.cost_usd)) for offer in offers)
        return low_usd, sum(offer.share * float(np.nanmax(offer.cost_usd)) for offer in offers)

    def zero_router(self) -> Frontier:
        """Return the zero router of these requests."""
        return Frontier.of(self.offers)


def _pooled(offers: Sequence[Offer], means: Sequence[Float64]) -> Float64:
    """Return the mean[K] over all offers of a mean[K] of each, NaN for a model that is in none."""
    values = np.array(means)
    share = np.where(np.isnan(values), 0.0, np.array([[offer.share] for offer in offers]))
    total = share.sum(axis=0)
    pooled: Float64 = (share * np.nan_to_num(values)).sum(axis=0) / np.where(total, total, np.nan)
    return pooled


def _merged(several: Sequence[Sequence[Offer]]) -> tuple[Offer, ...]:
    """Return the mean of the offers of equally many rows each, by the models on offer."""
    alike: dict[tuple[bool, ...], list[Offer]] = {}
    for offers in several:
        for offer in offers:
            alike.setdefault(tuple(np.isnan(offer.quality).tolist()), []).append(offer)
    return tuple(
        Offer(
            sum(offer.share for offer in same) / len(several),
            _pooled(same, [offer.quality for offer in same]),
            _pooled(same, [offer.cost_usd for offer in same]),
        )
        for same in alike.values()
    )


def _bends_up(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Return whether b lies on or below the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])

"""What a result is judged against: mixes and oracles that see the whole matrix of labels.

References are computed in hindsight on the very rows that a policy was scored on. They must never
be fed to a policy. Nobody may choose a model where it is not on offer, and neither may they.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.base import Bools, Float64
from policies.pacing.knapsack import REFUSED, Plan, best_value


@dataclass(frozen=True, slots=True)
class Offer:
    """The requests at which the same models were on offer.

    Attributes
    ----------
    share : of all requests.
    quality, cost : float64[K], means of each model, NaN for those that were not on offer.
    """

    share: float
    quality: Float64
    cost: Float64


def offers(quality: Float64, cost: Float64, offered: Bools | None) -> tuple[Offer, ...]:
    """Return one `Offer` for each set of models that was on offer, from [n, K] arrays.

    Parameters
    ----------
    offered : None for all on offer. Requests with nothing on offer get an `Offer` of NaN.
    """
    if offered is None or offered.all():
        return (Offer(1.0, quality.mean(axis=0), cost.mean(axis=0)),)
    sets, member = np.unique(offered, axis=0, return_inverse=True)
    found = []
    for k, here in enumerate(sets):
        rows = member.reshape(-1) == k
        means = [np.where(here, of[rows].mean(axis=0), np.nan) for of in (quality, cost)]
        found.append(Offer(float(rows.mean()), means[0], means[1]))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Frontier:
    """The zero router: the best mix of models that does not look at the prompt.

    It knows what is on offer and nothing else: where this changes it spends its money where it
    buys the most.

    Attributes
    ----------
    corners : (cost, quality)[m, 2], cost ascending, from the cheapest models on.
    arms : int[m, offers], the model that each corner plays at each offer, -1 with nothing on offer;
        in between two neighbours are mixed.
    """

    corners: Float64
    arms: NDArray[np.intp]

    @classmethod
    def of(cls, found: Sequence[Offer]) -> Frontier:
        """Return the upper left convex hull of the models' means at each offer, put together."""
        hulls = [hull(one.cost, one.quality) for one in found]
        now = np.array([arms[0] if arms else -1 for arms in hulls], dtype=np.intp)
        steps = []
        for k, (one, arms) in enumerate(zip(found, hulls, strict=True)):
            for a, b in zip(arms, arms[1:], strict=False):
                dear, good = one.cost[b] - one.cost[a], one.quality[b] - one.quality[a]
                steps.append((-float(good / dear), k, b))
        played = [now]
        # Of one offer the steps come in the order of its hull: its slopes fall.
        for _, k, arm in sorted(steps):
            now = now.copy()
            now[k] = arm
            played.append(now)
        table = np.array(played)
        corners = np.zeros((len(table), 2))
        for k, one in enumerate(found):
            if hulls[k]:
                means = np.column_stack([one.cost, one.quality])
                corners += one.share * means[table[:, k]]
        return cls(corners, table)

    def level(self, cost: float) -> float:
        """Return the quality at a mean cost; flat beyond both ends."""
        return level(self.corners, cost)

    def slope(self, cost: float) -> float:
        """Return the quality that a further dollar buys at a mean cost, 0 where it buys none."""
        k, _ = self.at(cost)
        if k + 1 == len(self.corners):
            return 0.0
        dear, good = self.corners[k + 1] - self.corners[k]
        return float(good / dear)

    def at(self, cost: float) -> tuple[int, float]:
        """Return the corner that is played at a mean cost, and how much of the next is mixed in."""
        costs = self.corners[:, 0]
        k = int(np.searchsorted(costs, cost, side="right")) - 1
        if k < 0 or k + 1 == len(costs):
            return max(k, 0), 0.0
        return k, float((cost - costs[k]) / (costs[k + 1] - costs[k]))


def hull(cost: Float64, quality: Float64) -> list[int]:
    """Return the corners of the non-decreasing upper hull of points[K], cost ascending.

    From the cheapest point on, the best among equals; points with a NaN are left out.
    """
    corners: list[int] = []
    points = list(zip(cost.tolist(), quality.tolist(), strict=True))
    for k in np.lexsort((-quality, cost)).tolist():
        c, q = points[k]
        if math.isnan(c) or math.isnan(q):
            continue
        if corners and (q <= points[corners[-1]][1] or c <= points[corners[-1]][0]):
            continue
        while len(corners) > 1 and _bends_up(points[corners[-2]], points[corners[-1]], (c, q)):
            corners.pop()
        corners.append(k)
    return corners


def level(corners: Float64, cost: float) -> float:
    """Return the quality of corners (cost, quality)[m, 2] at a cost; flat beyond both ends."""
    return float(np.interp(cost, corners[:, 0], corners[:, 1]))


def oracle_plan(
    quality: Float64,
    cost: Float64,
    offered: Bools | None = None,
    *,
    budget_rate: float | None = None,
) -> Plan:
    """Return the best answer to every prompt, the cheapest among equals.

    Parameters
    ----------
    quality, cost, offered : [n, K]; None for all on offer.
    budget_rate : US dollars per request that may be spent on average; None for any sum. The plan
        is then that of the knapsack, which may split one prompt and, where not even the cheapest
        answers fit, refuse some.
    """
    if budget_rate is None:
        budget, short = math.inf, False
    else:
        budget = budget_rate * len(cost)
        open_ = cost if offered is None else np.where(offered, cost, np.inf)
        least = open_.min(axis=1)
        short = float(least[np.isfinite(least)].sum()) > budget
    return best_value(quality, cost, budget, offered, refusable=short)


def planned(plan: Plan, values: Float64) -> Float64:
    """Return float64[n], what a plan gets of values[n, K] at each request, 0 where it refuses."""
    rows = np.arange(len(values))
    got = np.where(plan.choice == REFUSED, 0.0, values[rows, plan.choice])
    if plan.split >= 0:
        got[plan.split] += plan.share * (values[plan.split, plan.better] - got[plan.split])
    return got


@dataclass(frozen=True, slots=True)
class References:
    """The levels that a router has to be compared with, on one set of rows.

    Attributes
    ----------
    models : K names.
    quality, cost : float64[K], mean of each model over the requests at which it was on offer, NaN
        where that was never; cost in US dollars per request.
    oracle : (quality, cost) of `oracle_plan`.
    offers : the sets of models on offer; empty for all at all times.
    """

    models: tuple[str, ...]
    quality: Float64
    cost: Float64
    oracle: tuple[float, float]
    offers: tuple[Offer, ...] = ()

    @classmethod
    def of(
        cls,
        models: Sequence[str],
        quality: Float64,
        cost: Float64,
        *,
        offered: Bools | None = None,
        budget_rate: float | None = None,
        plan: Plan | None = None,
    ) -> References:
        """Compute from quality[n, K] and cost[n, K] without NaN, n at least 1.

        Parameters
        ----------
        offered : bool[n, K]; None for all on offer.
        budget_rate : US dollars per request that the oracle may spend; None for any sum.
        plan : what `oracle_plan` says of these, where it is known.
        """
        if plan is None:
            plan = oracle_plan(quality, cost, offered, budget_rate=budget_rate)
        return cls.over(
            models,
            offers(quality, cost, offered),
            oracle=(plan.value / len(cost), plan.cost / len(cost)),
        )

    @classmethod
    def over(
        cls, models: Sequence[str], found: tuple[Offer, ...], *, oracle: tuple[float, float]
    ) -> References:
        """Return the references to all requests of some offers."""
        return cls(
            models=tuple(models),
            quality=_over(found, "quality"),
            cost=_over(found, "cost"),
            oracle=oracle,
            offers=found,
        )

    @classmethod
    def mean(cls, several: Sequence[References]) -> References:
        """Return the mean of references to the same models on equally many rows each."""
        oracle = np.mean([one.oracle for one in several], axis=0)
        found = _merged([one._offers for one in several])
        return cls.over(several[0].models, found, oracle=(float(oracle[0]), float(oracle[1])))

    @property
    def random(self) -> tuple[float, float]:
        """(quality, cost) of choosing uniformly among what is on offer."""
        some = [one for one in self._offers if not np.isnan(one.quality).all()]
        quality = sum(one.share * float(np.nanmean(one.quality)) for one in some)
        return quality, sum(one.share * float(np.nanmean(one.cost)) for one in some)

    @property
    def best_single(self) -> int:
        """Index of the model of the highest mean quality, the cheapest among equals.

        Of those that were on offer at all times, if there are any.
        """
        gone = np.isnan([one.quality for one in self._offers]).any(axis=0)
        quality = self.quality if gone.all() else np.where(gone, np.nan, self.quality)
        return int(np.lexsort((self.cost, -quality))[0])

    @property
    def span(self) -> tuple[float, float]:
        """US dollars per request of the cheapest and of the dearest model of every offer."""
        some = [one for one in self._offers if not np.isnan(one.cost).all()]
        low = sum(one.share * float(np.nanmin(one.cost)) for one in some)
        return low, sum(one.share * float(np.nanmax(one.cost)) for one in some)

    def mixes(self) -> Frontier:
        """Return the zero router."""
        return Frontier.of(self._offers)

    def frontier(self) -> Float64:
        """Return the (cost, quality)[m, 2] corners of the zero router, cost ascending."""
        return self.mixes().corners

    def zero(self, cost: float) -> float:
        """Return the zero router's quality at a mean cost; flat beyond both of its ends."""
        return self.mixes().level(cost)

    @property
    def _offers(self) -> tuple[Offer, ...]:
        return self.offers or (Offer(1.0, self.quality, self.cost),)


def _over(of: Sequence[Offer], field: str) -> Float64:
    """Return the means[K] of all offers together, NaN for a model that is in none."""
    values = np.array([getattr(one, field) for one in of])
    share = np.where(np.isnan(values), 0.0, np.array([[one.share] for one in of]))
    total = share.sum(axis=0)
    means: Float64 = (share * np.nan_to_num(values)).sum(axis=0) / np.where(total, total, np.nan)
    return means


def _merged(several: Sequence[Sequence[Offer]]) -> tuple[Offer, ...]:
    """Return the mean of the offers of equally many rows each, by the models on offer."""
    alike: dict[tuple[bool, ...], list[Offer]] = {}
    for one in (one for some in several for one in some):
        alike.setdefault(tuple(np.isnan(one.quality).tolist()), []).append(one)
    return tuple(
        Offer(
            sum(o.share for o in some) / len(several), _over(some, "quality"), _over(some, "cost")
        )
        for some in alike.values()
    )


def _bends_up(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Tell whether b lies on or below the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])

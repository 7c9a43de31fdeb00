"""One policy under one seed, measured: columns over requests, and means of them.

A refused request has quality, cost and utility 0. Means over seeds are taken elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.base import Bools, Float64
from sim.measure.baselines import Frontier, References, level, offers, oracle_plan, planned
from sim.measure.scores import aiq, arena_score
from sim.measure.supervised import Supervised
from sim.play.trace import Trace, picked
from sim.worlds.world import World

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What everybody who plays a world under one seed is measured by.

    Attributes
    ----------
    rate : US dollars per request of the budget, None for none.
    best, best_cost : float64[n], the oracle's quality and cost of each request.
    utility : float64[n, K], None where none is given.
    limit : the supervised limit on these requests, None where it is not known.
    """

    world: World
    rate: float | None
    references: References
    best: Float64
    best_cost: Float64
    utility: Float64 | None = None
    limit: Supervised | None = None

    @classmethod
    def of(
        cls,
        world: World,
        *,
        budget_rate: float | None = None,
        utility: Float64 | None = None,
        limit: Supervised | None = None,
    ) -> Yardstick:
        """Compute references to a world of at least one request."""
        quality, cost, offered = world.quality, world.cost_usd, world.offered
        plan = oracle_plan(quality, cost, offered, budget_rate=budget_rate)
        references = References.of(world.models, quality, cost, offered=offered, plan=plan)
        return cls(
            world=world,
            rate=budget_rate,
            references=references,
            best=planned(plan, quality),
            best_cost=planned(plan, cost),
            utility=utility,
            limit=limit,
        )

    def resampled(self, rows: Rows) -> References:
        """Return the references to requests int[m], the oracle's plan kept."""
        world = self.world
        found = offers(world.quality[rows], world.cost_usd[rows], world.offered[rows])
        return References.over(
            world.models, found, oracle=(float(self.best[rows].mean()), math.nan)
        )

    def zero(self, cost: float) -> Float64:
        """Return float64[n], what the zero router of that mean cost makes of each request."""
        quality, offered = self.world.quality, self.world.offered
        mixes = self.references.mixes()
        k, share = mixes.at(cost)
        _, member = np.unique(offered, axis=0, return_inverse=True)
        arms = mixes.arms[:, member.reshape(-1)]
        low = picked(quality, arms[k])
        return low if share == 0.0 else low + share * (picked(quality, arms[k + 1]) - low)

    def tasks(self) -> dict[str, Rows]:
        """Return the requests of each task, by name; nothing where no request has a task."""
        names = np.array(self.world.task)
        return {name: np.flatnonzero(names == name) for name in sorted({*self.world.task} - {""})}

    def values(self, starts: Sequence[int] = ()) -> Float64:
        """Return float64[n, K], what policies are asked for, NaN where a model is not on offer.

        Parameters
        ----------
        starts : requests in [1, n) before which the world changes, ascending.

        Notes
        -----
        Utility, or quality where none is given. On a budget no model alone may be within reach of
        anybody: a dollar then counts as what it buys a zero router that spends the rate in that
        part of the world, so that the models which this mixes are worth the same.
        """
        world = self.world
        asked = world.quality if self.utility is None else self.utility
        values = np.where(world.offered, asked, np.nan)
        if self.rate is None:
            return values
        edges = [0, *starts, len(world)]
        for part in (slice(a, b) for a, b in zip(edges, edges[1:], strict=False)):
            found = offers(asked[part], world.cost_usd[part], world.offered[part])
            values[part] -= Frontier.of(found).slope(self.rate) * world.cost_usd[part]
        return values


@dataclass(frozen=True, slots=True)
class RequestScores:
    """The columns of one trace.

    Attributes
    ----------
    quality, cost : float64[n].
    utility, highest : float64[n], of the choice and of the best one; None where none is given.
    """

    trace: Trace
    yard: Yardstick
    quality: Float64
    cost: Float64
    utility: Float64 | None
    highest: Float64 | None

    @classmethod
    def of(cls, trace: Trace, yard: Yardstick) -> RequestScores:
        """Measure a trace; its world must be the yard's."""
        world, utility, highest = yard.world, None, None
        if yard.utility is not None:
            utility = picked(yard.utility, trace.chosen)
            open_ = np.where(world.offered, yard.utility, -np.inf).max(axis=1)
            highest = np.where(np.isfinite(open_), open_, 0.0)
        return cls(
            trace=trace,
            yard=yard,
            quality=picked(world.quality, trace.chosen),
            cost=picked(world.cost_usd, trace.chosen),
            utility=utility,
            highest=highest,
        )

    @property
    def refused(self) -> Bools:
        """bool[n]."""
        return self.trace.chosen < 0

    def metrics(self, rows: Rows | None = None) -> dict[str, float]:
        """Return the metrics of `sim.measure.summary` but "captured", NaN where one is not defined.

        Parameters
        ----------
        rows : int[m], requests, None for all as they are.
        """
        yard, trace = self.yard, self.trace
        here = np.arange(len(self.quality)) if rows is None else rows
        references = yard.references if rows is None else yard.resampled(rows)
        corners, single = references.frontier(), yard.references.best_single
        quality, cost = float(self.quality[here].mean()), float(self.cost[here].mean())
        alone = float(references.quality[single]), float(references.cost[single])
        zero, (low, high) = level(corners, cost), references.span
        found = {
            "quality": quality,
            "cost": cost,
            "zero": zero,
            "difference": quality - zero,
            "regret": references.oracle[0] - quality,
            "single_regret": alone[0] - quality,
            "quality_of_single": quality / alone[0] if alone[0] > 0.0 else math.nan,
            "cost_of_single": cost / alone[1] if alone[1] > 0.0 else math.nan,
            "aiq": aiq([corners[0, 0], cost], [corners[0, 1], quality], low=low, high=high),
            "arena": arena_score(quality, cost),
            "refused": float(self.refused[here].mean()),
            "propensity": _mean(trace.propensity[here]),
            "entropy": _mean(trace.entropy[here]),
        }
        if yard.rate is not None:
            found["used"] = cost / yard.rate
        if self.utility is not None and self.highest is not None:
            found["utility"] = float(self.utility[here].mean())
            found["utility_regret"] = float(self.highest[here].mean()) - found["utility"]
        return found

    def task(self, rows: Rows) -> dict[str, float]:
        """Return quality, cost and the zero router's quality there, on the requests of one task."""
        world = self.yard.world
        quality, cost = float(self.quality[rows].mean()), float(self.cost[rows].mean())
        found = offers(world.quality[rows], world.cost_usd[rows], world.offered[rows])
        zero = Frontier.of(found).level(cost)
        return {
            "requests": float(len(rows)),
            "quality": quality,
            "cost": cost,
            "zero": zero,
            "difference": quality - zero,
        }

    def limit_gain(self) -> float:
        """Return what the supervised limit gains over the zero router at this policy's cost.

        NaN where it is not known, or where it has no choices so cheap. A limit that would not
        spend so much has the quality of what it spends.
        """
        if self.yard.limit is None:
            return math.nan
        cost = float(self.cost.mean())
        if cost <= 0.0:
            return math.nan
        quality, spent = self.yard.limit.at_rate(cost)
        met = spent <= cost * (1.0 + 1e-9)
        return quality - self.yard.references.zero(cost) if met else math.nan


def _mean(values: Float64) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan

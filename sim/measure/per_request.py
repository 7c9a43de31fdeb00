"""One policy under one seed, measured: columns over the requests, and means of them.

A refused request has quality, cost and utility 0. Means over seeds are taken in `summary`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.base import Bools, Float64
from sim.measure.baselines import (
    Frontier,
    References,
    group_by_offer,
    oracle_plan,
    plan_values,
)
from sim.measure.scores import aiq, arena_score
from sim.measure.supervised import Supervised
from sim.play.trace import Trace, picked
from sim.worlds.world import World

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The baselines and values that measure all policies that play one world under one seed.

    Attributes
    ----------
    world : World
        n scored requests over K models.
    budget_rate_usd : float or None
        US dollars per request of the budget, None for no budget.
    references : References
        Baselines on these requests.
    oracle_quality, oracle_cost_usd : float64[n]
        The oracle's quality and cost of each request; cost in US dollars.
    utility : float64[n, K] or None
        Utility of each model, None where quality alone counts.
    limit : Supervised or None
        The supervised limit on these requests, None where it is not known.
    """

    world: World
    budget_rate_usd: float | None
    references: References
    oracle_quality: Float64
    oracle_cost_usd: Float64
    utility: Float64 | None = None
    limit: Supervised | None = None

    @classmethod
    def of(
        cls,
        world: World,
        *,
        budget_rate_usd: float | None = None,
        utility: Float64 | None = None,
        limit: Supervised | None = None,
    ) -> Yardstick:
        """Compute the references to a world of at least one request; see `Yardstick`."""
        quality, cost_usd, offered = world.quality, world.cost_usd, world.offered
        plan = oracle_plan(quality, cost_usd, offered, budget_rate_usd=budget_rate_usd)
        references = References.of(world.models, quality, cost_usd, offered=offered, plan=plan)
        return cls(
            world=world,
            budget_rate_usd=budget_rate_usd,
            references=references,
            oracle_quality=plan_values(plan, quality),
            oracle_cost_usd=plan_values(plan, cost_usd),
            utility=utility,
            limit=limit,
        )

    def resampled(self, rows: Rows) -> References:
        """Return the references to requests int[m]; the oracle's plan is kept, its cost is NaN."""
        world = self.world
        offers = group_by_offer(world.quality[rows], world.cost_usd[rows], world.offered[rows])
        oracle = (float(self.oracle_quality[rows].mean()), math.nan)
        return References.of_offers(world.models, offers, oracle=oracle)

    def zero_router_quality(self, cost_usd: float) -> Float64:
        """Return float64[n], the quality of each request under the zero router of a mean cost.

        Parameters
        ----------
        cost_usd : float
            US dollars per request.
        """
        quality, offered = self.world.quality, self.world.offered
        zero_router = self.references.zero_router()
        k, share = zero_router.mix_at(cost_usd)
        _, member = np.unique(offered, axis=0, return_inverse=True)
        arms = zero_router.arms[:, member.reshape(-1)]
        low = picked(quality, arms[k])
        return low if share == 0.0 else low + share * (picked(quality, arms[k + 1]) - low)

    def rows_by_task(self) -> dict[str, Rows]:
        """Return the requests of each task, by name; empty where no request has a task."""
        names = np.array(self.world.task)
        return {name: np.flatnonzero(names == name) for name in sorted({*self.world.task} - {""})}

    def values(self, starts: Sequence[int] = ()) -> Float64:
        """Return float64[n, K], the value of each model that adaptation is measured by.

        Parameters
        ----------
        starts : sequence of int
            Requests in [1, n) before which the world changes, ascending.

        Returns
        -------
        float64[n, K]
            Utility, or quality where there is no utility; NaN where a model is not on offer.

        Notes
        -----
        On a budget the best model alone may cost too much for any policy. Then the cost of each
        model is subtracted, at the price at which the zero router buys quality when it spends the
        budget's rate in that part of the world. So the models which that zero router mixes have
        the same value.
        """
        world = self.world
        worth = world.quality if self.utility is None else self.utility
        values = np.where(world.offered, worth, np.nan)
        if self.budget_rate_usd is None:
            return values
        edges = [0, *starts, len(world)]
        for part in (slice(a, b) for a, b in zip(edges, edges[1:], strict=False)):
            offers = group_by_offer(worth[part], world.cost_usd[part], world.offered[part])
            price = Frontier.of(offers).slope(self.budget_rate_usd)
            values[part] -= price * world.cost_usd[part]
        return values


@dataclass(frozen=True, slots=True)
class RequestScores:
    """The columns of one trace over its n requests.

    Attributes
    ----------
    trace : Trace
        The choices of one policy under one seed.
    yardstick : Yardstick
        What they are measured by.
    quality, cost_usd : float64[n]
        Of the choice; cost in US dollars.
    utility, highest_utility : float64[n] or None
        Of the choice, and of the best model on offer; None where there is no utility.
    """

    trace: Trace
    yardstick: Yardstick
    quality: Float64
    cost_usd: Float64
    utility: Float64 | None
    highest_utility: Float64 | None

    @classmethod
    def of(cls, trace: Trace, yardstick: Yardstick) -> RequestScores:
        """Measure a trace; its world must be the yardstick's."""
        world, utility, highest_utility = yardstick.world, None, None
        if yardstick.utility is not None:
            utility = picked(yardstick.utility, trace.chosen)
            highest = np.where(world.offered, yardstick.utility, -np.inf).max(axis=1)
            highest_utility = np.where(np.isfinite(highest), highest, 0.0)
        return cls(
            trace=trace,
            yardstick=yardstick,
            quality=picked(world.quality, trace.chosen),
            cost_usd=picked(world.cost_usd, trace.chosen),
            utility=utility,
            highest_utility=highest_utility,
        )

    @property
    def refused(self) -> Bools:
        """Whether each request was refused, bool[n]."""
        return self.trace.chosen < 0

    def metrics(self, rows: Rows | None = None) -> dict[str, float]:
        """Return the metrics of `sim.measure.summary` that one seed alone defines.

        Parameters
        ----------
        rows : int[m] or None
            Requests, which may repeat; None for all as they are.

        Returns
        -------
        dict of str to float
            By name, NaN where a metric is not defined. "captured" and "limit_regret" are not among
            them: they are taken over all seeds.
        """
        yardstick, trace = self.yardstick, self.trace
        here = np.arange(len(self.quality)) if rows is None else rows
        references = yardstick.references if rows is None else yardstick.resampled(rows)
        zero_router, single = references.zero_router(), yardstick.references.best_single
        quality, cost_usd = float(self.quality[here].mean()), float(self.cost_usd[here].mean())
        single_quality = float(references.quality[single])
        single_usd = float(references.cost_usd[single])
        zero, (low_usd, high_usd) = zero_router.quality_at(cost_usd), references.cost_span_usd
        cheapest_usd, cheapest_quality = zero_router.corners[0]
        metrics = {
            "quality": quality,
            "cost": cost_usd,
            "zero": zero,
            "difference": quality - zero,
            "regret": references.oracle[0] - quality,
            "single_regret": single_quality - quality,
            "quality_of_single": quality / single_quality if single_quality > 0.0 else math.nan,
            "cost_of_single": cost_usd / single_usd if single_usd > 0.0 else math.nan,
            "aiq": aiq(
                [cheapest_usd, cost_usd],
                [cheapest_quality, quality],
                low_usd=low_usd,
                high_usd=high_usd,
            ),
            "arena": arena_score(quality, cost_usd),
            "refused": float(self.refused[here].mean()),
            "propensity": _mean(trace.propensity[here]),
            "entropy": _mean(trace.entropy[here]),
        }
        if yardstick.budget_rate_usd is not None:
            metrics["used"] = cost_usd / yardstick.budget_rate_usd
        if self.utility is not None and self.highest_utility is not None:
            metrics["utility"] = float(self.utility[here].mean())
            highest = float(self.highest_utility[here].mean())
            metrics["utility_regret"] = highest - metrics["utility"]
        return metrics

    def task_metrics(self, rows: Rows) -> dict[str, float]:
        """Return the metrics of `CandidateResult.tasks` on the requests int[m] of one task."""
        world = self.yardstick.world
        quality, cost_usd = float(self.quality[rows].mean()), float(self.cost_usd[rows].mean())
        offers = group_by_offer(world.quality[rows], world.cost_usd[rows], world.offered[rows])
        zero = Frontier.of(offers).quality_at(cost_usd)
        return {
            "requests": float(len(rows)),
            "quality": quality,
            "cost": cost_usd,
            "zero": zero,
            "difference": quality - zero,
        }

    def limit_gain(self) -> float:
        """Return the supervised limit's gain over the zero router at this policy's cost.

        Returns
        -------
        float
            NaN where the limit is not known, and where even its cheapest choices cost more. A limit
            that would not spend so much has the quality of what it spends.
        """
        if self.yardstick.limit is None:
            return math.nan
        cost_usd = float(self.cost_usd.mean())
        if cost_usd <= 0.0:
            return math.nan
        quality, spent_usd = self.yardstick.limit.at_rate(cost_usd)
        if spent_usd > cost_usd * (1.0 + 1e-9):
            return math.nan
        return quality - self.yardstick.references.zero_router().quality_at(cost_usd)


def _mean(values: Float64) -> float:
    """Return the mean of the values that are not NaN, NaN where there is none."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if len(numbers) else math.nan

"""One policy under one seed, measured: columns over the requests, and means of them.

A refused request has quality, cost and utility 0. Means over seeds are taken in `summary`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from policies.base import Bools, Float64
from policies.pacing.knapsack import Plan
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


@dataclass(frozen=True)
class Yardstick:
    """The baselines and values that measure all policies that play one world under one seed.

    Attributes
    ----------
    world : World
        n scored requests, at least one, over K models.
    budget_rate_usd : float or None
        US dollars per request of the budget, None for no budget.
    utility : float64[n, K] or None
        Utility of each model, None where quality alone counts.
    limit : Supervised or None
        The supervised limit on these requests, None where it is not known.
    """

    world: World
    budget_rate_usd: float | None = None
    utility: Float64 | None = None
    limit: Supervised | None = None

    @cached_property
    def _plan(self) -> Plan:
        quality, cost_usd, offered = self.world.quality, self.world.cost_usd, self.world.offered
        return oracle_plan(quality, cost_usd, offered, budget_rate_usd=self.budget_rate_usd)

    @cached_property
    def references(self) -> References:
        """Baselines on these requests."""
        world = self.world
        labels = world.quality, world.cost_usd
        return References.of(world.models, *labels, offered=world.offered, plan=self._plan)

    @cached_property
    def oracle_quality(self) -> Float64:
        """The oracle's quality of each request, float64[n]."""
        return plan_values(self._plan, self.world.quality)

    @cached_property
    def oracle_cost_usd(self) -> Float64:
        """The oracle's cost of each request in US dollars, float64[n]."""
        return plan_values(self._plan, self.world.cost_usd)

    def resampled(self, rows: Rows) -> References:
        """Return the references to requests int[m]; the oracle's plan is kept, its cost is NaN."""
        world = self.world
        offers = group_by_offer(world.quality[rows], world.cost_usd[rows], world.offered[rows])
        oracle = (float(self.oracle_quality[rows].mean()), math.nan)
        return References(world.models, oracle, offers)

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


@dataclass(frozen=True)
class RequestScores:
    """The columns of one trace over its n requests.

    Attributes
    ----------
    trace : Trace
        The choices of one policy under one seed.
    yardstick : Yardstick
        What they are measured by, for the world of the trace.
    """

    trace: Trace
    yardstick: Yardstick

    @cached_property
    def quality(self) -> Float64:
        """Quality of each choice, float64[n]."""
        return picked(self.yardstick.world.quality, self.trace.chosen)

    @cached_property
    def cost_usd(self) -> Float64:
        """Cost of each choice in US dollars, float64[n]."""
        return picked(self.yardstick.world.cost_usd, self.trace.chosen)

    @cached_property
    def utility(self) -> Float64 | None:
        """Utility of each choice, float64[n]; None where there is no utility."""
        utility = self.yardstick.utility
        return None if utility is None else picked(utility, self.trace.chosen)

    @cached_property
    def highest_utility(self) -> Float64 | None:
        """Utility of the best model on offer, float64[n]; None where there is no utility."""
        if self.yardstick.utility is None:
            return None
        offered = self.yardstick.world.offered
        highest = np.where(offered, self.yardstick.utility, -np.inf).max(axis=1)
        return np.where(np.isfinite(highest), highest, 0.0)

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

"""What the policies of a stage are compared with, as points and curves of the run file.

Means over seeds, with standard errors: over seeds where there are several, else over requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from policies.base import Float64
from sim.measure import over_time
from sim.measure.baselines import References
from sim.measure.per_request import Yardstick
from sim.measure.scores import aiq
from sim.measure.uncertainty import bootstrap, mean_with_error, standard_error
from sim.results import Measure, Point

LIMIT_POINTS = 10


def model_points(yardsticks: Sequence[Yardstick]) -> list[Point]:
    """Return a point for each model alone, except for models that were never on offer."""
    points, world = [], yardsticks[0].world
    for k, model in enumerate(world.models):
        pairs = np.array(
            [(each.references.quality[k], each.references.cost_usd[k]) for each in yardsticks]
        )
        numbers = pairs[~np.isnan(pairs).any(axis=1)]
        if len(numbers):
            on_offer = world.offered[:, k]
            rows = np.column_stack([world.quality[on_offer, k], world.cost_usd[on_offer, k]])
            points.append(_point(model, numbers, rows))
    return points


def corner_points(references: References, models: Sequence[Point]) -> list[Point]:
    """Return the zero router's corners. A corner that is a single model has that model's errors."""
    corners = references.zero_router().corners
    points = {point.name: point for point in models}
    names = {
        (float(cost_usd), float(quality)): model
        for model, cost_usd, quality in zip(
            references.models, references.cost_usd, references.quality, strict=True
        )
    }
    result = []
    for cost_usd, quality in map(tuple, corners.tolist()):
        model = points.get(names.get((cost_usd, quality), ""))
        result.append(
            Point(name="a mix over time", quality=quality, cost=cost_usd)
            if model is None
            else model.model_copy(update={"quality": quality, "cost": cost_usd})
        )
    return result


def reference_points(
    references: References, yardsticks: Sequence[Yardstick], models: Sequence[Point]
) -> list[Point]:
    """Return "random", "best single: MODEL", "oracle" and, if known, "supervised limit"."""
    first, name = yardsticks[0], references.models[references.best_single]
    (single,) = (point for point in models if point.name == name)
    oracle_rows = np.column_stack([first.oracle_quality, first.oracle_cost_usd])
    points = [
        _point(
            "random", np.array([each.references.random for each in yardsticks]), _random_rows(first)
        ),
        single.model_copy(update={"name": f"best single: {name}"}),
        _point("oracle", np.array([each.references.oracle for each in yardsticks]), oracle_rows),
    ]
    rate_usd = math.inf if first.budget_rate_usd is None else first.budget_rate_usd
    limits = [each.limit.at_rate(rate_usd) for each in yardsticks if each.limit is not None]
    if limits and len(limits) == len(yardsticks):
        points.append(_point("supervised limit", np.array(limits)))
    return points


def limit_points(references: References, yardsticks: Sequence[Yardstick]) -> list[Point]:
    """Return the supervised limit at costs from the cheapest to the most expensive model's.

    The costs of the zero router's corners are among these costs, so the two curves can be compared
    there too. The list is empty if a yardstick has no supervised limit.
    """
    if any(each.limit is None for each in yardsticks):
        return []
    low_usd, high_usd = references.cost_span_usd
    low_usd, high_usd = max(low_usd, 1e-4 * high_usd, 1e-12), max(high_usd, 1e-12)
    corners_usd = references.zero_router().corners[:, 0].tolist()
    rates_usd = [*np.geomspace(low_usd, high_usd, LIMIT_POINTS), *corners_usd]
    points: list[Point] = []
    for rate_usd in sorted(rate for rate in rates_usd if rate > 0.0):
        pairs = [
            each.limit.at_rate(float(rate_usd)) for each in yardsticks if each.limit is not None
        ]
        point = _point("supervised limit", np.array(pairs))
        if not points or point.cost > points[-1].cost * (1.0 + 1e-6):
            points.append(point)
    return points


def zero_router_aiq(yardsticks: Sequence[Yardstick]) -> Measure:
    """Return the AIQ of the zero router, see `sim.measure.scores.aiq`."""
    mean, first = mean_with_error([_aiq(each.references) for each in yardsticks]), yardsticks[0]
    if len(yardsticks) > 1:
        return mean
    requests = np.arange(len(first.world))
    errors = bootstrap(requests, lambda rows: {"aiq": _aiq(first.resampled(rows))})
    return Measure(mean=mean.mean, se=errors["aiq"])


def single_regret(yardstick: Yardstick, ends: over_time.Ends) -> Float64:
    """Return the cumulated regret of the best single model at the ends int[m] of the bins.

    Where it is not on offer, the worst model that is on offer answers.
    """
    world, single = yardstick.world, yardstick.references.best_single
    worst = np.where(world.offered, world.quality, np.inf).min(axis=1)
    fallback = np.where(np.isfinite(worst), worst, 0.0)
    quality = np.where(world.offered[:, single], world.quality[:, single], fallback)
    return over_time.bin_sums(yardstick.oracle_quality - quality, ends).cumsum()


def _point(name: str, pairs: Float64, rows: Float64 | None = None) -> Point:
    """Return the mean of (quality, cost)[seeds, 2]; with one seed, errors are over rows[n, 2]."""
    spread = rows if len(pairs) == 1 and rows is not None else pairs
    quality, cost_usd = pairs.mean(axis=0)
    return Point(
        name=name,
        quality=float(quality),
        cost=float(cost_usd),
        quality_se=standard_error(spread[:, 0]),
        cost_se=standard_error(spread[:, 1]),
    )


def _random_rows(yardstick: Yardstick) -> Float64:
    """Return (quality, cost)[m, 2] of a uniform choice at each request with a model on offer."""
    world = yardstick.world
    some = world.offered.any(axis=1)
    offered = world.offered[some]
    return np.column_stack(
        [
            (labels[some] * offered).sum(axis=1) / offered.sum(axis=1)
            for labels in (world.quality, world.cost_usd)
        ]
    )


def _aiq(references: References) -> float:
    corners, (low_usd, high_usd) = references.zero_router().corners, references.cost_span_usd
    return aiq(corners[:, 0], corners[:, 1], low_usd=low_usd, high_usd=high_usd)

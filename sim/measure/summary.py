"""What is said of a policy: one `runfile.Stage` from the traces of everybody who played a world.

Differences are taken within a seed before they are averaged, so that the draw of the scored
requests cancels. A refused request has quality and cost 0. Nothing here runs a policy.

Metrics, by name; means over the scored requests:

======================  ============================================================================
quality, cost           cost in US dollars
zero                    quality of the zero router at that cost, see `baselines.Frontier`
difference              quality - zero
regret                  quality of the oracle - quality; the oracle sees every answer, and at a
                        budget is the knapsack's
single_regret           quality of the best single model - quality; of the requests at which it was
                        on offer, where no model was at all of them
limit_regret            quality of the supervised limit - quality, both at the policy's cost
quality_of_single,      as shares of the best single model's
cost_of_single
aiq                     see `sim.measure.scores.aiq`: the policy, and mixes of it with the
                        cheapest model alone, from the cheapest model's mean cost to the dearest's
arena                   see `sim.measure.scores.arena_score`
captured                (quality - zero) / (supervised limit - zero), both at the policy's cost, as
                        ratio of the means over seeds, see `sim.measure.scores.captured_gain`
used                    money spent / the budget's
refused                 share of the requests
propensity, entropy     of the choices that have one; entropy in nats
utility                 where it is given, and utility_regret to the highest at each request
======================  ============================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from policies.base import Float64
from sim.measure import over_time as curves
from sim.measure.adaptation import adaptation, median
from sim.measure.baselines import References
from sim.measure.per_request import RequestScores, Rows, Yardstick
from sim.measure.scores import aiq, captured_gain
from sim.measure.supervised import Supervised
from sim.measure.uncertainty import band, bootstrap, measure, standard_error
from sim.play.trace import Trace
from sim.results import Adapted, Band, CandidateResult, Measure, Point, Stage, TimelineEvent
from sim.worlds.world import World

LIMIT_POINTS = 10


def stage_of(
    *,
    title: str,
    says: str,
    scenario: str = "",
    traces: Sequence[Trace],
    budget_rate: float | None,
    supervised: Mapping[int, Supervised] | None = None,
    utility: Mapping[int, Float64] | None = None,
) -> Stage:
    """Return what is said of everybody who played one world.

    Parameters
    ----------
    title : a few words; says : one sentence on what happens.
    scenario : see `Stage`.
    traces : one for each policy and seed, in any order; policies are listed as they first come.
        All traces of a seed have the same world, and all worlds are of one length and change
        equally often.
    budget_rate : US dollars per request of the scored requests, None for no budget.
    supervised : by seed, the supervised limit on its scored requests, labels as in its world.
    utility : by seed, float64[n, K], what the policies were asked for; None: quality alone counts,
        in the time of adaptation too.

    Raises
    ------
    ValueError
        When there are no traces, or their worlds do not go together.

    Notes
    -----
    Standard errors are over seeds. Where there is one seed they are over its requests, by bootstrap
    with the choices as they were made: they tell what other prompts would change, not what other
    draws or another order would. What the supervised limit gains then counts as known, and
    adaptation has no spread at all.
    """
    yards: dict[int, Yardstick] = {}
    policies: dict[str, list[RequestScores]] = {}
    for trace in traces:
        if trace.seed not in yards:
            yards[trace.seed] = Yardstick.of(
                trace.world,
                budget_rate=budget_rate,
                utility=utility[trace.seed] if utility else None,
                limit=supervised.get(trace.seed) if supervised else None,
            )
        yard = yards[trace.seed]
        if not np.array_equal(yard.world.rows, trace.world.rows):
            raise ValueError(f"traces: {trace.label!r} has another world under seed {trace.seed}")
        policies.setdefault(trace.label, []).append(RequestScores.of(trace, yard))
    played = list(yards.values())
    if not played:
        raise ValueError("traces: none")
    if len({(len(yard.world), len(_starts(yard.world))) for yard in played}) > 1:
        raise ValueError("traces: all worlds must have one length and equally many changes")
    world = played[0].world
    references = References.mean([yard.references for yard in played])
    at, models = curves.ends(len(world)), _models(played)
    return Stage(
        title=title,
        says=says,
        scenario=scenario,
        requests=len(world),
        budget_rate=budget_rate,
        changes=[TimelineEvent(at=one.request, label=one.label) for one in world.changes],
        models=models,
        frontier=_frontier(references, models),
        references=_references(references, played),
        limit=_limit(references, played),
        zero_aiq=_zero_aiqs(played),
        single_regret=band(np.array([_single_regret(yard, at) for yard in played])),
        errors_over="seeds" if len(played) > 1 else "requests",
        contenders=[_contender(label, runs) for label, runs in policies.items()],
    )


def _starts(world: World) -> list[int]:
    return sorted({one.request for one in world.changes if 0 < one.request < len(world)})


def _contender(label: str, runs: Sequence[RequestScores]) -> CandidateResult:
    world = runs[0].yard.world
    at = curves.ends(len(world))
    per_seed = _columns([run.metrics() for run in runs])
    metrics = {name: measure(values) for name, values in per_seed.items()}
    if len(runs) == 1:
        errors = bootstrap(len(world), runs[0].metrics)
        metrics = {name: Measure(mean=one.mean, se=errors[name]) for name, one in metrics.items()}
    limit = np.array([run.limit_gain() for run in runs])
    metrics["limit_regret"] = measure(limit - np.array(per_seed["difference"]))
    metrics["captured"] = captured_gain(np.array(per_seed["difference"]), limit)
    if len(runs) == 1 and metrics["captured"].mean is not None:
        error = (metrics["difference"].se or 0.0) / float(limit[0])
        metrics["captured"] = Measure(mean=metrics["captured"].mean, se=error)
    if len(runs) == 1 and metrics["limit_regret"].mean is not None:
        metrics["limit_regret"] = Measure(
            mean=metrics["limit_regret"].mean, se=metrics["difference"].se
        )
    shares = np.mean([curves.shares(r.trace.chosen, len(world.models), at) for r in runs], axis=0)
    return CandidateResult(
        label=label,
        seeds=len(runs),
        metrics=metrics,
        tasks=_tasks(runs),
        share=_share(runs),
        at=at.tolist(),
        curves=_curves(runs, at),
        shares={model: shares[:, k].tolist() for k, model in enumerate(world.models)},
        propensity=curves.histogram(np.concatenate([run.trace.propensity for run in runs])),
        adapted=_adapted(runs),
        per_seed={
            name: [None if math.isnan(value) else value for value in values]
            for name, values in per_seed.items()
        },
    )


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _tasks(runs: Sequence[RequestScores]) -> dict[str, dict[str, Measure]]:
    """Return the measures of each task; over requests where there is one seed."""
    found: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        for name, rows in run.yard.tasks().items():
            found.setdefault(name, []).append(run.task(rows))
    tasks = {
        name: {metric: measure(values) for metric, values in _columns(rows).items()}
        for name, rows in sorted(found.items())
    }
    if len(runs) == 1:
        for name, rows in runs[0].yard.tasks().items():
            if len(rows) > 1:
                tasks[name] = _over_requests(tasks[name], runs[0], rows)
    return tasks


def _over_requests(
    means: Mapping[str, Measure], run: RequestScores, rows: Rows
) -> dict[str, Measure]:
    """Return the measures of one task with errors over its requests; their number has none."""
    errors = bootstrap(len(rows), lambda drawn: run.task(rows[drawn]))
    return {
        name: one if name == "requests" else Measure(mean=one.mean, se=errors[name])
        for name, one in means.items()
    }


def _share(runs: Sequence[RequestScores]) -> dict[str, Measure]:
    models = runs[0].yard.world.models
    found = []
    for run in runs:
        answered = run.trace.chosen[~run.refused]
        count = max(len(answered), 1)
        found.append(np.bincount(answered, minlength=len(models)) / count)
    share = np.array(found)
    if len(runs) > 1:
        return {model: measure(share[:, k]) for k, model in enumerate(models)}
    error = np.sqrt(share[0] * (1.0 - share[0]) / count)
    return {
        model: Measure(mean=float(share[0, k]), se=float(error[k]))
        for k, model in enumerate(models)
    }


def _curves(runs: Sequence[RequestScores], at: curves.Ends) -> dict[str, Band]:
    zero = [run.yard.zero(float(run.cost.mean())) for run in runs]
    columns = {
        "regret": [curves.sums(run.yard.best - run.quality, at).cumsum() for run in runs],
        "gain": [
            curves.sums(run.quality - its, at).cumsum() for run, its in zip(runs, zero, strict=True)
        ],
        "quality": [curves.means(run.quality, at) for run in runs],
    }
    rate = runs[0].yard.rate
    if rate is not None:
        whole = rate * len(runs[0].cost)
        columns["spent"] = [curves.sums(run.cost, at).cumsum() / whole for run in runs]
    valued = [run.utility for run in runs if run.utility is not None]
    if valued:
        columns["utility"] = [curves.means(values, at) for values in valued]
    return {name: band(np.array(rows)) for name, rows in columns.items()}


def _adapted(runs: Sequence[RequestScores]) -> list[Adapted]:
    world = runs[0].yard.world
    starts = _starts(world)
    needed = []
    for run in runs:
        own = _starts(run.yard.world)
        needed.append(adaptation(run.yard.values(own), run.trace.chosen, own)[0])
    found = []
    for start, column in zip(starts, np.array(needed).T, strict=True):
        middle, known = median(column), column[~np.isnan(column)]
        if math.isnan(middle):
            found.append(Adapted(at=start, outcome="settled", seeds=len(known)))
            continue
        low, high = (_finite(float(v)) for v in _quartiles(known))
        found.append(
            Adapted(
                at=start,
                outcome="adapted" if math.isfinite(middle) else "never",
                requests=_finite(middle),
                low=low,
                high=high,
                seeds=len(known),
            )
        )
    return found


def _quartiles(values: Float64) -> tuple[float, float]:
    """Return the quartiles of values[n], of which inf are some."""
    low, high = np.quantile(values, [0.25, 0.75], method="nearest")
    return float(low), float(high)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _point(name: str, pairs: Float64, rows: Float64 | None = None) -> Point:
    """Return the mean of (quality, cost)[seeds, 2]; errors over rows[n, 2] where there is one."""
    over = rows if len(pairs) == 1 and rows is not None else pairs
    quality, cost = pairs.mean(axis=0)
    return Point(
        name=name,
        quality=float(quality),
        cost=float(cost),
        quality_se=standard_error(over[:, 0]),
        cost_se=standard_error(over[:, 1]),
    )


def _models(played: Sequence[Yardstick]) -> list[Point]:
    """Return every model alone, but those that never were on offer."""
    points, world = [], played[0].world
    for k, model in enumerate(world.models):
        pairs = np.array([(y.references.quality[k], y.references.cost[k]) for y in played])
        known = pairs[~np.isnan(pairs).any(axis=1)]
        if len(known):
            here = world.offered[:, k]
            rows = np.column_stack([world.quality[here, k], world.cost_usd[here, k]])
            points.append(_point(model, known, rows))
    return points


def _frontier(references: References, models: Sequence[Point]) -> list[Point]:
    """Return the zero router's corners; one that is a model alone has that model's errors."""
    corners, errors = references.frontier(), {point.name: point for point in models}
    means = {
        (float(c), float(q)): model
        for model, c, q in zip(references.models, references.cost, references.quality, strict=True)
    }
    points = []
    for c, q in map(tuple, corners.tolist()):
        of = errors.get(means.get((c, q), ""))
        points.append(
            Point(name="a mix over time", quality=q, cost=c)
            if of is None
            else of.model_copy(update={"quality": q, "cost": c})
        )
    return points


def _references(references: References, played: Sequence[Yardstick]) -> list[Point]:
    first, name = played[0], references.models[references.best_single]
    each = np.column_stack([first.best, first.best_cost])
    (single,) = (one for one in _models(played) if one.name == name)
    found = [
        _point("random", np.array([yard.references.random for yard in played]), _random(first)),
        single.model_copy(update={"name": f"best single: {name}"}),
        _point("oracle", np.array([yard.references.oracle for yard in played]), each),
    ]
    limits = [yard.limit for yard in played]
    rate = math.inf if played[0].rate is None else played[0].rate
    known = [limit.at_rate(rate) for limit in limits if limit is not None]
    if known and len(known) == len(played):
        found.append(_point("supervised limit", np.array(known)))
    return found


def _random(yard: Yardstick) -> Float64:
    """Return (quality, cost)[m, 2] of choosing uniformly, of the requests with a model on offer."""
    world = yard.world
    some = world.offered.any(axis=1)
    here = world.offered[some]
    return np.column_stack(
        [(of[some] * here).sum(axis=1) / here.sum(axis=1) for of in (world.quality, world.cost_usd)]
    )


def _limit(references: References, played: Sequence[Yardstick]) -> list[Point]:
    """Return the supervised limit at costs from the cheapest model's to the dearest's.

    Those of the zero router's corners are among them, so that lines between may be compared.
    """
    if any(yard.limit is None for yard in played):
        return []
    low, high = references.span
    low, high = max(low, 1e-4 * high, 1e-12), max(high, 1e-12)
    rates = [*np.geomspace(low, high, LIMIT_POINTS), *references.frontier()[:, 0].tolist()]
    points: list[Point] = []
    for rate in sorted(rate for rate in rates if rate > 0.0):
        pairs = [yard.limit.at_rate(float(rate)) for yard in played if yard.limit is not None]
        point = _point("supervised limit", np.array(pairs))
        if not points or point.cost > points[-1].cost * (1.0 + 1e-6):
            points.append(point)
    return points


def _zero_aiqs(played: Sequence[Yardstick]) -> Measure:
    found, first = measure([_zero_aiq(yard.references) for yard in played]), played[0]
    if len(played) > 1:
        return found
    errors = bootstrap(len(first.world), lambda rows: {"aiq": _zero_aiq(first.resampled(rows))})
    return Measure(mean=found.mean, se=errors["aiq"])


def _zero_aiq(references: References) -> float:
    corners, (low, high) = references.frontier(), references.span
    return aiq(corners[:, 0], corners[:, 1], low=low, high=high)


def _single_regret(yard: Yardstick, at: curves.Ends) -> Float64:
    """Return the cumulated regret of the best single model.

    Where it is not on offer the worst that is answers.
    """
    world, single = yard.world, yard.references.best_single
    worst = np.where(world.offered, world.quality, np.inf).min(axis=1)
    left = np.where(np.isfinite(worst), worst, 0.0)
    quality = np.where(world.offered[:, single], world.quality[:, single], left)
    return curves.sums(yard.best - quality, at).cumsum()

"""One stage of a run file from the traces of all policies that played one world.

Differences are taken within a seed before they are averaged, so that the draw of the scored
requests cancels. A refused request has quality and cost 0. Nothing here runs a policy.

Metrics, by name; means over the scored requests:

======================  ============================================================================
quality, cost           cost in US dollars
zero                    quality of the zero router at that cost, see `baselines.Frontier`
difference              quality - zero
regret                  quality of the oracle - quality; the oracle sees every answer, and on a
                        budget is the knapsack's
single_regret           quality of the best single model - quality; over the requests at which that
                        model was on offer, if no model was on offer at all requests
limit_regret            quality of the supervised limit - quality, both at the policy's cost
quality_of_single,      as shares of the best single model's
cost_of_single
aiq                     see `sim.measure.scores.aiq`: of the policy, and mixes of it with the
                        cheapest model alone, from the cheapest model's mean cost to the most
                        expensive model's
arena                   see `sim.measure.scores.arena_score`
captured                (quality - zero) / (supervised limit - zero), both at the policy's cost, as
                        ratio of the means over seeds, see `sim.measure.scores.captured_gain`
used                    money spent / the budget's
refused                 share of the requests
propensity, entropy     of the choices that have one; entropy in nats
utility                 where there is one, and utility_regret to the highest at each request
======================  ============================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from policies.base import Float64
from sim.measure import baseline_points, over_time
from sim.measure.adaptation import adaptation, median
from sim.measure.baselines import References
from sim.measure.per_request import RequestScores, Yardstick
from sim.measure.scores import captured_gain
from sim.measure.supervised import Supervised
from sim.measure.uncertainty import band, bootstrap, mean_with_error
from sim.play.trace import Trace
from sim.results import Adapted, Band, CandidateResult, Measure, Stage, TimelineEvent
from sim.worlds.world import World


def stage_of(
    *,
    title: str,
    says: str,
    scenario: str = "",
    traces: Sequence[Trace],
    budget_rate_usd: float | None,
    supervised: Mapping[int, Supervised] | None = None,
    utility: Mapping[int, Float64] | None = None,
) -> Stage:
    """Return the stage of all policies that played one world.

    Parameters
    ----------
    title, says, scenario : str
        See `Stage`.
    traces : sequence of Trace
        One for each policy and seed, in any order; policies are listed as they first come. All
        traces of a seed have the same world. All worlds have the same length and equally many
        changes.
    budget_rate_usd : float or None
        US dollars per request of the scored requests, None for no budget.
    supervised : mapping of int to Supervised, or None
        By seed, the supervised limit on its scored requests, with the labels of its world.
    utility : mapping of int to float64[n, K], or None
        By seed, the utility that the policies maximise; None if quality alone counts, also in the
        time of adaptation.

    Raises
    ------
    ValueError
        When there are no traces, or their worlds do not go together.

    Notes
    -----
    Standard errors are over seeds. With one seed they are over its requests, by bootstrap with the
    choices as they were made: they say what other prompts would change, not what other draws or
    another order would. The gain of the supervised limit then counts as known, and adaptation has
    no spread at all.
    """
    yardsticks = _yardsticks(traces, budget_rate_usd, supervised or {}, utility or {})
    policies: dict[str, list[RequestScores]] = {}
    for trace in traces:
        scores = RequestScores(trace, yardsticks[trace.seed])
        policies.setdefault(trace.label, []).append(scores)
    measured = list(yardsticks.values())
    world = measured[0].world
    references = References.mean([yardstick.references for yardstick in measured])
    models = baseline_points.model_points(measured)
    ends = over_time.bin_ends(len(world))
    regret = [baseline_points.single_regret(yardstick, ends) for yardstick in measured]
    return Stage(
        title=title,
        says=says,
        scenario=scenario,
        requests=len(world),
        budget_rate=budget_rate_usd,
        changes=[TimelineEvent(at=change.request, label=change.label) for change in world.changes],
        models=models,
        frontier=baseline_points.corner_points(references, models),
        references=baseline_points.reference_points(references, measured, models),
        limit=baseline_points.limit_points(references, measured),
        zero_aiq=baseline_points.zero_router_aiq(measured),
        single_regret=band(np.array(regret)),
        errors_over="seeds" if len(measured) > 1 else "requests",
        contenders=[_candidate(label, runs) for label, runs in policies.items()],
    )


def _yardsticks(
    traces: Sequence[Trace],
    budget_rate_usd: float | None,
    supervised: Mapping[int, Supervised],
    utility: Mapping[int, Float64],
) -> dict[int, Yardstick]:
    """Return a yardstick for each seed; a ValueError if the worlds do not go together."""
    yardsticks: dict[int, Yardstick] = {}
    for trace in traces:
        if trace.seed not in yardsticks:
            yardsticks[trace.seed] = Yardstick(
                trace.world,
                budget_rate_usd,
                utility=utility[trace.seed] if utility else None,
                limit=supervised.get(trace.seed),
            )
        if not np.array_equal(yardsticks[trace.seed].world.rows, trace.world.rows):
            raise ValueError(f"traces: {trace.label!r} has another world under seed {trace.seed}")
    if not yardsticks:
        raise ValueError("traces: none")
    worlds = [yardstick.world for yardstick in yardsticks.values()]
    if len({(len(world), len(_starts(world))) for world in worlds}) > 1:
        raise ValueError("traces: all worlds must have one length and equally many changes")
    return yardsticks


def _starts(world: World) -> list[int]:
    """Return the requests before which the world changes, without its first."""
    return sorted({change.request for change in world.changes if 0 < change.request < len(world)})


def _candidate(label: str, runs: Sequence[RequestScores]) -> CandidateResult:
    """Return the results of one policy from its runs, one for each seed."""
    world = runs[0].yardstick.world
    ends = over_time.bin_ends(len(world))
    per_seed = _columns([run.metrics() for run in runs])
    shares = np.mean(
        [over_time.bin_shares(run.trace.chosen, len(world.models), ends) for run in runs], axis=0
    )
    propensity = np.concatenate([run.trace.propensity for run in runs])
    return CandidateResult(
        label=label,
        seeds=len(runs),
        metrics=_metrics(runs, per_seed),
        tasks=_tasks(runs),
        share=_share(runs),
        at=ends.tolist(),
        curves=_curves(runs, ends),
        shares={model: shares[:, k].tolist() for k, model in enumerate(world.models)},
        propensity=over_time.propensity_histogram(propensity),
        adapted=_adapted(runs),
        per_seed={
            name: [None if math.isnan(value) else value for value in values]
            for name, values in per_seed.items()
        },
    )


def _metrics(
    runs: Sequence[RequestScores], per_seed: Mapping[str, Sequence[float]]
) -> dict[str, Measure]:
    """Return all metrics with their errors; over requests where there is one seed."""
    metrics = {name: mean_with_error(values) for name, values in per_seed.items()}
    gain = np.array(per_seed["difference"])
    limit_gain = np.array([run.limit_gain() for run in runs])
    metrics["limit_regret"] = mean_with_error(limit_gain - gain)
    metrics["captured"] = captured_gain(gain, limit_gain)
    if len(runs) > 1:
        return metrics
    errors = bootstrap(np.arange(len(runs[0].quality)), runs[0].metrics)
    # The gain of the supervised limit counts as known.
    errors["limit_regret"] = errors["difference"]
    if metrics["captured"].mean is not None:
        errors["captured"] = (errors["difference"] or 0.0) / float(limit_gain[0])
    return _with_errors(metrics, errors)


def _with_errors(
    means: Mapping[str, Measure], errors: Mapping[str, float | None]
) -> dict[str, Measure]:
    """Return means with other errors; one that is not defined has none."""
    return {
        name: Measure(mean=metric.mean, se=None if metric.mean is None else errors[name])
        for name, metric in means.items()
    }


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return the values of each name, one for each row."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def _tasks(runs: Sequence[RequestScores]) -> dict[str, dict[str, Measure]]:
    """Return the metrics of each task with their errors; over requests where there is one seed."""
    rows_by_seed: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        for name, rows in run.yardstick.rows_by_task().items():
            rows_by_seed.setdefault(name, []).append(run.task_metrics(rows))
    tasks = {
        name: {metric: mean_with_error(values) for metric, values in _columns(rows).items()}
        for name, rows in sorted(rows_by_seed.items())
    }
    if len(runs) == 1:
        for name, rows in runs[0].yardstick.rows_by_task().items():
            if len(rows) > 1:
                errors = bootstrap(rows, runs[0].task_metrics)
                tasks[name] = _with_errors(tasks[name], errors | {"requests": None})
    return tasks


def _share(runs: Sequence[RequestScores]) -> dict[str, Measure]:
    """Return the share of each model of the answered requests."""
    models = runs[0].yardstick.world.models
    rows = []
    for run in runs:
        answered = run.trace.chosen[~run.refused]
        count = max(len(answered), 1)
        rows.append(np.bincount(answered, minlength=len(models)) / count)
    share = np.array(rows)
    if len(runs) > 1:
        return {model: mean_with_error(share[:, k]) for k, model in enumerate(models)}
    error = np.sqrt(share[0] * (1.0 - share[0]) / count)
    return {
        model: Measure(mean=float(share[0, k]), se=float(error[k]))
        for k, model in enumerate(models)
    }


def _curves(runs: Sequence[RequestScores], ends: over_time.Ends) -> dict[str, Band]:
    """Return the curves of `CandidateResult.curves`."""
    regret = [run.yardstick.oracle_quality - run.quality for run in runs]
    gain = [
        run.quality - run.yardstick.zero_router_quality(float(run.cost_usd.mean())) for run in runs
    ]
    columns = {
        "regret": [over_time.bin_sums(values, ends).cumsum() for values in regret],
        "gain": [over_time.bin_sums(values, ends).cumsum() for values in gain],
        "quality": [over_time.bin_means(run.quality, ends) for run in runs],
    }
    rate_usd = runs[0].yardstick.budget_rate_usd
    if rate_usd is not None:
        budget_usd = rate_usd * len(runs[0].cost_usd)
        columns["spent"] = [
            over_time.bin_sums(run.cost_usd, ends).cumsum() / budget_usd for run in runs
        ]
    utility = [run.utility for run in runs if run.utility is not None]
    if utility:
        columns["utility"] = [over_time.bin_means(values, ends) for values in utility]
    return {name: band(np.array(rows)) for name, rows in columns.items()}


def _adapted(runs: Sequence[RequestScores]) -> list[Adapted]:
    """Return the requests until adapted to each change, in the median over seeds."""
    per_seed = []
    for run in runs:
        starts = _starts(run.yardstick.world)
        values = run.yardstick.values(starts)
        per_seed.append(adaptation(values, run.trace.chosen, starts)[0])
    changes = _starts(runs[0].yardstick.world)
    return [
        _adapted_to(change, requests)
        for change, requests in zip(changes, np.array(per_seed).T, strict=True)
    ]


def _adapted_to(change: int, requests: Float64) -> Adapted:
    """Return the median and quartiles of requests[seeds] until adapted to one change."""
    middle, numbers = median(requests), requests[~np.isnan(requests)]
    if math.isnan(middle):
        return Adapted(at=change, outcome="settled", seeds=len(numbers))
    # A quartile may be inf, which stands for never.
    low, high = np.quantile(numbers, [0.25, 0.75], method="nearest").tolist()
    return Adapted(
        at=change,
        outcome="adapted" if math.isfinite(middle) else "never",
        requests=_finite(middle),
        low=_finite(low),
        high=_finite(high),
        seeds=len(numbers),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

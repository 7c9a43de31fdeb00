"""From the options of `sim replay` to the stages to play, and from what was played to a run.

There is one stage for each scenario and budget. Nothing here plays a policy or prints anything;
the numbers in a stage are computed by `sim.measure.summary`.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from banditroute.core.pool import PoolOptions, default_tau_cost_usd
from banditroute.features.embedding import Embedder, make_embedder
from banditroute.features.tasks import identity, widen
from policies import make_pacing
from policies.base import Float64
from sim.data.database import without_passwords
from sim.data.dataset import Dataset
from sim.data.prices import read_prices
from sim.errors import InputError, input_errors
from sim.measure import summary
from sim.measure.supervised import Supervised
from sim.options import ReplayOptions
from sim.play.candidate import Candidate, check_labels, parse_candidate, parse_preference
from sim.play.libraries import LIBRARIES
from sim.play.replay import Experiment, Split
from sim.play.trace import Trace
from sim.results import RunFile, Stage
from sim.worlds.feedback_options import with_feedback
from sim.worlds.scenario import Scenario
from sim.worlds.scenario_files import load_scenarios

PACKAGES = ("banditroute", "numpy", "scipy", "ray")
"""Packages on whose versions all figures depend."""


def check_options(options: ReplayOptions) -> None:
    """Check what is wrong whatever the data are.

    Parameters
    ----------
    options : ReplayOptions
        What is asked for.

    Raises
    ------
    InputError
        For a value or a combination; it names the option.
    """
    for rate in options.budget_rate or ():
        if not 0.0 < rate < math.inf:
            raise InputError(f"--budget-rate: must be above 0, not {rate:g}")
    try:
        make_pacing(options.pacing)
    except ValueError as error:
        raise InputError(f"--{error}") from error
    if options.preference:
        parse_preference(options.preference)
    learn, test, fraction = options.learn_split, options.test_split, options.learn_fraction
    if (learn is None) != (test is None):
        missing = "--learn-split" if learn is None else "--test-split"
        raise InputError(f"{missing}: --learn-split and --test-split go together")
    if learn is not None and fraction is not None:
        raise InputError("--learn-fraction: not together with --learn-split")
    if learn is not None and learn == test:
        raise InputError(f"--test-split: {test!r} is the split that is learned from")
    if fraction is not None and not 0.0 <= fraction < 1.0:
        raise InputError(f"--learn-fraction: in [0, 1), not {fraction:g}")


def split_of(options: ReplayOptions) -> Split:
    """Return the rows to learn from first and to score; in a scenario all are scored by default."""
    fraction = options.learn_fraction
    if fraction is None:
        fraction = 0.0 if options.scenario else 0.5
    return Split(learn=options.learn_split, test=options.test_split, fraction=fraction)


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage before it is played.

    Attributes
    ----------
    title, says, scenario : str
        As in `sim.results.Stage`.
    experiment : Experiment
        What is played in it.
    """

    title: str
    says: str
    scenario: str
    experiment: Experiment

    def check(self, candidates: Sequence[Candidate]) -> None:
        """Raise InputError for a candidate that does not fit the data or the budget."""
        for candidate in candidates:
            candidate.check(
                models=self.experiment.dataset.models,
                embedder=self.experiment.embedder,
                dim=self.experiment.features.shape[1],
                has_budget=self.experiment.budget_rate_usd is not None,
                quality_weight=self.experiment.preference[0],
            )

    def judge(self, traces: Sequence[Trace]) -> Stage:
        """Return the results of all candidates, whose traces are ordered by candidate and seed."""
        worlds = {trace.seed: trace for trace in traces}
        limits = {seed: supervised_limit(self.experiment, of) for seed, of in worlds.items()}
        fitted = {seed: limit for seed, limit in limits.items() if limit is not None}
        weighs_cost = self.experiment.preference[1] > 0.0
        return summary.stage_of(
            title=self.title,
            says=self.says,
            scenario=self.scenario,
            traces=traces,
            budget_rate_usd=self.experiment.budget_rate_usd,
            supervised=fitted if len(fitted) == len(worlds) else None,
            utility={seed: utility(self.experiment, of) for seed, of in worlds.items()}
            if weighs_cost
            else None,
        )


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """A replay before it is played.

    Attributes
    ----------
    options : ReplayOptions
        What was asked for.
    dataset : Dataset
        The data, perhaps with gaps.
    candidates : list of Candidate
        Each plays every stage.
    stages : list of StagePlan
        In the order of the report.
    embedder : str
        Identity of the embedder, without the columns of tasks.
    """

    options: ReplayOptions
    dataset: Dataset
    candidates: list[Candidate]
    stages: list[StagePlan]
    embedder: str

    @property
    def rows_left_out(self) -> int:
        """Rows that the smallest stage leaves out, since a model has no answer there."""
        return len(self.dataset) - min(len(stage.experiment.dataset) for stage in self.stages)

    def judge(self, traces: Sequence[Sequence[Trace]], arguments: Sequence[str]) -> RunFile:
        """Return the run.

        Parameters
        ----------
        traces : sequence of sequence of Trace
            For each stage, by candidate and then by seed.
        arguments : sequence of str
            The words after ``python -m sim``.
        """
        options, split = self.options, split_of(self.options)
        preferences = {stage.experiment.preference for stage in self.stages}
        return RunFile(
            title=", ".join([self.dataset.name, *(options.scenario or ())]),
            command=["python", "-m", "sim", *map(without_passwords, arguments)],
            versions=versions(self.candidates),
            data={
                "name": self.dataset.name,
                "digest": self.dataset.digest(),
                "rows": len(self.dataset),
                "models": list(self.dataset.models),
            },
            settings={
                "seeds": options.seeds,
                "preference": list(preferences.pop()) if len(preferences) == 1 else None,
                "embedder": self.embedder,
                "learned first": (
                    f"{split.fraction:g} of the rows" if split.learn is None else split.learn
                ),
                "pacing": options.pacing,
                "reset_on_drift": options.reset_on_drift,
                "delay": None if options.delay is None else without_passwords(options.delay),
                "missing": options.missing,
                "judge_noise": options.judge_noise,
                "batch": options.batch,
            },
            stages=[stage.judge(of) for stage, of in zip(self.stages, traces, strict=True)],
        )


def plan_replay(dataset: Dataset, options: ReplayOptions) -> ReplayPlan:
    """Return what is played, after all checks that can be made before.

    Reads the files that the options name: policies, priors, scenarios, prices, a log of delays.

    Parameters
    ----------
    dataset : Dataset
        The data with the models that are asked for; it may have gaps.
    options : ReplayOptions
        What is asked for.

    Raises
    ------
    InputError
        Naming the option and what is wrong with it.
    """
    with input_errors("--embedder", ValueError, ImportError):
        embedder = make_embedder(options.embedder)
    candidates = [_candidate(text, options) for text in options.policy or ["thompson"]]
    check_labels(candidates)
    stages = plan_stages(
        dataset,
        [
            with_feedback(
                scenario,
                delay=options.delay,
                missing=options.missing,
                judge_noise=options.judge_noise,
            )
            for scenario in _scenarios(dataset, options)
        ],
        budget_rates_usd=options.budget_rate or (),
        embedder=embedder,
        tasks=options.tasks,
        split=split_of(options),
        preference=parse_preference(options.preference) if options.preference else None,
        prices=options.prices,
        batch=options.batch,
    )
    for stage in stages:
        stage.check(candidates)
    return ReplayPlan(options, dataset, candidates, stages, embedder.identity)


def plan_stages(
    dataset: Dataset,
    scenarios: Sequence[Scenario],
    *,
    budget_rates_usd: Sequence[float],
    embedder: Embedder,
    tasks: bool,
    split: Split,
    preference: tuple[float, float, float] | None,
    prices: Path | None,
    batch: int,
) -> list[StagePlan]:
    """Return a stage for each scenario and each of its budgets.

    Parameters
    ----------
    dataset : Dataset
        It may have gaps; a scenario takes its models, and the rows in which they all have answers.
    scenarios : sequence of Scenario
        In the order of the report.
    budget_rates_usd : sequence of float
        US dollars per request, for every scenario in place of its own; may be empty.
    embedder : Embedder
        Embeds the prompts, once for each set of models.
    tasks : bool
        Whether policies are given the data's task as columns.
    split, batch : Split, int
        See `Experiment`.
    preference : tuple of float, optional
        Weights of (quality, cost, latency), in place of each scenario's own or a pool's.
    prices : Path, optional
        A price list; without one, prices are drawn.
    """
    of_models: dict[tuple[str, ...], Experiment] = {}
    stages = []
    for scenario in scenarios:
        data = scenario.restrict(dataset)
        if data.models not in of_models:
            names = sorted(set(data.task) - {""}) if tasks else []
            of_models[data.models] = Experiment(
                dataset=data,
                features=widen(embedder.features(list(data.prompts)), data.task, names),
                embedder=identity(embedder.identity, names),
                split=split,
                preference=(1.0, 0.0, 0.0),
                prices=None if prices is None else read_prices(prices, data.models),
                batch=batch,
            )
        own = scenario.preference or PoolOptions().preference
        weights = preference or own.weights()
        common = replace(of_models[data.models], scenario=scenario, preference=weights)
        for rate_usd in budget_rates_usd or scenario.budget_rates_usd or (None,):
            budget = "" if rate_usd is None else f", {rate_usd * 1_000:.3g} USD per 1,000 requests"
            experiment = replace(common, budget_rate_usd=rate_usd)
            title = f"{scenario.title}{budget}"
            stages.append(StagePlan(title, scenario.says, scenario.title, experiment))
    return stages


def _scenarios(dataset: Dataset, options: ReplayOptions) -> list[Scenario]:
    if not options.scenario:
        return [unchanged(dataset)]
    scenarios: list[Scenario] = []
    for name in options.scenario:
        with input_errors("--scenario", InputError):
            scenarios += load_scenarios(name)
    return scenarios


def _candidate(text: str, options: ReplayOptions) -> Candidate:
    """Return the candidate of a text, with what the options ask of every candidate."""
    candidate = parse_candidate(text)
    pool = candidate.options
    if options.reset_on_drift:
        pool = pool.model_copy(update={"reset_on_drift": True})
    return replace(candidate, options=pool, pacing=options.pacing)


def unchanged(dataset: Dataset) -> Scenario:
    """Return the scenario in which nothing happens to the data."""
    rows, models = len(dataset.complete()), len(dataset.models)
    return Scenario(name=dataset.name, title=f"{dataset.name}: {rows} rows, {models} models")


def utility(experiment: Experiment, trace: Trace) -> Float64:
    """Return w_q q - w_c min(c / tau, 1), float64[n, K], at the weights of the experiment.

    tau is that of a pool whose models are those on offer at the first request.
    """
    world, (quality, cost, _) = trace.world, experiment.preference
    first = [
        spec
        for spec, offered in zip(experiment.specs(trace.seed), world.offered[0], strict=True)
        if offered
    ]
    fine: Float64 = np.minimum(world.cost_usd / default_tau_cost_usd(first), 1.0)
    return quality * world.quality - cost * fine


def supervised_limit(experiment: Experiment, trace: Trace) -> Supervised | None:
    """Return the supervised limit on the scored requests, None where the world departs from data.

    It is fitted on the rows that are learned from first. Where there are none, it is fitted on the
    scored rows, a fifth left out at a time.
    """
    data, world, x = experiment.dataset, trace.world, experiment.features
    rows = world.rows
    as_logged = (
        world.offered.all()
        and len(np.unique(rows)) == len(rows)
        and np.array_equal(world.quality, data.quality[rows])
        and np.array_equal(world.cost_usd, data.cost_usd[rows])
    )
    if not as_logged:
        return None
    learned = experiment.learned_rows(trace.seed)
    if len(learned):
        return Supervised.of(data, x, learned, rows)
    return Supervised.cross_fitted(data, x, rows)


def versions(candidates: Sequence[Candidate]) -> dict[str, str]:
    """Return the versions by package, of all packages on which the figures depend."""
    libraries = {candidate.name for candidate in candidates} & LIBRARIES.keys()
    by_package = {"python": platform.python_version()}
    for package in (*PACKAGES, *sorted(libraries)):
        try:
            by_package[package] = version(package)
        except PackageNotFoundError:
            by_package[package] = "unknown"
    return by_package

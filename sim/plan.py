"""From what was asked for to a run: one stage for each scenario and budget, and what it shows.

Nothing here plays a policy; what is said of the traces is said by `sim.measure.summary`.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from banditroute.core.pool import PoolOptions, default_tau_cost
from banditroute.features.embedding import Embedder
from banditroute.features.tasks import identity, widen
from policies.base import Float64
from sim.data.dataset import Dataset
from sim.data.prices import listed
from sim.measure import summary as metrics
from sim.measure.supervised import Supervised
from sim.play.candidate import Candidate
from sim.play.libraries import PEERS
from sim.play.replay import Experiment, Split
from sim.play.trace import Trace
from sim.results import Stage
from sim.worlds.scenario import Scenario

PACKAGES = ("banditroute", "numpy", "scipy", "ray")


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage before it is played: an experiment, and how it and its scenario are called."""

    title: str
    says: str
    scenario: str
    experiment: Experiment

    def check(self, contenders: Sequence[Candidate]) -> None:
        """Refuse, as an InputError, whoever does not fit the data or the budget."""
        for one in contenders:
            one.check(
                models=self.experiment.dataset.models,
                embedder=self.experiment.embedder,
                dim=self.experiment.features.shape[1],
                budget=self.experiment.budget_rate is not None,
                quality=self.experiment.preference[0],
            )

    def judge(self, traces: Sequence[Trace]) -> Stage:
        """Return what is said of everybody who played it."""
        worlds = {trace.seed: trace for trace in traces}
        limits = {seed: limit(self.experiment, one) for seed, one in worlds.items()}
        known = {seed: one for seed, one in limits.items() if one is not None}
        weighs_cost = self.experiment.preference[1] > 0.0
        return metrics.stage_of(
            title=self.title,
            says=self.says,
            scenario=self.scenario,
            traces=traces,
            budget_rate=self.experiment.budget_rate,
            supervised=known if len(known) == len(worlds) else None,
            utility={seed: utility(self.experiment, one) for seed, one in worlds.items()}
            if weighs_cost
            else None,
        )


def plan(
    whole: Dataset,
    scenarios: Sequence[Scenario],
    *,
    rates: Sequence[float],
    maker: Embedder,
    tasks: bool,
    split: Split,
    preference: tuple[float, float, float] | None,
    prices: Path | None,
    batch: int,
) -> list[StagePlan]:
    """Return a stage for each scenario and each of its budgets.

    Parameters
    ----------
    whole : the data, which may have gaps; each scenario takes its models of it, and the rows that
        have them all.
    rates : US dollars per request, for every scenario instead of its own; may be empty.
    maker : embeds the prompts.
    tasks : whether policies are given the data's task as columns.
    prices : a price list, None to draw prices.
    split, batch : see `Experiment`.
    preference : weights that policies are asked for, None for each scenario's own or a pool's.
    """
    made: dict[tuple[str, ...], Experiment] = {}
    planned = []
    for scenario in scenarios:
        data = scenario.restrict(whole)
        if data.models not in made:
            names = sorted(set(data.task) - {""}) if tasks else []
            made[data.models] = Experiment(
                dataset=data,
                features=widen(maker.features(list(data.prompts)), data.task, names),
                embedder=identity(maker.identity, names),
                split=split,
                preference=(1.0, 0.0, 0.0),
                prices=None if prices is None else listed(prices, data.models),
                batch=batch,
            )
        asked = scenario.preference or PoolOptions().preference
        weights = preference or asked.weights()
        common = replace(made[data.models], scenario=scenario, preference=weights)
        for rate in rates or scenario.budget_rates or (None,):
            budget = "" if rate is None else f", {rate * 1_000:.3g} USD per 1,000 requests"
            experiment = replace(common, budget_rate=rate)
            title = f"{scenario.title}{budget}"
            planned.append(StagePlan(title, scenario.says, scenario.title, experiment))
    return planned


def as_it_is(whole: Dataset) -> Scenario:
    """Return the scenario of data to which nothing happens."""
    rows, models = len(whole.complete()), len(whole.models)
    return Scenario(name=whole.name, title=f"{whole.name}: {rows} rows, {models} models")


def utility(experiment: Experiment, trace: Trace) -> Float64:
    """Return w_q q - w_c min(c / tau, 1), float64[n, K], of the preference that was asked for."""
    world, (quality, cost, _) = trace.world, experiment.preference
    first = [
        spec
        for spec, offered in zip(experiment.specs(trace.seed), world.offered[0], strict=True)
        if offered
    ]
    fine: Float64 = np.minimum(world.cost_usd / default_tau_cost(first), 1.0)
    return quality * world.quality - cost * fine


def limit(experiment: Experiment, trace: Trace) -> Supervised | None:
    """Return the supervised limit on the scored requests, None where the world departs from data.

    It is fitted on the rows that are learned from first; where there are none, on the other
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
    learned = experiment.learned(trace.seed)
    if len(learned):
        return Supervised.of(data, x, learned, rows)
    return Supervised.left_out(data, x, rows)


def versions(contenders: Sequence[Candidate]) -> dict[str, str]:
    """Return the versions of what figures depend on, by package."""
    peers = {one.name for one in contenders} & PEERS.keys()
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *sorted(peers)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def described(dataset: Dataset) -> dict[str, str | int | list[str]]:
    """Return the data as a run file names it."""
    return {
        "name": dataset.name,
        "digest": dataset.digest(),
        "rows": len(dataset),
        "models": list(dataset.models),
    }

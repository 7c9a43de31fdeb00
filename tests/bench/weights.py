"""How much better than no prompt at all: routing policies over the whole range of cost weights.

For each dataset, cost weight w (quality has 1 - w) and random order of the rows, a contender learns
on one half, is scored on the other while it goes on learning, and is judged by its quality minus
the zero router's at its own cost. The published libraries get the same streams. What needs all
labels, the supervised limit and the oracle, stands beside. This module also holds what `budgets.py`
shares with it: tasks, their results on disk, and the processes that work them off.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from pareto import pareto_features
from report import show

from banditroute.core.pool import default_tau_cost_usd
from banditroute.features.embedding import make_embedder
from policies import POLICIES
from policies.base import Float32
from sim.commands.terminal import progress
from sim.data.dataset import Dataset
from sim.data.formats import load
from sim.data.prices import draw_prices
from sim.measure.baselines import References
from sim.measure.supervised import Supervised
from sim.play import replay
from sim.play.candidate import Candidate, parse_candidate
from sim.play.parallel import each
from sim.play.replay import Experiment, Split
from sim.play.trace import Trace

WEIGHTS = (0.0, 0.1, 0.3, 0.5, 0.8)
WITHOUT = {
    "paretobandit_val": ["google/gemini-2.5-flash"],
    "llmrouter_train": [],
    "routellm_mmlu": [],
}
SAMPLE = {"routellm_mmlu": 6_000}
CONTEXT_FREE = "context-free"
PARETO = {"ours": "paretobandit", "own": "paretobandit, own features"}
LIBRARIES = (*PARETO.values(), "mabwiser")
REFERENCES = ("best single", "supervised", "oracle")
SLACK = 0.002
LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Task:
    """One contender under one order of one dataset, at a cost weight or a budget rate."""

    dataset: str
    contender: str
    order: int
    weight: float = 0.0
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """Means over the scored rows.

    `zero` is the zero router at the rate, or at `cost` where there is none or it was overspent;
    `tau` is the cost that counts as 1, `refused` the share of requests without an answer, and
    `dearest` the largest US dollars reserved for a model of at least 1 % of the requests.
    """

    quality: float
    cost: float
    zero: float
    tau: float
    refused: float = 0.0
    dearest: float = 0.0

    @property
    def gain(self) -> float:
        """Quality above the zero router."""
        return self.quality - self.zero


@dataclass(frozen=True, slots=True)
class Stage:
    """A dataset with the features of every contender."""

    dataset: Dataset
    features: Float32
    embedder: str
    pareto: Float32 | None


class Ledger:
    """Results on disk, one JSON object a line; files of several runs may be concatenated.

    Parameters
    ----------
    path : the file, which is only ever appended to; None keeps results in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.results: dict[Task, Result] = {}
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        for line in lines:
            entry = json.loads(line)
            self.results[Task(**entry["task"])] = Result(**entry["result"])

    def add(self, task: Task, result: Result) -> None:
        """Keep a result, on disk before this returns."""
        self.results[task] = result
        if self._path is not None:
            with self._path.open("a") as stream:
                stream.write(json.dumps({"task": asdict(task), "result": asdict(result)}) + "\n")

    def gains(self, tasks: Iterable[Task]) -> np.ndarray:
        """Return the gain of each task over the zero router, NaN where there is none."""
        found = [self.results.get(task) for task in tasks]
        return np.array([math.nan if one is None else one.gain for one in found])

    def utilities(self, tasks: Iterable[Task]) -> np.ndarray:
        """Return (1 - w) quality - w cost / tau of each task, in which no cost is capped."""
        pairs = [(task.weight, self.results[task]) for task in tasks]
        return np.array([(1.0 - w) * one.quality - w * one.cost / one.tau for w, one in pairs])


def stage(folder: Path, name: str, *, pareto: bool, cache: Path) -> Stage:
    """Load a dataset as the tables take it: complete rows, and of a large one a fixed sample."""
    dataset = load(folder / f"{name}.parquet").restrict(without=WITHOUT[name]).complete()
    if name in SAMPLE:
        rows = np.random.default_rng(0).choice(len(dataset), SAMPLE[name], replace=False)
        dataset = dataset.take(rows)
    embedder = make_embedder("hashing")
    return Stage(
        dataset=dataset,
        features=embedder.features(list(dataset.prompts)),
        embedder=embedder.identity,
        pareto=pareto_features(dataset, cache) if pareto else None,
    )


def play(at: Stage, task: Task) -> Result:
    """Run one task; the same task gives the same result."""
    data, seed = at.dataset, task.order
    learned, scored = Split().rows(data, np.random.default_rng([seed, 0]))
    references = References.of(
        data.models, data.quality[scored], data.cost_usd[scored], budget_rate_usd=task.rate
    )
    zero_router = references.zero_router()
    refused = dearest = 0.0
    if task.contender in REFERENCES:
        quality, cost = _reference(at, task, learned, scored, references)
    else:
        trace = _run(at, task)
        quality, cost, refused = trace.quality, trace.cost_usd, trace.refused
        dearest = float(data.cost_usd.max(axis=0)[trace.share >= LEAST_SHARE].max())
    return Result(
        quality=quality,
        cost=cost,
        zero=zero_router.quality_at(cost if task.rate is None else max(cost, task.rate)),
        tau=default_tau_cost_usd(draw_prices(data, seed=seed)),
        refused=refused,
        dearest=dearest,
    )


def _run(at: Stage, task: Task) -> Trace:
    experiment = Experiment(
        dataset=at.dataset,
        features=at.features,
        embedder=at.embedder,
        split=Split(),
        preference=(1.0 - task.weight, task.weight, 0.0),
        budget_rate_usd=task.rate,
    )
    name = task.contender
    if name == CONTEXT_FREE:
        intercept = np.ones((len(at.dataset), 1), dtype=np.float32)
        alone = replace(experiment, features=intercept, embedder="intercept")
        return replay.run(alone, Candidate.of("linucb", label=name), task.order)
    if name == PARETO["own"]:
        assert at.pareto is not None
        own = replace(experiment, features=at.pareto)
        return replay.run(own, contender(PARETO["ours"]), task.order)
    return replay.run(experiment, contender(name), task.order)


def _reference(
    at: Stage, task: Task, learned: np.ndarray, scored: np.ndarray, references: References
) -> tuple[float, float]:
    data = at.dataset
    quality, cost = data.quality[scored], data.cost_usd[scored]
    tau = default_tau_cost_usd(draw_prices(data, seed=task.order))
    if task.contender == "best single":
        if task.rate is None:
            fine = np.minimum(cost / tau, 1.0).mean(axis=0)
            best = int(((1.0 - task.weight) * references.quality - task.weight * fine).argmax())
        else:
            fits = references.cost_usd <= max(task.rate, references.cost_usd.min())
            best = int(np.where(fits, references.quality, -np.inf).argmax())
        return float(references.quality[best]), float(references.cost_usd[best])
    if task.contender == "oracle" and task.rate is not None:
        return references.oracle
    limit = (
        Supervised.oracle(quality, cost)
        if task.contender == "oracle"
        else Supervised.of(data, at.features, learned, scored)
    )
    if task.rate is not None:
        return limit.at_rate(task.rate)
    return limit.at_preference(1.0 - task.weight, task.weight, tau_cost_usd=tau)


def contender(spec: str) -> Candidate:
    """Return the policy of NAME[:key=value,key=value][+MODE], MODE what prices a budget's money."""
    policy, _, mode = spec.partition("+")
    return replace(parse_candidate(policy), label=spec, pacing=mode or "history")


def _play(stages: dict[str, Stage], task: Task) -> Result:
    return play(stages[task.dataset], task)


def work(tasks: Sequence[Task], ledger: Ledger, given: argparse.Namespace) -> None:
    """Work off what the ledger lacks, in `given.jobs` processes, orders from the first on."""
    left = sorted((t for t in tasks if t not in ledger.results), key=lambda t: t.order)
    if not left:
        return
    given.cache.mkdir(parents=True, exist_ok=True)
    stages = {}
    for name in dict.fromkeys(task.dataset for task in left):
        mine = {task.contender for task in left if task.dataset == name}
        stages[name] = stage(given.data, name, pareto=PARETO["own"] in mine, cache=given.cache)
    with progress(len(left)) as advance:

        def done(task: Task, result: Result) -> None:
            ledger.add(task, result)
            advance()

        each(_play, stages, left, jobs=given.jobs, on_done=done)


def parser(text: str | None) -> argparse.ArgumentParser:
    """Return the options that both tables have."""
    ours = [name for name in ("thompson", "linucb") if name in POLICIES]
    made = argparse.ArgumentParser(description=text)
    made.add_argument("data", type=Path, metavar="DATA_DIR", help="where the parquet files are")
    made.add_argument("--orders", type=int, default=10)
    made.add_argument(
        "--policy",
        nargs="+",
        default=ours,
        metavar="NAME[:k=v,..][+MODE]",
        help="the first is ours",
    )
    made.add_argument("--dataset", nargs="+", choices=WITHOUT, default=list(WITHOUT))
    made.add_argument("--jobs", type=int, default=2)
    made.add_argument(
        "--json",
        type=Path,
        help="results, one a line: what it holds is not run again, so other code needs another file",
    )
    made.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "banditroute-bench",
        help="folder for ParetoBandit's own features, which take minutes to make",
    )
    made.add_argument(
        "--pareto-features",
        nargs="+",
        choices=PARETO,
        default=["ours"],
        help="what ParetoBandit sees: our 47 features, mostly the better ones for it, or its own",
    )
    return made


def contenders(given: argparse.Namespace) -> list[str]:
    """Return what learns online, ours first."""
    pareto = [PARETO[which] for which in given.pareto_features]
    own = dict.fromkeys([*given.policy, "knn", CONTEXT_FREE])
    return [*own, *pareto, "mabwiser"]


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and its standard error, which is 0 for a single value."""
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), float(error)


def cell(values: np.ndarray) -> str:
    """Return a mean and its standard error in thousandths."""
    mean, error = mean_and_error(values * 1e3)
    return f"{mean:+.1f} ± {error:.1f}"


def main() -> None:
    """Run what is missing and print a table, the paired differences and two verdicts a dataset."""
    given = parser(__doc__).parse_args()
    ledger = Ledger(given.json)
    names = contenders(given)
    ours, libraries = names[0], [name for name in names if name in LIBRARIES]

    def tasks(dataset: str, name: str, weight: float) -> list[Task]:
        return [Task(dataset, name, order, weight) for order in range(given.orders)]

    work(
        [
            task
            for dataset in given.dataset
            for name in [*names, *REFERENCES]
            for weight in WEIGHTS
            for task in tasks(dataset, name, weight)
        ],
        ledger,
        given,
    )
    columns = [f"w = {weight:g}" for weight in WEIGHTS]
    for dataset in given.dataset:
        gains = {
            name: [ledger.gains(tasks(dataset, name, weight)) for weight in WEIGHTS]
            for name in [*names, *REFERENCES]
        }
        show(
            f"{dataset}: quality minus the zero router's at the same cost, x 1000",
            ("contender", *columns),
            [(name, *map(cell, row)) for name, row in gains.items()],
            f"mean ± standard error over {given.orders} orders; w: weight of cost",
        )
        paired = {
            name: [a - b for a, b in zip(gains[ours], gains[name], strict=True)]
            for name in names[1:]
        }
        show(
            f"{dataset}: {ours} minus each other within an order, x 1000",
            ("contender", *columns),
            [(name, *map(cell, row)) for name, row in paired.items()],
        )
        utility = {
            name: [ledger.utilities(tasks(dataset, name, weight)) for weight in WEIGHTS]
            for name in [*names, *REFERENCES]
        }
        show(
            f"{dataset}: utility of {ours} minus each other's within an order, x 1000",
            ("contender", *columns),
            [
                (name, *(cell(a - b) for a, b in zip(utility[ours], utility[name], strict=True)))
                for name in [*names[1:], *REFERENCES]
            ],
            "(1 - w) quality - w cost / tau; whoever spends more than w says is worth it may be "
            "far above the zero router and yet of less use",
        )
        if given.orders < 2:
            continue
        above = [
            f"{name} at {column}"
            for name in libraries
            for column, values in zip(columns, paired[name], strict=True)
            if _below(values, 0.0)
        ]
        below = [c for c, v in zip(columns, gains[ours], strict=True) if _below(v, -SLACK)]
        for text, found in (
            (f"no peer above {ours} by more than 2 standard errors", above),
            (f"{ours} never below zero by more than {SLACK} and 2 standard errors", below),
        ):
            print(f"{'MISS' if found else 'pass'}: {text}{': ' if found else ''}{', '.join(found)}")


def _below(values: np.ndarray, level: float) -> bool:
    mean, error = mean_and_error(values)
    return mean + 2.0 * error < level


if __name__ == "__main__":
    main()

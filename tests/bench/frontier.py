"""One policy, many trade-offs: quality over cost as a request's weight of cost goes from 0 to 1.

The rows of a dataset are split in three by a random order. The first third is a log in which a
model was drawn uniformly for every prompt, and one answer is known of each: everybody starts from
it. The second is played online, every request with a weight of cost of its own. The last is played
once for every weight of a grid, learning on from the same state. Decisions come in batches of
`AT_ONCE`, as a daemon's snapshot does.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from report import show
from weights import WITHOUT, cell, contender

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import Model, PoolOptions, default_tau_cost_usd
from banditroute.decide.columns import RequestBatch
from banditroute.decide.router import Router
from banditroute.features.embedding import make_embedder
from banditroute.fitting.pretraining import Answers, PretrainingOptions, fit
from banditroute.learn.fold import Event, Fold
from banditroute.learn.prior import Prior
from policies import Outcome
from policies.barp import Barp
from policies.base import Float32, Float64
from sim.commands.terminal import progress
from sim.data.dataset import Dataset
from sim.data.formats import load
from sim.data.prices import draw_prices
from sim.measure.baselines import Offer, References
from sim.measure.supervised import Supervised
from sim.play.parallel import each

GRID = np.linspace(0.0, 1.0, 11)
AT_ONCE = 16
SAMPLE = 3_000
PRETRAINED, LIMIT = "pretrained ", "supervised limit"
CONTENDERS = ["pretrained barp", "pretrained barp:steps=0", "barp", "linucb", "linucb:alpha=0.0"]
PAIR = ("cost", "quality")

Integers = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Stage:
    """A dataset with its features."""

    dataset: Dataset
    features: Float32
    embedder: str

    @classmethod
    def of(cls, folder: Path, name: str) -> Stage:
        """Load complete rows, and of a large dataset a fixed sample."""
        data = load(folder / f"{name}.parquet").restrict(without=WITHOUT[name]).complete()
        if name == "routellm_mmlu":
            data = data.take(np.random.default_rng(0).choice(len(data), SAMPLE, replace=False))
        made = make_embedder("hashing")
        return cls(data, made.features(list(data.prompts)), made.identity)


class Course:
    """One contender on its way through the rows: a fold, and the router that scores from it."""

    def __init__(self, stage: Stage, spec: str, *, order: int, prior: Prior | None) -> None:
        self.stage, data = stage, stage.dataset
        specs = draw_prices(data, seed=order)
        asked = contender(spec)
        self.options = PoolOptions.model_validate({})
        policy_identity = PolicyIdentity(
            policy=asked.name,
            params=asked.params,
            embedder=stage.embedder,
            dim=stage.features.shape[1],
            tau_cost_usd=default_tau_cost_usd(list(specs)),
            tau_latency_ms=self.options.tau_latency_ms,
            prior=prior.text() if prior else "",
        )
        self.models = [
            Model(one.name, one.input_price, one.output_price, price_id=k)
            for k, one in enumerate(specs, start=1)
        ]
        self.prices = np.array([m.prior_output_tokens * m.output_price / 1e6 for m in self.models])
        self.fold = Fold(policy_identity)
        for model in self.models:
            self.fold.add_model(model.name)

    def learn(self, row: int, arm: int, propensity: float, weight: float) -> None:
        """Fold the quality and the cost of one answer."""
        data = self.stage.dataset
        quality, cost = float(data.quality[row, arm]), float(data.cost_usd[row, arm])
        for field, value in (("quality", quality), ("cost", cost)):
            seq = self.fold.version + 1
            outcome = Outcome(
                seq=seq,
                decision_id="",
                arm=self.models[arm].name,
                x=self.stage.features[row],
                field=field,
                value=value,
                cost_usd=cost,
                propensity=propensity,
                preference=(1.0 - weight, weight, 0.0),
                cost_prior_usd=float(self.prices[arm]),
            )
            self.fold.apply(
                Event(seq, "bench", "feedback", outcome, self.fold.policy_identity.embedder)
            )

    def play(self, rows: np.ndarray, weights: Float64, rng: np.random.Generator) -> np.ndarray:
        """Decide and learn all rows in order, each under its weight of cost; return the arms."""
        chosen = []
        router = Router(
            options=self.options, snapshot=self.fold.snapshot(), models=self.models, rng=rng
        )
        for at in range(0, len(rows), AT_ONCE):
            part, w = rows[at : at + AT_ONCE], weights[at : at + AT_ONCE]
            router.swap(snapshot=self.fold.snapshot())
            decided = router.decide(
                RequestBatch(
                    features=self.stage.features[part],
                    preference=np.column_stack([1.0 - w, w, np.zeros(len(w))]),
                    input_tokens=np.zeros(len(w)),
                    input_bound=np.zeros(len(w)),
                )
            )
            for i, (row, arm) in enumerate(zip(part, decided.chosen, strict=True)):
                self.learn(int(row), int(arm), float(decided.pmf[i, arm]), float(w[i]))
            chosen.append(decided.chosen)
        return np.concatenate(chosen)


def _references(quality: Float64, cost_usd: Float64) -> References:
    names = tuple(map(str, range(len(cost_usd))))
    return References(names, (0.0, 0.0), (Offer(1.0, quality, cost_usd),))


@dataclass(frozen=True, slots=True)
class Traced:
    """Means over the last third at each weight of the grid, and of every model there.

    Attributes
    ----------
    quality, cost, capped : float64[G]; cost in US dollars, and of min(cost / tau, 1).
    models : quality and cost of each model.
    """

    quality: list[float]
    cost: list[float]
    capped: list[float]
    models: tuple[list[float], list[float]]

    @property
    def references(self) -> References:
        """What the last third says of mixes that do not look at the prompt."""
        quality, cost = map(np.array, self.models)
        return _references(quality, cost)

    def hull(self) -> References:
        """Return the weights as if they were models, and the cheapest model alone."""
        models = self.references
        quality = np.append(self.quality, models.quality[models.cost_usd.argmin()])
        cost = np.append(self.cost, models.cost_usd.min())
        return _references(quality, cost)

    def area(self) -> float:
        """Return the mean quality of the hull over log cost, above the zero router's.

        The range goes from the cheapest to the dearest model's mean cost. Mixes of two weights
        count, and so does playing the cheapest model alone, for everybody.
        """
        models, hull = self.references, self.hull()
        grid = np.geomspace(models.cost_usd.min(), models.cost_usd.max(), 1_000)
        ours, zero = hull.zero_router(), models.zero_router()
        return float(np.mean([ours.quality_at(at) - zero.quality_at(at) for at in grid]))

    def utility(self) -> float:
        """Return the mean over the grid of (1 - w) quality - w min(cost / tau, 1)."""
        return float(np.mean((1.0 - GRID) * self.quality - GRID * self.capped))

    def rise(self) -> float:
        """Return the largest rise of mean cost from one weight to the next, in shares of range."""
        return max(float(np.diff(self.cost).max()) / max(self.models[1]), 0.0)


def run(stage: Stage, label: str, order: int) -> Traced:
    """Play one contender under one order; the same arguments give the same result."""
    data, count = stage.dataset, len(stage.dataset)
    rng = np.random.default_rng([order, 0])
    shuffled = rng.permutation(count)
    first, second, third = np.split(shuffled, [count // 3, 2 * count // 3])
    tau = default_tau_cost_usd(draw_prices(data, seed=order))
    logged, own = rng.integers(len(data.models), size=len(first)), rng.random(len(second))
    chosen: list[Integers] = []
    if label == LIMIT:
        limit = Supervised.of(data, stage.features, np.concatenate([first, second]), third)
        fine = np.minimum(limit.predicted_cost_usd / tau, 1.0)
        chosen = [((1.0 - w) * limit.predicted_quality - w * fine).argmax(axis=1) for w in GRID]
    else:
        spec = label.removeprefix(PRETRAINED)
        prior = None if spec == label else pretrained(stage, spec, first, logged, tau, order)
        course = Course(stage, spec, order=order, prior=prior)
        if prior is None:
            for row, arm in zip(first.tolist(), logged.tolist(), strict=True):
                course.learn(row, arm, 1.0 / len(data.models), 0.5)
        course.play(second, own, np.random.default_rng([order, 1]))
        for w in GRID:
            here, draws = copy.deepcopy(course), np.random.default_rng([order, 2])
            chosen.append(here.play(third, np.full(len(third), w), draws))
    quality, cost = data.quality[third], data.cost_usd[third]
    every = np.arange(len(third))
    return Traced(
        quality=[float(quality[every, arms].mean()) for arms in chosen],
        cost=[float(cost[every, arms].mean()) for arms in chosen],
        capped=[float(np.minimum(cost[every, arms] / tau, 1.0).mean()) for arms in chosen],
        models=(quality.mean(axis=0).tolist(), cost.mean(axis=0).tolist()),
    )


def pretrained(
    stage: Stage, spec: str, rows: Integers, arms: Integers, tau: float, order: int
) -> Prior:
    """Return BaRP's net after the logged rows, each with the one answer that was drawn."""
    data, every = stage.dataset, np.arange(len(rows))
    quality, cost = np.full((2, len(rows), len(data.models)), np.nan)
    quality[every, arms] = data.quality[rows, arms]
    cost[every, arms] = data.cost_usd[rows, arms]
    uniform = np.full(len(rows), 1.0 / len(data.models))
    answers = Answers(data.models, stage.features[rows], quality, cost, arms, uniform)
    policy = Barp(dim=stage.features.shape[1], **contender(spec).params)
    arrays, _ = fit(answers, PretrainingOptions(seed=order), tau_cost_usd=tau, policy=policy)
    return Prior("barp", stage.embedder, arrays)


Key = tuple[str, str, int]


def _run(stages: dict[str, Stage], key: Key) -> Traced:
    return run(stages[key[0]], *key[1:])


def results(given: argparse.Namespace, labels: list[str]) -> dict[Key, Traced]:
    """Return what was run before, as `given.json` has it, and what was lacking there."""
    known: dict[Key, Traced] = {}
    if given.json is not None and given.json.exists():
        for line in given.json.read_text().splitlines():
            *key, traced = json.loads(line)
            known[tuple(key)] = Traced(**traced)
    stages = {name: Stage.of(given.data, name) for name in given.dataset}
    orders = range(given.first, given.first + given.orders)
    wanted = [(name, label, order) for order in orders for name in stages for label in labels]
    left = [key for key in wanted if key not in known]
    with progress(len(left)) as advance:

        def keep(key: Key, traced: Traced) -> None:
            known[key] = traced
            if given.json is not None:
                with given.json.open("a") as stream:
                    stream.write(json.dumps([*key, asdict(traced)]) + "\n")
            advance()

        each(_run, stages, left, jobs=given.jobs, on_done=keep)
    return {key: known[key] for key in wanted}


def plot(path: Path, found: dict[Key, Traced], names: list[str], labels: list[str]) -> None:
    """Draw each dataset's points and hulls, means over orders, on a logarithmic axis of cost."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(names), figsize=(6 * len(names), 5), squeeze=False)
    for name, axis in zip(names, axes[0], strict=True):
        for label in labels:
            runs = [run for key, run in found.items() if key[:2] == (name, label)]
            cost, quality = (np.mean([getattr(r, what) for r in runs], axis=0) for what in PAIR)
            whole = [run.references.cost_usd for run in runs]
            grid = np.geomspace(np.min(whole), np.mean(whole, axis=0).max(), 200)
            hull = [
                np.mean([run.hull().zero_router().quality_at(at) for run in runs]) for at in grid
            ]
            axis.plot(cost, quality, ".", color=axis.plot(grid, hull, label=label)[0].get_color())
        zero = [
            np.mean([run.references.zero_router().quality_at(at) for run in runs]) for at in grid
        ]
        axis.plot(grid, zero, "k--", label="zero router")
        axis.set(xscale="log", xlabel="US dollars per request", ylabel="quality", title=name)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is missing, and print a table of each dataset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, metavar="DATA_DIR", help="where the parquet files are")
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first order")
    parser.add_argument("--dataset", nargs="+", choices=WITHOUT, default=list(WITHOUT))
    parser.add_argument("--policy", nargs="+", default=CONTENDERS, metavar="NAME[:k=v,..]")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="results, one a line: none is run again")
    parser.add_argument("--plot", type=Path, help="a PNG of the frontiers")
    given = parser.parse_args()
    labels = [*given.policy, LIMIT]
    found = results(given, labels)
    for name in given.dataset:
        runs = {
            label: [r for key, r in found.items() if key[:2] == (name, label)] for label in labels
        }
        area, utility = (
            {label: np.array([getattr(r, what)() for r in mine]) for label, mine in runs.items()}
            for what in ("area", "utility")
        )
        rows = []
        for label, mine in runs.items():
            rises = [one.rise() for one in mine]
            mean = np.diff(np.mean([one.cost for one in mine], axis=0)).max() <= 0.0
            rows.append(
                (
                    label,
                    cell(area[label]),
                    cell(area[labels[0]] - area[label]),
                    f"{1e3 * utility[label].mean():.1f}",
                    cell(utility[labels[0]] - utility[label]),
                    f"{sum(rise == 0.0 for rise in rises)}/{len(rises)}, {max(rises):.1e}",
                    "yes" if mean else "no",
                )
            )
        show(
            f"{name}: the frontier over weights of cost from 0 to 1, x 1000",
            (
                "contender",
                "area",
                "first - it",
                "utility",
                "first - it",
                "cost falls",
                "on average",
            ),
            rows,
            "area: mean quality over log cost above the zero router's, from the cheapest to the "
            f"dearest model; {given.orders} orders, paired standard errors; cost falls: in how "
            "many orders, and the largest rise in shares of the dearest model's cost",
        )
    if given.plot is not None:
        plot(given.plot, found, given.dataset, labels)


if __name__ == "__main__":
    main()

"""Whether the judge is right: a policy's log against what other policies really would have got.

A router logs real prompts, one answer to each; from that log two other policies are judged, as
`sim evaluate` does it. The full matrix knows what they would have got on the very same prompts.
How often the interval of their difference covers it, over many orders, is printed for several
logging policies.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from report import show

from banditroute.core.pool import Model, ModelSpec, PoolOptions
from banditroute.decide.columns import RequestBatch
from banditroute.features.embedding import make_embedder
from policies.base import Float32
from sim.data.dataset import Dataset
from sim.data.formats import load
from sim.data.prices import draw_prices
from sim.ope.evaluator import Evaluator
from sim.ope.logged_requests import LoggedRequests
from sim.ope.synthetic_log import simulate_log
from sim.ope.target_policy import compute_action_dist, train
from sim.play.candidate import Candidate, parse_candidate

EXPLORES = {"exploration_share": 0.25, "exploration_cost_share": 1.0}
LOGGERS = {
    "linucb, share 0.25": Candidate.of("linucb", **EXPLORES),
    "linucb": Candidate.of("linucb"),
    "thompson": Candidate.of("thompson"),
}
HOW = ("dr", "snips", "ips", "switch-dr", "dr-os")


@dataclass(frozen=True, slots=True)
class Found:
    """One order: ESS and refusal of each target; what the difference really is on the judged prompts
    and on all prompts; (mean, low, high) by estimator."""

    ess: tuple[float, float]
    refused: tuple[str | None, str | None]
    truths: tuple[float, float]
    intervals: dict[str, tuple[float, float, float]]


def play(
    dataset: Dataset,
    features: Float32,
    embedder: str,
    targets: Sequence[Candidate],
    logger: str,
    prompts: int,
    order: int,
) -> Found:
    """Log, judge and look up the truth; the same arguments give the same numbers."""
    rows = np.random.default_rng([order, 0]).permutation(len(dataset))[:prompts]
    specs = draw_prices(dataset, seed=order)
    history = simulate_log(
        dataset,
        features,
        rows,
        candidate=LOGGERS[logger],
        specs=specs,
        embedder=embedder,
        preference=PoolOptions().preference.weights(),
        rng=np.random.default_rng([order, 1]),
    )
    first, everything = len(rows) // 2, _everything(dataset, features, specs)
    judge = Evaluator(history.log, first=first, measures=["quality"])
    pmfs, supports, values = [], [], []
    for one in targets:
        fold = train(history, one, until=first)
        whole = np.arange(len(dataset))
        pmf = compute_action_dist(everything, dataset.models, one.options, fold, rows=whole)
        target = pmf[rows[first:]]
        pmfs.append(pmf)
        supports.append(judge.support(target))
        values.append(judge.values(target, "quality"))
    apart = {how: judge.interval(values[0][how] - values[1][how]) for how in HOW}
    gains = ((pmfs[0] - pmfs[1]) * dataset.quality).sum(axis=1)
    return Found(
        ess=(supports[0].ess, supports[1].ess),
        refused=(supports[0].refusal(), supports[1].refusal()),
        truths=(float(gains[rows[first:]].mean()), float(gains.mean())),
        intervals={how: (i.mean, i.low, i.high) for how, i in apart.items()},
    )


def _everything(dataset: Dataset, features: Float32, specs: Sequence[ModelSpec]) -> LoggedRequests:
    """Return one request for each prompt of the data."""
    tokens = np.array([float(len(prompt.encode())) for prompt in dataset.prompts])
    asks = RequestBatch(
        features=features,
        preference=np.tile(PoolOptions().preference.weights(), (len(dataset), 1)),
        input_tokens=tokens / 4.0,
        input_bound=tokens,
    )
    models = tuple(
        Model(spec.name, spec.input_price, spec.output_price, k) for k, spec in enumerate(specs)
    )
    rate = np.full(len(dataset), np.nan)
    return LoggedRequests(asks, [(np.arange(len(dataset)), models)], rate)


_given: tuple[Dataset, Float32, str, list[Candidate]] | None = None


def _enter(*given: Any) -> None:
    global _given
    _given = given


def _work(logger: str, prompts: int, order: int) -> Found:
    assert _given is not None
    return play(*_given, logger, prompts, order)


def main() -> None:
    """Run all orders and print a table for each logging policy."""
    made_ = argparse.ArgumentParser(description=__doc__)
    made_.add_argument("data", type=Path, metavar="DATA", help="a data set of full information")
    made_.add_argument("--orders", type=int, default=200)
    made_.add_argument("--prompts", type=int, default=1500)
    made_.add_argument("--logger", nargs="+", default=list(LOGGERS), choices=list(LOGGERS))
    made_.add_argument("--target", nargs=2, default=["linucb", "pilot:alpha=1"], metavar="POLICY")
    made_.add_argument("--jobs", type=int, default=2)
    given = made_.parse_args()
    dataset = load(given.data).complete()
    embedder = make_embedder("hashing")
    features = embedder.features(list(dataset.prompts))
    targets = [parse_candidate(spec) for spec in given.target]
    found: dict[str, list[Found]] = {logger: [] for logger in given.logger}
    with ProcessPoolExecutor(
        max_workers=given.jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_enter,
        initargs=(dataset, features, embedder.identity, targets),
    ) as executor:
        futures = {
            executor.submit(_work, logger, given.prompts, order): logger
            for order in range(given.orders)
            for logger in given.logger
        }
        for count, future in enumerate(as_completed(futures), start=1):
            found[futures[future]].append(future.result())
            if sys.stderr.isatty():
                print(f"{count} of {len(futures)}", end="\r", file=sys.stderr)
    for logger, runs in found.items():
        told = [run for run in runs if run.refused == (None, None)]
        print(f"\nlog of {logger}: {given.prompts} prompts, judged on the second half")
        ess = np.median([run.ess for run in runs], axis=0)
        print(
            f"effective rows, median: {given.target[0]} {ess[0]:.0f}, {given.target[1]} {ess[1]:.0f}"
        )
        print(f"refused: {len(runs) - len(told)} of {len(runs)}")
        for reason in sorted({r for run in runs for r in run.refused if r})[:2]:
            print(f"  {reason}")
        if not told:
            continue
        rows = []
        for how in HOW:
            ends = np.array([run.intervals[how] for run in told])
            truth = np.array([run.truths for run in told])
            covered = (ends[:, 1, None] <= truth) & (truth <= ends[:, 2, None])
            error = ends[:, 0] - truth[:, 0]
            rows.append(
                (
                    how,
                    *(f"{share:.3f}" for share in covered.mean(axis=0)),
                    f"{np.median(ends[:, 2] - ends[:, 1]) / 2:.4f}",
                    f"{error.mean():+.4f}",
                    f"{error.std():.4f}",
                    f"{truth[:, 0].mean():+.4f}",
                )
            )
        show(
            f"{given.target[0]} - {given.target[1]}, of {len(told)} orders",
            (
                "estimator",
                "covers the judged",
                "covers all prompts",
                "half-width, median",
                "bias",
                "sd of error",
                "truth, mean",
            ),
            rows,
        )


if __name__ == "__main__":
    main()

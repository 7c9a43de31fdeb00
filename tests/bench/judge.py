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
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from report import show

from banditroute.embedding import make_embedder
from banditroute.pool import PoolOptions
from policies.base import Float32
from sim.contenders import Contender
from sim.datasets import Dataset, load
from sim.ope.judge import Judge, Target
from sim.ope.made import made
from sim.ope.targets import law, trained
from sim.prices import drawn

EXPLORES = {"exploration_share": 0.25, "exploration_cost_share": 1.0}
LOGGERS = {
    "linucb, share 0.25": Contender.of("linucb", **EXPLORES),
    "linucb": Contender.of("linucb"),
    "thompson": Contender.of("thompson"),
}
TARGETS = ("linucb", "pilot")
HOW = ("dr", "snips", "ips", "switch-dr", "dr-os")


@dataclass(frozen=True, slots=True)
class Found:
    """One order: ESS and refusal of each target, and by estimator (mean, low, high) of the rest."""

    ess: tuple[float, float]
    refused: tuple[str | None, str | None]
    truth: float
    population: float
    intervals: dict[str, tuple[float, float, float]]


def play(dataset: Dataset, features: Float32, logger: str, prompts: int, order: int) -> Found:
    """Log, judge and look up the truth; the same arguments give the same numbers."""
    rows = np.random.default_rng([order, 0]).permutation(len(dataset))[:prompts]
    trail = made(
        dataset,
        features,
        rows,
        contender=LOGGERS[logger],
        specs=drawn(dataset, seed=order),
        embedder="made",
        preference=PoolOptions().preference.weights(),
        rng=np.random.default_rng([order, 1]),
    )
    first = len(rows) // 2
    judge = Judge(trail.log, first=first, measures=["quality"])
    pmfs, supports, values = [], [], []
    for name in TARGETS:
        one = Contender.of(name)
        pmf = law(trail, one.options, trained(trail, one, until=first), first=first)
        target = Target(name, pmf)
        pmfs.append(pmf)
        supports.append(judge.support(target))
        values.append(judge.values(target, "quality"))
    apart = {how: judge.interval(values[0][how] - values[1][how]) for how in HOW}
    gains = ((pmfs[0] - pmfs[1]) * dataset.quality[rows[first:]]).sum(axis=1)
    return Found(
        ess=(supports[0].ess, supports[1].ess),
        refused=(supports[0].refusal(), supports[1].refusal()),
        truth=float(gains.mean()),
        population=float("nan"),
        intervals={how: (i.mean, i.low, i.high) for how, i in apart.items()},
    )


_given: tuple[Dataset, Float32] | None = None


def _enter(dataset: Dataset, features: Float32) -> None:
    global _given
    _given = dataset, features


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
    made_.add_argument("--jobs", type=int, default=2)
    given = made_.parse_args()
    dataset = load(given.data).complete()
    features = make_embedder("hashing").features(list(dataset.prompts))
    found: dict[str, list[Found]] = {logger: [] for logger in given.logger}
    with ProcessPoolExecutor(
        max_workers=given.jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_enter,
        initargs=(dataset, features),
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
        print(f"effective rows, median: {TARGETS[0]} {ess[0]:.0f}, {TARGETS[1]} {ess[1]:.0f}")
        print(f"refused: {len(runs) - len(told)} of {len(runs)}")
        for reason in sorted({r for run in runs for r in run.refused if r})[:2]:
            print(f"  {reason}")
        if not told:
            continue
        rows = []
        for how in HOW:
            ends = np.array([run.intervals[how] for run in told])
            truth = np.array([run.truth for run in told])
            covered = (ends[:, 1] <= truth) & (truth <= ends[:, 2])
            rows.append(
                (
                    how,
                    f"{covered.mean():.3f}",
                    f"{np.median(ends[:, 2] - ends[:, 1]) / 2:.4f}",
                    f"{(ends[:, 0] - truth).mean():+.4f}",
                    f"{(ends[:, 0] - truth).std():.4f}",
                    f"{truth.mean():+.4f}",
                )
            )
        show(
            f"{TARGETS[0]} - {TARGETS[1]}, of {len(told)} orders",
            ("estimator", "covered", "half-width, median", "bias", "sd of error", "truth, mean"),
            rows,
        )


if __name__ == "__main__":
    main()

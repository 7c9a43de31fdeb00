"""How often the judge's 95 % intervals hold the truth, on logs whose truth is known.

Features are normal, rewards 0 or 1 with a logistic mean, the target a softmax of other weights.
Logs are uniform, or follow a fixed policy with a tenth of exploration, or are those of LinUCB
learning as it goes, with an exploration share of a tenth. What is estimated is the target's value
over all contexts, not over those of the log.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from report import show

from banditroute.core.pool import ModelSpec
from policies.base import Float64
from sim.data.dataset import Dataset
from sim.ope.bandit_log import BanditLog
from sim.ope.estimators import ESTIMATORS
from sim.ope.evaluator import Evaluator
from sim.ope.synthetic_log import simulate_log
from sim.play.candidate import Candidate

ARMS, DIM = ("a", "b", "c", "d"), 6
KINDS = ("uniform", "a tenth explores", "adaptive linucb")
LINUCB = Candidate.of("linucb", exploration_share=0.1, exploration_cost_share=1.0)

_weights = np.random.default_rng(99)
TRUE = np.vstack([_weights.normal(0.0, 0.5, (DIM - 1, len(ARMS))), [0.2, 0.5, 0.0, -0.3]])
WANTED = 3.0 * TRUE + _weights.normal(0.0, 1.0, TRUE.shape)
OLD = _weights.normal(0.0, 0.5, TRUE.shape)


def contexts(rng: np.random.Generator, n: int) -> Float64:
    """Return n contexts; the last feature is the intercept."""
    x = rng.normal(size=(n, DIM))
    x[:, -1] = 1.0
    return x


def means(x: Float64) -> Float64:
    """Return the mean reward of each arm, float64[n, K]."""
    return 1.0 / (1.0 + np.exp(-(x @ TRUE)))


def target(x: Float64) -> Float64:
    """Return the pmf of the target, float64[n, K]."""
    law = np.exp(x @ WANTED)
    return law / law.sum(axis=1, keepdims=True)


def truth() -> float:
    """Return the target's value, by so many contexts that its error does not count."""
    x = contexts(np.random.default_rng(1), 2_000_000)
    return float((target(x) * means(x)).sum(axis=1).mean())


def log_of(kind: str, n: int, repetition: int) -> BanditLog:
    """Return a log; the same arguments give the same one."""
    rng = np.random.default_rng([repetition, KINDS.index(kind)])
    x = contexts(rng, n)
    rewards = (rng.random((n, len(ARMS))) < means(x)).astype(np.float64)
    if kind == "adaptive linucb":
        return _adaptive(x, rewards, rng)
    law = np.full((n, len(ARMS)), 0.25)
    if kind == "a tenth explores":
        law[:] = 0.1 / len(ARMS)
        law[np.arange(n), (x @ OLD).argmax(axis=1)] += 0.9
    chosen = (law.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    rows = np.arange(n)
    return BanditLog(
        name=kind,
        models=ARMS,
        features=x.astype(np.float32),
        chosen=chosen,
        propensity=law[rows, chosen],
        action_dist=law,
        quality=rewards[rows, chosen],
        cost_usd=np.full(n, np.nan),
        preference=np.tile([1.0, 0.0, 0.0], (n, 1)),
        tau_cost_usd=np.ones(n),
        session=rows,
    )


def _adaptive(x: Float64, rewards: Float64, rng: np.random.Generator) -> BanditLog:
    blank = ("",) * len(x)
    dataset = Dataset("adaptive", blank, blank, blank, ARMS, rewards, np.full(rewards.shape, 1e-3))
    return simulate_log(
        dataset,
        x.astype(np.float32),
        np.arange(len(x)),
        candidate=LINUCB,
        specs=[ModelSpec(name=name, input_price=0.0, output_price=1.0) for name in ARMS],
        embedder="made",
        preference=(1.0, 0.0, 0.0),
        rng=rng,
    ).log


def play(kind: str, n: int, repetition: int) -> tuple[float, bool, dict[str, tuple[float, ...]]]:
    """Return ESS, whether it was refused, and (mean, low, high) by estimator."""
    log = log_of(kind, n, repetition)
    judge = Evaluator(log, measures=["quality"])
    wanted = target(log.features.astype(np.float64))
    support, found = judge.support(wanted), {}
    for how, values in judge.values(wanted, "quality").items():
        interval = judge.interval(values)
        found[how] = (interval.mean, interval.low, interval.high)
    return support.ess, support.refusal() is not None, found


def _play(task: tuple[str, int, int]) -> tuple[float, bool, dict[str, tuple[float, ...]]]:
    return play(*task)


def main() -> None:
    """Run all repetitions and print a table for each kind of log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--kind", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    value = truth()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=given.jobs, mp_context=spawn) as executor:
        for kind in given.kind:
            tasks = [(kind, given.rows, k) for k in range(given.repetitions)]
            runs = []
            for run in executor.map(_play, tasks, chunksize=5):
                runs.append(run)
                if sys.stderr.isatty():
                    print(f"{kind}: {len(runs)} of {len(tasks)}", end="\r", file=sys.stderr)
            rows = []
            for how in ESTIMATORS:
                mean, low, high = np.array([found[how] for _, _, found in runs]).T
                covered = ((low <= value) & (value <= high)).mean()
                error = np.sqrt(covered * (1.0 - covered) / len(runs))
                rows.append(
                    (
                        how,
                        f"{covered:.3f} ± {error:.3f}",
                        f"{np.median(high - low) / 2:.4f}",
                        f"{(mean - value).mean():+.4f}",
                        f"{mean.std():.4f}",
                    )
                )
            ess, refused = np.median([run[0] for run in runs]), sum(run[1] for run in runs)
            show(
                f"{kind}: {given.rows} rows, {len(runs)} repetitions, truth {value:.4f}",
                ("estimator", "covered", "half-width, median", "bias", "sd"),
                rows,
                f"effective rows {ess:.0f} in the median; {refused} would have been refused",
            )


if __name__ == "__main__":
    main()

"""How long the arithmetic of one decision takes, beside two published bandit libraries.

Ours is what a router does between features and arm: assess, law, draw, from an installed view. The
peers get the same contexts, float64 as they want them, after the same updates, in one process and
one thread. Contenders take turns within every round, so that a slow second of the machine hits
all of them. ParetoBandit has no batches: its rows are decided in a loop.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import logging
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
from mabwiser.mab import MAB, LearningPolicy
from pareto_bandit import BanditRouter, DisjointLinUCBPolicy, FeatureService
from report import at_least, show

from policies import POLICIES, Outcome, make_policy
from policies.base import Float64
from policies.laws import draw

ARMS, DIMS = (4, 8, 32), (32, 64, 128)
BATCH = 256
UPDATES = 400
AIMS = {1: 3.0, BATCH: 2.5}
SELECT, ROUTE, MAB_UCB = "paretobandit select_arm", "paretobandit route", "mabwiser predict"

Decide = Callable[[Float64], object]
"""Decides every row of contexts[n, d]."""


class Stream:
    """Contexts with an intercept, and the updates that every library learns.

    Parameters
    ----------
    arms, dim : size of the problem.
    """

    def __init__(self, arms: int, dim: int) -> None:
        rng = np.random.default_rng([arms, dim])
        self.names = [f"m{k}" for k in range(arms)]
        self.x = rng.standard_normal((UPDATES + BATCH, dim)) / np.sqrt(dim)
        self.x[:, -1] = 1.0
        self.arm = rng.integers(arms, size=UPDATES)
        self.reward = rng.random(UPDATES)
        self.penalty = rng.random(arms) * 0.3

    def updates(self) -> Iterator[tuple[str, Float64, float]]:
        """Yield (name of the arm, context, reward)."""
        for k, x, reward in zip(self.arm, self.x, self.reward, strict=False):
            yield self.names[k], x, float(reward)

    @property
    def fresh(self) -> Float64:
        """Contexts[BATCH, d] that nobody has learned from."""
        return self.x[UPDATES:]


def ours(stream: Stream, name: str, rows: int) -> Decide:
    """Return the kernel of one of our policies for batches of `rows`."""
    policy = make_policy(name, dim=stream.x.shape[1])
    for arm in stream.names:
        policy.add_arm(arm)
    policy.learn(
        Outcome(seq, "", arm, x.astype(np.float32), "quality", reward)
        for seq, (arm, x, reward) in enumerate(stream.updates(), start=1)
    )
    policy.refresh()
    preference = np.tile([0.7, 0.3, 0.0], (rows, 1))
    eligible = np.ones((rows, len(stream.names)), dtype=np.bool_)
    penalty = np.tile(stream.penalty, (rows, 1))
    u = np.random.default_rng(0).random(rows)

    def decide(x: Float64) -> object:
        scores, _, _ = policy.assess(x, preference)
        return draw(policy.pmf(scores, eligible, penalty), u)

    return decide


def select_arm(stream: Stream) -> Decide:
    """Return ParetoBandit's scoring alone, with a penalty per arm as ours has."""
    policy = DisjointLinUCBPolicy(
        stream.names, stream.x.shape[1], alpha=0.05, forgetting_factor=0.997, seed=0
    )
    for arm, x, reward in stream.updates():
        policy.update(arm, x, reward)
    penalties = dict(zip(stream.names, stream.penalty.tolist(), strict=True))
    return lambda rows: [policy.select_arm(x, cost_penalties=penalties)[0] for x in rows]


def route(stream: Stream) -> Decide:
    """Return ParetoBandit's public call, which also checks prices and keeps a log in memory."""
    router = BanditRouter.create(
        model_registry={
            name: {"input_cost_per_m": 1.0 + k, "output_cost_per_m": 1.0 + k}
            for k, name in enumerate(stream.names)
        },
        priors="none",
        feature_service=FeatureService.for_precomputed(stream.x.shape[1]),
        alpha=0.05,
        forgetting_factor=0.997,
        bandit_seed=0,
    )
    for arm, x, reward in stream.updates():
        router.update(arm, x, reward)
    return lambda rows: [router.route(x)[0] for x in rows]


def mabwiser(stream: Stream) -> Decide:
    """Return MABWiser's LinUCB, which knows no penalty and takes batches."""
    mab = MAB(stream.names, LearningPolicy.LinUCB(alpha=0.1, l2_lambda=1.0), seed=0)
    names, x, rewards = zip(*stream.updates(), strict=True)
    mab.fit(list(names), list(rewards), np.array(x))
    return mab.predict


def measure(stream: Stream, rows: int, *, seconds: float, repeats: int) -> dict[str, float]:
    """Return the median microseconds per decision of every contender, for batches of `rows`."""
    kinds = [name for name in ("linucb", "thompson") if name in POLICIES]
    fresh = stream.fresh.reshape(-1, rows, stream.x.shape[1])
    narrow = fresh.astype(np.float32)
    contenders = {name: (ours(stream, name, rows), narrow) for name in kinds} | {
        SELECT: (select_arm(stream), fresh),
        MAB_UCB: (mabwiser(stream), fresh),
        ROUTE: (route(stream), fresh),
    }
    passes: dict[str, int] = {}
    for name, (decide, batches) in contenders.items():
        once = min(_timed(decide, batches) for _ in range(2))
        passes[name] = max(1, round(seconds / once))
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, (decide, batches) in contenders.items():
            total = sum(_timed(decide, batches) for _ in range(passes[name]))
            taken[name].append(total / passes[name] / BATCH * 1e6)
    return {name: statistics.median(values) for name, values in taken.items()}


def _timed(decide: Decide, batches: Float64) -> float:
    begun = time.perf_counter()
    for batch in batches:
        decide(batch)
    return time.perf_counter() - begun


def main() -> None:
    """Measure every size, one at a time and in batches, and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", type=int, nargs="+", default=ARMS)
    parser.add_argument("--dims", type=int, nargs="+", default=DIMS)
    parser.add_argument("--seconds", type=float, default=0.05, help="of one turn of a contender")
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    for rows, aim in AIMS.items():
        table = []
        for arms in given.arms:
            for dim in given.dims:
                taken = measure(
                    Stream(arms, dim), rows, seconds=given.seconds, repeats=given.repeats
                )
                fastest = min((SELECT, MAB_UCB), key=taken.__getitem__)
                ratio = taken[fastest] / taken["linucb"]
                thompson = taken.get("thompson")
                table.append(
                    (
                        f"{arms}, {dim}",
                        f"{taken['linucb']:.2f}",
                        "" if thompson is None else f"{thompson:.2f}",
                        *(f"{taken[name]:.2f}" for name in (SELECT, MAB_UCB, ROUTE)),
                        fastest.split()[0],
                        f"{ratio:.2f}",
                        f"{aim}",
                        *at_least(ratio, aim),
                    )
                )
        show(
            "one decision at a time" if rows == 1 else f"decisions in batches of {rows}",
            (
                "K, d",
                "linucb us",
                "thompson us",
                "select_arm us",
                "mabwiser us",
                "route us",
                "fastest peer",
                "its ratio to linucb",
                "aim",
                "of aim",
                "verdict",
            ),
            table,
            f"microseconds per decision, medians of {given.repeats} turns; after {UPDATES} "
            "updates; route is ParetoBandit's whole call, printed beside, without an aim",
        )


if __name__ == "__main__":
    main()

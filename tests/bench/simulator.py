"""How many decisions a second a simulator makes on one core, beside two published ones.

One stream of precomputed vectors for all, quality linear in them; LinUCB for all. Ours runs twice:
as the policy alone (`sim.play.policy_alone`), and as the whole product (`sim.play.replay`: router, fold, cost model,
drift detector). MABWiser runs in a loop of `predict` and `partial_fit`, and as its `Simulator`,
which learns from logged arms. coba has one vector of coefficients: crossed with one-hot actions it
has as many as the others, and the matrix that it moves is all arms' together; it has no batches.

Rates are per second of processor time, of one thread: the machine may be busy. Contenders take
turns within every round, each from the start of the stream.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from coba import LinUCBLearner, SequentialCB, SimulatedInteraction
from mabwiser.mab import MAB, LearningPolicy
from mabwiser.simulator import Simulator
from report import at_least, show, spread

from policies import make_policy
from policies.base import Float32, Float64
from sim.data.dataset import Dataset
from sim.play.candidate import Candidate
from sim.play.policy_alone import play_alone
from sim.play.replay import CandidateReplay, Experiment, Split
from sim.worlds.world import World

ARMS, DIM = 11, 64
BATCHES = (1, 256)
AIMS = {1: 20_000.0, 256: 300_000.0}
NAMES = tuple(f"m{k}" for k in range(ARMS))
FORGETS = {"half_life": 2_000.0}
EVERY = 64
"""Outcomes between two solutions: by Sherman-Morrison in between, or not at all under forgetting."""

LANE = f"policy alone, solved every {EVERY}"

Run = Callable[[], object]


@dataclass(frozen=True)
class Stream:
    """float32 contexts[n, DIM] with an intercept, and what each arm would earn, float64[n, ARMS]."""

    x: Float32
    rewards: Float64

    @classmethod
    def of(cls, n: int) -> Stream:
        """Return the first n rows; a longer stream begins with them."""
        planted, rng = np.random.default_rng(7), np.random.default_rng(8)
        theta = planted.normal(0.0, 0.35, (ARMS, DIM))
        theta[:, -1] = planted.uniform(0.45, 0.6, ARMS)
        x = (rng.standard_normal((n, DIM)) / np.sqrt(DIM)).astype(np.float32)
        x[:, -1] = 1.0
        return cls(x, np.clip(x @ theta.T, 0.0, 1.0))


def alone(stream: Stream, batch: int, *, refresh: int = 1, steps: int = 0, **params: object) -> Run:
    """Return our policy alone."""

    def run() -> object:
        policy = make_policy("linucb", dim=DIM, params=params)
        for name in NAMES:
            policy.add_arm(name)
        rng = np.random.default_rng(0)
        return play_alone(
            policy, stream.x, stream.rewards, rng=rng, batch=batch, refresh=refresh, steps=steps
        )

    return run


def replayed(stream: Stream, batch: int, **params: object) -> Run:
    """Return our whole product, as `sim replay` runs it."""
    n = len(stream.x)
    data = Dataset(
        name="stream",
        prompts=("a prompt of forty letters, more or less.",) * n,
        task=("task",) * n,
        split=("split",) * n,
        models=NAMES,
        quality=stream.rewards,
        cost_usd=np.tile(np.geomspace(1e-4, 1e-2, ARMS), (n, 1)),
    )
    plan = Experiment(
        dataset=data,
        features=stream.x,
        embedder="given",
        split=Split(),
        preference=(1.0, 0.0, 0.0),
        batch=batch,
    )
    world = World.from_dataset(data, np.arange(n))
    contender = Candidate.of("linucb", params)
    return lambda: CandidateReplay(plan, contender, 0).play(world)


def mabwiser(stream: Stream, batch: int) -> Run:
    """Return MABWiser in the loop of a user."""
    x, rewards = stream.x.astype(np.float64), stream.rewards
    arms, column = list(range(ARMS)), np.arange(ARMS)

    def run() -> None:
        mab = MAB(arms, LearningPolicy.LinUCB(alpha=0.2, l2_lambda=50.0), seed=0)
        # It decides nothing before every arm has an outcome.
        mab.fit(arms, rewards[column, column], x[:ARMS])
        for start in range(0, len(x), batch):
            rows = x[start : start + batch]
            chosen = np.atleast_1d(mab.predict(rows))
            earned = rewards[np.arange(start, start + len(rows)), chosen]
            mab.partial_fit(chosen, earned, rows)

    return run


def simulator(stream: Stream, batch: int) -> Run:
    """Return MABWiser's simulator, on uniformly logged arms; it is given a tenth to begin with."""
    n = len(stream.x)
    x, logged = stream.x.astype(np.float64), np.random.default_rng(1).integers(ARMS, size=n)
    earned = stream.rewards[np.arange(n), logged]

    def run() -> None:
        mab = MAB(list(range(ARMS)), LearningPolicy.LinUCB(alpha=0.2, l2_lambda=50.0), seed=0)
        Simulator(
            [("linucb", mab)],
            logged,
            earned,
            x,
            test_size=0.9,
            is_ordered=True,
            batch_size=batch,
            is_quick=True,
        ).run()

    return run


class _Environment:
    """The stream as coba reads one."""

    def __init__(self, stream: Stream) -> None:
        actions = [tuple(row) for row in np.eye(ARMS, dtype=int).tolist()]
        self.params = {"env_type": "stream"}
        self._rows = [
            SimulatedInteraction(x, actions, rewards)
            for x, rewards in zip(stream.x.tolist(), stream.rewards.tolist(), strict=True)
        ]

    def read(self) -> Iterator[SimulatedInteraction]:
        return iter(self._rows)


def coba(stream: Stream) -> Run:
    """Return coba's sequential evaluator."""
    environment = _Environment(stream)

    def run() -> None:
        learner = LinUCBLearner(alpha=0.2, features=["ax"])
        for _ in SequentialCB(record=["reward"]).evaluate(environment, learner):
            pass

    return run


def contenders(batch: int) -> dict[str, tuple[int, Run]]:
    """Return, by name, how many rows each decides in a turn, and the turn."""
    small = batch == 1
    makers: dict[str, tuple[int, Callable[[Stream], Run]]] = {
        LANE: (6_000 if small else 80_000, partial(alone, batch=batch, steps=EVERY)),
        "policy alone, solved every time": (
            2_000 if small else 40_000,
            partial(alone, batch=batch),
        ),
        f"policy alone, forgetting, solved every {max(EVERY, batch)}": (
            4_000 if small else 20_000,
            partial(alone, batch=batch, refresh=EVERY, **FORGETS),
        ),
        "sim replay": (500 if small else 8_000, partial(replayed, batch=batch)),
        "sim replay, forgetting": (
            200 if small else 8_000,
            partial(replayed, batch=batch, **FORGETS),
        ),
        "mabwiser predict, partial_fit": (
            500 if small else 20_000,
            partial(mabwiser, batch=batch),
        ),
        "mabwiser Simulator": (500 if small else 10_000, partial(simulator, batch=batch)),
    }
    if small:
        makers["coba SequentialCB"] = 60, coba
    return {name: (n, make(Stream.of(n))) for name, (n, make) in makers.items()}


def measure(batch: int, rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Return each contender's decisions per second of processor and of wall-clock time."""
    field = contenders(batch)
    cpu: dict[str, list[float]] = {name: [] for name in field}
    wall: dict[str, list[float]] = {name: [] for name in field}
    for turn in range(rounds + 1):
        for name, (n, run) in field.items():
            began, used = time.perf_counter(), time.process_time()
            run()
            if turn:  # the first one warms up
                cpu[name].append(n / (time.process_time() - used))
                wall[name].append(n / (time.perf_counter() - began))
    return {name: (cpu[name], wall[name]) for name in field}


def main() -> None:
    """Measure each batch size and print a table for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    logging.disable(logging.WARNING)
    # MABWiser's simulator draws up a confusion matrix of every batch, of one label in batches of 1.
    warnings.filterwarnings("ignore", module="sklearn")
    for batch in BATCHES:
        rates = measure(batch, rounds)
        first = statistics.median(rates[LANE][0])
        table = []
        for name, (cpu, wall) in rates.items():
            middle, aim = statistics.median(cpu), AIMS[batch]
            verdict = (f"{aim:,.0f}", *at_least(middle, aim)) if name == LANE else ("", "", "")
            by_clock = f"{statistics.median(wall):,.0f}"
            table.append((name, spread(cpu), by_clock, f"{first / middle:.1f}", *verdict))
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        show(
            "learning after each" if batch == 1 else f"in batches of {batch}",
            (
                "LinUCB, K=11, d=64",
                "decisions/s of a core",
                "by the clock",
                "the first is faster by",
                "aim",
                "of aim",
                "verdict",
            ),
            table,
            f"medians of {rounds} interleaved rounds; load average {load} on {os.cpu_count()} cores",
        )


if __name__ == "__main__":
    main()

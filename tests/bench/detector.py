"""The drift detector on real labels: false alarms while nothing changes, and delay when it does.

Rows are drawn with replacement, so a stream is as long as needed and truly stationary. Every alarm
is answered by a reset, as the daemon does. A drop takes so much off a graded quality; of labels
that are 0 or 1 it turns as many more into 0 as lower their mean by so much.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import weights
from report import show

from policies import Outcome
from policies.base import Float32, Float64
from policies.models.drift import Drift
from sim.data.prices import draw_prices
from sim.play.candidate import Candidate
from sim.play.router_player import RouterPlayer

DROPS = (0.05, 0.1, 0.2)
HISTORIES = (300, 2_000)
LIMIT = 2_000
ARM = "arm"


def outcomes(
    x: Float32, quality: Float64, rng: np.random.Generator, *, drop: float = 0.0
) -> Iterator[Outcome]:
    """Yield outcomes of one arm for ever, `drop` lower than quality[n] says."""
    binary = np.isin(quality, (0.0, 1.0)).mean() > 0.5
    lost = drop / max(quality.mean(), 1e-9) if binary else 0.0
    while True:
        row = int(rng.integers(len(quality)))
        value = quality[row] * (rng.random() >= lost) if binary else quality[row] - drop
        yield Outcome(0, "", ARM, x[row], "quality", max(float(value), 0.0))


def watched(dim: int) -> Drift:
    """Return a detector that knows one arm."""
    drift = Drift(dim=dim)
    drift.add_arm(ARM)
    return drift


def learn(drift: Drift, stream: Iterator[Outcome], count: int) -> Iterator[int]:
    """Learn `count` outcomes; yield the number of each that raised an alarm, and reset."""
    for seq in range(1, count + 1):
        found = next(stream)
        drift.learn(Outcome(seq, "", ARM, found.x, "quality", found.value))
        if drift.alarms():
            yield seq
            drift.reset(ARM, seq)


def alone(x: Float32, quality: Float64, count: int, seeds: int) -> int:
    """Return the false alarms of one arm in `seeds` times `count` outcomes."""
    total = 0
    for seed in range(seeds):
        stream = outcomes(x, quality, np.random.default_rng([seed, 0]))
        total += len(list(learn(watched(x.shape[1]), stream, count)))
    return total


def delays(x: Float32, quality: Float64, drop: float, history: int, seeds: int) -> list[int]:
    """Return, per seed, after how many outcomes a drop was found; LIMIT + 1 for not at all."""
    found = []
    for seed in range(seeds):
        drift, rng = watched(x.shape[1]), np.random.default_rng([seed, 1])
        list(learn(drift, outcomes(x, quality, rng), history))
        alarm = next(learn(drift, outcomes(x, quality, rng, drop=drop), LIMIT), LIMIT + 1)
        found.append(alarm)
    return found


def chosen(at: weights.Stage, count: int, seed: int) -> int:
    """Return the alarms while the default policy chooses for `count` requests."""
    rng, data = np.random.default_rng([seed, 2]), at.dataset
    player = RouterPlayer(
        specs=draw_prices(data, seed=seed),
        candidate=Candidate.of("thompson", reset_on_drift=True),
        dim=at.features.shape[1],
        embedder=at.embedder,
        preference=(0.7, 0.3, 0.0),
        rng=rng,
    )
    learned = 0
    for row in rng.integers(len(data), size=count).tolist():
        tokens = np.array([float(len(data.prompts[row].encode()))])
        (choice,) = player.decide(at.features[[row]], tokens)
        k = data.models.index(choice.model or "")
        quality, cost_usd = float(data.quality[row, k]), float(data.cost_usd[row, k])
        player.feed(choice, quality=quality, cost_usd=cost_usd)
        learned += 2
    models = len(data.models)
    return player.fold.version - learned - models - 1


def main() -> None:
    """Print both tables."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("data", type=Path, metavar="DATA_DIR", help="where the parquet files are")
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument("--outcomes", type=int, default=10_000)
    given = made.parse_args()
    false_rows, delay_rows = [], []
    for name in weights.WITHOUT:
        at = weights.stage(given.data, name, pareto=False, cache=Path())
        arms = range(len(at.dataset.models))
        qualities = [at.dataset.quality[:, k].copy() for k in arms]
        alarms = [alone(at.features, q, given.outcomes, given.seeds) for q in qualities]
        stream = given.outcomes * given.seeds
        routed = sum(chosen(at, given.outcomes, seed) for seed in range(given.seeds))
        false_rows.append(
            (
                name,
                f"{stream:,}",
                f"{np.mean(alarms) / stream * 1e4:.2f}",
                f"{max(alarms) / stream * 1e4:.1f}",
                f"{routed / stream * 1e4:.1f}",
            )
        )
        for history in HISTORIES:
            cells = []
            for drop in DROPS:
                found = [
                    one
                    for q in qualities
                    for one in delays(at.features, q, drop, history, given.seeds)
                ]
                middle, seen = np.median(found), np.mean(np.array(found) <= LIMIT)
                shown = f"{middle:.0f}" if middle <= LIMIT else f"over {LIMIT:,}"
                cells.append(f"{shown} ({seen:.0%})")
            delay_rows.append((name, f"{history:,}", *cells))
    show(
        "False alarms per 10,000 stationary outcomes",
        (
            "data",
            "outcomes an arm",
            "mean of the arms",
            "worst arm",
            "routed by thompson, all arms",
        ),
        false_rows,
        f"{given.seeds} streams of {given.outcomes:,}; of an arm alone, and of requests",
    )
    show(
        "Outcomes of the arm until a drop is found",
        ("data", "outcomes before it", *(f"-{drop:g}" for drop in DROPS)),
        delay_rows,
        f"median over arms and {given.seeds} streams each, and how many were found in {LIMIT:,}",
    )


if __name__ == "__main__":
    main()

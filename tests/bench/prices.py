"""A price cut that is announced, under a budget: is the money spent, and on what?

All rows in random order; in the middle third the price row and the cost of the dearest model are
multiplied by a factor, then restored. Nobody knows how many requests will come: money comes with
each request, at a rate, beside an advance of one reservation of the dearest model. The same prompts
without the cut are played too, and ParetoBandit, whose pacer gets the same rate, in both worlds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from report import show
from staging import DEAR, MIDDLE, staged, thirds
from weights import cell, contender, mean_and_error

from sim.commands.terminal import progress
from sim.play.parallel import each
from sim.play.replay import Experiment, run
from sim.play.trace import picked
from sim.worlds.events import PriceChange
from sim.worlds.scenario import Scenario, ScenarioEvent

CUTS = ((5.3e-3, 0.5), (1.9e-3, 0.5), (3.0e-4, 0.0178))
"""Rate in US dollars per request, and the factor of the middle third."""

PARETO = "paretobandit"
FREE = "freely"
QUALITY_ALONE = (1.0, 0.0, 0.0)
LEAST, MOST, BINDS = 0.93, 1.03, 1.1


@dataclass(frozen=True, slots=True)
class Task:
    """One contender on one order; `rate` is None where money is no object."""

    who: str
    rate: float | None
    factor: float
    order: int


@dataclass(frozen=True, slots=True)
class Result:
    """Means of the thirds, US dollars per request, and the most that was ever above the rate."""

    quality: tuple[float, float, float]
    cost: tuple[float, float, float]
    ahead: float
    refused: int


def play(plain: Experiment, task: Task) -> Result:
    """Run one task; the same task gives the same result."""
    cut = PriceChange.model_validate({"model": DEAR, "factor": task.factor, **MIDDLE})
    experiment = replace(
        plain,
        scenario=Scenario(name="cut", title="cut", events=(ScenarioEvent(cut, "cut"),)),
        budget_rate_usd=task.rate,
        advance_usd=float(plain.dataset.cost_usd.max()),
    )
    who = contender("thompson" if task.who == FREE else task.who)
    trace = run(experiment, who, task.order)
    quality, cost = (picked(of, trace.chosen) for of in (trace.world.quality, trace.world.cost_usd))
    parts = thirds(len(trace.chosen))
    ahead = cost.cumsum() - (task.rate or 0.0) * np.arange(1, len(cost) + 1)
    return Result(
        quality=tuple(float(quality[part].mean()) for part in parts),
        cost=tuple(float(cost[part].mean()) for part in parts),
        ahead=float(ahead.max()),
        refused=int((trace.chosen < 0).sum()),
    )


def results(
    given: argparse.Namespace, experiment: Experiment, tasks: Sequence[Task]
) -> dict[Task, Result]:
    """Return all results; what `--json` holds is not run again."""
    done: dict[Task, Result] = {}
    if given.json is not None and given.json.exists():
        for line in given.json.read_text().splitlines():
            task, (quality, cost, ahead, refused) = json.loads(line)
            done[Task(*task)] = Result(tuple(quality), tuple(cost), ahead, refused)
    left = [task for task in dict.fromkeys(tasks) if task not in done]
    with progress(len(left)) as advance:

        def keep(task: Task, one: Result) -> None:
            done[task] = one
            if given.json is not None:
                key = [task.who, task.rate, task.factor, task.order]
                with given.json.open("a") as stream:
                    values = [one.quality, one.cost, one.ahead, one.refused]
                    stream.write(json.dumps([key, values]) + "\n")
            advance()

        each(play, experiment, left, jobs=given.jobs, on_done=keep)
    return done


def main() -> None:
    """Run what is missing; print a table for each cut and a verdict for each aim."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("data", type=Path, metavar="DATA_DIR", help="where the parquet files are")
    made.add_argument("--orders", type=int, default=20)
    made.add_argument("--policy", nargs="+", default=["thompson"], metavar="NAME[:k=v,..][+MODE]")
    made.add_argument("--jobs", type=int, default=2)
    made.add_argument("--json", type=Path, help="results, one a line; kept and taken up")
    given = made.parse_args()
    experiment = replace(staged(given.data, "still"), preference=QUALITY_ALONE)
    names, orders = [*given.policy, PARETO], range(given.orders)
    tasks = [
        Task(who, rate, factor, order)
        for order in orders
        for rate, cut in CUTS
        for factor in (cut, 1.0)
        for who in names
    ]
    tasks += [Task(FREE, None, cut, order) for order in orders for _, cut in CUTS]
    done = results(given, experiment, tasks)
    advance = float(experiment.dataset.cost_usd.max())
    missed = []
    for rate, cut in CUTS:

        def found(who: str, factor: float, field: str, at: float | None = rate) -> np.ndarray:
            return np.array([getattr(done[Task(who, at, factor, o)], field) for o in orders])

        free = found(FREE, cut, "cost", None).mean(axis=0) / rate
        rows = []
        for who in names:
            quality, plain = (found(who, factor, "quality") for factor in (cut, 1.0))
            used = found(who, cut, "cost") / rate
            ahead = max(found(who, factor, "ahead").max() for factor in (cut, 1.0))
            lift = quality[:, 1] - plain[:, 1]
            rows.append(
                (
                    who,
                    *(f"{q:.4f}" for q in quality.mean(axis=0)),
                    *(f"{u:.3f}" for u in used.mean(axis=0)),
                    cell(lift),
                    f"{ahead / advance:.3f}",
                    str(int(found(who, cut, "refused").sum())),
                )
            )
            if who == PARETO:
                continue
            if ahead > advance:
                missed.append(f"{who} at {rate:.1e}: ahead of its money")
            for k, share in enumerate(used.mean(axis=0)):
                if free[k] > BINDS and not LEAST <= share <= MOST:
                    missed.append(f"{who} at {rate:.1e}: third {k + 1} spends {share:.3f}")
            mean, error = mean_and_error(lift)
            if mean - 2.0 * error <= 0.0:
                missed.append(f"{who} at {rate:.1e}: the cut brings no quality")
        show(
            f"{DEAR} x {cut:g} in the middle third, {rate:.1e} US dollars per request",
            (
                "contender",
                *("quality, 1st third", "2nd", "3rd"),
                *("spent / rate, 1st", "2nd", "3rd"),
                "2nd third minus uncut, x 1000",
                "most ahead / reservation",
                "refused",
            ),
            rows,
            f"{given.orders} orders; buying freely costs "
            + ", ".join(f"{share:.2f}" for share in free)
            + " of the rate",
        )
    print(f"{'MISS' if missed else 'pass'}: all aims{': ' if missed else ''}{'; '.join(missed)}")


if __name__ == "__main__":
    main()

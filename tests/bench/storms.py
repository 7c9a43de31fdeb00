"""What a changing world costs each policy: five storms on one set of real prompts.

A random order of the rows is cut into thirds; in the middle third something is different, in the
last it is as before. Everybody starts cold and sees the same rows. Regret is the utility lost to
the best single model of each third, in hindsight and without looking at the prompt; who looks at
it may be below zero.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from report import show
from staging import SAYS, WATCHED, Measured, measure, staged, thirds
from weights import cell, contender

from sim.commands.terminal import progress
from sim.measure.adaptation import WINDOW
from sim.play.candidate import Candidate
from sim.play.parallel import each
from sim.play.replay import Experiment, run
from sim.play.trace import Trace

RESET = "+reset"
PARETO = ("paretobandit", "paretobandit:forgetting_factor=1")
POLICIES = (
    "thompson",
    "thompson+reset",
    "d-thompson",
    "d-thompson+reset",
    "linucb",
    "linucb+reset",
    "d-linucb",
    "d-linucb+reset",
    "sw-linucb",
    "barp",
    "barp+reset",
    "d-ucb:gamma=1",
    "d-ucb",
    "d-ucb+reset",
    "sw-ucb",
    *PARETO,
)


def _contender(who: str) -> Candidate:
    plain = contender(who.removesuffix(RESET))
    options = plain.options.model_copy(update={"reset_on_drift": who.endswith(RESET)})
    return replace(plain, label=who, options=options)


Task = tuple[str, str, int]
"""(storm, contender, order)."""


def _play(experiments: dict[str, Experiment], task: Task) -> Trace:
    storm, who, order = task
    return run(experiments[storm], _contender(who), order)


def played(given: argparse.Namespace, experiments: dict[str, Experiment]) -> dict[Task, Trace]:
    """Return all traces; of those that `--json` holds, only the choices are known."""
    done: dict[Task, Trace] = {}
    if given.json is not None and given.json.exists():
        for line in given.json.read_text().splitlines():
            storm, who, order, chosen = json.loads(line)
            if storm in experiments:
                world, unknown = experiments[storm].worlds(order)[1], np.full(len(chosen), np.nan)
                done[storm, who, order] = Trace(
                    who, order, world, np.array(chosen), unknown, unknown
                )
    wanted = [(s, w, o) for o in range(given.orders) for s in given.storm for w in given.policy]
    left = [task for task in wanted if task not in done]
    with progress(len(left)) as advance:

        def keep(task: Task, trace: Trace) -> None:
            done[task] = trace
            if given.json is not None:
                with given.json.open("a") as stream:
                    stream.write(json.dumps([*task, trace.chosen.tolist()]) + "\n")
            advance()

        each(_play, experiments, left, jobs=given.jobs, on_done=keep)
    return done


def plot(path: Path, name: str, found: dict[str, Measured]) -> None:
    """Draw utility and the share of the watched model over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 1, figsize=(10, 8), sharex=True, layout="constrained")
    shown = [who for who in found if who in PLOTTED] or list(found)
    window = np.full(WINDOW, 1.0 / WINDOW)
    for k, who in enumerate(shown):
        one, style = found[who], ("-", "--", ":")[k % 3]
        for axis, values in zip(axes, (one.curve, one.shares), strict=True):
            smooth = np.convolve(values, window, mode="valid")
            at = np.arange(len(smooth)) + WINDOW // 2
            axis.plot(at, smooth, style, color=f"C{k}", label=who, linewidth=1.5)
    for axis in axes:
        for part in thirds(len(found[shown[0]].curve))[1:]:
            axis.axvline(part.start, color="0.5", linewidth=0.8)
    axes[0].set_title(f"{name}: {SAYS[name]}")
    axes[0].set_ylabel(f"utility, mean of {WINDOW}")
    axes[1].set_ylabel(f"share of {WATCHED[name].rpartition('/')[2]}")
    axes[1].set_xlabel("requests")
    axes[0].legend(fontsize="small", ncols=2)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


PLOTTED = (
    "thompson",
    "thompson+reset",
    "d-thompson",
    "linucb+reset",
    "d-linucb",
    "barp",
    "d-ucb",
    PARETO[0],
)


def _requests(value: float) -> str:
    return "" if math.isnan(value) else "never" if math.isinf(value) else f"{value:.0f}"


def main() -> None:
    """Run what is missing; print a table and paired differences for each storm."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("data", type=Path, metavar="DATA_DIR", help="where the parquet files are")
    made.add_argument("--orders", type=int, default=10)
    made.add_argument("--storm", nargs="+", choices=WATCHED, default=list(WATCHED))
    made.add_argument("--policy", nargs="+", default=list(POLICIES), metavar="NAME[:k=v][+reset]")
    made.add_argument("--jobs", type=int, default=2)
    made.add_argument("--json", type=Path, help="choices, one run a line; kept and taken up")
    made.add_argument("--plot", type=Path, metavar="DIR", help="where to draw a PNG per storm")
    given = made.parse_args()
    experiments = {name: staged(given.data, name) for name in given.storm}
    done = played(given, experiments)
    for name in given.storm:
        found = {
            who: measure(
                experiments[name], name, [done[name, who, order] for order in range(given.orders)]
            )
            for who in given.policy
        }
        ours = found[given.policy[0]].regret.mean(axis=1)
        show(
            f"{name}: {SAYS[name]}",
            (
                "contender",
                *(f"regret x 1000, {part}" for part in ("1st third", "2nd", "3rd")),
                f"whole, minus {given.policy[0]}",
                "adapted after",
                "and after",
                f"share of {WATCHED[name].rpartition('/')[2]}",
            ),
            [
                (
                    who,
                    *(cell(one.regret[:, k]) for k in range(3)),
                    cell(one.regret.mean(axis=1) - ours),
                    *map(_requests, one.adapted),
                    " ".join(f"{share:.2f}" for share in one.share),
                )
                for who, one in found.items()
            ],
            f"means ± standard errors over {given.orders} orders, differences within an order; "
            "regret: utility a request below the best single model of that third",
        )
        if given.plot is not None:
            given.plot.mkdir(parents=True, exist_ok=True)
            plot(given.plot / f"{name}.png", name, found)


if __name__ == "__main__":
    main()

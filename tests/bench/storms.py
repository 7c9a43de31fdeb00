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
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import numpy as np
import peers
from report import show
from staging import SAYS, WATCHED, Measured, Stage, Storm, measure, staged, thirds
from weights import cell, contender

from banditroute.pool import ModelSpec
from sim.adaptation import WINDOW
from sim.replay import Contender, Experiment, Replayer, Split

RESET = "+reset"
PARETO = ("paretobandit", "paretobandit, no forgetting")
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


def play(stage: Stage, name: str, who: str, order: int) -> np.ndarray:
    """Return which model `who` chose for each request, int[n]."""
    storm = Storm.of(stage.dataset, name, order)
    offers = {t: (specs, gone) for t, specs, gone in storm.offers()}
    columns = {spec.name: k for k, spec in enumerate(storm.specs)}
    if who in PARETO:
        return _play_pareto(stage, storm, offers, columns, who, order)
    replayer = Replayer(
        specs=[s for s in offers[0][0] if s.name not in offers[0][1]],
        contender=_contender(who),
        dim=stage.features.shape[1],
        embedder=stage.embedder,
        preference=stage.preference,
        rng=np.random.default_rng([order, 1]),
    )
    chosen = np.zeros(len(storm.rows), dtype=np.intp)
    for t, row in enumerate(storm.rows.tolist()):
        if t in offers and t > 0:
            replayer.offer(offers[t][0], draining=offers[t][1])
        tokens = float(len(stage.dataset.prompts[row].encode()))
        decided = replayer.decide(stage.features[row], tokens)
        arm = columns[decided.frame.models[int(decided.chosen[0])].name]
        replayer.feed(decided, quality=float(storm.quality[t, arm]), cost=float(storm.cost[t, arm]))
        chosen[t] = arm
    return chosen


def _contender(who: str) -> Contender:
    plain = contender(who.removesuffix(RESET))
    return replace(plain, label=who, reset_on_drift=who.endswith(RESET))


def _play_pareto(
    stage: Stage,
    storm: Storm,
    offers: dict[int, tuple[list[ModelSpec], set[str]]],
    columns: dict[str, int],
    who: str,
    order: int,
) -> np.ndarray:
    experiment = Experiment(
        dataset=stage.dataset,
        features=stage.features,
        embedder=stage.embedder,
        split=Split(),
        preference=stage.preference,
    )
    specs, gone = offers[0]
    first = [spec for spec in specs if spec.name not in gone]
    peer = peers.ParetoBandit(experiment, first, order, forgets=who == PARETO[0])
    x = stage.features.astype(np.float64)
    chosen = np.zeros(len(storm.rows), dtype=np.intp)
    for t, row in enumerate(storm.rows.tolist()):
        if t in offers and t > 0:
            peer.offer(offers[t][0], gone=offers[t][1])
        arm = columns[peer.decide_name(x[row])]
        peer.feed(float(storm.quality[t, arm]), float(storm.cost[t, arm]))
        chosen[t] = arm
    return chosen


_stages: dict[str, Stage] = {}


def _enter(stages: dict[str, Stage]) -> None:
    _stages.update(stages)


def _work(name: str, who: str, order: int) -> list[int]:
    return play(_stages[name], name, who, order).tolist()


def run(given: argparse.Namespace, stages: dict[str, Stage]) -> dict[tuple[str, str, int], list]:
    """Return the choices by (storm, contender, order); what `--json` holds is not run again."""
    done: dict[tuple[str, str, int], list[int]] = {}
    if given.json is not None and given.json.exists():
        for line in given.json.read_text().splitlines():
            storm, who, order, chosen = json.loads(line)
            done[storm, who, order] = chosen
    wanted = [(s, w, o) for o in range(given.orders) for s in given.storm for w in given.policy]
    left = [task for task in wanted if task not in done]
    with ProcessPoolExecutor(
        max_workers=given.jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_enter,
        initargs=(stages,),
    ) as executor:
        futures = {executor.submit(_work, *task): task for task in left}
        for count, future in enumerate(as_completed(futures), start=1):
            done[futures[future]] = future.result()
            if given.json is not None:
                with given.json.open("a") as stream:
                    stream.write(json.dumps([*futures[future], future.result()]) + "\n")
            if sys.stderr.isatty():
                print(f"{count} of {len(left)}", end="\r", file=sys.stderr)
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
    stages = {name: staged(given.data, name) for name in given.storm}
    done = run(given, stages)
    for name in given.storm:
        found = {
            who: measure(
                stages[name], name, [np.array(done[name, who, o]) for o in range(given.orders)]
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

"""The whole way: a daemon over HTTP, its SQL log, `sim evaluate`, and what is really true.

Prompts are routed and their answers judged over HTTP; then the command of the README judges two
policies from the database, and the full matrix says what they would have got on those prompts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from servers import daemon

from banditroute.features.embedding import make_embedder
from sim.data.database import open_log
from sim.data.dataset import Dataset
from sim.data.formats import load
from sim.data.prices import draw_prices
from sim.drive import Drive, run_drive
from sim.ope import read_database as logs
from sim.ope.logged_requests import DecisionHistory
from sim.ope.target_policy import compute_action_dist, train
from sim.options import DriveOptions
from sim.play.candidate import parse_candidate

POOL = "judged"
LOGGERS: dict[str, dict[str, Any]] = {
    "linucb, exploration_share 0.25": {
        "policy": "linucb",
        "exploration_share": 0.25,
        "exploration_cost_share": 1.0,
    },
    "linucb without exploration": {"policy": "linucb"},
    "thompson, as it comes": {"policy": "thompson"},
}


def truth(history: DecisionHistory, spec: str, dataset: Dataset) -> float:
    """Return the mean quality that a policy would have got on the judged rows."""
    first = round(0.5 * len(history.log))
    known = make_embedder("hashing").features(list(dataset.prompts))
    row = {x.tobytes(): i for i, x in enumerate(known)}
    rows = [row[x.tobytes()] for x in history.log.features[first:]]
    contender = parse_candidate(spec)
    judged = np.arange(first, len(history.log))
    fold = train(history, contender, until=first)
    pmf = compute_action_dist(
        history.requests, history.log.models, contender.options, fold, rows=judged
    )
    columns = [dataset.models.index(name) for name in history.log.models]
    return float((pmf * dataset.quality[np.ix_(rows, columns)]).sum(axis=1).mean())


def main() -> None:
    """Run a daemon for each logging policy and print what the command says, and the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, metavar="DATA", help="a data set of full information")
    parser.add_argument("--prompts", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", nargs=2, default=["linucb", "pilot:alpha=1"], metavar="POLICY")
    given = parser.parse_args()
    dataset = load(given.data).complete()
    for name, options in LOGGERS.items():
        config = {"pools": {POOL: options}}
        with daemon(local=True, config=config) as server:
            drive = Drive(
                dataset=dataset,
                specs=draw_prices(dataset, seed=given.seed),
                options=DriveOptions(
                    data=str(given.data),
                    url=f"http://127.0.0.1:{server.port}",
                    pool=POOL,
                    limit=given.prompts,
                    seed=given.seed,
                ),
            )
            done = run_drive(drive)
            print(f"\n== a log of {name}: {done['decisions']} decisions, {done['errors']} errors")
            url, out = f"sqlite:///{server.database}", server.folder / "evaluation.json"
            command = [sys.executable, "-m", "sim", "evaluate", "--log", url, "--pool", POOL]
            for spec in given.target:
                command += ["--policy", spec]
            print("$ python " + " ".join(["-m", *command[2:]]), flush=True)
            subprocess.run([*command, "--json", str(out)], check=False)
            found = json.loads(out.read_text())
            with open_log(url) as store:
                history = logs.read(store, POOL)
        real = [truth(history, spec, dataset) for spec in given.target]
        apart = real[0] - real[1]
        print(f"true quality: {real[0]:.4f}, {real[1]:.4f}; true difference {apart:+.4f}")
        for one in found["differences"]:
            if one["label"] == f"{given.target[0]} - {given.target[1]}":
                ends = one["estimates"]["quality"]["dr"]["normal"]
                inside = ends["low"] <= apart <= ends["high"]
                print(
                    f"interval {ends['low']:+.4f} to {ends['high']:+.4f}: "
                    f"{'holds' if inside else 'MISSES'} the truth"
                )


if __name__ == "__main__":
    main()

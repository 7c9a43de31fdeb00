"""How fast a policy is folded anew from its whole log, beside reading the same rows.

100,000 quality events of eight models with 47 features each, in SQLite, no checkpoint used.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from report import at_least, show, spread
from sqlalchemy import insert

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import PolicySpec
from banditroute.features.embedding import FEATURES
from banditroute.learn.learner import rebuild
from banditroute.store.engine import WRITER, open_engine, prepare
from banditroute.store.log import Log, append_event
from banditroute.store.tables import events
from policies import POLICIES, full_params

AIM = 40_000
MODELS = 8


def fill(database: Path, count: int, policy: str) -> Any:
    """Write a log of `count` outcomes and return the engine."""
    engine = open_engine(f"sqlite:///{database}")
    prepare(engine)
    policy_identity = PolicyIdentity(
        policy, full_params(policy, {}), "bench", FEATURES, 0.01, 10_000.0
    )
    rng = np.random.default_rng(4)
    with engine.connect().execution_options(**WRITER) as connection:
        with connection.begin():
            for k in range(MODELS):
                body = {"name": f"m{k}"}
                append_event(connection, pool="p", kind="model_added", payload=body, now_us=0)
            append_event(
                connection,
                pool="p",
                kind="policy_started",
                payload=policy_identity.payload(),
                now_us=0,
            )
        for at in range(0, count, 10_000):
            x = rng.standard_normal((10_000, FEATURES)).astype("<f4")
            x[:, -1] = 1.0
            rows = [
                {
                    "pool": "p",
                    "kind": "feedback",
                    "created_at": at + i,
                    "decision_id": f"{at + i:032x}",
                    "arm": f"m{k}",
                    "embedder": "bench",
                    "features": x[i].tobytes(),
                    "field": "quality",
                    "value": value,
                    "cost": None,
                    "propensity": 1.0,
                    "w_quality": 0.7,
                    "w_cost": 0.3,
                    "w_latency": 0.0,
                    "cost_prior": 0.001,
                    "input_cost": 0.0001,
                }
                for i, (k, value) in enumerate(
                    zip(
                        rng.integers(0, MODELS, 10_000).tolist(),
                        rng.random(10_000).tolist(),
                        strict=True,
                    )
                )
            ][: count - at]
            with connection.begin():
                connection.execute(insert(events), rows)
    return engine


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--policy", default=PolicySpec().name, choices=POLICIES)
    given = parser.parse_args()
    folds, scans, digests = [], [], set()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        database = Path(folder) / "bench.db"
        log = Log(fill(database, given.events, given.policy))
        for _ in range(given.repeats):
            began = time.perf_counter()
            with closing(sqlite3.connect(database)) as connection:
                read = sum(1 for _ in connection.execute("select * from events order by seq"))
            scans.append(read / (time.perf_counter() - began))
            began = time.perf_counter()
            built = rebuild(log, "p", checkpoints=False)
            assert built is not None and built[1].learned == given.events
            folds.append(given.events / (time.perf_counter() - began))
            digests.add(built[1].digest())
    assert len(digests) == 1, "the same log must give the same state"
    ratios = [a / b for a, b in zip(folds, scans, strict=True)]
    show(
        f"fold of {given.events:,} events from SQLite, {MODELS} models, {FEATURES} features",
        ("", "rows/s", "aim", "of aim", "verdict", "plain scan/s", "ratio"),
        [
            (
                given.policy,
                spread(folds),
                f"{AIM:,}",
                *at_least(statistics.median(folds), AIM),
                spread(scans),
                spread(ratios, ".2f"),
            )
        ],
        f"medians of {given.repeats}; plain scan: sqlite3, select *, nothing done with a row",
    )


if __name__ == "__main__":
    main()

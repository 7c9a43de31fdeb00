"""How many decisions a second `/v1/route/batch` makes in calls of 256, and what their log costs.

``serve --local`` beside the bare app and beside itself with a log that forgets, in turn. Text is
prompts of 60 words for the hashing embedder, vectors are 64 numbers for a pool whose embedder is
precomputed; each with the three models of the demo and with eight. Every row of ours is committed
before the answer.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import yaml
from load import Load, post, prompts
from report import at_least, show, spread
from servers import (
    POOLS,
    VECTOR_DIM,
    Server,
    daemon,
    hammer_with_cpu,
    pools_config,
    script,
    stop_on_sigterm,
)

SIZE = 256
AIMS = {"hashing": 15_000, "precomputed": 20_000}


def bodies(pool: str, embedder: str, *, count: int = 16) -> list[bytes]:
    """Return requests of `SIZE` rows each."""
    rng = np.random.default_rng(1)
    texts = prompts(SIZE * count, seed=1)
    calls = []
    for _ in range(count):
        if embedder == "hashing":
            rows = [{"prompt": next(texts), "pool": pool} for _ in range(SIZE)]
        else:
            vectors = rng.standard_normal((SIZE, VECTOR_DIM)).round(4).tolist()
            rows = [{"embedding": vector, "pool": pool} for vector in vectors]
        calls.append(post("/v1/route/batch", {"requests": rows}))
    return calls


def row(
    pool: str, servers: dict[str, Server], *, concurrency: int, seconds: float, repeats: int
) -> list[str]:
    """Measure one pool on all servers in turn."""
    embedder, count = POOLS[pool]
    requests = bodies(pool, embedder)
    loads: dict[str, list[Load]] = {name: [] for name in servers}
    cpu: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(repeats):
        for name, server in servers.items():
            load, spent = hammer_with_cpu(
                server, requests, concurrency=concurrency, seconds=seconds
            )
            loads[name].append(load)
            cpu[name].append(spent / SIZE)
    rates = {name: [SIZE * load.rps for load in runs] for name, runs in loads.items()}
    ours = statistics.median(rates["ours"])
    to_bare = [a / b for a, b in zip(rates["ours"], rates["bare"], strict=True)]
    costs = [a - b for a, b in zip(cpu["ours"], cpu["unlogged"], strict=True)]
    kind = "text" if embedder == "hashing" else f"vectors of {VECTOR_DIM}"
    return [
        f"{kind}, {count} models, {concurrency} connections",
        spread(rates["ours"]),
        f"{statistics.median(load.percentile(50) for load in loads['ours']):.0f}",
        f"{statistics.median(load.percentile(99) for load in loads['ours']):.0f}",
        f"{AIMS[embedder]:,}",
        *at_least(ours, AIMS[embedder]),
        f"{statistics.median(rates['bare']):,.0f}",
        f"{statistics.median(to_bare):.2f}",
        f"{statistics.median(rates['unlogged']):,.0f}",
        f"{statistics.median(cpu['ours']):.1f}",
        f"{statistics.median(cpu['bare']):.1f}",
        f"{statistics.median(costs):.1f}",
        str(sum(load.failed for runs in loads.values() for load in runs)),
    ]


COLUMNS = (
    "calls of 256",
    "decisions/s",
    "p50 ms",
    "p99 ms",
    "aim",
    "of aim",
    "verdict",
    "bare/s",
    "to bare",
    "no log/s",
    "CPU us/row",
    "bare CPU",
    "log CPU",
    "errors",
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4])
    given = parser.parse_args()
    stop_on_sigterm()
    config = pools_config()
    arguments = ("--config", "{folder}/config.yaml", "--db", "sqlite:///{folder}/bench.db")
    unlogged = script("unlogged.py", *arguments)
    (unlogged.folder / "config.yaml").write_text(yaml.safe_dump(config))
    with script("bare.py") as bare, unlogged, daemon(local=True, config=config) as ours:
        servers = {"bare": bare, "unlogged": unlogged, "ours": ours}
        rows = [
            row(
                pool,
                servers,
                concurrency=concurrency,
                seconds=given.seconds,
                repeats=given.repeats,
            )
            for pool in POOLS
            for concurrency in given.concurrency
        ]
    show(
        "/v1/route/batch, every row logged before the answer (local)",
        COLUMNS,
        rows,
        f"medians of {given.repeats} runs of {given.seconds:g} s; no log: the same daemon, its "
        "rows made and dropped; log CPU: the difference in processor time per row",
    )


if __name__ == "__main__":
    main()

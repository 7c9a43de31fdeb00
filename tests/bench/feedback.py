"""How fast feedback becomes durable, and how soon after that it decides.

An event is a row of the events table: one quality for a decision that was routed before and has
none yet, stored with its row of feedback and fsynced before the answer; the learner folds all the
while. Staleness runs from the receipt of the answer to the receipt of a `/metrics` whose serving
version covers the event's position in the log, so it is too large by up to one poll.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from load import Answer, drive, get, post, prompts, run
from report import at_least, at_most, show, spread
from servers import Server, daemon, stop_on_sigterm

SIZE = 64
RATE_AIM = 8_000
STALENESS_AIM_MS = 60.0
EVENTS_S = 1_000
VERSION = b'banditroute_policy_version{pool="default"} '


class Decisions:
    """Decisions without feedback, made as they are wanted."""

    def __init__(self, server: Server) -> None:
        self._server = server
        texts = list(prompts(1_024, words=20, seed=2))
        self._call = post("/v1/route/batch", {"requests": [{"prompt": text} for text in texts]})

    def take(self, count: int) -> list[str]:
        """Return ids of new decisions."""
        kept: list[Answer] = []
        calls = [self._call] * -(-count // 1_024)
        load = run(drive(self._server.port, calls, concurrency=2, keep=kept))
        if load.failed:
            raise RuntimeError(f"{load.failed} calls failed: {kept[0].body[:300]!r}")
        answers = (row for answer in kept for row in json.loads(answer.body)["decisions"])
        return [row["decision_id"] for row in itertools.islice(answers, count)]


def posts(ids: list[str], size: int) -> list[bytes]:
    """Return calls that say a quality for each decision."""
    qualities = np.random.default_rng(3).random(len(ids)).round(3).tolist()
    rows = [{"decision_id": i, "quality": q} for i, q in zip(ids, qualities, strict=True)]
    return [
        post("/v1/feedback/batch", {"feedback": rows[at : at + size]})
        for at in range(0, len(rows), size)
    ]


def count_events(database: Path) -> int:
    """Return the number of outcomes in the log."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        (count,) = connection.execute(
            "select count(*) from events where field = 'quality'"
        ).fetchone()
    return int(count)


def serving_version(body: bytes) -> int:
    """Return the log position that decides, read from `/metrics`."""
    at = body.index(VERSION) + len(VERSION)
    return int(float(body[at : body.index(b"\n", at)]))


def throughput(server: Server, decisions: Decisions, *, events: int, concurrency: int) -> float:
    """Return durable events per second of one run."""
    calls = posts(decisions.take(events), SIZE)
    time.sleep(0.3)
    before = count_events(server.database)
    load = run(drive(server.port, calls, concurrency=concurrency))
    added = count_events(server.database) - before
    if load.failed or added != events:
        raise RuntimeError(f"{load.failed} calls failed, {added} events of {events}")
    return added / load.seconds


def plain_sqlite(database: Path, *, rows_per_commit: int) -> float:
    """Return events per second of sqlite3 alone: the same rows into the same two tables."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as source:
            schema = [
                sql
                for (sql,) in source.execute(
                    "select sql from sqlite_master where tbl_name in ('events', 'feedback') "
                    "and sql is not null order by type desc"
                )
            ]
            tables = {
                name: source.execute(
                    f"select * from {name} where decision_id is not null order by 1 limit 20000"
                ).fetchall()
                for name in ("feedback", "events")
            }
        with closing(sqlite3.connect(Path(folder) / "plain.db", isolation_level=None)) as target:
            target.execute("PRAGMA journal_mode=WAL")
            target.execute("PRAGMA synchronous=FULL")
            for sql in schema:
                target.execute(sql)
            count = len(tables["events"])
            began = time.perf_counter()
            for at in range(0, count, rows_per_commit):
                target.execute("BEGIN IMMEDIATE")
                for name, rows in tables.items():
                    part = rows[at : at + rows_per_commit]
                    marks = ",".join("?" * len(rows[0]))
                    target.executemany(f"insert into {name} values ({marks})", part)
                target.execute("COMMIT")
            return count / (time.perf_counter() - began)


def staleness(
    server: Server, decisions: Decisions, *, size: int, seconds: float
) -> dict[str, float]:
    """Offer `EVENTS_S` events per second in posts of `size` and measure when each decides."""
    ids = decisions.take(int(EVENTS_S * seconds))
    calls = posts(ids, size)
    acks: list[Answer] = []
    polls: list[Answer] = []
    done = asyncio.Event()

    def poll() -> Iterator[bytes]:
        while not done.is_set():
            yield get("/metrics")

    async def both() -> float:
        polling = asyncio.create_task(
            drive(server.port, poll(), concurrency=1, rate=400.0, keep=polls)
        )
        await asyncio.sleep(0.2)
        load = await drive(server.port, calls, concurrency=64, rate=EVENTS_S / size, keep=acks)
        await asyncio.sleep(0.5)
        done.set()
        await polling
        if load.failed:
            raise RuntimeError(f"{load.failed} calls failed")
        return len(ids) / load.seconds

    achieved = run(both())
    with closing(sqlite3.connect(f"file:{server.database}?mode=ro", uri=True)) as connection:
        position = dict(connection.execute("select decision_id, seq from events"))
    versions = np.array([serving_version(answer.body) for answer in polls])
    seen_at = np.array([answer.received for answer in polls])
    acked = np.array([answer.received for answer in acks for _ in range(size)])
    due = np.array([answer.due for answer in acks for _ in range(size)])
    covered = np.array([position[i] for answer in acks for i in ids[answer.number * size :][:size]])
    at = np.searchsorted(versions, covered)
    if at.max() >= len(seen_at):
        raise RuntimeError("some events were never seen to decide")
    stale = np.maximum(seen_at[at] - acked, 0.0) * 1e3
    return {
        "achieved": achieved,
        "ack_p50": float(np.percentile(acked - due, 50) * 1e3),
        "ack_p99": float(np.percentile(acked - due, 99) * 1e3),
        "p50": float(np.percentile(stale, 50)),
        "p99": float(np.percentile(stale, 99)),
        "max": float(stale.max()),
        "poll_p99": float(np.percentile(np.diff(seen_at), 99) * 1e3),
    }


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=24_000, help="events of one run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a staleness run")
    given = parser.parse_args()
    stop_on_sigterm()
    events = given.events // SIZE * SIZE
    rows, stale_rows = [], []
    with daemon(local=True) as server:
        decisions = Decisions(server)
        for concurrency in given.concurrency:
            rates, plain = [], []
            for _ in range(given.repeats):
                rates.append(throughput(server, decisions, events=events, concurrency=concurrency))
                plain.append(plain_sqlite(server.database, rows_per_commit=SIZE * concurrency))
            ratios = [a / b for a, b in zip(rates, plain, strict=True)]
            rows.append(
                (
                    f"posts of {SIZE}, {concurrency} connections",
                    spread(rates),
                    f"{RATE_AIM:,}",
                    *at_least(statistics.median(rates), RATE_AIM),
                    spread(plain),
                    spread(ratios, ".2f"),
                )
            )
        show(
            "/v1/feedback/batch, durable events, learner running (local)",
            ("feedback", "events/s", "aim", "of aim", "verdict", "plain sqlite3/s", "ratio"),
            rows,
            "plain: the same rows into the same two tables by executemany, a commit of 64 rows "
            "for each connection's post, no HTTP, no look-ups",
        )
        for size in (1, 8):
            found = [
                staleness(server, decisions, size=size, seconds=given.seconds)
                for _ in range(given.repeats)
            ]
            middle = {key: statistics.median(f[key] for f in found) for key in found[0]}
            stale_rows.append(
                (
                    f"posts of {size}",
                    f"{middle['achieved']:,.0f}",
                    f"{middle['ack_p50']:.1f} / {middle['ack_p99']:.1f}",
                    f"{middle['p50']:.1f}",
                    spread([f["p99"] for f in found], ".1f"),
                    f"{middle['max']:.1f}",
                    f"{STALENESS_AIM_MS:.0f}",
                    *at_most(middle["p99"], STALENESS_AIM_MS),
                    f"{middle['poll_p99']:.1f}",
                )
            )
        show(
            f"from acknowledged to deciding, {EVENTS_S:,} events/s offered (local)",
            (
                "feedback",
                "events/s",
                "ack p50 / p99 ms",
                "stale p50 ms",
                "p99 ms",
                "max ms",
                "aim",
                "of aim",
                "verdict",
                "poll p99 ms",
            ),
            stale_rows,
        )


if __name__ == "__main__":
    main()

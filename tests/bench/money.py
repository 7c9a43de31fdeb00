"""What budgets cost: the check of a lease, a renewal, and a decision over HTTP with one and without.

`check` is what a request does that fits: headroom, spare, take and log of one budget and of three.
Renewals are durable commits by the daemon's own writer. Over HTTP the same daemon runs twice, once
with a budget that holds every request and paces it, in turns, so that each ratio is of neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
import timeit
from contextlib import ExitStack
from pathlib import Path

import httpx
from load import Load, post, prompts
from report import at_least, at_most, show, spread
from servers import HOST, Server, daemon, hammer_with_cpu, postgres, stop_on_sigterm

from banditroute.budgets.leases import Leases
from banditroute.budgets.reservation import NO_LIMIT, LocalLease, Reservations
from banditroute.core.budget import Budget
from banditroute.core.clock import now_us
from banditroute.store import budgets
from banditroute.store.engine import WRITER, open_engine, prepare
from banditroute.store.writer import Writer

CHECK_AIM_US, RENEWAL_AIM_MS, ROUTE_AIM = 1.0, 20.0, 0.9
RENEWALS = 400


def check() -> None:
    """Time the check of a lease."""
    rows = []
    for count in (1, 3):
        deadline = time.monotonic() + 1e6
        leases = [
            LocalLease(k, Budget(k, "p", str(k), 10**15, "total"), 0, NO_LIMIT, 10**15, deadline)
            for k in range(count)
        ]
        call = Reservations([leases], time.monotonic)

        def one(call: Reservations = call) -> None:
            if call.headroom(0) >= 1_000 and call.spare(0) >= 1_000:
                call.take(0, 1_000)
                call.logged(0)

        us = [1e6 * timeit.timeit(one, number=20_000) / 20_000 for _ in range(7)]
        aim = at_most(statistics.median(us), CHECK_AIM_US) if count == 1 else ("", "")
        rows.append((str(count), spread(us, ".2f"), str(CHECK_AIM_US if count == 1 else ""), *aim))
    show("the check of a lease", ("budgets", "us", "aim", "of aim", "verdict"), rows)


def renewals(url: str) -> list[float]:
    """Return the milliseconds of renewals that somebody waits for."""
    engine = open_engine(url)
    prepare(engine)
    with engine.connect().execution_options(**WRITER) as connection, connection.begin():
        fields = {"cap_nano": 10**18, "period": "total"}
        budgets.add_budget(connection, "p", "b", fields, now_us=now_us())

    async def run() -> list[float]:
        writer = Writer(engine, insert_rows=lambda connection, rows: None)
        held = Leases(engine, writer)
        await held.start()
        (budget,) = held.budgets("p")
        took = []
        for _ in range(RENEWALS):
            lease = held.local_lease(budget)
            lease.left_nano, lease.denied_until_s = 0, 0.0
            began = time.perf_counter()
            await held.reservations("p", [None], [1_000])
            took.append(1e3 * (time.perf_counter() - began))
        await held.stop()
        await asyncio.to_thread(writer.close)
        return took

    took = asyncio.run(run())
    engine.dispose()
    return took


def hold(server: Server) -> None:
    """Make a budget that holds and paces every request, and wait until all replicas know."""
    terms = {"name": "b", "cap_usd": 1e8, "window": "month"}
    httpx.post(f"http://{HOST}:{server.port}/v1/budgets", json=terms).raise_for_status()
    time.sleep(1.5)


def free(server: Server) -> None:
    """Drop that budget, if there is one, and wait as long."""
    httpx.delete(f"http://{HOST}:{server.port}/v1/budgets/b")
    time.sleep(1.5)


def route(name: str, plain: Server, held: Server, *, seconds: float, repeats: int) -> None:
    """Measure a daemon without and one with a budget in turn; of a single one, first without."""
    if plain is not held:
        hold(held)
    requests = [post("/v1/route", {"prompt": prompt}) for prompt in prompts(512)]
    rows = []
    for concurrency in (1, 8, 32):
        loads: dict[str, list[Load]] = {"plain": [], "held": []}
        cpu: dict[str, list[float]] = {"plain": [], "held": []}
        both = [("plain", plain), ("held", held)]
        order = both * repeats if plain is not held else [both[0]] * repeats + [both[1]] * repeats
        for at, (key, server) in enumerate(order):
            if plain is held and at in (0, repeats):
                (hold if key == "held" else free)(server)
            load, spent = hammer_with_cpu(
                server, requests, concurrency=concurrency, seconds=seconds
            )
            loads[key].append(load)
            cpu[key].append(spent)
        ratios = [a.rps / b.rps for a, b in zip(loads["held"], loads["plain"], strict=True)]
        ratio = statistics.median(ratios)
        rows.append(
            (
                str(concurrency),
                spread([load.rps for load in loads["held"]]),
                f"{statistics.median(load.percentile(99) for load in loads['held']):.1f}",
                spread([load.rps for load in loads["plain"]]),
                f"{statistics.median(load.percentile(99) for load in loads['plain']):.1f}",
                spread(ratios, ".2f"),
                str(ROUTE_AIM),
                *at_least(ratio, ROUTE_AIM),
                f"{statistics.median(cpu['held']):.0f}",
                f"{statistics.median(cpu['plain']):.0f}",
                str(sum(load.failed for own in loads.values() for load in own)),
            )
        )
    show(
        f"/v1/route with a budget and without ({name})",
        ("connections", "with/s", "p99 ms", "without/s", "p99", "ratio", "aim", "of aim")
        + ("verdict", "CPU us", "without", "errors"),
        rows,
        f"medians of {repeats} runs of {seconds:g} s"
        + (", in turns" if plain is not held else ", first without"),
    )


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ray", action="store_true", help="two replicas on PostgreSQL as well")
    parser.add_argument("--http", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    stop_on_sigterm()
    check()
    with ExitStack() as stack:
        another = stack.enter_context(postgres())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = []
        for name, url in (("SQLite", f"sqlite:///{folder}/b.db"), ("PostgreSQL", another())):
            took = sorted(renewals(url))
            p99 = took[int(0.99 * len(took))]
            verdict = at_most(p99, RENEWAL_AIM_MS)
            rows.append((name, f"{statistics.median(took):.2f}", f"{p99:.2f}", "20", *verdict))
        show("renewals of a lease", ("", "p50 ms", "p99 ms", "aim", "of aim", "verdict"), rows)
        if not given.http:
            return
        timing = {"seconds": given.seconds, "repeats": given.repeats}
        with daemon(local=True) as plain, daemon(local=True) as held:
            route("--local, SQLite", plain, held, **timing)
        first, second = (daemon(local=True, database=another()) for _ in range(2))
        with first as plain, second as held:
            route("--local, PostgreSQL", plain, held, **timing)
        if given.ray:
            with daemon(local=False, database=another(), replicas=2) as server:
                route("Ray, 2 replicas, PostgreSQL", server, server, **timing)


if __name__ == "__main__":
    main()

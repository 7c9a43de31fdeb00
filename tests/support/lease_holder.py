"""A process that holds leases and spends them, as hard as it can: for tests that kill it.

What it is about to write, and what was acknowledged, goes to a file line by line, so that somebody
else can hold the ledger to it afterwards.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from banditroute.budgets import leases as treasury
from banditroute.budgets.leases import Leases
from banditroute.core.clock import new_id
from banditroute.core.errors import RouterFault
from banditroute.store import ledger, settlement
from banditroute.store.engine import open_engine
from banditroute.store.ledger import LeaseLost
from banditroute.store.writer import Writer

CLIENTS, DEAREST = 12, 40_000
HOUR = 3_600_000_000


class Clock:
    """A clock that is set back and forth."""

    def __init__(self, rng: random.Random) -> None:
        self._rng, self._offset, self._since = rng, 0, time.monotonic()

    def __call__(self) -> int:
        if time.monotonic() - self._since > 0.4:
            self._since = time.monotonic()
            self._offset = self._rng.choice([0, 0, 5_000_000, -5_000_000, HOUR, -HOUR])
        return time.time_ns() // 1_000 + self._offset


def reserve(connection: Connection, rows: Sequence[Any]) -> None:
    ledger.reserve(connection, [draw for draws in rows for draw in draws])


async def client(
    held: Leases, writer: Writer, clock: Clock, rng: random.Random, out: int, over: float
) -> None:
    while True:
        await asyncio.sleep(rng.random() * 0.004)
        worst, name = rng.randint(1, DEAREST), new_id(time.time_ns() // 1_000)
        try:
            purse = await held.purse("p", [None], [worst])
        except RouterFault:
            continue
        assert purse is not None
        if purse.headroom(0) < worst:
            os.write(out, b"refused\n")
            continue
        purse.take(0, worst)
        now = clock()
        draws = purse.draws(0, name, now=now, expires_at=now + 2_000_000)
        os.write(out, f"drawing {name} {worst}\n".encode())
        try:
            await writer.append([draws])
        except RouterFault as error:
            purse.undo(0)
            if isinstance(error, LeaseLost):
                os.write(out, b"lost\n")
                held.lost(error.lease_ids)
            continue
        purse.logged(0)
        os.write(out, f"drawn {name} {worst}\n".encode())
        if rng.random() < 0.15:
            continue  # nobody ever says what it cost
        await asyncio.sleep(rng.random() * 0.05)
        cost = rng.randint(0, worst)
        if rng.random() < over:
            cost += worst
        os.write(out, f"settling {name} {cost}\n".encode())
        paid = {name: cost}

        def settle(connection: Connection, paid: dict[str, int] = paid) -> None:
            settlement.settle(connection, paid)

        try:
            await writer.write(settle)
        except RouterFault:
            continue
        held.refunded()
        os.write(out, f"settled {name} {cost}\n".encode())


async def run(url: str, path: str, seed: int, over: float) -> None:
    # Everything that takes seconds in a daemon, in tenths here.
    treasury.LEASE_S, treasury.SAFE_S, treasury.IDLE_S = 1.2, 0.8, 0.3
    rng = random.Random(seed)
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    engine, clock = open_engine(url), Clock(rng)
    writer = Writer(engine, insert_rows=reserve)
    held = Leases(engine, writer, now=clock)
    await held.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    clients = [
        asyncio.create_task(client(held, writer, clock, rng, out, over)) for _ in range(CLIENTS)
    ]
    os.write(out, b"ready\n")
    while not stop.is_set():
        await asyncio.sleep(0.1)
        try:
            await held.refresh()
        except RouterFault:
            continue
        for one in clients:
            if one.done():
                one.result()
    for one in clients:
        one.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    await held.stop()
    await asyncio.to_thread(writer.close)
    engine.dispose()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))

"""A process that leases money and spends it as fast as it can, for tests that kill it.

It writes a line to a file before each write to the ledger, and another one when the ledger has
acknowledged it. So a test can check the ledger afterwards.
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

from banditroute.budgets import leases as leases_module
from banditroute.budgets.leases import Leases
from banditroute.core.clock import new_id
from banditroute.core.errors import RouterFault
from banditroute.store import ledger, settlement
from banditroute.store.engine import open_engine
from banditroute.store.ledger import LeaseLost
from banditroute.store.writer import Writer

CLIENTS, MOST_NANO = 12, 40_000
HOUR_US = 3_600_000_000


class Clock:
    """A clock that is set back and forth."""

    def __init__(self, rng: random.Random) -> None:
        self._rng, self._offset, self._since = rng, 0, time.monotonic()

    def __call__(self) -> int:
        if time.monotonic() - self._since > 0.4:
            self._since = time.monotonic()
            self._offset = self._rng.choice([0, 0, 5_000_000, -5_000_000, HOUR_US, -HOUR_US])
        return time.time_ns() // 1_000 + self._offset


def reserve(connection: Connection, rows: Sequence[Any]) -> None:
    ledger.reserve(connection, [reservation for wanted in rows for reservation in wanted])


async def client(
    leases: Leases, writer: Writer, clock: Clock, rng: random.Random, out: int, over: float
) -> None:
    while True:
        await asyncio.sleep(rng.random() * 0.004)
        most_nano, name = rng.randint(1, MOST_NANO), new_id(time.time_ns() // 1_000)
        try:
            call = await leases.reservations("p", [None], [most_nano])
        except RouterFault:
            continue
        assert call is not None
        if call.headroom(0) < most_nano:
            os.write(out, b"refused\n")
            continue
        call.take(0, most_nano)
        now_us = clock()
        wanted = call.of_decision(0, name, now_us=now_us, expires_at_us=now_us + 2_000_000)
        os.write(out, f"reserving {name} {most_nano}\n".encode())
        try:
            await writer.append([wanted])
        except RouterFault as error:
            call.undo(0)
            if isinstance(error, LeaseLost):
                os.write(out, b"lost\n")
                leases.lost(error.lease_ids)
            continue
        call.logged(0)
        os.write(out, f"reserved {name} {most_nano}\n".encode())
        if rng.random() < 0.15:
            continue  # its cost is never reported
        await asyncio.sleep(rng.random() * 0.05)
        cost_nano = rng.randint(0, most_nano)
        if rng.random() < over:
            cost_nano += most_nano
        os.write(out, f"settling {name} {cost_nano}\n".encode())
        paid = {name: cost_nano}

        def settle(connection: Connection, paid: dict[str, int] = paid) -> None:
            settlement.settle(connection, paid)

        try:
            await writer.write(settle)
        except RouterFault:
            continue
        leases.refunded()
        os.write(out, f"settled {name} {cost_nano}\n".encode())


async def run(url: str, path: str, seed: int, over: float) -> None:
    # Everything that takes seconds in a daemon takes tenths here.
    leases_module.LEASE_S, leases_module.SAFE_S, leases_module.IDLE_S = 1.2, 0.8, 0.3
    rng = random.Random(seed)
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    engine, clock = open_engine(url), Clock(rng)
    writer = Writer(engine, insert_rows=reserve)
    leases = Leases(engine, writer, wall_us=clock)
    await leases.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    clients = [
        asyncio.create_task(client(leases, writer, clock, rng, out, over)) for _ in range(CLIENTS)
    ]
    os.write(out, b"ready\n")
    while not stop.is_set():
        await asyncio.sleep(0.1)
        try:
            await leases.refresh()
        except RouterFault:
            continue
        for task in clients:
            if task.done():
                task.result()
    for task in clients:
        task.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    await leases.stop()
    await asyncio.to_thread(writer.close)
    engine.dispose()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))

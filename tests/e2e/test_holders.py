"""Processes that spend one budget while they are killed, stopped and given wrong clocks."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from support.daemon_process import environment, until
from support.databases import Postgres

from banditroute.core.clock import now_us
from banditroute.store import budgets, ledger
from banditroute.store.engine import WRITER, open_engine, prepare
from banditroute.store.ledger import Holder

TESTS = Path(__file__).parents[1]
SECONDS = 12.0
CAP = {"total": 6_000_000, "hour": 1_500_000}
FAR = 4 * 10**15

# Of each budget and window in one reading: cap, what is not free, overruns.
_HELD = text("""
SELECT b.name, s.at, b.cap_nano, SUM(s.used), SUM(s.overrun) FROM budgets b JOIN (
  SELECT budget_id, window_start AS at,
         CASE WHEN status = 'settled' THEN settled_nano
              WHEN status = 'cancelled' THEN 0 ELSE reserved_nano END AS used,
         overrun_nano AS overrun
  FROM reservations
  UNION ALL SELECT budget_id, window_start, amount_nano - drawn_nano, 0 FROM leases
) s ON s.budget_id = b.id GROUP BY b.name, s.at, b.cap_nano
""")


class Watch:
    """Reads the ledger all the time and keeps whatever should never be."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._over = engine, threading.Event()
        self.readings, self.broken = 0, list[tuple[object, ...]]()
        self.fullest = 0.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            with self._engine.connect() as connection:
                for row in connection.execute(_HELD):
                    self.fullest = max(self.fullest, float(row[3]) / row[2])
                    if row[3] > row[2] + row[4]:
                        self.broken.append(tuple(row))
            self.readings += 1
            time.sleep(0.01)

    def end(self) -> None:
        self._over.set()
        self._thread.join()


class Holders:
    """The processes."""

    def __init__(self, url: str, home: Path, count: int, over: float) -> None:
        self._url, self._home, self._over = url, home, over
        self._started = 0
        self.alive = [self._start() for _ in range(count)]

    def _start(self) -> subprocess.Popen[bytes]:
        self._started += 1
        out = self._home / f"{self._started}.txt"
        script = [sys.executable, str(TESTS / "support" / "lease_holder.py"), self._url, str(out)]
        with (self._home / f"{self._started}.err").open("wb") as err:
            process = subprocess.Popen(
                [*script, str(self._started), str(self._over)],
                env=environment({"PYTHONPATH": str(TESTS.parent)}),
                stderr=err,
            )
        until(lambda: out.exists() and b"ready" in out.read_bytes(), seconds=60, what="a holder")
        return process

    def kill(self, rng: random.Random) -> None:
        at = rng.randrange(len(self.alive))
        self.alive[at].kill()
        self.alive[at].wait()
        self.alive[at] = self._start()

    def pause(self, rng: random.Random, seconds: float) -> None:
        one = rng.choice(self.alive)
        one.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        one.send_signal(signal.SIGCONT)

    def end(self) -> None:
        for one in self.alive:
            one.terminate()
        for one in self.alive:
            assert one.wait(timeout=30) == 0

    def said(self, what: str) -> dict[str, int]:
        """Return {decision: nano-dollars} of all lines of a kind."""
        found = {}
        for path in self._home.glob("*.txt"):
            for line in path.read_text().splitlines():
                if line.startswith(f"{what} "):
                    _, name, nano = line.split()
                    found[name] = int(nano)
        return found

    def errors(self) -> str:
        return "".join(path.read_text() for path in self._home.glob("*.err"))


@contextmanager
def fresh(kind: str, home: Path, postgres: Postgres) -> Iterator[str]:
    if kind == "postgresql":
        with postgres.empty() as url:
            yield url
    else:
        yield f"sqlite:///{home}/ledger.db"


@pytest.mark.slow
@pytest.mark.parametrize("over", [0.0, 0.02])
@pytest.mark.parametrize(("kind", "count"), [("sqlite", 1), ("postgresql", 3)])
def test_no_cap_is_ever_overspent(
    kind: str, count: int, over: float, tmp_path: Path, postgres: Postgres
) -> None:
    rng = random.Random(count)
    with fresh(kind, tmp_path, postgres) as url:
        engine = open_engine(url)
        prepare(engine)
        write = engine.connect().execution_options(**WRITER)
        with write.begin():
            for name, cap in CAP.items():
                fields = {"cap_nano": count * cap, "period": name}
                budgets.add_budget(write, "p", name, fields, now_us=now_us())
        watch, holders = Watch(engine), Holders(url, tmp_path, count, over)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            time.sleep(rng.random() * 0.5)
            if rng.random() < 0.4:
                holders.kill(rng)
            else:
                holders.pause(rng, 0.2 + 1.5 * rng.random())
        holders.end()
        watch.end()
        assert holders.errors() == ""
        assert watch.broken == [] and watch.readings > 100 and watch.fullest > 0.9

        # Those that were killed have left leases behind.
        with write.begin():
            ledger.reclaim(write, Holder("last", "boot"), now_us=FAR, alone=False)
            counted = list(write.execute(text("SELECT * FROM leases ORDER BY id")))
            ledger.recount(write)
            assert list(write.execute(text("SELECT * FROM leases ORDER BY id"))) == counted
            rows = list(
                write.execute(
                    text(
                        "SELECT decision_id, budget_id, reserved_nano, settled_nano, overrun_nano, "
                        "status FROM reservations"
                    )
                )
            )
            sums = [
                (one, ledger.sums(write, one, now_us=FAR if one.period == "total" else 0))
                for one in budgets.load_budgets(write)
            ]
        write.close()
        engine.dispose()
        drawing, settling_, drawn, settled = map(
            holders.said, ("reserving", "settling", "reserved", "settled")
        )
        for budget_id in {row.budget_id for row in rows}:
            own = {row.decision_id: row for row in rows if row.budget_id == budget_id}
            # All that was acknowledged is there as it was, and nothing that nobody tried.
            assert drawn.keys() <= own.keys() <= drawing.keys()
            paid = {name: row.settled_nano for name, row in own.items() if row.status == "settled"}
            assert settled.items() <= paid.items() <= settling_.items()
            assert all(row.reserved_nano == drawing[name] for name, row in own.items())
            unpaid = {name for name, row in own.items() if row.status == "open"}
            assert unpaid | paid.keys() == own.keys()
            overruns = {name: max(cost - drawing[name], 0) for name, cost in paid.items()}
            assert {name: own[name].overrun_nano for name in paid} == overruns
            assert any(overruns.values()) == (over > 0.0)
            for budget, sums_ in sums:
                if budget.id == budget_id and budget.period == "total":
                    # To the nano-dollar: what was paid, and what was reserved of the expired.
                    assert sums_.settled_nano == sum(paid.values())
                    assert sums_.expired_nano == sum(drawing[name] for name in unpaid)
                    assert sums_.overruns_nano == sum(overruns.values())
                    assert sums_.leased_nano == sums_.reserved_nano == sums_.lost_nano == 0
                    assert sums_.used_nano <= sums_.cap_nano + sums_.overruns_nano
        assert len(settled) > 100

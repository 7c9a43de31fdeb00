"""Running daemons and drives as real processes, and counting what they left in the log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from banditroute.learn.learner import rebuild
from banditroute.store.engine import open_engine
from banditroute.store.log import Log
from banditroute.store.tables import events, feedback

COMMAND = str(Path(sys.executable).parent / "banditroute")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without what would configure a daemon."""
    own = {name: v for name, v in os.environ.items() if not name.startswith("BANDITROUTE_")}
    return own | {"OPENBLAS_NUM_THREADS": "1"} | dict(extra or {})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(done: Callable[[], Any], *, seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
    return found


class Daemon:
    """A `banditroute serve` in a session of its own."""

    def __init__(
        self, home: Path, *flags: str, port: int, env: Mapping[str, str] | None = None
    ) -> None:
        self.home, self.port, self.url = home, port, f"http://127.0.0.1:{port}"
        self.output = home / f"daemon-{time.monotonic_ns()}.txt"
        command = [
            COMMAND,
            "serve",
            "--port",
            str(port),
            "--db",
            f"sqlite:///{home}/log.db",
            *flags,
        ]
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=home,
                env=environment(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def greeted(self, seconds: float = 60.0) -> str:
        """Return what it printed once it says that it can be stopped."""

        def done() -> bool:
            assert self.process.poll() is None, self.text
            return "Ctrl-C stops it." in self.text

        until(done, seconds=seconds, what="the greeting")
        return self.text

    def interrupt(self, number: int = signal.SIGINT, *, seconds: float = 20.0) -> int:
        """Signal it as a terminal would, the whole group at once, and return its exit code."""
        os.killpg(self.process.pid, number)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """Kill -9 everything that it started."""

        def done() -> bool:
            self.process.poll()
            left = members(self.process.pid)
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        until(done, seconds=20.0, what="the end of all")


@contextlib.contextmanager
def daemon(
    home: Path, *flags: str, port: int, env: Mapping[str, str] | None = None
) -> Iterator[Daemon]:
    """Run a daemon, and leave nothing of it behind."""
    # Not in `home`: the names of Ray's sockets would be too long.
    with tempfile.TemporaryDirectory(prefix="e2e-", ignore_cleanup_errors=True) as short:
        made = Daemon(home, *flags, port=port, env={"TMPDIR": short} | dict(env or {}))
        try:
            yield made
        finally:
            made.kill()


def members(session: int) -> list[int]:
    """Return the processes of a session and all that descend from them."""
    table: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    table[int(entry.name)] = (int(fields[1]), int(fields[3]))
    found = {pid for pid, (_, own) in table.items() if own == session}
    while True:
        more = {pid for pid, (parent, _) in table.items() if parent in found} - found
        if not more:
            return sorted(found)
        found |= more


def title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


class Driving:
    """A `python -m sim drive` of one file against one daemon."""

    def __init__(self, home: Path, data: Path, url: str, *flags: str) -> None:
        name = f"drive-{time.monotonic_ns()}"
        self.acked, self.json = home / f"{name}-acked.txt", home / f"{name}.json"
        self.output = home / f"{name}.txt"
        command = [sys.executable, "-m", "sim", "drive", str(data), "--url", url, *flags]
        command += ["--acked", str(self.acked), "--json", str(self.json)]
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=home, env=environment(), stdout=out, stderr=subprocess.STDOUT
            )

    def ids(self) -> list[str]:
        if not self.acked.exists():
            return []
        return self.acked.read_text().split()

    def reach(self, count: int, seconds: float = 60.0) -> None:
        """Wait until `count` pieces of feedback are acknowledged."""

        def done() -> bool:
            assert self.process.poll() is None, self.output.read_text()
            return len(self.ids()) >= count

        until(done, seconds=seconds, what=f"{count} acknowledgements")

    def report(self, seconds: float = 120.0) -> dict[str, Any]:
        """Wait for the end and return its report."""
        code = self.process.wait(seconds)
        assert code == 0, self.output.read_text()
        found: dict[str, Any] = json.loads(self.json.read_text())
        return found


@contextlib.contextmanager
def driving(home: Path, data: Path, url: str, *flags: str) -> Iterator[Driving]:
    made = Driving(home, data, url, *flags)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait(20.0)


def policy(url: str, pool: str) -> dict[str, Any]:
    answer = httpx.get(f"{url}/v1/policy", params={"pool": pool}, timeout=30.0)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def check_log(
    home: Path, url: str, pool: str, acked: Sequence[str], database: str | None = None
) -> None:
    """See that each acknowledged feedback is in the log once, and in the state that is served."""
    engine = open_engine(database or f"sqlite:///{home}/log.db")
    try:
        with engine.connect() as connection:
            rows = connection.execute(
                select(events.c.decision_id, events.c.field).where(events.c.kind == "feedback")
            ).all()
            sent = connection.execute(select(feedback.c.decision_id)).scalars().all()
        counts = Counter((row.decision_id, row.field) for row in rows)
        assert set(counts.values()) == {1}
        assert len(set(acked)) == len(acked)
        missing = [one for one in acked if not {(one, "quality"), (one, "cost")} <= counts.keys()]
        assert missing == []
        assert set(acked) <= set(sent) and len(set(sent)) == len(sent)
        whole = rebuild(Log(engine), pool, checkpoints=False)
        assert whole is not None
        state = until(
            lambda: (found := policy(url, pool))["version"] == whole[1].version and found,
            seconds=30.0,
            what="the learner to catch up",
        )
        assert state["digest"] == whole[1].digest()
        assert state["learned"] == whole[1].learned >= 2 * len(acked)
    finally:
        engine.dispose()


def verify(home: Path, pool: str, database: str | None = None) -> str:
    """Return what `banditroute verify` prints; it must find the log sound."""
    done = subprocess.run(
        [COMMAND, "verify", "--db", database or f"sqlite:///{home}/log.db", "--pool", pool],
        cwd=home,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120.0,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

"""Servers to measure: started as processes of their own, stopped by their process ids.

Everything that a server starts inherits a mark in its environment; so its memory can be summed
and nothing of it outlives the benchmark, even of Ray, whose processes leave the process tree.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from load import HOST, Load, hammer

from banditroute.settings import DEMO_MODELS

HERE = Path(__file__).parent
MARK = "BENCH_MARK"
VECTOR_DIM = 64
READY_S = {"local": 30.0, "ray": 120.0}

POOLS = {
    "default": ("hashing", 3),
    "text8": ("hashing", 8),
    "vector3": ("precomputed", 3),
    "vector8": ("precomputed", 8),
}
"""Pools of the batch benchmark, as (embedder, number of models)."""


class Server:
    """A server process; a context manager that waits until it is ready.

    Parameters
    ----------
    command : what to run; ``{port}`` and ``{folder}`` stand for a free port and an empty folder.
    ready_s : longest wait for ``GET /readyz``; 0 does not wait.
    """

    def __init__(self, command: Sequence[str], *, ready_s: float) -> None:
        self._ready_s = ready_s
        self._holder = tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)
        self.folder = Path(self._holder.name)
        self.port = free_port()
        self._command = [part.format(port=self.port, folder=self.folder) for part in command]
        self._mark = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "bench.db"

    @property
    def output(self) -> str:
        """What the server has printed."""
        return (self.folder / "output.txt").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Process id of the command."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Server:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("BANDITROUTE_")}
        environment[MARK] = self._mark
        # As the daemon has it: threads of small products only get in the way of two cores.
        environment.setdefault("OPENBLAS_NUM_THREADS", "1")
        # Two daemons on a machine need ports of their own for what HAProxy opens.
        for name in ("METRICS", "STATS"):
            environment[f"RAY_SERVE_HAPROXY_{name}_PORT"] = str(free_port())
        with (self.folder / "output.txt").open("wb") as output:
            self.started_at = time.perf_counter()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        try:
            if self._ready_s:
                self.wait_for(b"GET /readyz HTTP/1.1\r\nhost: bench\r\n\r\n", self._ready_s)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def wait_for(self, request: bytes, seconds: float) -> float:
        """Send `request` until it is answered with 200; return the time since the start."""
        deadline = self.started_at + seconds
        while time.perf_counter() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended:\n{self.output[-2000:]}")
            with (
                contextlib.suppress(OSError),
                socket.create_connection((HOST, self.port), timeout=seconds) as connection,
            ):
                connection.sendall(request)
                if connection.recv(65_536).startswith(b"HTTP/1.1 200"):
                    return time.perf_counter() - self.started_at
            time.sleep(0.005)
        raise TimeoutError(f"the server is not ready:\n{self.output[-2000:]}")

    def pids(self) -> list[int]:
        """Return the processes of this server."""
        mark = f"{MARK}={self._mark}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        found.append(int(folder.name))
        return found

    def pss_mb(self) -> float:
        """Return the memory of all its processes, shared pages divided among their users."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        return total / 1024

    def cpu_s(self) -> float:
        """Return the processor time that all its processes have used, in seconds."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End it, kindly first."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(60.0)
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        self._holder.cleanup()


def hammer_with_cpu(
    server: Server, requests: Sequence[bytes], *, concurrency: int, seconds: float
) -> tuple[Load, float]:
    """Return the load and the processor microseconds that the server spent per request.

    Rates suffer from whatever else the machine does; processor time much less.
    """
    began, before = time.perf_counter(), server.cpu_s()
    load = hammer(server.port, requests, concurrency=concurrency, seconds=seconds)
    busy = (server.cpu_s() - before) / (time.perf_counter() - began)
    return load, 1e6 * busy / load.rps if load.answered else float("nan")


def daemon(
    *,
    local: bool,
    config: dict[str, Any] | None = None,
    wait: bool = True,
    database: str = "sqlite:///{folder}/bench.db",
    replicas: int = 1,
) -> Server:
    """Return ``banditroute serve`` with an empty database, a SQLite file if not told otherwise."""
    command = [str(Path(sys.executable).with_name("banditroute")), "serve", "--port", "{port}"]
    command += ["--host", HOST, "--db", database, "--replicas", str(replicas)]
    command += ["--local"] if local else []
    command += ["--config", "{folder}/config.yaml"] if config is not None else []
    server = Server(command, ready_s=READY_S["local" if local else "ray"] if wait else 0.0)
    if config is not None:
        (server.folder / "config.yaml").write_text(yaml.safe_dump(config))
    return server


@contextlib.contextmanager
def postgres() -> Iterator[Callable[[], str]]:
    """Run a PostgreSQL as it comes; what is yielded returns the URL of another empty database."""
    import pgserver
    import psycopg

    home = Path(tempfile.mkdtemp(prefix="pg-"))  # short: the name of a socket is limited
    server = pgserver.get_server(home, cleanup_mode="stop")
    names = (f"bench{n}" for n in itertools.count())

    def another() -> str:
        name = next(names)
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return str(server.get_uri()).replace("/postgres?", f"/{name}?")

    try:
        yield another
    finally:
        server.cleanup()
        shutil.rmtree(home, ignore_errors=True)


def script(name: str, *arguments: str) -> Server:
    """Return a server that is a script of this folder."""
    command = [sys.executable, str(HERE / name), "--port", "{port}", *arguments]
    return Server(command, ready_s=READY_S["local"])


def pools_config() -> dict[str, Any]:
    """Return a settings file with `POOLS`."""
    pools: dict[str, Any] = {}
    for name, (embedder, count) in POOLS.items():
        pools[name] = {"embedder": embedder, "models": model_specs(count)}
        if embedder == "precomputed":
            pools[name]["embedding_dim"] = VECTOR_DIM
    return {"pools": pools}


def model_specs(count: int) -> list[dict[str, Any]]:
    """Return `count` models with prices, the demo models first."""
    demo = [m.model_dump(include={"name", "input_price", "output_price"}) for m in DEMO_MODELS]
    more = [
        {"name": f"model-{k}", "input_price": 0.1 * 1.7**k, "output_price": 0.4 * 1.7**k}
        for k in range(count - len(demo))
    ]
    return (demo + more)[:count]


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def stop_on_sigterm() -> None:
    """Turn SIGTERM into an exception, so that servers are stopped on it as on Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

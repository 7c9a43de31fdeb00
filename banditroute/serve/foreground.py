"""Run the daemon in the foreground, in one process or on Ray Serve, and print how to use it.

Everything that can be checked is checked before anything starts: a mistake in the settings must
never leave a half-started Ray behind.
"""

from __future__ import annotations

import gc
import io
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from banditroute.features import embedding
from banditroute.serve import haproxy
from banditroute.serve.compose import check_replicas
from banditroute.serve.local import local_app
from banditroute.serve.ray import APP_NAME, NAMESPACE, QUIET, RAY_ENVIRONMENT, application
from banditroute.settings import Settings
from banditroute.store.engine import SchemaMismatch, claim, opened, prepare, shown

PORT_WAIT_S = 30.0
"""How long to wait for a port that another process still has."""

ANSWER_WAIT_S = 30.0
"""How long to wait, after the start, for the daemon to describe its policies."""


class StartError(RuntimeError):
    """The daemon cannot start; the message says why, for the operator."""


def run_local(settings: Settings) -> None:
    """Serve from one process until SIGINT or SIGTERM.

    Parameters
    ----------
    settings : Settings
        The configuration.

    Raises
    ------
    StartError
        If the daemon cannot start.
    """
    import uvicorn

    if settings.replicas > 1:
        raise StartError("replicas: --local is one process; leave --replicas out")
    _prepare(settings, patience_s=0.0)
    began_s = time.perf_counter()

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # uvicorn would exit at once on a second Ctrl-C; an orderly end takes seconds at most.
            self.should_exit = True

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                # What has been loaded stays: collecting it over and over costs batches a quarter.
                gc.freeze()
                gc.set_threshold(50_000, 20, 100)
                # In a thread, because the greeting sends requests to this very server.
                threading.Thread(
                    target=_greet, args=(settings, began_s, "one local process"), daemon=True
                ).start()

    config = uvicorn.Config(
        local_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = Server(config)
    server.run()
    if not server.started:
        raise StartError("the daemon did not start; the reason is printed above")


def run_ray(settings: Settings) -> None:
    """Serve from Ray Serve until SIGINT or SIGTERM.

    Parameters
    ----------
    settings : Settings
        The configuration.

    Raises
    ------
    StartError
        If the daemon cannot start, or Ray fails.
    """
    # The proxy of a daemon that was killed may keep the port for some seconds.
    _prepare(settings, patience_s=PORT_WAIT_S)
    where = f"Ray Serve, {_proxy()}"
    began_s = time.perf_counter()
    # The names of Ray's and HAProxy's sockets must be short.
    temporary = Path(tempfile.mkdtemp(prefix="br-"))
    proxy = haproxy.environment(temporary) if haproxy.installed() else {}
    for name, value in (RAY_ENVIRONMENT | proxy).items():
        os.environ.setdefault(name, value)
    import ray
    from ray import serve

    stop = threading.Event()

    def listen() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())

    listen()
    logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.WARNING)
    try:
        with _hushed():
            _start_ray(ray, temporary)
            listen()  # again: ray.init installs its own handlers
            if not stop.is_set():
                http_options = {"host": settings.host, "port": settings.port}
                serve.start(http_options=http_options, logging_config=QUIET)
            if not stop.is_set():
                serve.run(application(settings), name=APP_NAME, route_prefix="/")
        if not stop.is_set():
            _greet(settings, began_s, where)
        while not stop.wait(1.0):
            pass
    except Exception as error:
        raise StartError(f"Ray Serve: {error}") from error
    except SystemExit:
        pass  # what Ray's own handler does at a SIGTERM while Ray starts
    finally:
        with _hushed():
            _stop_ray(ray, serve)
        shutil.rmtree(temporary, ignore_errors=True)


def _start_ray(ray: Any, temporary: Path) -> None:
    ray.init(
        num_gpus=0,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=True,
        logging_level=logging.WARNING,
        namespace=NAMESPACE,
        _temp_dir=str(temporary),
    )


def _stop_ray(ray: Any, serve: Any) -> None:
    if ray.is_initialized():  # without Ray, `serve.shutdown` would start one to shut it down
        with suppress(Exception):
            serve.shutdown()
    ray.shutdown()


@contextmanager
def _hushed() -> Iterator[None]:
    """Hold back what is printed here, and print it only if an exception ends the block."""
    output = io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(output):
            yield
    except Exception:
        print(output.getvalue(), file=sys.stderr, end="")
        raise


def _proxy() -> str:
    """Return, for the greeting, which proxy stands in front and which ports it opens.

    Raises
    ------
    StartError
        If one of these ports stays taken; the message names the variable that moves it.
    """
    if not haproxy.installed():
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "0"
        return "Serve's own proxy: the HAProxy binary is missing, expect a tenth of the speed"
    ports = haproxy.ports()
    for variable, port in ports.items():
        try:
            _wait_for_port("0.0.0.0", port, PORT_WAIT_S)
        except StartError as error:
            advice = f"a second daemon on this host needs its own ports, set {variable}"
            raise StartError(f"{error}; {advice}") from None
    stats, metrics = ports.values()
    return (
        f"HAProxy in front; it also opens its stats ({stats}) and metrics ({metrics}) ports, and "
        "Ray its own, on all interfaces: see the firewall rules in deploy/README.md"
    )


def _prepare(settings: Settings, *, patience_s: float) -> None:
    """Check replicas, database, embedders, port and the claim on the file, before anything starts.

    Parameters
    ----------
    settings : Settings
        The configuration.
    patience_s : float
        Seconds to wait for the port and for the file.

    Raises
    ------
    StartError
        For whatever would keep the daemon from starting.
    """
    try:
        check_replicas(settings)
        with opened(settings.database) as engine:
            prepare(engine)
        for pool in settings.pools:
            embedding.require(settings.options_of(pool).embedder)
        _wait_for_port(settings.host, settings.port, patience_s)
        claimed_file = claim(engine, patience_s=patience_s)
    except (ImportError, ValueError, SchemaMismatch, StartError) as error:
        raise StartError(str(error)) from None
    except Exception as error:
        raise StartError(f"database: {error}") from None
    if claimed_file is not None:
        claimed_file.close()  # the process that serves claims it again


def _wait_for_port(host: str, port: int, patience_s: float) -> None:
    """Return when the port is free, or raise `StartError` after `patience_s` seconds."""
    deadline_s = time.monotonic() + patience_s
    waiting = False
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return
            except OSError as error:
                if time.monotonic() >= deadline_s or isinstance(error, socket.gaierror):
                    raise StartError(f"cannot listen on {host}:{port}: {error}") from None
        if not waiting:
            print(f"port {port} is taken; waiting up to {patience_s:.0f} s for it", flush=True)
            waiting = True
        time.sleep(0.5)


def _greet(settings: Settings, began_s: float, where: str) -> None:
    """Print the daemon's address and its policies, once it answers requests."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    url = f"http://{host}:{settings.port}"
    policies = [_describe(url, name) for name, pool in settings.pools.items() if pool.models]
    took_s = time.perf_counter() - began_s
    print(
        "\n".join([f"banditroute serves {url} after {took_s:.1f} s ({where})", *policies])
        + f"""
database {shown(settings.database)}; the API: {url}/docs

curl -s {url}/v1/route -H 'content-type: application/json' -d '{{"prompt": "Why is the sky blue?"}}' | tee decision.json
curl -s {url}/v1/feedback -H 'content-type: application/json' -d "{{\\"decision_id\\": \\"$(cut -d'"' -f4 decision.json)\\", \\"quality\\": 0.9, \\"input_tokens\\": 6, \\"output_tokens\\": 180}}"

Ctrl-C stops it.""",  # noqa: E501
        flush=True,
    )


def _describe(url: str, pool: str) -> str:
    """Return a line about the policy of a pool; ask over HTTP until the daemon answers."""
    deadline_s = time.monotonic() + ANSWER_WAIT_S
    while True:
        try:
            answer = httpx.get(f"{url}/v1/policy", params={"pool": pool}, timeout=ANSWER_WAIT_S)
            answer.raise_for_status()
            break
        except httpx.HTTPError as error:
            if time.monotonic() > deadline_s:
                return f"pool {pool}: no answer ({error})"
            time.sleep(0.1)
    state = answer.json()
    learned = f"{state['learned']:,} outcomes folded in {state['built_in_s']:.2f} s"
    if state["skipped"]:
        learned += f", {state['skipped']:,} of another embedder left out"
    return f"pool {pool}: policy {state['policy']}, {learned}"

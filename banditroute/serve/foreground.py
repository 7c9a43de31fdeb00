"""Running the daemon in the foreground, locally or on Ray Serve, and saying how to use it."""

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
from banditroute.serve.ray import APP_NAME, NAMESPACE, RAY_ENVIRONMENT, application
from banditroute.settings import Settings
from banditroute.store.engine import SchemaMismatch, claim, open_engine, prepare, shown

PORT_WAIT_S = 30.0
ANSWER_WAIT_S = 30.0
QUIET = {"enable_access_log": False, "log_level": "WARNING"}


class StartError(RuntimeError):
    """The daemon cannot start; the message is for the operator."""


def run_local(settings: Settings) -> None:
    """Serve from one process until SIGINT or SIGTERM."""
    import uvicorn

    if settings.replicas > 1:
        raise StartError("replicas: --local is one process; leave --replicas out")
    _prepare(settings, patience=0.0)
    began = time.perf_counter()

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # A second Ctrl-C must not cut the orderly end short: it takes seconds at most.
            self.should_exit = True

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                # It asks this very server, so it must not hold up its loop.
                greeting = {"where": "one local process"}
                # What is here stays; collecting it again and again costs batches a quarter.
                gc.freeze()
                gc.set_threshold(50_000, 20, 100)
                threading.Thread(
                    target=_greet, args=(settings, began), kwargs=greeting, daemon=True
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
        raise StartError("the daemon did not start; the reason stands above")


def run_ray(settings: Settings) -> None:
    """Serve from Ray Serve until SIGINT or SIGTERM."""
    try:
        check_replicas(settings)
    except ValueError as error:
        raise StartError(str(error)) from None
    # A killed daemon's proxy may hold the port for some seconds.
    _prepare(settings, patience=PORT_WAIT_S)
    where = f"Ray Serve, {_proxy()}"
    began = time.perf_counter()
    # Ray's and HAProxy's sockets need a short path.
    temporary = Path(tempfile.mkdtemp(prefix="br-"))
    proxy = haproxy.environment(temporary) if haproxy.installed() else {}
    for name, value in (RAY_ENVIRONMENT | proxy).items():
        os.environ.setdefault(name, value)
    import ray
    from ray import serve

    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    def listen() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)

    listen()
    logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.WARNING)
    try:
        with _hushed():
            _start_ray(ray, temporary)
            listen()  # ray.init has put its own handler in place
            if not stop.is_set():
                http_options = {"host": settings.host, "port": settings.port}
                serve.start(http_options=http_options, logging_config=QUIET)
            if not stop.is_set():
                serve.run(application(settings), name=APP_NAME, route_prefix="/")
        if not stop.is_set():
            _greet(settings, began, where=where)
        while not stop.wait(1.0):
            pass
    except Exception as error:
        raise StartError(f"Ray Serve: {error}") from error
    except SystemExit:
        pass  # Ray's own answer to SIGTERM, in force while it starts
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
    if ray.is_initialized():  # else Serve would start a Ray of its own to shut it down
        with suppress(Exception):
            serve.shutdown()
    ray.shutdown()


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep what Ray says of its own start and end from the terminal, unless it fails."""
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            yield
    except Exception:
        print(said.getvalue(), file=sys.stderr, end="")
        raise


def _proxy() -> str:
    """Return what stands in front of the replicas, with the ports that it opens to all."""
    if not haproxy.installed():
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "0"
        return "Serve's own proxy: the HAProxy binary is missing, expect a tenth of the speed"
    opened = haproxy.ports()
    for name, port in opened.items():
        try:
            _wait_for_port("0.0.0.0", port, PORT_WAIT_S)
        except StartError as error:
            why = f"a second daemon on this host needs ports of its own, set {name}"
            raise StartError(f"{error}; {why}") from None
    stats, metrics = opened.values()
    return (
        f"HAProxy in front; it also opens its stats ({stats}) and metrics ({metrics}) ports, and "
        "Ray its own, on all interfaces: see the README's firewall rules"
    )


def _prepare(settings: Settings, *, patience: float) -> None:
    """Check everything that can be checked before anything starts."""
    try:
        engine = open_engine(settings.database)
        try:
            prepare(engine)
        finally:
            engine.dispose()
        for pool in settings.pools:
            embedding.require(settings.options_of(pool).embedder)
    except ImportError as error:
        raise StartError(str(error)) from None
    except (ValueError, SchemaMismatch) as error:
        raise StartError(str(error)) from None
    except Exception as error:
        raise StartError(f"database: {error}") from None
    _wait_for_port(settings.host, settings.port, patience)
    try:
        held = claim(engine, patience=patience)
    except ValueError as error:
        raise StartError(str(error)) from None
    if held is not None:
        held.close()  # the process that will answer claims it for good


def _wait_for_port(host: str, port: int, patience: float) -> None:
    """Return when the port can be had, or raise StartError after `patience` seconds."""
    deadline = time.monotonic() + patience
    waiting = False
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return
            except OSError as error:
                if time.monotonic() >= deadline or isinstance(error, socket.gaierror):
                    raise StartError(f"cannot listen on {host}:{port}: {error}") from None
        if not waiting:
            print(f"port {port} is taken; waiting up to {patience:.0f} s for it", flush=True)
            waiting = True
        time.sleep(0.5)


def _greet(settings: Settings, began: float, *, where: str) -> None:
    """Say, once requests are answered, where the daemon is and what its policies know."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    url = f"http://{host}:{settings.port}"
    policies = [_describe(url, name) for name, pool in settings.pools.items() if pool.models]
    seconds = time.perf_counter() - began
    print(
        "\n".join([f"banditroute serves {url} after {seconds:.1f} s ({where})", *policies])
        + f"""
database {shown(settings.database)}; the API: {url}/docs

curl -s {url}/v1/route -H 'content-type: application/json' -d '{{"prompt": "Why is the sky blue?"}}' | tee decision.json
curl -s {url}/v1/feedback -H 'content-type: application/json' -d "{{\\"decision_id\\": \\"$(cut -d'"' -f4 decision.json)\\", \\"quality\\": 0.9, \\"input_tokens\\": 6, \\"output_tokens\\": 180}}"

Ctrl-C stops it.""",  # noqa: E501
        flush=True,
    )


def _describe(url: str, pool: str) -> str:
    """Return a line on the policy of `pool`, asked over HTTP until the daemon answers."""
    deadline = time.monotonic() + ANSWER_WAIT_S
    while True:
        try:
            answer = httpx.get(f"{url}/v1/policy", params={"pool": pool}, timeout=ANSWER_WAIT_S)
            answer.raise_for_status()
            break
        except httpx.HTTPError as error:
            if time.monotonic() > deadline:
                return f"pool {pool}: no answer ({error})"
            time.sleep(0.1)
    state = answer.json()
    known = f"{state['learned']:,} outcomes folded in {state['built_in_s']:.2f} s"
    if state["skipped"]:
        known += f", {state['skipped']:,} of another embedder left out"
    return f"pool {pool}: policy {state['policy']}, {known}"

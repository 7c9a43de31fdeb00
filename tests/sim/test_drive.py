"""Drive against a stand-in daemon on loopback: what is sent, what is counted, what is survived."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from rich.console import Console
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from support.commands import started

from sim.data.dataset import save
from sim.data.prices import draw_prices
from sim.data.synthetic import generate
from sim.drive import Drive, run_drive, show
from sim.errors import InputError
from sim.options import DriveOptions

BUSY = {"error": {"code": "unavailable", "param": None, "message": "starting"}}
REFUSED = {"error": {"code": "budget_exceeded", "param": None, "message": "no money"}}


class Daemon:
    """Answers by a fixed script and remembers what it was sent."""

    def __init__(self) -> None:
        self.models: list[dict[str, Any]] = []
        self.routed: dict[str, dict[str, Any]] = {}
        self.fed: list[dict[str, Any]] = []
        self.choice = "coder"
        self.busy = 0
        self.refused = 0

    async def add(self, request: Request) -> JSONResponse:
        body = await request.json()
        if body["name"] in [model["name"] for model in self.models]:
            error = {"code": "exists", "param": "name", "message": "already there"}
            return JSONResponse({"error": error}, status_code=409)
        self.models.append(body)
        return JSONResponse(body, status_code=201)

    async def route(self, request: Request) -> JSONResponse:
        if self.busy:
            self.busy -= 1
            return JSONResponse(BUSY, status_code=503, headers={"Retry-After": "0.01"})
        if self.refused:
            self.refused -= 1
            return JSONResponse(REFUSED, status_code=429)
        key = request.headers["idempotency-key"]
        self.routed[key] = await request.json()
        return JSONResponse({"decision_id": key, "model": self.choice, "fallbacks": []})

    async def feedback(self, request: Request) -> JSONResponse:
        self.fed.append(await request.json())
        return JSONResponse({"status": "accepted"}, status_code=202)


@pytest.fixture
def daemon() -> Iterator[tuple[Daemon, str]]:
    stand_in = Daemon()
    routes = [
        Route("/v1/models", stand_in.add, methods=["POST"]),
        Route("/v1/route", stand_in.route, methods=["POST"]),
        Route("/v1/feedback", stand_in.feedback, methods=["POST"]),
    ]
    config = uvicorn.Config(Starlette(routes=routes), log_level="error", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield stand_in, f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def plan(url: str, *, preference: tuple[float, float, float] | None = None, **given: Any) -> Drive:
    data = generate(rows=40, seed=6).dataset
    options: dict[str, Any] = {"data": "", "pool": "test", "concurrency": 4} | given
    return Drive(data, draw_prices(data, seed=0), DriveOptions(url=url, **options), preference)


def test_logged_outcomes_of_the_chosen_model_are_posted(
    daemon: tuple[Daemon, str], tmp_path: Path
) -> None:
    stand_in, url = daemon
    acked = tmp_path / "acked.txt"
    drive = plan(url, limit=30, acked=acked, preference=(0.7, 0.3, 0.0))
    report = run_drive(drive)
    data = drive.dataset
    assert [model["pool"] for model in stand_in.models] == ["test"] * 3
    assert {model["name"] for model in stand_in.models} == set(data.models)
    assert len(stand_in.routed) == len(stand_in.fed) == 30
    for body in stand_in.fed:
        prompt = stand_in.routed[body["decision_id"]]["prompt"]
        row = data.prompts.index(prompt)
        assert body["quality"] == data.quality[row, 1]
        assert body["cost_usd"] == data.cost_usd[row, 1]
    sent = next(iter(stand_in.routed.values()))
    assert sent["preference"] == {"quality": 0.7, "cost": 0.3, "latency": 0.0}
    assert sent["pool"] == "test"
    assert sorted(acked.read_text().split()) == sorted(stand_in.routed)
    assert report["decisions"] == 30
    assert report["errors"] == 0
    assert report["share"] == {"small": 0.0, "coder": 1.0, "large": 0.0}
    rows = np.random.default_rng([0, 0]).permutation(40)[:30]
    assert report["quality"] == pytest.approx(data.quality[rows, 1].mean())
    assert report["last_third"]["quality"] == pytest.approx(data.quality[rows[20:], 1].mean())
    assert len(report["curve"]) == 10
    assert set(report["route_ms"]) == {"p50", "p90", "p99"}
    assert json.loads(json.dumps(report)) == report


def test_models_that_are_there_already_are_fine(daemon: tuple[Daemon, str]) -> None:
    stand_in, url = daemon
    run_drive(plan(url, limit=2))
    assert run_drive(plan(url, limit=2))["errors"] == 0
    assert len(stand_in.models) == 3


def test_busy_daemon_is_retried_and_refusals_are_errors(daemon: tuple[Daemon, str]) -> None:
    stand_in, url = daemon
    stand_in.busy, stand_in.refused = 3, 2
    report = run_drive(plan(url, limit=10, concurrency=1))
    assert report["retries"] == 3
    assert report["errors"] == 2
    assert report["error_kinds"] == {"429 budget_exceeded": 2}
    assert report["decisions"] == 8


def test_model_that_is_not_in_the_data_is_an_error(daemon: tuple[Daemon, str]) -> None:
    stand_in, url = daemon
    stand_in.choice = "other"
    report = run_drive(plan(url, limit=3))
    assert report["errors"] == 3
    assert report["decisions"] == 0
    assert report["last_third"] is None
    console = Console(width=120)
    with console.capture() as captured:
        show(console, report)
    assert "'other' is not in the data" in captured.get()


def test_daemon_that_is_not_there_is_told_by_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=f"--url: http://127.0.0.1:{port}: no answer"):
        run_drive(plan(f"http://127.0.0.1:{port}", retry_for=0.1))


def test_interrupt_ends_a_drive_without_a_traceback(
    daemon: tuple[Daemon, str], tmp_path: Path
) -> None:
    stand_in, url = daemon
    stand_in.busy = 10**9
    save(generate(rows=40, seed=6).dataset, tmp_path / "data.parquet")
    with started("drive", tmp_path / "data.parquet", "--url", url, "--retry-for", "600") as process:
        deadline = time.monotonic() + 60.0
        while stand_in.busy == 10**9:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "")

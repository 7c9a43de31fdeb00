"""Budgets of a served daemon: making, spending and reading them."""

from __future__ import annotations

import time
from typing import Any

import httpx
from sqlalchemy import update

from banditroute.core.clock import now_us
from banditroute.service.service import Service
from banditroute.store import ledger
from banditroute.store.budgets import load_budgets
from support.served_daemon import Served

BUDGETS = "/v1/budgets"
ASK = {"input_tokens": 1_000, "max_output_tokens": 1_000}
SMALL, MEDIUM, LARGE = 0.00025, 0.0025, 0.018
"""US dollars that `ASK` reserves for each model of the demo pool."""

MONEY = ("settled", "reserved", "expired", "leased", "lost", "free", "overruns")
LONG = "n" * 201


def budget(daemon: Served, cap: float, name: str = "b", **fields: Any) -> Any:
    answer = daemon.post(BUDGETS, {"name": name, "cap_usd": cap} | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


def route(daemon: Served, *models: str, **fields: Any) -> httpx.Response:
    limits = {"models": list(models)} if models else {}
    return daemon.post("/v1/route", {"prompt": "Why?"} | ASK | limits | fields)


def decided(daemon: Served, *models: str, **fields: Any) -> str:
    answer = route(daemon, *models, **fields)
    assert answer.status_code == 200, answer.text
    name: str = answer.json()["decision_id"]
    return name


def batch(daemon: Served, n: int, **headers: str) -> list[Any]:
    requests = [{"prompt": f"Why {i}?"} | ASK for i in range(n)]
    answer = daemon.post("/v1/route/batch", {"requests": requests}, **headers)
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["decisions"]
    return found


def exceeded(answer: httpx.Response, name: str = "b") -> dict[str, Any]:
    """Hold a refusal against its shape and return its error."""
    assert answer.status_code == 429, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return told(error, name)


def told(error: dict[str, Any], name: str = "b") -> dict[str, Any]:
    assert sorted(error) == ["budget", "code", "message", "param", "type"]
    assert (error["code"], error["type"]) == ("budget_exceeded", "insufficient_quota")
    assert f"budget {name!r}" in error["message"] and error["budget"]["name"] == name
    return error


def sums(daemon: Served, name: str = "b") -> dict[str, int]:
    """Return what a budget shows, in nano-dollars; it must be what SQL adds up to."""
    shown = daemon.get(f"{BUDGETS}/{name}")
    with daemon.engine.connect() as connection:
        (its,) = (one for one in load_budgets(connection) if one.name == name)
        known = ledger.sums(connection, its, now_us=now_us())
    found = {part: round(shown[f"{part}_usd"] * 1e9) for part in MONEY}
    assert found == {part: getattr(known, f"{part}_nano") for part in MONEY}
    assert round(shown["cap_usd"] * 1e9) == known.cap_nano and shown["requests"] == known.requests
    return found


def service(daemon: Served) -> Service:
    found: Service = daemon.client.app.state.service
    return found


def slices_agree(daemon: Served) -> dict[str, int]:
    """Return the sums of the one budget, once the daemon holds just what SQL says it does."""
    treasury = service(daemon).leases
    (held,) = treasury._slices.values()
    deadline = time.monotonic() + 60.0
    while True:  # renewals may be under way beside
        found = sums(daemon)
        if held.left == found["leased"] and held.pending == 0:
            return found
        assert time.monotonic() < deadline, f"{held} is not {found}"
        time.sleep(0.01)


def set_all(daemon: Served, table: Any, **values: Any) -> None:
    with daemon.engine.begin() as connection:
        connection.execute(update(table).values(values))

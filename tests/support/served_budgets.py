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
from banditroute.store.ledger import BudgetSums
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
    decisions: list[Any] = answer.json()["decisions"]
    return decisions


def exceeded(answer: httpx.Response, name: str = "b") -> dict[str, Any]:
    """Check that a refusal names the budget; return its error."""
    assert answer.status_code == 429, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return names_budget(error, name)


def names_budget(error: dict[str, Any], name: str = "b") -> dict[str, Any]:
    """Check that an error of a budget has its shape and names the budget; return it."""
    assert sorted(error) == ["budget", "code", "message", "param", "type"]
    assert (error["code"], error["type"]) == ("budget_exceeded", "insufficient_quota")
    assert f"budget {name!r}" in error["message"] and error["budget"]["name"] == name
    return error


def sums(daemon: Served, name: str = "b") -> dict[str, int]:
    """Return what a budget shows, in nano-dollars; check it against the sums in SQL.

    Housekeeping gives leases back on its own, so the sums must be the same before and after.
    """
    in_sql = _sums_in_sql(daemon, name)
    while True:
        before = in_sql
        shown = daemon.get(f"{BUDGETS}/{name}")
        in_sql = _sums_in_sql(daemon, name)
        if in_sql == before:
            break
    shown_nano = {part: round(shown[f"{part}_usd"] * 1e9) for part in MONEY}
    assert shown_nano == {part: getattr(in_sql, f"{part}_nano") for part in MONEY}
    assert round(shown["cap_usd"] * 1e9) == in_sql.cap_nano
    assert shown["requests"] == in_sql.requests
    return shown_nano


def _sums_in_sql(daemon: Served, name: str) -> BudgetSums:
    with daemon.engine.connect() as connection:
        (budget_,) = (one for one in load_budgets(connection) if one.name == name)
        return ledger.sums(connection, budget_, now_us=now_us())


def service(daemon: Served) -> Service:
    of_daemon: Service = daemon.client.app.state.service
    return of_daemon


def lease_agrees(daemon: Served) -> dict[str, int]:
    """Return the sums of the one budget, once the daemon's lease holds what SQL says."""
    (lease,) = service(daemon).leases._current.values()
    deadline_s = time.monotonic() + 60.0
    while True:  # a renewal may be under way
        in_sql = sums(daemon)
        if lease.left_nano == in_sql["leased"] and lease.pending == 0:
            return in_sql
        assert time.monotonic() < deadline_s, f"{lease} is not {in_sql}"
        time.sleep(0.01)


def set_all(daemon: Served, table: Any, **values: Any) -> None:
    with daemon.engine.begin() as connection:
        connection.execute(update(table).values(values))

"""Budgets through the clients: what is sent, what comes back, and what is sent only once."""

from __future__ import annotations

import httpx
import pytest
from support.scripted_client import CALLERS, Caller, Wire, fault
from support.served_daemon import Served

from banditroute.client import RouteError, RouterError, retry

SHOWN = {"name": "team/a", "cap_usd": 2.0, "settled_usd": 0.5}


@pytest.fixture(params=CALLERS)
def call(request: pytest.FixtureRequest) -> Caller:
    return CALLERS[request.param]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", 0.001)
    monkeypatch.setattr(retry, "BACKOFF_LIMIT_S", 0.01)


def sent(wire: Wire) -> tuple[str, str, str]:
    (request,) = wire.requests
    url = request.url
    return request.method, url.raw_path.decode(), request.content.decode()


def test_budgets_are_listed_and_shown(call: Caller) -> None:
    wire = Wire(httpx.Response(200, json={"data": [SHOWN]}))
    assert call(wire, "budgets", pool="p") == [SHOWN]
    assert sent(wire) == ("GET", "/v1/budgets?pool=p", "")
    wire = Wire(httpx.Response(200, json=SHOWN))
    assert call(wire, "budget", "team/a") == SHOWN
    assert sent(wire) == ("GET", "/v1/budgets/team%2Fa?pool=default", "")


def test_a_budget_is_added_without_the_terms_that_are_none(call: Caller) -> None:
    wire = Wire(httpx.Response(201, json=SHOWN))
    assert call(wire, "add_budget", "b", pool="p", cap_usd=0.0, tag=None, window="day") == SHOWN
    assert sent(wire)[:2] == ("POST", "/v1/budgets")
    assert wire.bodies() == [{"pool": "p", "name": "b", "cap_usd": 0.0, "window": "day"}]


def test_none_removes_a_term_of_a_budget(call: Caller) -> None:
    wire = Wire(httpx.Response(200, json=SHOWN))
    assert call(wire, "change_budget", "b", rate_usd=None, cap_usd=3.0) == SHOWN
    assert sent(wire)[:2] == ("PATCH", "/v1/budgets/b?pool=default")
    assert wire.bodies() == [{"rate_usd": None, "cap_usd": 3.0}]


def test_a_top_up_is_never_sent_twice_and_a_cap_may_be(call: Caller) -> None:
    wire = Wire(httpx.ReadTimeout("slow"), httpx.Response(200, json=SHOWN))
    with pytest.raises(RouterError, match="slow"):
        call(wire, "change_budget", "b", top_up_usd=1.0)
    assert len(wire.requests) == 1
    wire = Wire(httpx.ReadTimeout("slow"), httpx.Response(200, json=SHOWN))
    assert call(wire, "change_budget", "b", cap_usd=1.0) == SHOWN
    assert len(wire.requests) == 2


def test_a_budget_is_dropped(call: Caller) -> None:
    wire = Wire(httpx.Response(200, json=SHOWN))
    assert call(wire, "drop_budget", "a b", pool="p") is None
    assert sent(wire) == ("DELETE", "/v1/budgets/a%20b?pool=p", "")


def test_a_decision_is_cancelled_and_none_is_ignored(call: Caller) -> None:
    wire = Wire(httpx.Response(200, json={"status": "cancelled"}))
    assert call(wire, "cancel", "d/1") == "cancelled"
    assert sent(wire) == ("POST", "/v1/decisions/d%2F1/cancel", "")
    assert call(wire, "cancel", None) == "ignored" and len(wire.requests) == 1


def test_a_request_beyond_its_budget_is_not_sent_again(call: Caller) -> None:
    wire = Wire(fault(429, "budget_exceeded", **{"retry-after": "5"}))
    with pytest.raises(RouterError) as refused:
        call(wire, "route", prompt="p")
    assert (refused.value.code, refused.value.retry_after) == ("budget_exceeded", 5.0)
    assert not refused.value.away and len(wire.requests) == 1


def test_a_daemon_understands_all_calls_about_budgets(served: Served, call: Caller) -> None:
    def wire(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        headers = {"Idempotency-Key": request.headers.get("Idempotency-Key", "none")}
        answer = served.client.request(
            request.method, path, content=request.content, headers=headers
        )
        return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)

    asked = {"prompt": "Why?", "input_tokens": 1_000, "max_output_tokens": 1_000}
    made = call(wire, "add_budget", "team/a", cap_usd=0.018, window="day", tag="t", value="a")
    assert call(wire, "budgets") == [made]
    large = asked | {"models": ["large"], "tags": {"t": "a"}}
    first = call(wire, "route", **large)
    with pytest.raises(RouterError, match="budget 'team/a' has no room") as refused:
        call(wire, "route", **large)
    assert refused.value.retry_after == 5.0
    error, other = call(wire, "route_batch", [large, asked])
    assert isinstance(error, RouteError) and error.code == "budget_exceeded"
    assert other.decision_id
    assert call(wire, "cancel", first.decision_id) == "cancelled"
    assert call(wire, "cancel", first.decision_id) == "duplicate"
    changed = call(wire, "change_budget", "team/a", top_up_usd=1.0, request_ceiling_usd=0.5)
    assert (changed["cap_usd"], changed["reserved_usd"]) == (1.018, 0.0)
    changed = call(wire, "change_budget", "team/a", request_ceiling_usd=None)
    assert changed["request_ceiling_usd"] is None
    assert call(wire, "budget", "team/a")["requests"] == 0
    call(wire, "drop_budget", "team/a")
    assert call(wire, "budgets") == []

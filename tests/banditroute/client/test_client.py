"""Clients: what is sent, what comes back, and what happens when the router is unavailable."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route as HttpRoute
from support.scripted_client import CALLERS, DECISION, Caller, Wire, client, fault, routed

from banditroute.client import AsyncClient, Client, Route, RouteError, RouterError, retry, sync


@pytest.fixture(params=CALLERS)
def call(request: pytest.FixtureRequest) -> Caller:
    return CALLERS[request.param]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", 0.001)
    monkeypatch.setattr(retry, "BACKOFF_LIMIT_S", 0.01)


def test_both_clients_have_the_same_methods_and_parameters() -> None:
    public = {name for name in dir(Client) if not name.startswith("_")}
    assert public == {name for name in dir(AsyncClient) if not name.startswith("_")}
    for name in public:
        blocking, aio = signature(getattr(Client, name)), signature(getattr(AsyncClient, name))
        assert blocking.parameters == aio.parameters
        if name != "decide":
            assert blocking.return_annotation == aio.return_annotation


def test_route_sends_what_was_asked_and_returns_the_decision(call: Caller) -> None:
    wire = Wire(routed())
    route = call(
        wire,
        "route",
        prompt="lone \ud800 surrogate",
        embedding=(1, 2.5),
        models=("a/b", "c"),
        preference={"quality": 1.0},
        options={"api_key": "secret"},
    )
    assert route == Route(
        "d1", "a/b", ("c",), 0.5, 4096, "linucb-0", 7, 0.001, "2030-01-01T00:00:00Z"
    )
    assert not route.degraded
    assert wire.bodies() == [
        {
            "prompt": "lone \ud800 surrogate",
            "embedding": [1.0, 2.5],
            "models": ["a/b", "c"],
            "preference": {"quality": 1.0},
        }
    ]
    assert wire.requests[0].headers["authorization"] == "Bearer secret"
    assert wire.requests[0].headers["idempotency-key"]


def test_retries_of_one_call_share_a_key_and_calls_do_not(call: Caller) -> None:
    wire = Wire(fault(503, "unavailable"), httpx.ConnectError("refused"), routed())
    assert call(wire, "route", prompt="p").decision_id == "d1"
    call(wire, "route", prompt="p")
    call(wire, "route", prompt="p", idempotency_key="mine")
    keys = [request.headers["idempotency-key"] for request in wire.requests]
    assert len(keys) == 5
    assert keys[0] == keys[1] == keys[2]
    assert len({keys[0], keys[3], "mine"}) == 3
    assert keys[4] == "mine"


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.Response(404, text="Not Found"),
        httpx.Response(500, text="Internal Server Error"),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("hung up"),
        fault(502, "bad_gateway"),
        fault(503, "unavailable"),
        fault(504, "timeout"),
        fault(429, "too_many_requests"),
        httpx.Response(503, text="<html>proxy</html>"),
    ],
)
def test_a_transient_failure_is_retried(call: Caller, trouble: Any) -> None:
    wire = Wire(trouble, trouble, routed())
    assert call(wire, "route", prompt="p").model == "a/b"
    assert len(wire.requests) == 3


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_value"),
        (404, "unknown_decision"),
        (409, "conflict"),
        (422, "no_model"),
        (429, "budget_exceeded"),
        (500, "internal"),
    ],
)
def test_a_refusal_is_raised_at_once(call: Caller, status: int, code: str) -> None:
    wire = Wire(fault(status, code))
    with pytest.raises(RouterError) as caught:
        call(wire, "route", prompt="p")
    error = caught.value
    assert (error.status, error.code, error.param, error.message) == (
        status,
        code,
        "prompt",
        "refused",
    )
    assert len(wire.requests) == 1


def test_retries_are_counted_and_bounded(call: Caller) -> None:
    wire = Wire(httpx.ConnectError("refused"))
    with pytest.raises(RouterError, match="ConnectError: refused") as caught:
        call(wire, "route", prompt="p", options={"retries": 2})
    assert (caught.value.status, caught.value.code) == (0, "unreachable")
    assert len(wire.requests) == 3


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits of the blocking client, in seconds; nothing else moves its clock."""
    waits_s: list[float] = []
    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: sum(waits_s)))
    monkeypatch.setattr(sync, "time", SimpleNamespace(sleep=waits_s.append))
    return waits_s


def test_retry_for_outlasts_the_number_of_retries(waits: list[float]) -> None:
    wire = Wire(*[fault(503, "unavailable")] * 20, routed())
    with client(wire, retries=1, retry_for=20.0) as router:
        assert router.route(prompt="p").decision_id == "d1"
        assert router.retried == 20
    wire = Wire(fault(503, "unavailable"))
    waits.clear()
    with client(wire, retry_for=0.05) as router, pytest.raises(RouterError):
        router.route(prompt="p")
    assert sum(waits) <= 0.05
    assert len(wire.requests) > 2


def test_retry_after_is_honoured_unless_it_is_absurd(call: Caller) -> None:
    wire = Wire(fault(503, "unavailable", **{"Retry-After": "0.2"}), routed())
    begun = time.monotonic()
    call(wire, "route", prompt="p")
    assert time.monotonic() - begun >= 0.2
    wire = Wire(fault(503, "unavailable", **{"Retry-After": "7200"}), routed())
    with pytest.raises(RouterError) as caught:
        call(wire, "route", prompt="p")
    assert caught.value.retry_after == 7200.0


@pytest.mark.parametrize(
    "trouble", [httpx.ConnectError("refused"), fault(503, "unavailable"), fault(500, "internal")]
)
def test_default_model_answers_when_the_router_is_unavailable(call: Caller, trouble: Any) -> None:
    options = {"default_model": "safe", "timeout": 0.1, "retries": 2}
    route = call(Wire(trouble), "route", prompt="p", options=options)
    assert route == Route(decision_id=None, model="safe", degraded=True)
    assert call(Wire(trouble), "route_batch", [{"prompt": "p"}] * 2, options=options) == [route] * 2


def test_default_model_does_not_hide_a_refusal(call: Caller) -> None:
    options = {"default_model": "safe"}
    for status, code in ((400, "invalid_value"), (429, "budget_exceeded")):
        with pytest.raises(RouterError, match=code):
            call(Wire(fault(status, code)), "route", prompt="p", options=options)


def test_default_model_comes_within_the_timeout(waits: list[float]) -> None:
    wire = Wire(fault(503, "unavailable", **{"Retry-After": "5"}))
    with client(wire, default_model="safe", timeout=0.2, retry_for=60.0) as router:
        assert router.route(prompt="p").degraded
    assert sum(waits) <= 0.2


def test_batch_rows_are_decisions_or_errors(call: Caller) -> None:
    error = {"message": "refused", "type": "t", "param": None, "code": "budget_exceeded"}
    wire = Wire(httpx.Response(200, json={"decisions": [DECISION, {"error": error}]}))
    first, second = call(wire, "route_batch", [{"prompt": "p"}, {"prompt": "q"}])
    assert first.decision_id == "d1"
    assert second == RouteError("budget_exceeded", None, "refused")
    assert wire.bodies() == [{"requests": [{"prompt": "p"}, {"prompt": "q"}]}]
    assert wire.requests[0].headers["idempotency-key"]


def test_feedback_retry_that_was_stored_before_is_success(call: Caller) -> None:
    wire = Wire(httpx.ReadTimeout("slow"), httpx.Response(200, json={"status": "duplicate"}))
    assert call(wire, "feedback", "d1", quality=0.5, cost_usd=None) == "duplicate"
    assert wire.bodies() == [{"decision_id": "d1", "quality": 0.5}] * 2


def test_feedback_without_a_decision_is_not_sent(call: Caller) -> None:
    wire = Wire(fault(500, "never"))
    assert call(wire, "feedback", None, quality=1.0) == "ignored"
    assert call(wire, "feedback_batch", [{"decision_id": None, "quality": 1.0}]) == [
        {"decision_id": None, "status": "ignored"}
    ]
    assert wire.requests == []


def test_feedback_batch_keeps_the_order(call: Caller) -> None:
    row = {"decision_id": "d1", "key": "default", "status": "accepted"}
    wire = Wire(httpx.Response(200, json={"results": [row]}))
    items = [{"decision_id": None}, {"decision_id": "d1", "quality": 1.0, "latency_ms": None}]
    results = call(wire, "feedback_batch", items)
    assert results == [{"decision_id": None, "status": "ignored"}, row]
    assert wire.bodies() == [{"feedback": [{"decision_id": "d1", "quality": 1.0}]}]


def test_a_preference_names_both_decisions(call: Caller) -> None:
    wire = Wire(httpx.ReadTimeout("slow"), httpx.Response(200, json={"status": "duplicate"}))
    assert call(wire, "prefer", "d1", over="d2", source="user", key=None) == "duplicate"
    assert wire.bodies() == [{"decision_id": "d1", "preferred_over": "d2", "source": "user"}] * 2
    assert call(wire, "prefer", None, over="d2") == "ignored"
    assert call(wire, "prefer", "d1", over=None) == "ignored"
    assert len(wire.requests) == 2


def test_session_feedback_returns_the_number_of_decisions(call: Caller) -> None:
    wire = Wire(httpx.Response(200, json={"status": "accepted", "decisions": 3}))
    answer = call(wire, "session_feedback", "s", quality=0.0, pool="team", key="csat", source=None)
    assert answer == {"status": "accepted", "decisions": 3}
    call(wire, "session_feedback", "s", quality=1.0)
    assert wire.bodies() == [
        {"session_id": "s", "quality": 0.0, "pool": "team", "key": "csat"},
        {"session_id": "s", "quality": 1.0},
    ]


def test_a_batch_may_mix_kinds_of_feedback(call: Caller) -> None:
    results = [{"session_id": "s", "key": "k", "status": "late"}, {"decision_id": "a", "key": "k"}]
    wire = Wire(httpx.Response(200, json={"results": results}))
    items = [
        {"decision_id": "a", "preferred_over": None},
        {"session_id": "s", "quality": 1.0},
        {"decision_id": None, "preferred_over": "b"},
        {"decision_id": "a", "preferred_over": "b"},
    ]
    ignored = {"decision_id": None, "status": "ignored"}
    assert call(wire, "feedback_batch", items) == [
        {"decision_id": "a", "status": "ignored"},
        results[0],
        ignored,
        results[1],
    ]
    assert wire.bodies() == [{"feedback": [items[1], items[3]]}]


def test_models_are_addressed_by_their_quoted_name(call: Caller) -> None:
    wire = Wire(httpx.Response(200, json={"data": [{"name": "a/b"}], "name": "a/b"}))
    assert call(wire, "models", "team") == [{"name": "a/b"}]
    assert call(wire, "add_model", "a/b", pool="team", input_price=1.0)["name"] == "a/b"
    call(wire, "set_price", "a/b ?", pool="team", input_price=0.0, output_price=2.0)
    call(wire, "drain_model", "a/b", pool="team")
    call(wire, "decision", "d/1")
    call(wire, "policy", "team")
    sent = [(request.method, request.url.raw_path.decode()) for request in wire.requests]
    assert sent == [
        ("GET", "/v1/models?pool=team"),
        ("POST", "/v1/models"),
        ("PATCH", "/v1/models/a%2Fb%20%3F?pool=team"),
        ("DELETE", "/v1/models/a%2Fb?pool=team"),
        ("GET", "/v1/decisions/d%2F1"),
        ("GET", "/v1/policy?pool=team"),
    ]
    assert json.loads(wire.requests[1].content) == {"pool": "team", "name": "a/b", "input_price": 1}
    assert json.loads(wire.requests[2].content) == {"input_price": 0, "output_price": 2}


def test_a_new_model_comes_with_its_scored_prompts(call: Caller) -> None:
    wire = Wire(httpx.Response(201, json={"name": "m", "prior": {"outcomes": 2}}))
    rows = [{"prompt": "x", "quality": 1.0}, {"embedding": np.ones(2, np.float32), "quality": 0.5}]
    answer = call(wire, "add_model", "m", input_price=1.0, scored=rows, n_effective=None)
    assert answer["prior"] == {"outcomes": 2}
    vector = {"embedding": [1.0, 1.0], "quality": 0.5}
    (body,) = wire.bodies()
    assert body == {"pool": "default", "name": "m", "input_price": 1.0, "scored": [rows[0], vector]}


def test_answer_that_is_not_json_is_an_error(call: Caller) -> None:
    with pytest.raises(RouterError, match="not JSON"):
        call(Wire(httpx.Response(200, text="<html>")), "route", prompt="p")


@contextmanager
def serving(app: Starlette, listening: socket.socket) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def test_call_survives_a_daemon_that_starts_later() -> None:
    decided: list[str] = []

    async def route(request: Request) -> JSONResponse:
        decided.append(request.headers["idempotency-key"])
        return JSONResponse(DECISION)

    app = Starlette(routes=[HttpRoute("/v1/route", route, methods=["POST"])])
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Bound but not listening: connections are refused, and the port cannot be taken.
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        answers: list[Route] = []
        with Client(url, retry_for=60.0) as router:
            caller = threading.Thread(target=lambda: answers.append(router.route(prompt="p")))
            caller.start()
            deadline_s = time.monotonic() + 60.0
            while router.retried == 0:
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
            reserved.listen()
            with serving(app, reserved):
                caller.join(timeout=60.0)
    assert [answer.decision_id for answer in answers] == ["d1"]
    assert len(decided) == 1

"""The `decide` block: it posts feedback at its end, whatever happens in it."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from support.scripted_client import Wire, client, fault, routed

from banditroute.client import AsyncClient, RouterError, retry


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", 0.001)
    monkeypatch.setattr(retry, "BACKOFF_LIMIT_S", 0.01)


ACCEPTED = httpx.Response(202, json={"status": "accepted"})


def test_decide_posts_what_was_set_and_the_measured_latency() -> None:
    wire = Wire(routed(), ACCEPTED)
    begun_s = time.monotonic()
    with client(wire) as router, router.decide(prompt="p") as answer:
        assert answer.model == "a/b"
        assert answer.max_output_tokens == answer.route.max_output_tokens > 0
        time.sleep(0.02)
        answer.quality, answer.input_tokens, answer.output_tokens = 0.9, 10, 120
    body = wire.bodies()[1]
    assert 20.0 <= body.pop("latency_ms") <= 1_000.0 * (time.monotonic() - begun_s)
    assert body == {
        "decision_id": "d1",
        "quality": 0.9,
        "input_tokens": 10,
        "output_tokens": 120,
    }


@pytest.mark.parametrize("failed_quality", [None, 0.0])
def test_decide_settles_when_the_body_raises(failed_quality: float | None) -> None:
    wire = Wire(routed(), ACCEPTED)
    with (
        client(wire) as router,
        pytest.raises(ZeroDivisionError),
        router.decide(prompt="p", failed_quality=failed_quality) as answer,
    ):
        answer.cost_usd = 0.5
        raise ZeroDivisionError
    body = wire.bodies()[1]
    assert body.get("quality") == failed_quality
    assert body["cost_usd"] == 0.5
    assert "latency_ms" not in body  # a fast failure is not a fast model


def test_a_body_that_raises_and_says_nothing_posts_nothing() -> None:
    wire = Wire(routed())
    with client(wire) as router, pytest.raises(ZeroDivisionError), router.decide(prompt="p"):
        raise ZeroDivisionError
    assert len(wire.bodies()) == 1


def test_failure_to_settle_never_hides_the_callers_exception() -> None:
    wire = Wire(routed(), fault(404, "unknown_decision"))
    with (
        client(wire) as router,
        pytest.raises(ZeroDivisionError),
        router.decide(prompt="p") as answer,
    ):
        answer.quality = 0.0
        raise ZeroDivisionError
    with client(wire) as router, pytest.raises(RouterError), router.decide(prompt="p"):
        pass


def test_degraded_decide_runs_the_body_and_posts_nothing() -> None:
    wire = Wire(httpx.ConnectError("refused"))
    options = {"default_model": "safe", "timeout": 0.05, "retries": 1}
    with client(wire, **options) as router, router.decide(prompt="p") as answer:
        answer.quality = 1.0
    assert answer.model == "safe"
    assert answer.route.degraded
    assert {request.url.path for request in wire.requests} == {"/v1/route"}


def test_async_decide_settles_too() -> None:
    wire = Wire(routed(), ACCEPTED)

    async def run() -> None:
        async with (
            AsyncClient("http://router", transport=httpx.MockTransport(wire)) as router,
            router.decide(prompt="p", failed_quality=0.0) as answer,
        ):
            answer.answered_by = "c"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run())
    body = wire.bodies()[1]
    assert (body["model"], body["quality"]) == ("c", 0.0)

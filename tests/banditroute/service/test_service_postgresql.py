"""The daemon on PostgreSQL: the whole of its HTTP, alone and as one of two on one database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier
from typing import Any

import pytest
from support.served_daemon import Served, assert_error, serve
from support.small_log import TTL, Book

from banditroute.store.engine import open_engine
from banditroute.store.feedback import default_expired
from banditroute.store.log import append_resets

DEAR = {"name": "vendor/dear", "input_price": 9.0, "output_price": 9.0}
HASHED = {"hash_key": "some-key"}


def test_all_that_http_offers_works_on_postgresql(postgres_url: str) -> None:
    with serve(postgres_url, **HASHED) as daemon:
        first = daemon.route("100 % of %s, what is %(that)s?", session_id="s", tags={"a": "%s"})
        again = [
            daemon.post("/v1/route", {"prompt": "Once"}, idempotency_key="k").json()
            for _ in range(2)
        ]
        assert again[0] == again[1]
        other = daemon.post("/v1/route", {"prompt": "Twice"}, idempotency_key="k")
        assert_error(other, 409, "idempotency_conflict", "Idempotency-Key")
        prompts = [{"prompt": "Which is better?", "models": [name]} for name in ("small", "large")]
        batch = daemon.post("/v1/route/batch", {"requests": prompts}).json()["decisions"]
        won, lost = (one["decision_id"] for one in batch)

        told = {"quality": 0.5, "input_tokens": 10, "output_tokens": 20, "latency_ms": 30.0}
        one = first["decision_id"]
        assert [daemon.feedback(one, **told) for _ in range(2)] == ["accepted", "duplicate"]
        assert_error(
            daemon.post("/v1/feedback", {"decision_id": one, "quality": 0.25}),
            409,
            "conflict",
            "key",
        )
        assert daemon.feedback(won, preferred_over=lost) == "accepted"
        judged = daemon.post("/v1/feedback", {"session_id": "s", "quality": 1.0, "key": "csat"})
        assert judged.json() == {"status": "superseded", "decisions": 0}

        assert daemon.post("/v1/models", DEAR).status_code == 201
        assert daemon.post("/v1/models", DEAR).status_code == 409
        changed = daemon.send("PATCH", "/v1/models/vendor/dear", {"output_price": 8.0})
        assert changed.json()["output_price"] == 8.0
        assert daemon.route(models=["vendor/dear"])["model"] == "vendor/dear"
        assert daemon.client.delete("/v1/models/vendor/dear").json()["draining"] is True

        shown = daemon.get(f"/v1/decisions/{one}")
        assert shown["tags"] == {"a": "%s"} and len(shown["learned"]) == 3
        assert_error(
            daemon.post("/v1/feedback", {"decision_id": "x\0", "quality": 1}),
            400,
            "invalid_value",
            "decision_id",
        )
        state = daemon.policy()
        assert state["learned"] == 4 and state["digest"] == daemon.rebuilt_digest()
    with serve(postgres_url, **HASHED) as daemon:
        assert daemon.policy()["digest"] == state["digest"]


@pytest.fixture
def two(postgres_url: str) -> Iterator[tuple[Served, Served]]:
    """Two daemons that start at the same moment on one database without a pool."""
    with ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        making = [serve(postgres_url, **HASHED) for _ in range(2)]
        first, second = threads.map(stack.enter_context, making)
        yield first, second


def both(two: Sequence[Served], url: str, *bodies: Any, **headers: str) -> list[Any]:
    """Send to both at once, each its body, and return the answers."""
    together = Barrier(2)

    def send(daemon: Served, body: Any) -> Any:
        together.wait()
        return daemon.post(url, body, **headers)

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(send, two, bodies if len(bodies) == 2 else bodies * 2))


def agreed(two: Sequence[Served]) -> None:
    """See that both have the state that the whole log gives."""
    assert {daemon.policy()["digest"] for daemon in two} == {two[0].rebuilt_digest()}


def test_two_that_start_at_once_make_one_pool_and_one_policy(two: tuple[Served, Served]) -> None:
    kinds = Counter(row["kind"] for row in two[0].rows("events"))
    assert kinds == {"model_added": 3, "policy_started": 1}
    assert [len(two[0].rows(table)) for table in ("pools", "models", "prices")] == [1, 3, 3]
    agreed(two)


def test_feedback_that_comes_to_both_at_once_counts_once(two: tuple[Served, Served]) -> None:
    for round_ in range(12):
        decision = two[round_ % 2].route(session_id=f"s{round_}")["decision_id"]
        same = {"decision_id": decision, "quality": 0.5, "cost_usd": 0.1}
        answers = both(two, "/v1/feedback", same)
        assert sorted(one.json()["status"] for one in answers) == ["accepted", "duplicate"]
        contrary = [same | {"key": "k", "quality": q} for q in (0.1, 0.9)]
        answers = both(two, "/v1/feedback", *contrary)
        assert sorted(one.status_code for one in answers) == [200, 409]
        verdict = {"session_id": f"s{round_}", "quality": 0.5}
        answers = both(two, "/v1/feedback", verdict)
        assert sorted(one.json()["status"] for one in answers) == ["duplicate", "superseded"]
    fields = Counter((row["decision_id"], row["field"]) for row in two[0].rows("events"))
    del fields[None, None]
    assert len(fields) == 24 and set(fields.values()) == {1}
    assert len(two[0].rows("feedback")) == 24 and len(two[0].rows("session_feedback")) == 12
    agreed(two)


def test_a_preference_that_comes_to_both_at_once_counts_once(two: tuple[Served, Served]) -> None:
    won, lost = (two[0].route(models=[name])["decision_id"] for name in ("small", "large"))
    answers = both(two, "/v1/feedback", {"decision_id": won, "preferred_over": lost})
    assert sorted(one.json()["status"] for one in answers) == ["accepted", "duplicate"]
    agreed(two)


def test_an_idempotency_key_that_comes_to_both_at_once_is_answered_once(
    two: tuple[Served, Served],
) -> None:
    for round_ in range(8):
        answers = both(two, "/v1/route", {"prompt": "Why?"}, idempotency_key=f"k{round_}")
        assert answers[0].json() == answers[1].json()
        answers = both(
            two, "/v1/route", {"prompt": "A"}, {"prompt": "B"}, idempotency_key=f"l{round_}"
        )
        assert sorted(one.status_code for one in answers) == [200, 409]
    assert len(two[0].rows("decisions")) == 16


def test_a_model_that_comes_to_both_at_once_is_added_once_and_known_to_both(
    two: tuple[Served, Served],
) -> None:
    answers = both(two, "/v1/models", DEAR)
    assert sorted(one.status_code for one in answers) == [201, 409]
    for name, first, second in (("x", *two), ("y", *reversed(two))):
        new = {"name": name, "input_price": 1.0, "output_price": 1.0}
        assert first.post("/v1/models", new | {"pool": name}).status_code == 201
        assert first.post("/v1/models", new).status_code == 201
        # At the other one, before its housekeeping has looked.
        assert second.get(f"/v1/models?pool={name}")["data"][0]["name"] == name
        assert second.route(pool=name)["model"] == name
        path = f"/v1/models/{name}?pool={name}"
        assert second.send("PATCH", path, {"input_price": 2.0}).status_code == 200
        (shown,) = first.get(f"/v1/models?pool={name}")["data"]
        assert (shown["input_price"], shown["draining"]) == (2.0, False)
        assert first.client.delete(path).status_code == 200
        assert second.get(f"/v1/models?pool={name}")["data"][0]["draining"]
    agreed(two)


def test_an_alarm_and_an_end_of_life_are_answered_by_one_of_two(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    book = Book(engine)
    _, ids = book.decide(50)
    book.now += 2 * TTL
    together = Barrier(2)

    def chores(_: int) -> tuple[int, list[int]]:
        together.wait()
        with book.begin() as connection:
            defaults = default_expired(connection, pool="default", quality=0.5, now_us=book.now)
        together.wait()
        with book.begin() as connection:
            alarms = {"small": 7, "large": 8}
            known = {"pool": "default", "policy": "p", "alarms": alarms, "now_us": book.now}
            return defaults, append_resets(connection, **known)

    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(chores, range(2)))
    engine.dispose()
    assert sorted(defaults for defaults, _ in done) == [0, len(ids)]
    assert sorted(len(resets) for _, resets in done) == [0, 2]

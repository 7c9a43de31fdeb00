"""Feedback over HTTP: stored once, each field learned once, late and foreign never."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.served_budgets import set_all
from support.served_daemon import Served, assert_error, serve

from banditroute.core.clock import now_us
from banditroute.store.tables import decisions

ONE, MANY = "/v1/feedback", "/v1/feedback/batch"


def expire_decisions(daemon: Served) -> None:
    """Let the time for feedback on all decisions so far end now."""
    set_all(daemon, decisions, expires_at=now_us())


def test_the_same_twice_is_a_duplicate_and_another_a_conflict(served: Served) -> None:
    decision = served.route()["decision_id"]
    sent = {"quality": 0.5, "cost_usd": 0.001, "latency_ms": 20.0}
    assert served.feedback(decision, **sent) == "accepted"
    after = served.counts()
    assert after["feedback"] == 1 and len(served.learned()) == 3
    assert served.feedback(decision, **sent) == "duplicate"
    assert served.feedback(decision, **sent | {"latency_ms": 20}) == "duplicate"
    for other in (
        {"quality": 0.4},
        sent | {"quality": 0.4},
        sent | {"input_tokens": 1, "output_tokens": 1},
    ):
        answer = served.post(ONE, {"decision_id": decision} | other)
        assert_error(answer, 409, "conflict", "key")
    assert served.counts() == after


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ({"quality": 1}, "default"),
        ({"quality": 1, "source": "judge"}, "judge"),
        ({"quality": 1, "source": "judge", "key": "k"}, "k"),
    ],
)
def test_the_key_is_the_source_or_default(served: Served, sent: dict[str, Any], key: str) -> None:
    decision = served.route()["decision_id"]
    row = {"decision_id": decision} | sent
    result = served.post(MANY, {"feedback": [row]}).json()["results"]
    assert result == [{"decision_id": decision, "key": key, "status": "accepted"}]
    assert [one["key"] for one in served.rows("feedback")] == [key]
    assert served.feedback(decision, **sent | {"key": key}) == "duplicate"


def test_each_field_is_learned_from_the_first_key_that_has_it(served: Served) -> None:
    decision = served.route()["decision_id"]
    assert served.feedback(decision, cost_usd=0.002, source="gateway") == "accepted"
    assert served.feedback(decision, quality=0.9, source="judge") == "accepted"
    assert served.feedback(decision, quality=0.1, source="user") == "superseded"
    assert served.feedback(decision, quality=0.2, latency_ms=5, source="both") == "accepted"
    assert served.learned() == [
        ("cost", 0.002, "feedback"),
        ("quality", 0.9, "feedback"),
        ("latency", 5.0, "feedback"),
    ]
    assert [event["cost"] for event in served.rows("events")[-3:]] == [0.002] * 3
    shown = served.get(f"/v1/decisions/{decision}")["feedback"]
    assert [(row["key"], row["status"]) for row in shown] == [
        ("gateway", "accepted"),
        ("judge", "accepted"),
        ("user", "superseded"),
        ("both", "accepted"),
    ]
    state = served.policy()
    assert state["learned"] == 3 and state["digest"] == served.rebuilt_digest()


def test_rows_of_a_batch_have_their_own_status(served: Served) -> None:
    first, second = served.route()["decision_id"], served.route()["decision_id"]
    rows = [
        {"decision_id": first, "quality": 1},
        {"decision_id": first, "quality": 1},
        {"decision_id": first, "quality": 0},
        {"decision_id": "nobody", "quality": 1},
        {"decision_id": first, "quality": 0, "key": "later"},
        {"decision_id": second, "latency_ms": 3, "source": "gateway"},
    ]
    answer = served.post(MANY, {"feedback": rows})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [one["decision_id"] for one in results] == [row["decision_id"] for row in rows]
    assert [(one["key"], one["status"]) for one in results] == [
        ("default", "accepted"),
        ("default", "duplicate"),
        ("default", "conflict"),
        ("default", "unknown"),
        ("later", "superseded"),
        ("gateway", "accepted"),
    ]
    assert served.counts()["feedback"] == 3
    assert served.learned() == [("quality", 1.0, "feedback"), ("latency", 3.0, "feedback")]


def test_late_feedback_is_stored_and_not_learned(database: Path) -> None:
    with serve(database) as daemon:
        early, late = (daemon.route(models=["small"])["decision_id"] for _ in range(2))
        assert daemon.feedback(early, quality=1.0) == "accepted"
        expire_decisions(daemon)
        assert daemon.feedback(late, quality=0.0, input_tokens=10, output_tokens=10) == "late"
        assert daemon.feedback(late, quality=0.0, input_tokens=10, output_tokens=10) == "duplicate"
        rows = [{"decision_id": late, "latency_ms": 1, "key": "b"}]
        assert daemon.post(MANY, {"feedback": rows}).json()["results"][0]["status"] == "late"
        assert daemon.learned() == [("quality", 1.0, "feedback")]
        stored = daemon.rows("feedback")
        assert [row["status"] for row in stored] == ["accepted", "late", "late"]
        assert stored[1]["cost_nano"] == 10 * 50 + 10 * 200
        assert daemon.policy()["learned"] == 1


def test_another_model_that_answered_teaches_the_chosen_one_nothing(served: Served) -> None:
    decision = served.route(models=["small"])["decision_id"]
    sent = {"quality": 1.0, "input_tokens": 1_000, "output_tokens": 100, "model": "large"}
    assert served.feedback(decision, **sent) == "accepted"
    assert served.feedback(decision, quality=0.5, key="judge") == "superseded"
    assert served.feedback(decision, latency_ms=5.0, key="gateway") == "accepted"
    assert served.learned() == []
    assert served.rows("feedback")[0]["cost_nano"] == 1_000 * 3_000 + 100 * 15_000
    shown = served.get(f"/v1/decisions/{decision}")
    assert (shown["model"], shown["overridden_by"]) == ("small", "large")


def test_the_chosen_model_by_name_is_no_override(served: Served) -> None:
    decision = served.route(models=["small"])["decision_id"]
    assert served.feedback(decision, quality=1.0, model="small") == "accepted"
    assert served.learned() == [("quality", 1.0, "feedback")]
    assert served.get(f"/v1/decisions/{decision}")["overridden_by"] is None


def test_a_quality_that_never_came_is_given_once(database: Path) -> None:
    with serve(database, defaults={"default_quality": 0.25}) as daemon:
        heard, silent = daemon.route()["decision_id"], daemon.route()["decision_id"]
        foreign = daemon.route(models=["small"])["decision_id"]
        daemon.feedback(heard, quality=1.0)
        daemon.feedback(silent, latency_ms=10.0)
        daemon.feedback(foreign, model="large")
        expire_decisions(daemon)
        deadline_s = time.monotonic() + 60.0
        while len(daemon.learned()) < 3 and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert daemon.feedback(silent, quality=0.9, key="too late") == "late"
        daemon.client.portal.call(daemon.client.app.state.service._append_defaults, pool_of(daemon))
        assert daemon.learned() == [
            ("quality", 1.0, "feedback"),
            ("latency", 10.0, "feedback"),
            ("quality", 0.25, "default"),
        ]
        assert daemon.rows("events")[-1]["decision_id"] == silent
        assert daemon.policy()["digest"] == daemon.rebuilt_digest()


def pool_of(daemon: Served) -> Any:
    return daemon.client.app.state.service.pools.by_name["default"]


def test_tokens_cost_what_the_price_row_of_the_decision_says(served: Served) -> None:
    decision = served.route(models=["small"])["decision_id"]
    change = {"input_price": 100.0, "output_price": 200.0}
    assert served.send("PATCH", "/v1/models/small", change).status_code == 200
    served.feedback(decision, input_tokens=1_000, output_tokens=100)
    later = served.route(models=["small"])["decision_id"]
    served.feedback(later, input_tokens=1_000, output_tokens=100)
    assert [row["cost_nano"] for row in served.rows("feedback")] == [
        1_000 * 50 + 100 * 200,
        1_000 * 100_000 + 100 * 200_000,
    ]
    assert [value for _, value, _ in served.learned()] == pytest.approx([0.00007, 0.12])


def test_a_cost_in_dollars_goes_before_one_in_tokens(served: Served) -> None:
    decision = served.route()["decision_id"]
    served.feedback(decision, cost_usd=0.5, input_tokens=1_000, output_tokens=100)
    assert served.rows("feedback")[0]["cost_nano"] == 500_000_000
    assert served.learned() == [("cost", 0.5, "feedback")]


def test_feedback_moves_the_next_decisions(served: Served) -> None:
    quality = {"small": 0.0, "medium": 0.0, "large": 1.0}
    for _ in range(5):
        for name, value in quality.items():
            decision = served.route(models=[name])["decision_id"]
            served.feedback(decision, quality=value)
    state = served.policy()
    answer = served.route(preference={"quality": 1})
    assert answer["model"] == "large" and answer["propensity"] > 0.999
    assert answer["policy_version"] == state["version"]
    assert state["digest"] == served.rebuilt_digest()


# --- of two decisions, and of a session ----------------------------------------------------------


@pytest.fixture
def hashing(database: Path) -> Iterator[Served]:
    """A daemon that can tell whether two prompts were the same."""
    with serve(database, hash_key="secret", defaults={"policy": "pilot"}) as daemon:
        yield daemon


def duel(daemon: Served, prompt: str = "Why?", **fields: Any) -> tuple[str, str]:
    won, lost = (daemon.route(prompt, models=[m], **fields) for m in ("small", "large"))
    return won["decision_id"], lost["decision_id"]


def test_a_preference_is_learned_once(hashing: Served) -> None:
    won, lost = duel(hashing)
    before = hashing.policy()
    assert hashing.feedback(won, preferred_over=lost, source="user") == "accepted"
    state = hashing.policy()
    assert state["digest"] != before["digest"] and state["learned"] == before["learned"] + 1
    assert hashing.feedback(won, preferred_over=lost, source="user") == "duplicate"
    body = {"decision_id": won, "preferred_over": lost, "source": "judge", "key": "user"}
    assert_error(hashing.post(ONE, body), 409, "conflict", "key")
    assert hashing.policy() == state and state["digest"] == hashing.rebuilt_digest()
    for one in (won, lost):
        (shown,) = hashing.get(f"/v1/decisions/{one}")["comparisons"]
        assert (shown["decision_id"], shown["preferred_over"]) == (won, lost)
    metrics = hashing.client.get("/metrics").text
    assert 'banditroute_feedback_total{status="accepted"} 1.0' in metrics
    assert 'banditroute_feedback_total{status="conflict"} 1.0' in metrics


def test_preferences_move_the_next_decisions(hashing: Served) -> None:
    for i in range(30):
        won, lost = duel(hashing, f"question {i}")
        assert hashing.feedback(lost, preferred_over=won) == "accepted"
    hashing.policy()
    shown = hashing.route("question 7", preference={"quality": 1}, models=["small", "large"])
    assert shown["model"] == "large"


def test_what_cannot_be_compared_is_400(hashing: Served) -> None:
    (won, lost), (other, _) = duel(hashing), duel(hashing, "What else?")
    assert_error(compare(hashing, won, other), 400, "invalid_value", "preferred_over")
    assert_error(compare(hashing, won, won), 400, "invalid_value", "preferred_over")
    assert_error(compare(hashing, won, "nobody"), 404, "unknown_decision", "preferred_over")
    assert_error(compare(hashing, "nobody", lost), 404, "unknown_decision", "decision_id")
    rows = [
        {"decision_id": won, "quality": 1},
        {"decision_id": won, "preferred_over": lost},
        {"decision_id": won, "preferred_over": other},
    ]
    answer = hashing.post(MANY, {"feedback": rows})
    assert_error(answer, 400, "invalid_value", "feedback[2].preferred_over")
    assert hashing.rows("feedback") == hashing.rows("comparisons") == hashing.learned() == []


def compare(daemon: Served, won: str, lost: str) -> Any:
    return daemon.post(ONE, {"decision_id": won, "preferred_over": lost})


def test_without_hashes_of_prompts_the_setting_is_named(served: Served) -> None:
    answer = compare(served, *duel(served))
    assert_error(answer, 400, "invalid_value", "preferred_over")
    assert "`hash_key`" in answer.json()["error"]["message"]


def test_a_late_preference_is_202(database: Path) -> None:
    with serve(database, hash_key="secret") as daemon:
        won, lost = duel(daemon)
        expire_decisions(daemon)
        assert daemon.feedback(won, preferred_over=lost) == "late"
        assert daemon.learned() == []


def test_a_session_is_judged_once(served: Served) -> None:
    first, second = (served.route(session_id="s")["decision_id"] for _ in range(2))
    assert served.feedback(first, quality=1.0) == "accepted"
    body = {"session_id": "s", "quality": 0.25, "source": "csat"}
    assert served.post(ONE, body).json() == {"status": "accepted", "decisions": 1}
    assert served.post(ONE, body).json() == {"status": "duplicate", "decisions": 1}
    assert_error(served.post(ONE, body | {"quality": 0.5}), 409, "conflict", "key")
    assert served.feedback(second, quality=0.0) == "superseded"
    assert served.learned() == [("quality", 1.0, "feedback"), ("quality", 0.25, "feedback")]
    assert served.policy()["digest"] == served.rebuilt_digest()
    shown = served.get(f"/v1/decisions/{second}")
    assert shown["session_feedback"] == [
        {"key": "csat", "source": "csat", "quality": 0.25, "decisions": 1}
    ]
    (learned,) = shown["learned"]
    assert (learned["kind"], learned["field"], learned["value"]) == ("feedback", "quality", 0.25)


def test_a_late_session_is_202(database: Path) -> None:
    with serve(database) as daemon:
        daemon.route(session_id="s")
        expire_decisions(daemon)
        answer = daemon.post(ONE, {"session_id": "s", "quality": 1})
        assert (answer.status_code, answer.json()) == (202, {"status": "late", "decisions": 0})


def test_a_session_that_is_not_there_is_404(served: Served) -> None:
    served.route(session_id="s")
    for body, code, param in (
        ({"session_id": "t"}, "unknown_session", "session_id"),
        ({"session_id": "s", "pool": "nowhere"}, "unknown_pool", "pool"),
    ):
        answer = served.post(ONE, {"quality": 1} | body)
        assert_error(answer, 404, code, param)
    rows = [{"session_id": "s", "quality": 1}, {"session_id": "s", "quality": 1, "pool": "nowhere"}]
    answer = served.post(MANY, {"feedback": rows})
    assert_error(answer, 404, "unknown_pool", "feedback[1].pool")
    assert served.rows("session_feedback") == []


def test_a_batch_mixes_all_kinds_in_order(hashing: Served) -> None:
    won, lost = duel(hashing, session_id="s")
    rows: list[dict[str, Any]] = [
        {"decision_id": won, "quality": 1},
        {"decision_id": won, "preferred_over": lost, "source": "user"},
        {"session_id": "s", "quality": 0, "source": "csat"},
        {"session_id": "s", "quality": 0, "source": "csat"},
        {"decision_id": lost, "quality": 1},
        {"decision_id": won, "preferred_over": "nobody"},
        {"session_id": "t", "quality": 0},
        {"decision_id": won, "preferred_over": lost, "key": "user"},
    ]
    answer = hashing.post(MANY, {"feedback": rows})
    assert answer.status_code == 200
    assert answer.json()["results"] == [
        {"decision_id": won, "key": "default", "status": "accepted"},
        {"decision_id": won, "key": "user", "status": "accepted"},
        {"session_id": "s", "key": "csat", "status": "accepted", "decisions": 1},
        {"session_id": "s", "key": "csat", "status": "duplicate", "decisions": 1},
        {"decision_id": lost, "key": "default", "status": "superseded"},
        {"decision_id": won, "key": "default", "status": "unknown"},
        {"session_id": "t", "key": "default", "status": "unknown"},
        {"decision_id": won, "key": "user", "status": "conflict"},
    ]
    assert hashing.learned() == [
        ("quality", 1.0, "feedback"),
        (None, None, "comparison"),
        ("quality", 0.0, "feedback"),
    ]
    assert hashing.policy()["digest"] == hashing.rebuilt_digest()


def test_a_mistake_further_down_undoes_a_session_and_no_neighbour(hashing: Served) -> None:
    won, _ = duel(hashing, session_id="s")
    rows = [
        {"session_id": "s", "quality": 1},
        {"decision_id": won, "latency_ms": 1},
        {"decision_id": won, "key": "b", "model": "nobody"},
    ]
    answer = hashing.post(MANY, {"feedback": rows})
    assert_error(answer, 400, "invalid_value", "feedback[2].model")
    assert hashing.learned() == hashing.rows("session_feedback") == []
    rows[2]["model"] = "large"
    answer = hashing.post(MANY, {"feedback": rows})
    assert [row["status"] for row in answer.json()["results"]] == ["accepted"] * 3

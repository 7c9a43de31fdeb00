"""Bad feedback of every kind: the field named, also inside a batch, and nothing changed."""

from __future__ import annotations

from typing import Any

import pytest
from support.served_daemon import Served, assert_error

FEEDBACK, FEEDBACK_BATCH = "/v1/feedback", "/v1/feedback/batch"
LONG = "n" * 201
pytestmark = pytest.mark.usefixtures("unchanged")

BAD_FEEDBACK = [
    ({}, "decision_id"),
    ({"decision_id": "x"}, None),
    ({"decision_id": 1, "quality": 1}, "decision_id"),
    ({"decision_id": "", "quality": 1}, "decision_id"),
    ({"decision_id": LONG, "quality": 1}, "decision_id"),
    ({"decision_id": "\0", "quality": 1}, "decision_id"),
    ({"decision_id": "x", "quality": -0.01}, "quality"),
    ({"decision_id": "x", "quality": 1.01}, "quality"),
    ({"decision_id": "x", "quality": "1"}, "quality"),
    ({"decision_id": "x", "quality": True}, "quality"),
    ({"decision_id": "x", "quality": [1]}, "quality"),
    ({"decision_id": "x", "cost_usd": -1}, "cost_usd"),
    ({"decision_id": "x", "cost_usd": 1e300}, "cost_usd"),
    ({"decision_id": "x", "latency_ms": -1}, "latency_ms"),
    ({"decision_id": "x", "latency_ms": "3"}, "latency_ms"),
    ({"decision_id": "x", "input_tokens": -1, "output_tokens": 1}, "input_tokens"),
    ({"decision_id": "x", "input_tokens": 1, "output_tokens": -1}, "output_tokens"),
    ({"decision_id": "x", "input_tokens": 1, "output_tokens": 1.5}, "output_tokens"),
    ({"decision_id": "x", "input_tokens": 2**63, "output_tokens": 1}, "input_tokens"),
    ({"decision_id": "x", "input_tokens": 1, "output_tokens": 10**30}, "output_tokens"),
    ({"decision_id": "x", "input_tokens": 1}, None),
    ({"decision_id": "x", "output_tokens": 1, "quality": 1}, None),
    ({"decision_id": "x", "quality": 1, "key": ""}, "key"),
    ({"decision_id": "x", "quality": 1, "key": LONG}, "key"),
    ({"decision_id": "x", "quality": 1, "source": 7}, "source"),
    ({"decision_id": "x", "quality": 1, "model": ""}, "model"),
    ({"decision_id": "x", "quality": 1, "pool": "default"}, "pool"),
    ({"preferred_over": "y"}, "decision_id"),
    ({"decision_id": "x", "preferred_over": "x"}, "preferred_over"),
    ({"decision_id": "x", "preferred_over": 1}, "preferred_over"),
    ({"decision_id": "x", "preferred_over": LONG}, "preferred_over"),
    ({"decision_id": "x", "preferred_over": "y", "quality": 1}, "quality"),
    ({"decision_id": "x", "preferred_over": "y", "cost_usd": 0}, "cost_usd"),
    ({"decision_id": "x", "preferred_over": "y", "input_tokens": 0}, "input_tokens"),
    ({"decision_id": "x", "preferred_over": "y", "output_tokens": 0}, "output_tokens"),
    ({"decision_id": "x", "preferred_over": "y", "latency_ms": 0}, "latency_ms"),
    ({"decision_id": "x", "preferred_over": "y", "model": "m"}, "model"),
    ({"decision_id": "x", "preferred_over": "y", "pool": "default"}, "pool"),
    ({"decision_id": "x", "preferred_over": "y", "key": ""}, "key"),
    ({"session_id": "s"}, "quality"),
    ({"session_id": "s", "quality": None}, "quality"),
    ({"session_id": "s", "quality": 2}, "quality"),
    ({"session_id": "", "quality": 1}, "session_id"),
    ({"session_id": "a\0", "quality": 1}, "session_id"),
    ({"session_id": LONG, "quality": 1}, "session_id"),
    ({"session_id": "s", "quality": 1, "pool": ""}, "pool"),
    ({"session_id": "s", "quality": 1, "pool": None}, "pool"),
    ({"session_id": "s", "quality": 1, "decision_id": "x"}, "decision_id"),
    ({"session_id": "s", "quality": 1, "preferred_over": "x"}, "preferred_over"),
    ({"session_id": "s", "quality": 1, "cost_usd": 0}, "cost_usd"),
    ({"session_id": "s", "quality": 1, "latency_ms": 0}, "latency_ms"),
    ({"session_id": "s", "quality": 1, "model": "m"}, "model"),
]


@pytest.mark.parametrize(("body", "param"), BAD_FEEDBACK)
def test_bad_feedback_names_its_field(
    shared: Served, body: dict[str, Any], param: str | None
) -> None:
    assert_error(shared.post(FEEDBACK, body), 400, "invalid_value", param)


@pytest.mark.parametrize(("body", "param"), BAD_FEEDBACK)
def test_a_bad_row_of_feedback_rejects_its_batch(
    shared: Served, body: dict[str, Any], param: str | None
) -> None:
    good = {"decision_id": shared.rows("decisions")[0]["id"], "quality": 1}
    path = f"feedback[1].{param}" if param else "feedback[1]"
    answer = shared.post(FEEDBACK_BATCH, {"feedback": [good, body]})
    assert_error(answer, 400, "invalid_value", path)


def test_feedback_for_a_model_that_is_not_there_stores_nothing(shared: Served) -> None:
    good = {"decision_id": shared.rows("decisions")[0]["id"], "quality": 1}
    bad = good | {"key": "other", "model": "smal"}
    assert_error(shared.post(FEEDBACK, bad), 400, "invalid_value", "model")
    answer = shared.post(FEEDBACK_BATCH, {"feedback": [good, bad]})
    assert_error(answer, 400, "invalid_value", "feedback[1].model")


def test_feedback_without_its_decision_is_404(shared: Served) -> None:
    answer = shared.post(FEEDBACK, {"decision_id": "nothing", "quality": 1})
    assert_error(answer, 404, "unknown_decision", "decision_id")

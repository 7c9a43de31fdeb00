"""Bodies: strict types, the path of a mistake, and an answer in time to very many mistakes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from banditroute.contract import schemas
from banditroute.contract.body import parse
from banditroute.core.errors import InvalidRequest, NoEligibleModel
from banditroute.service.views import fault_view


def refused(kind: type[BaseModel], body: Any) -> InvalidRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(InvalidRequest) as caught:
        parse(kind, raw)
    return caught.value


def test_a_whole_request_is_read() -> None:
    sent = {
        "prompt": "x",
        "pool": "p",
        "preference": {"quality": 1, "cost": 0.5},
        "max_cost_usd": 1,
        "max_latency_ms": 2.5,
        "input_tokens": 3,
        "max_output_tokens": 4,
        "models": ["a/b"],
        "requires": ["tools"],
        "session_id": "s",
        "tags": {"team": "t"},
        "task": "qa",
    }
    read = parse(schemas.RouteRequest, json.dumps(sent).encode())
    assert read.model_dump(exclude_unset=True) == sent
    assert parse(schemas.RouteRequest, b'{"embedding": [1, 2.5]}').text() is None


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"{", None, "invalid_json"),
        ([], None, "invalid_value"),
        ({"requests": [{"prompt": "x"}] * 17 + [{"prompt": 1}]}, "requests[17].prompt", "invalid_value"),
        ({"requests": [{"messages": [{"role": "u", "content": {}}]}]},
         "requests[0].messages[0].content", "invalid_value"),
        ({"requests": [{"messages": [{"role": "u", "content": [1]}]}]},
         "requests[0].messages[0].content", "invalid_value"),
        ({"requests": [{"prompt": "x", "tags": {"\0": "x"}}]}, "requests[0].tags.\0", "invalid_value"),
        ({"requests": [{}]}, "requests[0]", "invalid_value"),
        ({"requests": {"0": {}}}, "requests", "invalid_value"),
        ({"requests": [{"prompt": "x"}], "k" * 999: 1}, "k" * 200, "invalid_value"),
    ],
)  # fmt: skip
def test_the_path_of_a_mistake(body: Any, param: str | None, code: str) -> None:
    error = refused(schemas.RouteBatch, body)
    assert (error.param, error.code) == (param, code)
    assert "\n" not in error.message and "pydantic" not in error.message


@pytest.mark.parametrize(
    "row",
    [
        {"embedding": [""] * 300_000},
        {"prompt": "x", "models": [1] * 300_000},
        {"prompt": "x", "requires": [1] * 300_000},
        {"messages": [1] * 300_000},
        {"messages": [{"role": "u", "content": [1] * 300_000}]},
        {"prompt": "x"} | {str(i): 1 for i in range(100_000)},
        {"prompt": "x", "tags": {str(i): 1 for i in range(100_000)}},
    ],
    ids=["embedding", "models", "requires", "messages", "content", "keys", "tags"],
)
@pytest.mark.timeout(5)
def test_very_many_mistakes_are_not_all_listed(row: dict[str, Any]) -> None:
    refused(schemas.RouteBatch, {"requests": [row, row]})


def test_very_many_rows_are_not_all_read() -> None:
    assert refused(schemas.RouteBatch, {"requests": [{}] * 200_000}).param == "requests[0]"
    assert refused(schemas.FeedbackBatch, {"feedback": [{}] * 200_000}).param == (
        "feedback[0].decision_id"
    )


def test_feedback_says_something() -> None:
    for fields in ({"quality": 0}, {"cost_usd": 0}, {"latency_ms": 0}, {"model": "m"},
                   {"input_tokens": 0, "output_tokens": 0}):  # fmt: skip
        body = json.dumps({"decision_id": "d"} | fields).encode()
        parse(schemas.FeedbackRequest, body)
    assert (
        "come together"
        in refused(schemas.FeedbackRequest, {"decision_id": "d", "output_tokens": 1}).message
    )


def test_feedback_has_three_shapes() -> None:
    for body in (
        {"decision_id": "d", "preferred_over": "e", "source": "user", "key": "k", "quality": None},
        {"session_id": "s", "quality": 0.5, "source": "user", "key": "k", "decision_id": None},
        {"session_id": "s", "quality": 0.5, "pool": "team"},
        {"decision_id": "d", "quality": 0.5, "preferred_over": None, "session_id": None},
    ):
        read = parse(schemas.FeedbackRequest, json.dumps(body).encode())
        assert read.model_dump(exclude_unset=True) == body
    assert read.pool == "default"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"quality": 1}, "decision_id: required without session_id"),
        ({"session_id": "s"}, "quality: required with session_id"),
        ({"preferred_over": "d"}, "decision_id: required with preferred_over"),
        ({"decision_id": "d", "preferred_over": "d"}, "preferred_over: this is the same decision"),
        ({"decision_id": "d", "preferred_over": "e", "quality": 1},
         "quality: does not go with preferred_over"),
        ({"decision_id": "d", "session_id": "s", "quality": 1},
         "decision_id: does not go with session_id"),
        ({"decision_id": "d", "quality": 1, "pool": "p"},
         "pool: goes with session_id only; a decision has its own pool"),
    ],
)  # fmt: skip
def test_a_field_that_does_not_go_with_others_is_named(body: Any, message: str) -> None:
    error = refused(schemas.FeedbackRequest, body)
    assert (error.message, error.param) == (message, message.split(":")[0])
    within = refused(
        schemas.FeedbackBatch, {"feedback": [{"decision_id": "d", "quality": 1}, body]}
    )
    assert within.param == f"feedback[1].{error.param}"


@pytest.mark.parametrize("kind", [schemas.RouteRequest, schemas.NewModel, schemas.FeedbackRequest])
@pytest.mark.parametrize("text", ['"\\ud800"', '"\\udc00\\ud800"', '"\xff"'])
def test_text_that_is_not_unicode_is_refused(kind: type[BaseModel], text: str) -> None:
    for key in ("prompt", "name", "decision_id"):
        body = f'{{"{key}": {text}}}'.encode("latin-1")
        assert refused(kind, body).code == "invalid_json"


def test_answers_fit_their_schemas() -> None:
    error = NoEligibleModel("no", param="requests[3].models")
    schemas.ErrorAnswer.model_validate(fault_view(error))

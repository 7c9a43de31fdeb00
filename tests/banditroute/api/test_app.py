"""Bad input on every endpoint: the OpenAI error shape, the field named, and nothing changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.served_daemon import Served, assert_error

ROUTE, BATCH = "/v1/route", "/v1/route/batch"
FEEDBACK, FEEDBACK_BATCH = "/v1/feedback", "/v1/feedback/batch"
MODELS, SMALL = "/v1/models", "/v1/models/small"
BODIES = [
    ("POST", ROUTE),
    ("POST", BATCH),
    ("POST", FEEDBACK),
    ("POST", FEEDBACK_BATCH),
    ("POST", MODELS),
    ("PATCH", SMALL),
]
HUGE = "x" * 1_000_000
LONG = "n" * 201


pytestmark = pytest.mark.usefixtures("unchanged")


@pytest.mark.parametrize(("method", "url"), BODIES)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"   ", id="blank"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"{'prompt': 'x'}", id="single quotes"),
        pytest.param(b'{"prompt": "x"} trailing', id="trailing"),
        pytest.param(b'{"prompt": "\xff"}', id="not UTF-8"),
        pytest.param(b'\xef\xbb\xbf{"prompt": "x"}', id="byte order mark"),
        pytest.param('{"prompt": "x"}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"prompt": "\\ud800"}', id="lone surrogate"),
        pytest.param(b'{"prompt": "\x00"}', id="raw NUL"),
        pytest.param(b"[" * 100_000, id="deep list"),
        pytest.param(b'{"a":' * 100_000, id="deep object"),
        pytest.param(b"prompt=x", id="form"),
    ],
)
def test_what_is_not_json_is_refused(shared: Served, method: str, url: str, body: bytes) -> None:
    assert_error(shared.send(method, url, body), 400, "invalid_json")


@pytest.mark.parametrize(("method", "url"), BODIES)
@pytest.mark.parametrize("body", ["null", "[]", '"x"', "1", "true"])
def test_what_is_no_object_is_refused(shared: Served, method: str, url: str, body: str) -> None:
    assert_error(shared.send(method, url, body), 400, "invalid_value")


@pytest.mark.parametrize(("method", "url"), BODIES)
def test_a_key_that_is_not_known_is_refused(shared: Served, method: str, url: str) -> None:
    body = shared_body(url) | {"promt": "x"}
    assert_error(shared.send(method, url, body), 400, "invalid_value", "promt")


@pytest.mark.parametrize(("method", "url"), BODIES)
def test_a_key_without_end_is_cut_short(shared: Served, method: str, url: str) -> None:
    body = shared_body(url) | {"k" * 100_000: 1}
    assert_error(shared.send(method, url, body), 400, "invalid_value", "k" * 200)


def shared_body(url: str) -> dict[str, Any]:
    return {
        ROUTE: {"prompt": "x"},
        BATCH: {"requests": [{"prompt": "x"}]},
        FEEDBACK: {"decision_id": "x", "quality": 1},
        FEEDBACK_BATCH: {"feedback": [{"decision_id": "x", "quality": 1}]},
        MODELS: {"name": "x", "input_price": 1, "output_price": 1},
        SMALL: {"input_price": 1},
    }[url]


BAD_ROUTES = [
    ({}, 400, None),
    ({"prompt": ""}, 400, "prompt"),
    ({"prompt": " \n\t\u2003"}, 400, "prompt"),
    ({"prompt": None}, 400, None),
    ({"prompt": 1}, 400, "prompt"),
    ({"prompt": True}, 400, "prompt"),
    ({"prompt": ["x"]}, 400, "prompt"),
    ({"prompt": HUGE}, 413, "body"),
    ({"prompt": "x", "messages": [{"role": "user", "content": "x"}]}, 400, None),
    ({"messages": []}, 400, "messages"),
    ({"messages": "x"}, 400, "messages"),
    ({"messages": [{"role": "user"}]}, 400, "messages"),
    ({"messages": [{"role": "user", "content": ""}]}, 400, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, 400, "messages"),
    ({"messages": [{"role": "user", "content": 1}]}, 400, "messages[0].content"),
    ({"messages": [{"content": "x"}]}, 400, "messages[0].role"),
    ({"messages": [{"role": "", "content": "x"}]}, 400, "messages[0].role"),
    ({"embedding": []}, 400, "embedding"),
    ({"embedding": [1.0, 2.0]}, 400, "embedding"),
    ({"embedding": [1.0] * 5, "pool": "vectors"}, 400, "embedding"),
    ({"prompt": "x", "pool": "vectors"}, 400, "embedding"),
    ({"embedding": [1.0, "2", 3, 4], "pool": "vectors"}, 400, "embedding[1]"),
    ({"embedding": [1.0, True, 3, 4], "pool": "vectors"}, 400, "embedding[1]"),
    ({"embedding": [1.0, None, 3, 4], "pool": "vectors"}, 400, "embedding[1]"),
    ({"embedding": [1.0, 1e39, 3, 4], "pool": "vectors"}, 400, "embedding"),
    ({"embedding": [1.0, -1e30, 3, 4], "pool": "vectors"}, 400, "embedding"),
    ({"embedding": [1.0, 10**30, 3, 4], "pool": "vectors"}, 400, "embedding"),
    ({"embedding": "1,2,3,4", "pool": "vectors"}, 400, "embedding"),
    ({"prompt": "x", "pool": "nowhere"}, 404, "pool"),
    ({"prompt": "x", "pool": ""}, 400, "pool"),
    ({"prompt": "x", "pool": LONG}, 400, "pool"),
    ({"prompt": "x", "pool": 1}, 400, "pool"),
    ({"prompt": "x", "pool": None}, 400, "pool"),
    ({"prompt": "x", "preference": {}}, 400, "preference"),
    ({"prompt": "x", "preference": {"quality": 0, "cost": 0}}, 400, "preference"),
    ({"prompt": "x", "preference": {"quality": -0.1}}, 400, "preference.quality"),
    ({"prompt": "x", "preference": {"quality": "1"}}, 400, "preference.quality"),
    ({"prompt": "x", "preference": {"quality": 1e308}}, 400, "preference.quality"),
    ({"prompt": "x", "preference": {"speed": 1}}, 400, "preference.speed"),
    ({"prompt": "x", "preference": "quality"}, 400, "preference"),
    ({"prompt": "x", "max_cost_usd": -1}, 400, "max_cost_usd"),
    ({"prompt": "x", "max_cost_usd": "0.1"}, 400, "max_cost_usd"),
    ({"prompt": "x", "max_cost_usd": True}, 400, "max_cost_usd"),
    ({"prompt": "x", "max_latency_ms": -1}, 400, "max_latency_ms"),
    ({"prompt": "x", "input_tokens": -1}, 400, "input_tokens"),
    ({"prompt": "x", "input_tokens": 1.5}, 400, "input_tokens"),
    ({"prompt": "x", "input_tokens": "1"}, 400, "input_tokens"),
    ({"prompt": "x", "input_tokens": False}, 400, "input_tokens"),
    ({"prompt": "x", "input_tokens": 2**63}, 400, "input_tokens"),
    ({"prompt": "x", "input_tokens": 10**30}, 400, "input_tokens"),
    ({"prompt": "x", "max_output_tokens": 0}, 400, "max_output_tokens"),
    ({"prompt": "x", "max_output_tokens": 2**63}, 400, "max_output_tokens"),
    ({"prompt": "x", "models": []}, 400, "models"),
    ({"prompt": "x", "models": "small"}, 400, "models"),
    ({"prompt": "x", "models": ["small", "smal"]}, 400, "models[1]"),
    ({"prompt": "x", "models": ["small", 1]}, 400, "models[1]"),
    ({"prompt": "x", "models": ["small", ""]}, 400, "models[1]"),
    ({"prompt": "x", "requires": [1]}, 400, "requires[0]"),
    ({"prompt": "x", "session_id": ""}, 400, "session_id"),
    ({"prompt": "x", "session_id": LONG}, 400, "session_id"),
    ({"prompt": "x", "session_id": "a\0"}, 400, "session_id"),
    ({"prompt": "x", "task": 1}, 400, "task"),
    ({"prompt": "x", "tags": []}, 400, "tags"),
    ({"prompt": "x", "tags": {"a": 1}}, 400, "tags.a"),
    ({"prompt": "x", "tags": {"a": "\0"}}, 400, "tags.a"),
    ({"prompt": "x", "tags": {"a\n": LONG}}, 400, "tags.a\n"),
    ({"prompt": "x", "tags": {str(i): "x" for i in range(65)}}, 400, "tags"),
]
CODES = {404: "unknown_pool", 413: "too_large"}


@pytest.mark.parametrize(("body", "status", "param"), BAD_ROUTES)
def test_a_bad_request_names_its_field(
    shared: Served, body: dict[str, Any], status: int, param: str | None
) -> None:
    code = CODES.get(status, "invalid_value")
    assert_error(shared.post(ROUTE, body), status, code, param)


@pytest.mark.parametrize(("body", "status", "param"), BAD_ROUTES)
def test_a_bad_row_rejects_its_whole_batch(
    shared: Served, body: dict[str, Any], status: int, param: str | None
) -> None:
    code = CODES.get(status, "invalid_value")
    below = "prompt" if param == "body" else param
    path = f"requests[2].{below}" if below else "requests[2]"
    good: list[dict[str, Any]] = [{"prompt": "x"}, {"embedding": [1, 2, 3, 4], "pool": "vectors"}]
    answer = shared.post(BATCH, {"requests": [*good, body, {"prompt": "x"}]})
    assert_error(answer, status, code, path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
@pytest.mark.parametrize(
    ("url", "body", "param"),
    [
        (ROUTE, '{"pool": "vectors", "embedding": [0, 0, #, 0]}', "embedding[2]"),
        (ROUTE, '{"prompt": "x", "max_cost_usd": #}', "max_cost_usd"),
        (ROUTE, '{"prompt": "x", "preference": {"cost": #}}', "preference.cost"),
        (
            BATCH,
            '{"requests": [{"prompt": "x", "max_latency_ms": #}]}',
            "requests[0].max_latency_ms",
        ),
        (FEEDBACK, '{"decision_id": "x", "quality": #}', "quality"),
        (FEEDBACK, '{"decision_id": "x", "cost_usd": #}', "cost_usd"),
        (FEEDBACK, '{"decision_id": "x", "latency_ms": #}', "latency_ms"),
        (
            FEEDBACK_BATCH,
            '{"feedback": [{"decision_id": "x", "quality": #}]}',
            "feedback[0].quality",
        ),
        (MODELS, '{"name": "x", "input_price": #, "output_price": 1}', "input_price"),
    ],
)
def test_numbers_must_be_finite(
    shared: Served, url: str, body: str, param: str, number: str
) -> None:
    assert_error(shared.post(url, body.replace("#", number)), 400, "invalid_value", param)


@pytest.mark.parametrize(("url", "rows"), [(BATCH, "requests"), (FEEDBACK_BATCH, "feedback")])
@pytest.mark.parametrize("count", [0, 1_025])
def test_a_batch_holds_1_to_1024_rows(shared: Served, url: str, rows: str, count: int) -> None:
    row = {"prompt": "x"} if url == BATCH else {"decision_id": "x", "quality": 1}
    assert_error(shared.post(url, {rows: [row] * count}), 400, "invalid_value", rows)


@pytest.mark.parametrize("url", [ROUTE, BATCH, FEEDBACK, FEEDBACK_BATCH, MODELS])
@pytest.mark.parametrize("declared", [True, False], ids=["content-length", "chunked"])
def test_a_body_over_the_limit_is_413(shared: Served, url: str, declared: bool) -> None:
    size = 32_000_001 if url.endswith("batch") or url == MODELS else 1_000_001
    chunk = b" " * 500_000

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size // len(chunk) + 1):
            yield chunk

    content = b" " * size if declared else chunks()
    assert_error(shared.client.post(url, content=content), 413, "too_large", "body")


def test_a_body_at_the_limit_is_read(shared: Served) -> None:
    body = json.dumps({"prompt": " "}).ljust(1_000_000).encode()
    assert_error(shared.post(ROUTE, body), 400, "invalid_value", "prompt")


BAD_MODELS = [
    ({}, "name"),
    ({"name": ""}, "name"),
    ({"name": LONG}, "name"),
    ({"name": "a\0b"}, "name"),
    ({"name": 1}, "name"),
    ({"pool": ""}, "pool"),
    ({"pool": "\0"}, "pool"),
    ({"input_price": None}, "input_price"),
    ({"input_price": "1"}, "input_price"),
    ({"input_price": True}, "input_price"),
    ({"input_price": -1}, "input_price"),
    ({"input_price": 1e300}, "input_price"),
    ({"output_price": -1e-9}, "output_price"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_output_tokens": "10"}, "max_output_tokens"),
    ({"max_output_tokens": 2**63}, "max_output_tokens"),
    ({"context_length": 0}, "context_length"),
    ({"context_length": 10**30}, "context_length"),
    ({"capabilities": "tools"}, "capabilities"),
    ({"capabilities": ["tools", 1]}, "capabilities[1]"),
    ({"capabilities": [LONG]}, "capabilities[0]"),
]


@pytest.mark.parametrize(("change", "param"), BAD_MODELS)
def test_a_bad_model_names_its_field(shared: Served, change: dict[str, Any], param: str) -> None:
    good = {"name": "x", "input_price": 1, "output_price": 1}
    body = good | change if change else {"input_price": 1, "output_price": 1}
    assert_error(shared.post(MODELS, body), 400, "invalid_value", param)


@pytest.mark.parametrize(("change", "param"), BAD_MODELS[8:])
def test_a_bad_change_names_its_field(shared: Served, change: dict[str, Any], param: str) -> None:
    assert_error(shared.send("PATCH", SMALL, change), 400, "invalid_value", param)


@pytest.mark.parametrize("change", [{}, {"input_price": None}, {"capabilities": None}])
def test_a_change_of_nothing_is_refused(shared: Served, change: dict[str, Any]) -> None:
    assert_error(shared.send("PATCH", SMALL, change), 400, "invalid_value")


@pytest.mark.parametrize("name", ["smal", "vendor/dear", "", "n" * 5_000, "a%00b"])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_model_that_is_not_there_is_404(shared: Served, method: str, name: str) -> None:
    body = {"input_price": 1} if method == "PATCH" else None
    answer = shared.send(method, f"/v1/models/{name}", body)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_model"


@pytest.mark.parametrize(
    ("method", "url"),
    [("GET", MODELS), ("GET", "/v1/policy"), ("PATCH", SMALL), ("DELETE", SMALL)],
)
@pytest.mark.parametrize("pool", ["nowhere", "", "%00", "%ff"])
def test_a_pool_that_is_not_there_is_404(shared: Served, method: str, url: str, pool: str) -> None:
    body = {"input_price": 1} if method == "PATCH" else None
    answer = shared.send(method, f"{url}?pool={pool}", body)
    assert_error(answer, 404, "unknown_pool", "pool")


@pytest.mark.parametrize("name", ["x", "0" * 32, "%00", "a/b", "%ff", "n" * 1_000])
def test_a_decision_that_is_not_there_is_404(shared: Served, name: str) -> None:
    answer = shared.client.get(f"/v1/decisions/{name}")
    assert answer.status_code == 404 and list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    ("method", "url", "allowed"),
    [
        ("GET", ROUTE, "POST"),
        ("DELETE", BATCH, "POST"),
        ("PUT", FEEDBACK, "POST"),
        ("PUT", MODELS, "GET, HEAD, POST"),
        ("GET", SMALL, "DELETE, PATCH"),
        ("POST", "/v1/policy", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
        ("POST", "/docs", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_405(shared: Served, method: str, url: str, allowed: str) -> None:
    answer = shared.send(method, url)
    assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("url", ["/", "/v1", "/v1/", "/v1/routes", "/v1/route/", "/v2/route"])
def test_an_unknown_path_is_404(shared: Served, url: str) -> None:
    answer = shared.client.post(url, json={"prompt": "x"}, follow_redirects=False)
    assert_error(answer, 404, "not_found")


@pytest.mark.parametrize("key", ["", "k" * 256])
@pytest.mark.parametrize("url", [ROUTE, BATCH])
def test_an_idempotency_key_has_1_to_255_characters(shared: Served, url: str, key: str) -> None:
    answer = shared.post(url, shared_body(url), idempotency_key=key)
    assert_error(answer, 400, "invalid_value", "Idempotency-Key")

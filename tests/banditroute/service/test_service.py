"""Routing over HTTP: what the answer says, what moves the choice, and what the log keeps of it."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.served_daemon import Served, assert_error, serve

ROUTE, BATCH = "/v1/route", "/v1/route/batch"
MODELS = [
    {"name": "cheap", "input_price": 0.1, "output_price": 0.1, "context_length": 1_000},
    {
        "name": "able",
        "input_price": 1.0,
        "output_price": 10.0,
        "capabilities": ["tools", "vision"],
        "max_output_tokens": 100,
    },
    {"name": "vendor/best", "input_price": 5.0, "output_price": 50.0, "capabilities": ["tools"]},
]
EVERY = {"cheap", "able", "vendor/best"}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("zoo") / "zoo.db"
    pools = {
        "default": {"models": MODELS},
        "vectors": {"embedder": "precomputed", "embedding_dim": 4, "models": MODELS[:1]},
        "empty": {},
    }
    with serve(path, pools=pools) as daemon:
        yield daemon


def rejections(zoo: Served, decision_id: str) -> dict[str, str]:
    models = zoo.get(f"/v1/decisions/{decision_id}")["models"]
    return {model["model"]: model["rejected"] for model in models if model["rejected"]}


def test_the_answer_says_all_that_the_caller_needs(zoo: Served) -> None:
    answer = zoo.route(max_output_tokens=60)
    assert sorted(answer) == [
        "decision_id",
        "expires_at",
        "fallbacks",
        "max_output_tokens",
        "model",
        "policy",
        "policy_version",
        "propensity",
        "reserved_cost_usd",
    ]
    (row,) = [r for r in zoo.rows("decisions") if r["id"] == answer["decision_id"]]
    assert {answer["model"], *answer["fallbacks"]} == EVERY and len(answer["fallbacks"]) == 2
    assert 0.0 < answer["propensity"] <= 1.0 and answer["propensity"] == row["propensity"]
    assert answer["policy"] == row["policy"] and answer["policy_version"] == row["version"]
    assert answer["max_output_tokens"] == 60
    assert answer["reserved_cost_usd"] == pytest.approx(row["reserved_nano"] / 1e9)
    expires = datetime.fromisoformat(answer["expires_at"])
    made = datetime.fromtimestamp(row["created_at"] / 1e6, tz=expires.tzinfo)
    assert abs(expires - made - timedelta(days=7)) < timedelta(milliseconds=2)


def test_the_reservation_covers_bytes_of_prompt_and_longest_answer(zoo: Served) -> None:
    answer = zoo.route("\u00e9" * 10, models=["able"])
    assert answer["max_output_tokens"] == 100
    assert answer["reserved_cost_usd"] == pytest.approx((20 * 1.0 + 100 * 10.0) / 1e6)
    answer = zoo.route(models=["able"], input_tokens=3, max_output_tokens=5)
    assert answer["reserved_cost_usd"] == pytest.approx((3 * 1.0 + 5 * 10.0) / 1e6)
    answer = zoo.route(models=["vendor/best"], input_tokens=0)
    assert answer["max_output_tokens"] == 4_096


def test_preference_changes_the_choice(zoo: Served) -> None:
    assert zoo.route(preference={"cost": 1})["model"] == "cheap"
    answer = zoo.route(preference={"quality": 1})
    assert answer["propensity"] == pytest.approx(1 / 3)
    half = zoo.route(preference={"quality": 1, "cost": 1})
    same = zoo.route(preference={"quality": 10, "cost": 10})
    weights = [
        [
            zoo.get(f"/v1/decisions/{one['decision_id']}")[f"w_{name}"]
            for name in ("quality", "cost")
        ]
        for one in (half, same)
    ]
    assert weights == [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("asked", "rejected"),
    [
        ({"max_cost_usd": 0.0005}, {"able": "max_cost_usd", "vendor/best": "max_cost_usd"}),
        ({"max_cost_usd": 0.0005, "max_output_tokens": 10}, {"vendor/best": "max_cost_usd"}),
        ({"requires": ["tools"]}, {"cheap": "capability"}),
        ({"requires": ["vision", "tools"]}, {"cheap": "capability", "vendor/best": "capability"}),
        ({"requires": []}, {}),
        ({"input_tokens": 1_001}, {"cheap": "context_length"}),
        ({"input_tokens": 1_000}, {}),
        ({"prompt": "a b " * 1_001}, {"cheap": "context_length"}),
        ({"models": ["vendor/best"]}, {"cheap": "not_allowed", "able": "not_allowed"}),
        ({"models": ["able", "cheap", "able"]}, {"vendor/best": "not_allowed"}),
        ({"requires": ["tools"], "models": ["able"]},
         {"cheap": "capability", "vendor/best": "not_allowed"}),
    ],
)  # fmt: skip
def test_filters_leave_models_out_and_say_why(
    zoo: Served, asked: dict[str, Any], rejected: dict[str, str]
) -> None:
    answer = zoo.route(**{"prompt": "a b"} | asked)
    assert rejections(zoo, answer["decision_id"]) == rejected
    assert {answer["model"], *answer["fallbacks"]} == EVERY - set(rejected)


def test_latency_is_a_limit_once_it_is_known(served: Served) -> None:
    answer = served.route(models=["small"])
    served.feedback(answer["decision_id"], latency_ms=900.0)
    served.policy()
    slow = served.route(max_latency_ms=899.0)
    assert rejections(served, slow["decision_id"]) == {"small": "max_latency_ms"}
    quick = served.route(max_latency_ms=901.0, preference={"latency": 1})
    assert rejections(served, quick["decision_id"]) == {}
    assert quick["model"] != "small"


NOBODY = {"prompt": "x", "max_cost_usd": 0.0, "requires": ["tools"]}


def test_no_eligible_model_is_422_with_every_reason(zoo: Served) -> None:
    before = zoo.counts()
    answer = zoo.post(ROUTE, NOBODY)
    assert_error(answer, 422, "no_eligible_model", "models")
    message = answer.json()["error"]["message"]
    for reason in ("cheap: capability", "able: max_cost_usd", "vendor/best: max_cost_usd"):
        assert reason in message
    assert zoo.counts() == before


def test_a_pool_without_models_has_none_to_choose(zoo: Served) -> None:
    before = zoo.counts()
    assert_error(
        zoo.post(ROUTE, {"prompt": "x", "pool": "empty"}), 422, "no_eligible_model", "pool"
    )
    assert zoo.counts() == before


def test_rows_of_a_batch_fail_one_by_one(zoo: Served) -> None:
    vector = {"embedding": [1, 2, 3, 4], "pool": "vectors"}
    rows = [{"prompt": "x"}, NOBODY, vector, {"prompt": "x", "pool": "empty"}, {"prompt": "y"}]
    before = zoo.counts()
    answer = zoo.post(BATCH, {"requests": rows})
    assert answer.status_code == 200
    decisions = answer.json()["decisions"]
    assert [one.get("error", {}).get("code") for one in decisions] == [
        None,
        "no_eligible_model",
        None,
        "no_eligible_model",
        None,
    ]
    assert zoo.counts() == before | {"decisions": before["decisions"] + 3}
    logged = [zoo.get(f"/v1/decisions/{one['decision_id']}")["pool"]
              for one in decisions if "error" not in one]  # fmt: skip
    assert logged == ["default", "vectors", "default"]


def test_a_batch_of_1024_is_logged_in_full(zoo: Served) -> None:
    before = len(zoo.rows("decisions"))
    rows = [{"prompt": f"prompt {i}"} for i in range(1_024)]
    answer = zoo.post(BATCH, {"requests": rows})
    assert answer.status_code == 200
    ids = [one["decision_id"] for one in answer.json()["decisions"]]
    assert len(set(ids)) == 1_024
    assert {row["id"] for row in zoo.rows("decisions")[before:]} == set(ids)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "Why?"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]},
        {"messages": [{"role": "user", "content": "Why?", "name": "me", "tool_calls": []},
                      {"role": "assistant", "content": None}]},
        {"prompt": "nul \0 byte, \U0001f600 and a last \uffff"},
        {"embedding": [0, 0, 0, 0], "pool": "vectors"},
        {"embedding": [0.1, -1e3, 3, 0], "prompt": "beside it", "pool": "vectors"},
        {"embedding": [1e-30, 0, 0, 0], "prompt": " ", "pool": "vectors"},
        {"prompt": "x", "tags": {"team": "search", "a/b": "\u00e9"}, "task": "qa"},
        {"prompt": "x", "max_cost_usd": 1e308, "max_latency_ms": 0},
        {"prompt": "x", "input_tokens": 10**9, "max_output_tokens": 10**9, "models": ["able"]},
    ],
)  # fmt: skip
def test_every_form_of_request_is_decided(zoo: Served, body: dict[str, Any]) -> None:
    answer = zoo.post(ROUTE, body)
    assert answer.status_code == 200, answer.text
    shown = zoo.get(f"/v1/decisions/{answer.json()['decision_id']}")
    assert sum(model["probability"] for model in shown["models"]) == pytest.approx(1.0)
    batch = zoo.post(BATCH, {"requests": [body, {"prompt": "x"}]})
    assert "error" not in batch.json()["decisions"][0]


def test_messages_are_their_text(zoo: Served) -> None:
    plain = zoo.route("one\ntwo")
    parts = [{"type": "text", "text": "one"}, {"type": "image_url", "text": 1}]
    messages = [{"role": "system", "content": parts}, {"role": "user", "content": "two"}]
    chat = zoo.post(ROUTE, {"messages": messages}).json()
    rows = {row["id"]: row for row in zoo.rows("decisions")}
    same = [rows[one["decision_id"]]["features"] for one in (plain, chat)]
    assert same[0] == same[1]


def test_vectors_and_prompts_mix_in_one_batch(served: Served) -> None:
    vector = [float(i % 7) for i in range(2_048)]
    rows = [{"prompt": "a"}, {"embedding": vector}, {"prompt": "b", "embedding": vector}]
    batch = served.post(BATCH, {"requests": rows}).json()["decisions"]
    single = [served.post(ROUTE, row).json() for row in rows]
    logged = {row["id"]: np.frombuffer(row["features"], np.float32)
              for row in served.rows("decisions")}  # fmt: skip
    features = [
        np.array([logged[one["decision_id"]] for one in answers]) for answers in (batch, single)
    ]
    assert np.allclose(features[0], features[1], atol=1e-6)
    assert len(np.unique(features[0].round(3), axis=0)) == 3
    bad = [*rows, {"embedding": [1e7, *vector[1:]]}]
    answer = served.post(BATCH, {"requests": bad})
    assert_error(answer, 400, "invalid_value", "requests[3].embedding")


def test_the_last_of_two_equal_json_keys_counts(zoo: Served) -> None:
    answer = zoo.post(ROUTE, '{"prompt": "x", "models": ["cheap"], "models": ["able"]}')
    assert answer.json()["model"] == "able"


def test_tags_session_and_task_are_kept(zoo: Served) -> None:
    answer = zoo.route(tags={"team": "search"}, session_id="s-1", task="qa")
    shown = zoo.get(f"/v1/decisions/{answer['decision_id']}")
    assert (shown["tags"], shown["session_id"], shown["task"]) == ({"team": "search"}, "s-1", "qa")


@pytest.mark.parametrize("hash_key", [None, "secret"])
def test_prompts_are_never_stored(database: Path, hash_key: str | None) -> None:
    secret = "Zanzibarquartett"
    with serve(database, hash_key=hash_key) as daemon:
        daemon.route(f"{secret} one", session_id="visible")
        daemon.post(ROUTE, {"messages": [{"role": "user", "content": secret}]}, idempotency_key="k")
        daemon.post(BATCH, {"requests": [{"prompt": secret}]}, idempotency_key="k")
        daemon.post(ROUTE, {"prompt": secret, "max_cost_usd": 0})
        daemon.post(ROUTE, {"prompt": secret, "pool": "nowhere"})
        hashes = [row["prompt_hash"] for row in daemon.rows("decisions")]
        stored = b"".join(path.read_bytes() for path in database.parent.glob("served.db*"))
    stored += database.read_bytes()
    assert b"visible" in stored
    assert secret.encode() not in stored and secret.lower().encode() not in stored
    guessed = json.dumps({"messages": [{"role": "user", "content": secret}]}, separators=(",", ":"))
    digest = hashlib.blake2b(guessed.encode(), digest_size=16).hexdigest()
    assert digest.encode() not in stored, "a guess of a prompt cannot be checked"
    if hash_key is None:
        assert hashes == [None, None, None]
    else:
        assert hashes[1] == hashes[2] != hashes[0] and len(hashes[0]) == 32


@pytest.mark.parametrize(
    ("url", "body", "other"),
    [
        (ROUTE, {"prompt": "x"}, {"prompt": "y"}),
        (BATCH, {"requests": [{"prompt": "x"}, NOBODY]}, {"requests": [{"prompt": "x"}]}),
    ],
)
def test_an_idempotency_key_gets_the_same_answer_once(
    zoo: Served, url: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    before = zoo.counts()
    answers = [zoo.post(url, body, idempotency_key="key-1") for _ in range(3)]
    assert len({answer.content for answer in answers}) == 1
    assert {answer.status_code for answer in answers} == {200}
    after = zoo.counts()
    assert after["decisions"] == before["decisions"] + 1
    assert after["idempotency_keys"] == before["idempotency_keys"] + 1
    answer = zoo.post(url, other, idempotency_key="key-1")
    assert_error(answer, 409, "idempotency_conflict", "Idempotency-Key")
    assert zoo.counts() == after
    assert zoo.post(url, other, idempotency_key=f"other {url}").status_code == 200


def test_one_key_at_once_is_one_decision(zoo: Served) -> None:
    before = len(zoo.rows("decisions"))

    def ask(_: int) -> bytes:
        return zoo.post(ROUTE, {"prompt": "x"}, idempotency_key="at once").content

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(24)))) == 1
    assert len(zoo.rows("decisions")) == before + 1


def test_a_failure_is_not_kept_for_its_key(zoo: Served) -> None:
    for _ in range(2):
        answer = zoo.post(ROUTE, NOBODY, idempotency_key="failed")
        assert_error(answer, 422, "no_eligible_model", "models")
    assert zoo.post(ROUTE, {"prompt": "x"}, idempotency_key="failed").status_code == 200


def test_a_key_gets_its_answer_though_no_model_is_left(served: Served) -> None:
    first = served.post(ROUTE, {"prompt": "x"}, idempotency_key="kept")
    for name in ("small", "medium", "large"):
        served.client.delete(f"/v1/models/{name}")
    again = served.post(ROUTE, {"prompt": "x"}, idempotency_key="kept")
    assert (again.status_code, again.content) == (200, first.content)
    other = served.post(ROUTE, {"prompt": "y"}, idempotency_key="kept")
    assert_error(other, 409, "idempotency_conflict", "Idempotency-Key")
    assert_error(served.post(ROUTE, {"prompt": "x"}), 422, "no_eligible_model", "models")


def test_what_is_decided_together_fails_alone(zoo: Served) -> None:
    bodies = [{"prompt": "x"}, NOBODY, {"prompt": " "}, {"prompt": "y", "models": ["able"]}] * 12
    before = len(zoo.rows("decisions"))

    def ask(i: int) -> int:
        key = {"idempotency_key": f"together {i // 16}-{i % 4}"} if i % 2 else {}
        return zoo.post(ROUTE, bodies[i], **key).status_code

    with ThreadPoolExecutor(16) as threads:
        statuses = list(threads.map(ask, range(48)))
    assert statuses == [200, 422, 400, 200] * 12
    assert len(zoo.rows("decisions")) == before + 12 + 3


def test_the_request_id_goes_in_and_out(zoo: Served) -> None:
    answer = zoo.post(ROUTE, {"prompt": "x"}, x_request_id="mine-7")
    assert answer.headers["x-request-id"] == "mine-7"
    assert zoo.get(f"/v1/decisions/{answer.json()['decision_id']}")["request_id"] == "mine-7"
    made = [zoo.post(ROUTE, body).headers["x-request-id"] for body in ({"prompt": "x"}, {}, b"{")]
    assert len(set(made)) == 3 and all(len(one) == 32 for one in made)
    long = zoo.post(ROUTE, {"prompt": "x"}, x_request_id="i" * 1_000)
    assert long.headers["x-request-id"] == "i" * 200
    assert zoo.client.get("/nothing", headers={"x-request-id": "a"}).headers["x-request-id"] == "a"


def test_health_and_readiness(zoo: Served) -> None:
    assert zoo.get("/healthz") == {"status": "ok"}
    assert zoo.get("/readyz") == {"status": "ready"}


def test_without_a_writer_it_is_not_ready(served: Served) -> None:
    served.client.app.state.service.writer.close()
    answer = served.client.get("/readyz")
    assert_error(answer, 503, "not_ready")
    assert "writer" in answer.json()["error"]["message"]
    assert_error(served.post(ROUTE, {"prompt": "x"}), 503, "unavailable")
    assert served.client.get("/healthz").status_code == 200


def test_an_accident_is_told_without_its_details(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def accident(_: str) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(served.client.app.state.service, "policy", accident)
    answer = served.client.get("/v1/policy", headers={"x-request-id": "mine"}, quiet=True)
    assert_error(answer, 500, "internal")
    assert "secret" not in answer.text and answer.headers["x-request-id"] == "mine"

"""The daemon on PostgreSQL: the whole of its HTTP, alone and as one of two on one database."""

from __future__ import annotations

from served import assert_error, serve

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

"""Budgets over HTTP: what is refused and how, how money comes back, and that a cap holds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from support.databases import POSTGRESQL
from support.served_budgets import (
    ASK,
    BUDGETS,
    LARGE,
    LONG,
    SMALL,
    batch,
    budget,
    decided,
    exceeded,
    lease_agrees,
    names_budget,
    route,
    service,
    set_all,
    sums,
)
from support.served_daemon import Served, assert_error, serve

from banditroute.core.clock import now_us
from banditroute.core.errors import Unavailable
from banditroute.settings import DEMO_MODELS
from banditroute.store import ledger
from banditroute.store.budgets import load_budgets
from banditroute.store.tables import decisions


def test_a_budget_is_made_listed_changed_topped_up_and_dropped(served: Served) -> None:
    made = budget(served, 2.5, "team/a", window="month", tag="team", value="a", rate_usd=0.01)
    assert made == served.get(f"{BUDGETS}/team/a") == served.get(BUDGETS)["data"][0]
    assert made["resets_at"].endswith("-01T00:00:00.000Z")
    assert made["free_usd"] == made["cap_usd"] == 2.5 and made["requests"] == 0
    rolling = budget(served, 0.0, window="rolling", rolling_s=60, pacing="pacer")
    assert (rolling["rolling_s"], rolling["pacing"]) == (60, "pacer")
    assert [one["name"] for one in served.get(BUDGETS)["data"]] == ["team/a", "b"]

    change = {"request_ceiling_usd": 0.5, "expected_requests": 10, "rate_usd": None}
    changed = served.send("PATCH", f"{BUDGETS}/team/a", change).json()
    assert changed == made | change
    cleared = {"request_ceiling_usd": None, "expected_requests": None, "pacing": "zcl"}
    changed = served.send("PATCH", f"{BUDGETS}/team/a", cleared | {"cap_usd": 1.0}).json()
    assert changed["cap_usd"] == 1.0 and changed.items() >= cleared.items()
    changed = served.send("PATCH", f"{BUDGETS}/team/a", {"top_up_usd": 0.25}).json()
    assert changed["cap_usd"] == changed["free_usd"] == 1.25

    assert served.client.delete(f"{BUDGETS}/team/a").json() == changed
    assert [one["name"] for one in served.get(BUDGETS)["data"]] == ["b"]
    assert_error(served.client.get(f"{BUDGETS}/team/a"), 404, "unknown_budget", "name")


GOOD = {"name": "x", "cap_usd": 1.0}
BAD_NEW = [
    ({"cap_usd": 1.0}, "name"),
    ({"name": "x"}, "cap_usd"),
    (GOOD | {"name": ""}, "name"),
    (GOOD | {"name": LONG}, "name"),
    (GOOD | {"name": "a\0"}, "name"),
    (GOOD | {"name": 1}, "name"),
    (GOOD | {"pool": ""}, "pool"),
    (GOOD | {"cap_usd": -0.01}, "cap_usd"),
    (GOOD | {"cap_usd": 1.1e9}, "cap_usd"),
    (GOOD | {"cap_usd": "1"}, "cap_usd"),
    (GOOD | {"cap_usd": None}, "cap_usd"),
    (GOOD | {"cap_usd": True}, "cap_usd"),
    (GOOD | {"window": "week"}, "window"),
    (GOOD | {"window": None}, "window"),
    (GOOD | {"window": "rolling"}, "rolling_s"),
    (GOOD | {"window": "rolling", "rolling_s": 0}, "rolling_s"),
    (GOOD | {"window": "rolling", "rolling_s": 1.5}, "rolling_s"),
    (GOOD | {"window": "rolling", "rolling_s": 10**9}, "rolling_s"),
    (GOOD | {"window": "day", "rolling_s": 60}, "rolling_s"),
    (GOOD | {"tag": "team"}, "value"),
    (GOOD | {"value": "a"}, "tag"),
    (GOOD | {"tag": "", "value": "a"}, "tag"),
    (GOOD | {"tag": "team", "value": LONG}, "value"),
    (GOOD | {"request_ceiling_usd": -1}, "request_ceiling_usd"),
    (GOOD | {"request_ceiling_usd": "1"}, "request_ceiling_usd"),
    (GOOD | {"pacing": "fast"}, "pacing"),
    (GOOD | {"expected_requests": 0}, "expected_requests"),
    (GOOD | {"expected_requests": 2.5}, "expected_requests"),
    (GOOD | {"expected_requests": 10**16}, "expected_requests"),
    (GOOD | {"rate_usd": -1}, "rate_usd"),
    (GOOD | {"caps": 1}, "caps"),
]
BAD_CHANGES = [
    ({}, None),
    ({"cap_usd": -1}, "cap_usd"),
    ({"cap_usd": None}, "cap_usd"),
    ({"top_up_usd": 0}, "top_up_usd"),
    ({"top_up_usd": -1}, "top_up_usd"),
    ({"top_up_usd": None}, "top_up_usd"),
    ({"cap_usd": 1, "top_up_usd": 1}, "top_up_usd"),
    ({"pacing": None}, "pacing"),
    ({"pacing": "slow"}, "pacing"),
    ({"expected_requests": 0}, "expected_requests"),
    ({"rate_usd": "1"}, "rate_usd"),
    ({"request_ceiling_usd": 1e10}, "request_ceiling_usd"),
    ({"window": "day"}, "window"),
    ({"name": "y"}, "name"),
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("body", "param"), BAD_NEW)
def test_a_bad_budget_names_its_field(shared: Served, body: Any, param: str | None) -> None:
    assert_error(shared.post(BUDGETS, body), 400, "invalid_value", param)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("body", "param"), BAD_CHANGES)
def test_a_bad_change_names_its_field(shared: Served, body: Any, param: str | None) -> None:
    assert_error(shared.send("PATCH", f"{BUDGETS}/x", body), 400, "invalid_value", param)


@pytest.mark.usefixtures("unchanged")
def test_what_is_not_there_is_404(shared: Served) -> None:
    for method, body in (("GET", None), ("PATCH", {"cap_usd": 1.0}), ("DELETE", None)):
        answer = shared.send(method, f"{BUDGETS}/none", body)
        assert_error(answer, 404, "unknown_budget", "name")
        answer = shared.send(method, f"{BUDGETS}/none?pool=nowhere", body)
        assert_error(answer, 404, "unknown_pool", "pool")
    assert_error(shared.client.get(f"{BUDGETS}?pool=nowhere"), 404, "unknown_pool", "pool")
    nowhere = shared.post(BUDGETS, GOOD | {"pool": "nowhere"})
    assert_error(nowhere, 404, "unknown_pool", "pool")
    assert_error(shared.post("/v1/decisions/none/cancel"), 404, "unknown_decision", "id")


def test_a_name_is_taken_once_and_a_cap_is_never_below_what_is_spent(served: Served) -> None:
    budget(served, 1.0)
    assert_error(served.post(BUDGETS, GOOD | {"name": "b"}), 409, "exists", "name")
    one = decided(served, "large")
    served.feedback(one, cost_usd=0.5)
    refused = served.send("PATCH", f"{BUDGETS}/b", {"cap_usd": 0.4})
    assert_error(refused, 409, "cap_below_spend", "cap_usd")
    assert "0.4 is below that" in refused.json()["error"]["message"]
    assert served.get(f"{BUDGETS}/b")["cap_usd"] == 1.0
    full = {"cap_usd": 1e9}
    assert served.send("PATCH", f"{BUDGETS}/b", full).json()["cap_usd"] == 1e9
    more = served.send("PATCH", f"{BUDGETS}/b", {"top_up_usd": 1.0})
    assert_error(more, 400, "invalid_value", "top_up_usd")


def test_nothing_is_learned_of_a_cancelled_decision(database: Path) -> None:
    pools = {"default": {"models": DEMO_MODELS, "default_quality": 0.25}}
    with serve(database, pools=pools, hash_key="some-key") as daemon:
        used, unused, said = (
            decided(daemon, name, session_id="s") for name in ("small", "large", "large")
        )
        for one in (unused, said):
            assert daemon.post(f"/v1/decisions/{one}/cancel").json() == {"status": "cancelled"}
        assert daemon.feedback(said, quality=1.0, cost_usd=0.001, latency_ms=5.0) == "superseded"
        assert daemon.feedback(used, preferred_over=unused) == "accepted"
        judged = daemon.post("/v1/feedback", {"session_id": "s", "quality": 1.0, "key": "k"})
        assert judged.json()["decisions"] == 1  # the one that was used
        other = decided(daemon, "small")
        set_all(daemon, decisions, expires_at=1)
        its = service(daemon)
        daemon.client.portal.call(its._append_defaults, its.pools.by_name["default"])
        events = [row for row in daemon.rows("events") if row["decision_id"]]
        assert {(row["decision_id"], row["kind"]) for row in events} == {
            (used, "feedback"),
            (other, "default"),
        }


@pytest.mark.parametrize("many", [False, True])
def test_a_replay_reserves_nothing(served: Served, many: bool) -> None:
    budget(served, 4 * LARGE)

    def ask() -> Any:
        if many:
            return batch(served, 3, idempotency_key="k")
        answer = served.post("/v1/route", {"prompt": "Why?"} | ASK, idempotency_key="k")
        assert answer.status_code == 200
        return answer.json()

    first = ask()
    before = sums(served)
    assert [ask() for _ in range(5)] == [first] * 5
    after = lease_agrees(served)
    assert after["reserved"] == before["reserved"] > 0
    assert len(served.rows("reservations")) == (3 if many else 1)
    # The answer stands, also when there is no money for another one.
    assert "error" in batch(served, 600)[-1] and route(served).status_code == 429
    assert ask() == first


def test_an_embedding_says_its_tokens_where_a_budget_holds_it(database: Path) -> None:
    vectors = {"embedder": "precomputed", "embedding_dim": 4, "models": DEMO_MODELS}
    with serve(database, pools={"default": vectors}) as daemon:
        ask: dict[str, Any] = {"embedding": [1.0, 0.0, 0.0, 0.0]}
        assert daemon.post("/v1/route", ask).status_code == 200
        budget(daemon, 1.0, tag="team", value="a")
        ours = ask | {"tags": {"team": "a"}}
        assert_error(daemon.post("/v1/route", ours), 400, "invalid_value", "input_tokens")
        answer = daemon.post("/v1/route/batch", {"requests": [ask, ours]})
        assert_error(answer, 400, "invalid_value", "requests[1].input_tokens")
        assert "budget 'b' applies" in answer.json()["error"]["message"]
        assert daemon.post("/v1/route", ours | {"input_tokens": 5}).status_code == 200
        assert daemon.post("/v1/route", ask | {"tags": {"team": "b"}}).status_code == 200
        assert len(daemon.rows("reservations")) == 1


def test_a_tag_keeps_teams_apart(served: Served) -> None:
    budget(served, LARGE, "a", tag="team", value="a")
    budget(served, 10 * LARGE, "all")
    decided(served, "large", tags={"team": "a"})
    exceeded(route(served, "large", tags={"team": "a"}), "a")
    decided(served, "large", tags={"team": "b"})
    decided(served, "large")
    assert sums(served, "a")["reserved"] == 18_000_000
    assert sums(served, "all")["reserved"] == 3 * 18_000_000
    answer = served.post(
        "/v1/route/batch",
        {
            "requests": [
                {"prompt": "Why?", "models": ["large"], "tags": {"team": team}} | ASK
                for team in ("a", "b")
            ]
        },
    )
    first, second = answer.json()["decisions"]
    assert names_budget(first["error"], "a") and second["model"] == "large"


def test_a_ceiling_of_requests_says_what_would_help(served: Served) -> None:
    budget(served, 1.0, request_ceiling_usd=0.0001)
    budget(served, 1.0, "wide")
    answer = route(served)
    error = exceeded(answer)
    assert error["message"] == (
        "budget 'b' lets a request reserve 0.0001 US dollars; the cheapest eligible model needs "
        "0.00025"
    )
    assert error["param"] == "max_output_tokens" and answer.headers["retry-after"] == "3600"
    assert route(served, max_output_tokens=250).json()["model"] == "small"
    served.send("PATCH", f"{BUDGETS}/b", {"request_ceiling_usd": 0.0})
    assert exceeded(route(served, max_output_tokens=250))["param"] == "max_output_tokens"


def test_a_change_holds_from_the_next_request_on(served: Served) -> None:
    budget(served, 0.0)
    exceeded(route(served))
    served.send("PATCH", f"{BUDGETS}/b", {"top_up_usd": SMALL})
    assert route(served).json()["model"] == "small"
    exceeded(route(served))
    served.client.delete(f"{BUDGETS}/b")
    assert decided(served, "large")
    assert served.rows("reservations") == served.rows("leases") == []


def test_another_start_finds_the_sums_and_gives_back_what_was_leased(database: Path) -> None:
    with serve(database) as daemon:
        budget(daemon, 1.0)
        one, two = decided(daemon, "large"), decided(daemon, "small")
        daemon.feedback(one, cost_usd=0.002)
        before = sums(daemon)
        assert before["leased"] > 0
    with serve(database) as daemon:
        after = sums(daemon)
        assert after == before | {"leased": 0, "free": before["free"] + before["leased"]}
        daemon.feedback(two, cost_usd=0.0001)
        decided(daemon, "large")
        found = sums(daemon)
        assert (found["settled"], found["reserved"]) == (2_100_000, 18_000_000)


def test_a_call_that_fails_before_the_log_gives_back_what_it_took(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget(served, 0.03)
    decided(served, "small")

    async def away(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no sums")

    monkeypatch.setattr(service(served).leases, "sums", away)
    requests = [{"prompt": "Why?"} | ASK for _ in range(300)]
    answer = served.client.request(
        "POST", "/v1/route/batch", json={"requests": requests}, quiet=True
    )
    assert answer.status_code == 500
    monkeypatch.undo()
    assert lease_agrees(served)["reserved"] == 250_000
    decided(served, "large")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def daemon(request: pytest.FixtureRequest, database: Path) -> Iterator[Served]:
    where = request.getfixturevalue("postgres_url") if request.param == "postgresql" else database
    with serve(where) as one:
        yield one


def test_forty_at_once_never_exceed_the_cap_and_every_nano_dollar_is_accounted_for(
    daemon: Served,
) -> None:
    cap = 0.1
    budget(daemon, cap)
    budget(daemon, cap / 4, "a", tag="team", value="a")
    paid: dict[str, int] = {}
    held: dict[str, str] = {}
    lock, refused = Lock(), []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        team = "ab"[seed % 2]
        for turn in range(3):
            answer = route(daemon, tags={"team": team})
            if answer.status_code == 429:
                exceeded(answer, answer.json()["error"]["budget"]["name"])
                refused.append(seed)
                continue
            assert answer.status_code == 200, answer.text
            one = answer.json()
            with lock:
                held[one["decision_id"]] = team
            if rng.random() < 0.6:
                nano = int(rng.random() * round(one["reserved_cost_usd"] * 1e9))
                assert daemon.feedback(one["decision_id"], cost_usd=nano / 1e9) == "accepted"
                with lock:
                    paid[one["decision_id"]] = nano
            if turn == seed % 3:
                with daemon.engine.connect() as connection:
                    for its in load_budgets(connection):
                        assert (
                            ledger.sums(connection, its, now_us=now_us()).used_nano <= its.cap_nano
                        )

    with ThreadPoolExecutor(40) as threads:
        list(threads.map(work, range(40)))
    assert refused and len(held) > 20 and paid
    for one in held.keys() - paid.keys():
        daemon.feedback(one, cost_usd=7e-9)
        paid[one] = 7
    for name, teams in (("b", "ab"), ("a", "a")):
        found = sums(daemon, name)
        assert found["settled"] == sum(paid[one] for one in held if held[one] in teams)
        assert found["reserved"] == found["overruns"] == found["expired"] == 0


def test_a_decision_whose_session_was_rated_was_used(served: Served) -> None:
    budget(served, 1.0)
    one = decided(served, "large", session_id="s")
    assert served.post("/v1/feedback", {"session_id": "s", "quality": 1.0}).status_code == 200
    assert_error(served.post(f"/v1/decisions/{one}/cancel"), 409, "conflict", "id")
    assert sums(served)["reserved"] == 18_000_000


def test_a_decision_that_was_compared_was_used(database: Path) -> None:
    with serve(database, pools={"default": {"models": DEMO_MODELS}}, hash_key="k" * 32) as served:
        better, worse = decided(served, "large"), decided(served, "small")
        said = {"decision_id": better, "preferred_over": worse}
        assert served.post("/v1/feedback", said).status_code == 200
        for one in (better, worse):
            assert_error(served.post(f"/v1/decisions/{one}/cancel"), 409, "conflict", "id")


@POSTGRESQL
def test_no_budget_has_a_name_with_a_nul(database_url: str) -> None:
    with serve(database_url, pools={"default": {"models": DEMO_MODELS}}) as served:
        path = f"{BUDGETS}/a%00b"
        for answer in (
            served.client.get(path),
            served.client.delete(path),
            served.send("PATCH", path, {"pacing": "none"}),
        ):
            assert_error(answer, 404, "unknown_budget", "name")


def test_a_stop_that_cannot_give_back_is_still_orderly(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(_: object, *, durable: bool = True) -> None:
        raise Unavailable("the database does not take a write")

    with serve(database, pools={"default": {"models": DEMO_MODELS}}) as served:
        budget(served, 1.0)
        decided(served)
        its = service(served)
        its.writer.write = away  # type: ignore[method-assign, assignment]
    assert not its.writer.alive and not its.learner.alive()
    assert "leases stay open" in caplog.text

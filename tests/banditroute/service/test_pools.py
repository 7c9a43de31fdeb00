"""Models and prices while the daemon runs, and what of them a restart keeps."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote

import pytest
from support.served_daemon import Served, assert_error, serve

from banditroute.settings import PoolFile

MODELS = "/v1/models"
NEW = {"name": "new", "input_price": 0.0, "output_price": 0.0}


def names(daemon: Served, pool: str = "default") -> list[str]:
    return [model["name"] for model in daemon.get(f"{MODELS}?pool={pool}")["data"]]


def prices(daemon: Served, name: str) -> tuple[float, float]:
    (model,) = [m for m in daemon.get(MODELS)["data"] if m["name"] == name]
    return model["input_price"], model["output_price"]


def offered(daemon: Served, **asked: Any) -> set[str]:
    answer = daemon.route(**asked)
    return {answer["model"], *answer["fallbacks"]}


def test_the_list_shows_the_prices_in_force(shared: Served) -> None:
    assert shared.get(MODELS)["data"][1] == {
        "name": "medium",
        "input_price": 0.5,
        "output_price": 2.0,
        "price_row": 2,
        "draining": False,
        "max_output_tokens": None,
        "context_length": None,
        "capabilities": [],
    }
    assert names(shared, "vectors") == ["free", "vendor/dear"] and names(shared, "empty") == []


def test_a_model_can_be_chosen_as_soon_as_it_is_added(served: Served) -> None:
    for answered in (False, True):
        if answered:
            served.route()
        name = f"new {answered}"
        added = served.post(MODELS, NEW | {"name": name, "capabilities": ["b", "a"]})
        assert added.status_code == 201
        assert added.json()["name"] == name and added.json()["capabilities"] == ["a", "b"]
        assert served.route(models=[name])["model"] == name
    before = served.counts()
    assert_error(served.post(MODELS, NEW | {"name": "new True"}), 409, "exists", "name")
    assert served.counts() == before


def test_a_post_makes_a_missing_pool(served: Served) -> None:
    assert served.post(MODELS, NEW | {"pool": "team/a"}).status_code == 201
    assert names(served, "team/a") == ["new"] and "new" not in names(served)
    assert served.route(pool="team/a")["model"] == "new"
    assert served.policy("team/a")["digest"] == served.rebuilt_digest("team/a")


def test_pools_made_at_once_are_one_each(served: Served) -> None:
    def add(i: int) -> int:
        model = NEW | {"pool": f"p{i % 3}", "name": f"m{i}"}
        return served.post(MODELS, model).status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(add, range(12))) == {201}
    assert served.counts()["pools"] == 4
    for pool in range(3):
        assert sorted(names(served, f"p{pool}")) == sorted(f"m{i}" for i in range(pool, 12, 3))
        assert len(offered(served, pool=f"p{pool}")) == 4
    assert [row["kind"] for row in served.rows("events")].count("policy_started") == 4


def test_a_new_price_counts_for_the_very_next_decision(served: Served) -> None:
    frugal = {"preference": {"cost": 1}}
    assert served.route(**frugal)["model"] == "small"
    digest = served.policy()["digest"]
    before = served.counts()
    changed = served.send("PATCH", f"{MODELS}/small", {"output_price": 99.0})
    assert changed.status_code == 200 and changed.json()["input_price"] == 0.05
    answer = served.route(**frugal)
    assert answer["model"] == "medium"
    shown = served.get(f"/v1/decisions/{answer['decision_id']}")["models"]
    assert {m["model"]: m["price_row"] for m in shown}["small"] == changed.json()["price_row"] == 4
    assert served.counts() == before | {"prices": 4, "decisions": before["decisions"] + 1}
    assert served.policy()["digest"] == digest


def test_every_price_is_used_by_the_decision_that_follows_it(served: Served) -> None:
    for step in range(1, 40):
        row = served.send("PATCH", f"{MODELS}/small", {"input_price": step / 100}).json()
        answer = served.route(models=["small"], input_tokens=1_000, max_output_tokens=1)
        assert row["input_price"] == step / 100
        assert answer["reserved_cost_usd"] == pytest.approx(step / 100_000 + 0.2e-6)


def test_an_older_reading_does_not_undo_a_newer_one(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = served.client.app.state.service.pools
    load, has_read = pools._load, Event()

    def slow(known_at: dict[str, int]) -> Any:
        # The first reading is a whole one, as if something had changed before it.
        loaded = load(known_at if has_read.is_set() else {})
        if not has_read.is_set():
            has_read.set()
            time.sleep(0.05)
        return loaded

    monkeypatch.setattr(pools, "_load", slow)
    reading = served.client.portal.start_task_soon(pools.reload)
    assert has_read.wait(5)
    served.send("PATCH", f"{MODELS}/small", {"input_price": 7.0})
    reading.result(5)
    assert prices(served, "small") == (7.0, 0.2)


def test_changes_of_two_fields_at_once_are_both_kept(served: Served) -> None:
    changes = [{"input_price": 7.0}, {"output_price": 9.0}]
    for _ in range(5):
        served.send("PATCH", f"{MODELS}/small", {"input_price": 1.0, "output_price": 1.0})
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda c: served.send("PATCH", f"{MODELS}/small", c), changes))
        assert prices(served, "small") == (7.0, 9.0)


def test_a_model_can_get_limits_and_capabilities(served: Served) -> None:
    change = {"max_output_tokens": 9, "context_length": 50, "capabilities": ["tools"]}
    answer = served.send("PATCH", f"{MODELS}/small", change)
    assert answer.json().items() >= change.items()
    assert served.route(requires=["tools"])["max_output_tokens"] == 9
    assert "small" not in offered(served, input_tokens=51)
    assert served.counts()["prices"] == 3


def test_a_draining_model_is_never_chosen_and_comes_back_with_what_it_learned(
    served: Served,
) -> None:
    served.feedback(served.route(models=["small"])["decision_id"], quality=1.0)
    served.policy()
    mean = {"small": 0.0}

    def estimate() -> float:
        answer = served.route("the very same")
        shown = served.get(f"/v1/decisions/{answer['decision_id']}")["models"]
        return float({m["model"]: m["mean"] for m in shown}["small"])

    mean["small"] = estimate()
    drained = served.client.delete(f"{MODELS}/small")
    assert drained.status_code == 200 and drained.json()["draining"] is True
    assert all("small" not in offered(served, preference={"cost": 1}) for _ in range(20))
    answer = served.post("/v1/route", {"prompt": "x", "models": ["small"]})
    assert_error(answer, 422, "no_eligible_model", "models")
    assert "small: draining" in answer.json()["error"]["message"]
    again = served.post(MODELS, NEW | {"name": "small", "input_price": 0.01})
    assert again.status_code == 201 and again.json()["draining"] is False
    assert served.route(models=["small"])["model"] == "small"
    assert estimate() == pytest.approx(mean["small"])
    assert served.policy()["digest"] == served.rebuilt_digest()


def test_all_models_may_drain(served: Served) -> None:
    for name in names(served):
        served.client.delete(f"{MODELS}/{name}")
    answer = served.post("/v1/route", {"prompt": "x"})
    assert_error(answer, 422, "no_eligible_model", "models")


@pytest.mark.parametrize("name", ["vendor/model", "a b", "100%", "\u6a21\u578b", "q?x=1#y", "a//b"])
def test_any_name_can_be_addressed(served: Served, name: str) -> None:
    assert served.post(MODELS, NEW | {"name": name}).status_code == 201
    path = f"{MODELS}/{quote(name, safe='')}"
    changed = served.send("PATCH", path, {"input_price": 3})
    assert changed.status_code == 200 and changed.json()["name"] == name
    assert served.route(models=[name])["model"] == name
    assert served.client.delete(path).json()["draining"] is True
    assert name not in offered(served)


def file_of(small: float = 0.05, **pool: Any) -> dict[str, PoolFile]:
    models = [
        {"name": "small", "input_price": small, "output_price": 0.2},
        {"name": "large", "input_price": 3.0, "output_price": 15.0},
    ]
    return {"default": PoolFile.model_validate({"models": models} | pool)}


def test_a_price_of_the_file_counts_when_the_file_changes(database: Path) -> None:
    with serve(database, pools=file_of(0.05)) as daemon:
        assert prices(daemon, "small") == (0.05, 0.2)
        daemon.send("PATCH", f"{MODELS}/small", {"input_price": 7.0})
    with serve(database, pools=file_of(0.05)) as daemon:
        assert prices(daemon, "small") == (7.0, 0.2)
        assert daemon.counts()["prices"] == 3
    with serve(database, pools=file_of(0.5)) as daemon:
        assert prices(daemon, "small") == (0.5, 0.2)
        assert daemon.counts()["prices"] == 4


def test_a_restart_keeps_models_pools_and_draining(database: Path) -> None:
    with serve(database, pools=file_of()) as daemon:
        daemon.post(MODELS, NEW)
        daemon.post(MODELS, NEW | {"pool": "other"})
        daemon.client.delete(f"{MODELS}/small")
        daemon.feedback(daemon.route(pool="other")["decision_id"], quality=1)
        digest = daemon.policy("other")["digest"]
    with serve(database, pools=file_of()) as daemon:
        assert names(daemon) == ["small", "large", "new"] and names(daemon, "other") == ["new"]
        assert offered(daemon) == {"large", "new"}
        assert daemon.policy("other")["digest"] == digest
        assert [row["kind"] for row in daemon.rows("events")].count("policy_started") == 2


def test_a_changed_parameter_starts_a_policy_that_learns_the_log_again(database: Path) -> None:
    def seen(daemon: Served) -> dict[str, Any]:
        return dict(daemon.policy()) | {"starts": starts(daemon)}

    def starts(daemon: Served) -> int:
        return [row["kind"] for row in daemon.rows("events")].count("policy_started")

    with serve(database, pools=file_of()) as daemon:
        for _ in range(3):
            daemon.feedback(daemon.route()["decision_id"], quality=1, cost_usd=0.01)
        first = seen(daemon)
    with serve(database, pools=file_of()) as daemon:
        same = seen(daemon)
    changed = file_of(policy={"name": "linucb", "alpha": 0.9})
    with serve(database, pools=changed) as daemon:
        second = seen(daemon)
        assert second["digest"] == daemon.rebuilt_digest()
    with serve(database, pools=file_of(tau_cost=0.5)) as daemon:
        third = seen(daemon)
        assert daemon.route()["policy"] == first["policy"]
    assert (first["starts"], same["starts"], second["starts"], third["starts"]) == (1, 1, 2, 3)
    assert same["digest"] == first["digest"] == third["digest"]
    assert second["policy"] != first["policy"] == third["policy"]
    assert second["params"]["alpha"] == 0.9
    assert [state["learned"] for state in (first, second, third)] == [6, 6, 6]
    assert (second["tau_cost"], third["tau_cost"]) == (first["tau_cost"], 0.5)


def test_scales_do_not_move_with_prices(database: Path) -> None:
    with serve(database, pools=file_of()) as daemon:
        before = daemon.get("/v1/policy")
        assert before["tau_cost"] == pytest.approx((1_000 * 3.0 + 512 * 15.0) / 1e6)
        daemon.send("PATCH", f"{MODELS}/large", {"output_price": 1_000.0})
        decision = daemon.route()["decision_id"]
        assert daemon.get(f"/v1/decisions/{decision}")["tau_cost"] == before["tau_cost"]
    with serve(database, pools=file_of()) as daemon:
        assert daemon.get("/v1/policy")["tau_cost"] == before["tau_cost"]


def test_a_pool_of_the_log_keeps_its_own_options(database: Path) -> None:
    vectors = {"embedder": "precomputed", "embedding_dim": 3, "models": [NEW]}
    ask = {"embedding": [1, 2, 3], "pool": "kept"}
    with serve(database, pools=file_of() | {"kept": PoolFile.model_validate(vectors)}) as daemon:
        assert daemon.post("/v1/route", ask).status_code == 200
    with serve(database, pools=file_of()) as daemon:
        assert daemon.post("/v1/route", ask).status_code == 200

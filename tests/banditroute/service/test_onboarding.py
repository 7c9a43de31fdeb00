"""A model that comes with scored prompts: used at once where it is good, by one transaction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.served_daemon import Served, assert_error, serve

from banditroute.learn.prior import parse_prior
from banditroute.store.engine import open_engine
from banditroute.store.log import Log
from banditroute.store.verify import audit

MODELS = "/v1/models"
NEW = {"name": "new", "input_price": 0.1, "output_price": 0.1}
GROUPS = np.eye(4)[:2]
VECTORS = {"embedder": "precomputed", "embedding_dim": 4, "preference": {"quality": 1}}
OLD = [
    {"name": "old", "input_price": 0.1, "output_price": 0.1},
    {"name": "older", "input_price": 0.1, "output_price": 0.1},
]


def scored(n: int = 200, good: float = 1.0, bad: float = 0.1) -> list[dict[str, Any]]:
    """Return embeddings of two groups; the model is good at the first."""
    rng = np.random.default_rng(5)
    group = rng.integers(2, size=n)
    vectors = GROUPS[group] + rng.normal(scale=0.05, size=(n, 4))
    quality = np.where(group == 0, good, bad)
    return [
        {"embedding": vector, "quality": value}
        for vector, value in zip(vectors.tolist(), quality.tolist(), strict=True)
    ]


@pytest.fixture(params=["thompson", "linucb"])
def pool(request: pytest.FixtureRequest, database: Path) -> Any:
    """A daemon whose old models are worth 0.6 on every prompt, and have been tried enough."""
    # The vectors are short: what is learned of them must not drown in the prior.
    params = {"ridge": 0.5} if request.param == "linucb" else {}
    options = VECTORS | {"models": OLD, "policy": {"name": request.param} | params}
    with serve(database, pools={"default": options}) as daemon:
        for row in scored(60):
            for model in ("old", "older"):
                ask = {"embedding": row["embedding"], "models": [model]}
                decision = daemon.post("/v1/route", ask).json()["decision_id"]
                daemon.feedback(decision, quality=0.6)
        daemon.policy()
        yield daemon


def share(daemon: Served, group: int, n: int = 20) -> float:
    """Return the mean probability that "new" has on prompts of a group."""
    found = []
    for _ in range(n):
        answer = daemon.post("/v1/route", {"embedding": GROUPS[group].tolist()}).json()
        shown = daemon.get(f"/v1/decisions/{answer['decision_id']}")["models"]
        found.append({m["model"]: m["probability"] for m in shown}["new"])
    return float(np.mean(found))


def test_a_newcomer_is_used_at_once_where_it_is_better_and_not_where_it_is_worse(
    pool: Served,
) -> None:
    answer = pool.post(MODELS, NEW | {"scored": scored(), "n_effective": 100})
    assert answer.status_code == 201
    assert answer.json()["prior"] == {"outcomes": 200, "clusters": 10, "n_effective": 100.0}
    good, bad = share(pool, 0), share(pool, 1)
    assert good > 0.8 and 0.01 < bad < 0.1, (good, bad)


def test_a_newcomer_that_is_worse_everywhere_gets_its_share_alone(pool: Served) -> None:
    pool.post(MODELS, NEW | {"scored": scored(good=0.1, bad=0.1), "n_effective": 100})
    assert max(share(pool, 0), share(pool, 1)) < 0.1


@pytest.mark.parametrize("policy", ["thompson", "linucb"])
def test_the_prior_stands_right_behind_its_model_and_survives(
    database: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("banditroute.learn.learner.CHECKPOINT_EVERY", 2)
    pools = {"default": VECTORS | {"models": OLD, "policy": policy}}

    def answered(daemon: Served, n: int) -> None:
        for row in scored(n):
            decision = daemon.post("/v1/route", {"embedding": row["embedding"]}).json()
            daemon.feedback(decision["decision_id"], quality=row["quality"])

    with serve(database, pools=pools) as daemon:
        answered(daemon, 3)
        before = daemon.rows("events")
        daemon.post(MODELS, NEW | {"scored": scored(50)})
        added, prior = daemon.rows("events")[len(before) :]
        assert (added["kind"], prior["kind"]) == ("model_added", "prior")
        assert (added["seq"] + 1, added["created_at"]) == (prior["seq"], prior["created_at"])
        payload = json.loads(prior["payload"])
        fitted = parse_prior(payload["prior"])
        assert payload["arm"] == "new" and fitted.arrays["arms"].tolist() == ["new"]
        assert fitted.arrays["count"].tolist() == [50.0]
        answered(daemon, 4)
        digest = daemon.policy()["digest"]
        assert digest == daemon.rebuilt_digest()
    with serve(database, pools=pools) as daemon:
        assert daemon.policy()["digest"] == digest
        answered(daemon, 5)
        daemon.policy()
    engine = open_engine(f"sqlite:///{database}")
    found = audit(Log(engine), "default")
    engine.dispose()
    assert found.sound() and found.decisions == 12


def test_prompts_are_embedded_and_leave_no_trace(served: Served) -> None:
    rows = [{"prompt": f"SECRET question {i}", "quality": i / 40} for i in range(40)]
    answer = served.post(MODELS, NEW | {"scored": rows})
    told = answer.json()["prior"]
    assert (told["outcomes"], told["n_effective"]) == (40, 40.0) and 1 <= told["clusters"] <= 4
    served.route()
    assert served.policy()["digest"] == served.rebuilt_digest()
    for path in served.path.parent.glob(f"{served.path.name}*"):
        assert b"SECRET" not in path.read_bytes()


def test_a_pool_that_is_not_there_yet_can_be_taught(served: Served) -> None:
    rows = [{"prompt": f"question {i}", "quality": 1} for i in range(9)]
    answer = served.post(MODELS, NEW | {"pool": "fresh", "scored": rows})
    assert answer.status_code == 201 and answer.json()["prior"]["outcomes"] == 9
    served.post(MODELS, {"pool": "fresh", "name": "other", "input_price": 0, "output_price": 0})
    shown = served.get(f"/v1/decisions/{served.route(pool='fresh')['decision_id']}")["models"]
    mean = {m["model"]: m["mean"] for m in shown}
    assert mean["new"] > mean["other"]
    assert served.policy("fresh")["digest"] == served.rebuilt_digest("fresh")


def test_a_model_that_comes_back_can_be_taught_more(served: Served) -> None:
    served.route()
    served.client.delete(f"{MODELS}/small")
    rows = [{"prompt": "x", "quality": 1}]
    back = {"name": "small", "input_price": 1, "output_price": 1, "scored": rows}
    assert served.post(MODELS, back).json()["prior"]["n_effective"] == 1.0
    assert_error(served.post(MODELS, back), 409, "exists", "name")
    kinds = [row["kind"] for row in served.rows("events")]
    assert kinds.count("prior") == 1 and served.policy()["digest"] == served.rebuilt_digest()


def test_without_scored_prompts_there_is_no_prior(served: Served) -> None:
    assert served.post(MODELS, NEW).json()["prior"] is None
    assert "prior" not in served.get(MODELS)["data"][0]
    assert "prior" not in [row["kind"] for row in served.rows("events")]


GOOD = {"prompt": "x", "quality": 0.5}
BAD = [
    ({"scored": []}, "scored"),
    ({"scored": "x"}, "scored"),
    ({"scored": [GOOD] * 1_025}, "scored"),
    ({"scored": [GOOD, {"prompt": "x"}]}, "scored[1].quality"),
    ({"scored": [GOOD, GOOD | {"quality": 1.1}]}, "scored[1].quality"),
    ({"scored": [GOOD | {"quality": -0.1}]}, "scored[0].quality"),
    ({"scored": [GOOD | {"quality": "1"}]}, "scored[0].quality"),
    ({"scored": [GOOD | {"quality": True}]}, "scored[0].quality"),
    ({"scored": [GOOD, {"quality": 1}]}, "scored[1]"),
    ({"scored": [GOOD, 1]}, "scored[1]"),
    ({"scored": [GOOD | {"promt": "x"}]}, "scored[0].promt"),
    ({"scored": [GOOD] * 17 + [GOOD | {"prompt": " \n"}]}, "scored[17].prompt"),
    ({"scored": [GOOD | {"prompt": ""}]}, "scored[0].prompt"),
    ({"scored": [GOOD, {"embedding": [1.0], "quality": 1}]}, "scored[1].embedding"),
    ({"scored": [{"embedding": [], "quality": 1}]}, "scored[0].embedding"),
    ({"scored": [{"embedding": [1, None], "quality": 1}]}, "scored[0].embedding[1]"),
    ({"scored": [GOOD], "pool": "vectors"}, "scored[0].embedding"),
    (
        {"scored": [{"embedding": [1e30, 0, 0, 0], "quality": 1}], "pool": "vectors"},
        "scored[0].embedding",
    ),
    ({"scored": [GOOD], "n_effective": 0}, "n_effective"),
    ({"scored": [GOOD], "n_effective": -1}, "n_effective"),
    ({"scored": [GOOD], "n_effective": "9"}, "n_effective"),
    ({"scored": [GOOD], "n_effective": 1e7}, "n_effective"),
]


@pytest.mark.parametrize(("change", "param"), BAD)
def test_a_bad_row_names_its_field_and_adds_nothing(
    shared: Served, change: dict[str, Any], param: str
) -> None:
    before = shared.counts()
    assert_error(shared.post(MODELS, NEW | change), 400, "invalid_value", param)
    assert shared.counts() == before


def test_one_prompt_is_held_to_the_limit_of_one_request(shared: Served) -> None:
    rows = [GOOD, GOOD | {"prompt": "x" * 1_000_000}]
    answer = shared.post(MODELS, NEW | {"scored": rows})
    assert_error(answer, 413, "too_large", "scored[1].prompt")


def test_a_policy_that_does_not_listen_says_so(database: Path) -> None:
    with serve(database, pools={"default": {"policy": "random", "models": OLD}}) as daemon:
        answer = daemon.post(MODELS, NEW | {"scored": [GOOD]})
        assert_error(answer, 400, "invalid_value", "scored")
        assert "random" in answer.json()["error"]["message"]


def test_hope_comes_with_a_model_that_was_never_here(database: Path) -> None:
    options = {"newcomer_optimism": 0.2, "models": OLD, "policy": "linucb"}
    with serve(database, pools={"default": options}) as daemon:
        daemon.feedback(daemon.route()["decision_id"], quality=0.5)
        daemon.post(MODELS, NEW)
        daemon.client.delete(f"{MODELS}/new")
        daemon.post(MODELS, NEW)
        daemon.post(MODELS, NEW | {"name": "scored", "scored": [GOOD]})
        told = [json.loads(r["payload"]) for r in daemon.rows("events") if r["kind"] == "prior"]
        assert [sorted(one) for one in told] == [["arm", "optimism"]] * 3 + [["arm", "prior"]]
        assert [one["arm"] for one in told] == ["old", "older", "new", "scored"]
        assert daemon.policy()["digest"] == daemon.rebuilt_digest()
    options["models"] = [*OLD, NEW | {"name": "filed"}]
    with serve(database, pools={"default": options}) as daemon:
        (*_, last) = [r["payload"] for r in daemon.rows("events") if r["kind"] == "prior"]
        assert json.loads(last) == {"arm": "filed", "optimism": 0.2}

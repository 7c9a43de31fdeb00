"""A pool that starts from a fitted prior: what it knows, what the log keeps, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.served_daemon import Served, assert_error, serve

from banditroute.core.policy_identity import digest
from banditroute.features.embedding import make_embedder
from banditroute.fitting.warm_start import fit
from banditroute.learn.prior import Prior
from banditroute.settings import DEMO_MODELS, SettingsError, load_settings
from banditroute.store.engine import open_engine
from banditroute.store.log import Log
from banditroute.store.verify import audit

EMBEDDER = make_embedder()
MODELS = [model.model_dump() for model in DEMO_MODELS]


def fitted(path: Path, **quality: float) -> Prior:
    """Write and return a prior that has seen 40 outcomes of some models."""
    x = EMBEDDER.features([f"question {i}" for i in range(40)])
    labels = {name: np.full(40, level) for name, level in quality.items()}
    ratios = {name: np.full(40, np.log(0.25)) for name in quality}
    prior = Prior("sums", EMBEDDER.identity, fit(x, labels, n_effective=40.0, ratios=ratios))
    prior.write(path)
    return prior


def pools(path: Path | None, **options: Any) -> dict[str, Any]:
    given = {} if path is None else {"prior": str(path)}
    return {"default": {"models": MODELS} | given | options}


def means(daemon: Served) -> dict[str, float]:
    shown = daemon.get(f"/v1/decisions/{daemon.route('question 1')['decision_id']}")["models"]
    return {one["model"]: one["mean"] for one in shown}


def test_a_pool_starts_with_what_its_prior_knows(database: Path, tmp_path: Path) -> None:
    file = tmp_path / "prior.npz"
    prior = fitted(file, small=0.2, large=0.95)
    with serve(database, pools=pools(file)) as daemon:
        found = means(daemon)
        assert found["small"] == pytest.approx(0.2, abs=0.05)
        assert found["large"] == pytest.approx(0.95, abs=0.05)
        assert found["small"] < found["medium"] < found["large"]
        answer = daemon.route("question 1", input_tokens=0)
        shown = daemon.get(f"/v1/decisions/{answer['decision_id']}")["models"]
        cost = {one["model"]: one["cost_usd"] for one in shown}
        assert cost["large"] == pytest.approx(512 * 15e-6 / 4, rel=0.2)
        state = daemon.policy()
        assert state["prior"] == digest(prior.text()) and len(str(state)) < 2_000
        assert state["learned"] == 0 and state["digest"] == daemon.rebuilt_digest()


def test_without_a_prior_there_is_none_to_show(served: Served) -> None:
    served.route()
    assert served.policy()["prior"] is None


def test_a_restart_finds_the_same_and_the_log_is_enough(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("banditroute.learn.learner.CHECKPOINT_EVERY", 3)
    file = tmp_path / "prior.npz"
    fitted(file, small=0.2, large=0.95)
    with serve(database, pools=pools(file)) as daemon:
        for i in range(8):
            daemon.feedback(daemon.route(f"prompt {i}")["decision_id"], quality=0.5, cost_usd=1e-4)
        first = daemon.policy()
    with serve(database, pools=pools(file)) as daemon:
        again = daemon.policy()
        assert (again["policy"], again["digest"]) == (first["policy"], first["digest"])
        kinds = [row["kind"] for row in daemon.rows("events")]
        assert kinds.count("policy_started") == 1
    file.unlink()
    engine = open_engine(f"sqlite:///{database}")
    found = audit(Log(engine), "default")
    engine.dispose()
    assert found.sound() and found.digest_of_log == first["digest"] and found.decisions == 8


def test_another_prior_is_another_policy_that_learns_the_log(
    database: Path, tmp_path: Path
) -> None:
    file = tmp_path / "prior.npz"
    seen = []
    for small in (0.2, 0.9, None):
        if small is not None:
            fitted(file, small=small)
        with serve(database, pools=pools(file if small is not None else None)) as daemon:
            daemon.feedback(daemon.route(models=["large"])["decision_id"], quality=0.5)
            seen.append((daemon.policy()["policy"], daemon.policy()["learned"], means(daemon)))
    assert len({name for name, _, _ in seen}) == 3
    assert [learned for _, learned, _ in seen] == [1, 2, 3]
    low, high, none = (mean["small"] for _, _, mean in seen)
    assert low < 0.3 and high > 0.8 and low < none < high


def test_a_model_that_comes_later_is_taught_too(database: Path, tmp_path: Path) -> None:
    file = tmp_path / "prior.npz"
    fitted(file, later=0.1, small=0.9)
    with serve(database, pools=pools(file)) as daemon:
        daemon.route()
        daemon.post("/v1/models", {"name": "later", "input_price": 0, "output_price": 0})
        assert means(daemon)["later"] == pytest.approx(0.1, abs=0.05)
        assert daemon.policy()["digest"] == daemon.rebuilt_digest()


def test_pools_of_http_take_the_prior_of_the_defaults(database: Path, tmp_path: Path) -> None:
    file = tmp_path / "prior.npz"
    fitted(file, small=0.1)
    with serve(database, defaults={"prior": str(file)}, pools={}) as daemon:
        model = {"name": "small", "input_price": 0, "output_price": 0, "pool": "made"}
        assert daemon.post("/v1/models", model).status_code == 201
        daemon.route(pool="made")
        assert daemon.policy("made")["prior"] is not None
        file.unlink()
        before = daemon.counts()
        answer = daemon.post("/v1/models", model | {"pool": "next"})
        assert_error(answer, 503, "unavailable")
        assert "pools.next.prior" in answer.json()["error"]["message"]
        assert daemon.counts() == before and daemon.route(pool="made")


@pytest.mark.parametrize("gone", [True, False])
def test_a_file_that_is_gone_or_of_another_embedder_stops_the_start(
    database: Path, tmp_path: Path, gone: bool
) -> None:
    file = tmp_path / "prior.npz"
    fitted(file, small=0.1)
    with serve(database, pools=pools(file)) as daemon:
        daemon.route()
    if gone:
        file.unlink()
    else:
        Prior("sums", "hashing-other", Prior.read(file).arrays).write(file)
    message = "No such file" if gone else "fitted on features of embedder hashing-other"
    for given in (pools(file), {}):  # the pool of the file, or as the database has it
        with (
            pytest.raises(ValueError, match=rf"pools\.default\.prior: .*{message}"),
            serve(database, pools=given),
        ):
            pass


@pytest.mark.minilm
def test_a_basis_of_its_own_goes_with_the_prior(database: Path, tmp_path: Path) -> None:
    from banditroute.features.fit_basis import fit_principal

    prompts = [f"question {i} about {'music' if i % 2 else 'numbers'}" for i in range(40)]
    plain = make_embedder("minilm")
    basis = fit_principal(plain.vectors(prompts))
    own = make_embedder("minilm", basis=basis)
    assert own.identity != plain.identity
    arrays = fit(own.features(prompts), {"small": np.full(40, 0.1)}, n_effective=40.0)
    file = tmp_path / "prior.npz"
    Prior(
        "sums", own.identity, arrays | {"basis_mean": basis.mean, "basis_matrix": basis.matrix}
    ).write(file)
    with serve(database, pools=pools(file, embedder="minilm")) as daemon:
        daemon.route()
        assert daemon.policy()["embedder"] == own.identity
    Prior("sums", own.identity, arrays).write(file)
    with (
        pytest.raises(ValueError, match=r"pools\.default\.prior: fitted on features of"),
        serve(database, pools=pools(file, embedder="minilm")),
    ):
        pass


def test_a_prior_of_other_models_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "prior.npz"
    fitted(path, vendor=0.9)
    file = tmp_path / "settings.yaml"
    model = "{name: small, input_price: 1, output_price: 1}"
    file.write_text(f"pools:\n  default:\n    prior: {path}\n    models: [{model}]\n")
    with pytest.raises(SettingsError, match=r"default\.prior \(line 3\): it knows none .* vendor"):
        load_settings(file)

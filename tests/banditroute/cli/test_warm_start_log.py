"""`warm-start --log` and `pretrain --log`: one pool's log is another pool's prior."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from support.served_daemon import serve
from typer.testing import CliRunner

from banditroute.cli import app
from banditroute.learn.prior import Prior
from banditroute.settings import DEMO_MODELS
from policies.base import sums_of
from sim.commands import pretrain

MODELS = [model.model_dump() for model in DEMO_MODELS]


def test_a_log_becomes_the_prior_of_another_pool(database: Path, tmp_path: Path) -> None:
    out = tmp_path / "prior.npz"
    with serve(database, pools={"default": {"models": MODELS}}) as daemon:
        for i in range(30):
            model = ("small", "large")[i % 2]
            decision = daemon.route(f"question {i}", models=[model])["decision_id"]
            quality = 0.1 if model == "small" else 0.9
            daemon.feedback(decision, quality=quality, input_tokens=9, output_tokens=64)
        daemon.policy()
        words = ["warm-start", "--log", f"sqlite:///{database}", "--n-effective", "10"]
        result = CliRunner().invoke(app, [*words, "--out", str(out)])
        assert result.exit_code == 0, result.output
    prior = Prior.read(out)
    quality, costs = sums_of(prior.arrays), sums_of(prior.arrays, prefix="cost_")
    assert sorted(quality) == ["large", "small"]
    assert {sums.count for sums in (*quality.values(), *costs.values())} == {10.0}
    assert quality["small"].moment[-1] / 10 == pytest.approx(0.1)
    with serve(database, pools={"next": {"models": MODELS, "prior": str(out)}}) as daemon:
        answer = daemon.route("question 1", pool="next")
        shown = daemon.get(f"/v1/decisions/{answer['decision_id']}")["models"]
        mean = {row["model"]: row["mean"] for row in shown}
        assert mean["small"] < 0.3 < mean["medium"] < 0.8 < mean["large"]


def test_a_pool_that_never_started_is_named(database: Path, tmp_path: Path) -> None:
    words = ["warm-start", "--log", f"sqlite:///{database}", "--n-effective", "10"]
    result = CliRunner().invoke(app, [*words, "--pool", "none", "--out", str(tmp_path / "p")])
    assert result.exit_code == 2 and "'none' never started" in result.stderr


@pytest.mark.minilm
def test_a_net_trained_on_a_log_serves_and_learns_on(database: Path, tmp_path: Path) -> None:
    app, out = typer.Typer(), tmp_path / "barp.npz"
    app.command()(pretrain.command)
    with serve(database, pools={"default": {"models": MODELS, "policy": "barp"}}) as daemon:
        for i in range(40):
            model = ("small", "large")[i % 2]
            decision = daemon.route(f"question {i}", models=[model])["decision_id"]
            quality = 0.1 if model == "small" else 0.9
            daemon.feedback(decision, quality=quality, input_tokens=9, output_tokens=64)
        daemon.policy()
        words = ["--log", f"sqlite:///{database}", "--epochs", "3", "--out", str(out)]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        assert "40 answers to 40 prompts" in result.stdout
    options = {"models": MODELS, "prior": str(out), "policy": "barp"}
    with serve(database, pools={"next": options}) as daemon:
        answer = daemon.route("question 1", pool="next", preference={"quality": 1.0})
        shown = daemon.get(f"/v1/decisions/{answer['decision_id']}")["models"]
        mean = {row["model"]: row["mean"] for row in shown}
        assert mean["small"] < 0.3 and mean["large"] > 0.8
        assert answer["model"] != "small"
        daemon.feedback(answer["decision_id"], quality=1.0, input_tokens=9, output_tokens=64)


@pytest.mark.minilm
def test_a_log_that_holds_no_policy_trains_no_net(database: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(pretrain.command)
    with serve(database, pools={"default": {"models": MODELS}}):
        words = ["--log", f"sqlite:///{database}", "--pool", "none", "--out", str(tmp_path / "p")]
        result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "'none' never started" in result.stderr

"""`banditroute pretrain` as a person meets it: what it writes, shows and refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from banditroute.core.pool import PoolOptions
from banditroute.features.embedding import FEATURES, make_embedder
from banditroute.features.tasks import identity
from banditroute.learn.prior import Prior, configured_prior
from sim.cli import app as sim_app
from sim.commands.pretrain import command
from sim.data.dataset import Dataset, save
from sim.data.formats import load
from sim.data.synthetic import generate

needs_torch = pytest.mark.minilm

app = typer.Typer()
app.command("pretrain")(command)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = generate(rows=150, seed=3).dataset
    split = tuple("train" if i < 100 else "test" for i in range(len(made)))
    path = tmp_path_factory.mktemp("data") / "stream.parquet"
    save(Dataset(**{**_fields(made), "split": split}), path)
    return path


def _fields(dataset: Dataset) -> dict[str, object]:
    return {name: getattr(dataset, name) for name in Dataset.__dataclass_fields__}


def run(*words: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@needs_torch
def test_it_trains_on_data_and_says_so(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "barp.npz"
    result = run(data, "--epochs", "2", "--split", "train", "--without", "coder", "--out", out)
    assert result.exit_code == 0, result.output
    prior, dataset = Prior.read(out), load(data)
    assert prior.kind == "barp" and prior.embedder == make_embedder().identity
    assert prior.arrays["arms"].tolist() == [name for name in dataset.models if name != "coder"]
    assert prior.arrays["head"].shape == (2, 2, FEATURES)
    most_expensive_usd = float(dataset.cost_usd[:100].mean(axis=0).max())
    assert float(prior.arrays["tau_cost"]) == pytest.approx(most_expensive_usd)
    assert len(result.stdout.splitlines()) == 1
    assert "2 models" in result.stdout and "to 100 prompts" in result.stdout


@needs_torch
def test_the_same_input_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for out in (a, b):
        assert run(data, "--epochs", "1", "--out", out).exit_code == 0
    assert a.read_bytes() == b.read_bytes()


@needs_torch
def test_tasks_and_tau_are_the_pools(data: Path, tmp_path: Path) -> None:
    out, tasks = tmp_path / "p", sorted(set(load(data).task))[:2]
    words = [word for task in tasks for word in ("--task", task)]
    result = run(data, "--epochs", "1", "--tau-cost", "0.5", *words, "--out", out)
    assert result.exit_code == 0 and "cost 1 is 0.5 USD" in result.stdout
    prior = Prior.read(out)
    assert prior.embedder == identity(make_embedder().identity, tasks)
    assert prior.arrays["head"].shape[2] == FEATURES + 2
    assert float(prior.arrays["tau_cost"]) == 0.5


@needs_torch
def test_a_replay_and_a_pool_start_from_it(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "barp.npz"
    assert run(data, "--epochs", "2", "--out", out).exit_code == 0
    words = ["replay", str(data), "--seeds", "1", "--jobs", "1", "--policy", f"barp@{out}"]
    result = CliRunner().invoke(sim_app, [*words, "--budget-rate", "0.0004"])
    assert result.exit_code == 0, result.output
    options = PoolOptions.model_validate({"policy": "barp", "prior": str(out)})
    prior = configured_prior(options)
    assert prior is not None and prior.kind == "barp"
    for name in ("linucb", "thompson"):  # the sums in it are worth as much to them
        assert configured_prior(PoolOptions.model_validate({"policy": name, "prior": str(out)}))
    with pytest.raises(ValueError, match="^prior: head: must have shape"):
        configured_prior(
            PoolOptions.model_validate({"policy": "barp", "prior": str(out), "tasks": ["a"]})
        )


def test_without_torch_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run(data, "--out", tmp_path / "p")
    assert result.exit_code == 2
    assert result.stderr == (
        "banditroute: fitting a prior needs torch: pip install 'banditroute[embeddings]'\n"
    )


@needs_torch
def test_data_without_costs_is_refused(data: Path, tmp_path: Path) -> None:
    dataset, path = load(data), tmp_path / "free.parquet"
    cost = dataset.cost_usd.copy()
    cost[:, 1] = np.nan
    save(Dataset(**{**_fields(dataset), "cost_usd": cost}), path)
    result = run(path, "--out", tmp_path / "p")
    name = dataset.models[1]
    assert result.exit_code == 2 and f"column 'cost:{name}': there is none" in result.stderr
    save(Dataset(**{**_fields(dataset), "cost_usd": np.zeros_like(cost)}), path)
    result = run(path, "--out", tmp_path / "p")
    assert result.exit_code == 2 and "every cost is 0; --tau-cost says" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of DATA and --log is expected"),
        (["DATA", "--log", "sqlite:///x.db"], "one of DATA and --log is expected"),
        (["DATA", "--epochs", "0"], "epochs: in [1, 100000], not 0"),
        (["DATA", "--seed", "-1"], "seed: in [0, 4.29497e+09], not -1"),
        (["DATA", "--tau-cost", "0"], "--tau-cost: above 0, not 0"),
        (["DATA", "--out", "/nowhere/p"], "--out: there is no directory /nowhere"),
        (["DATA", "--task", "a", "--task", "a"], "--task: given twice"),
        (
            ["--log", "sqlite:///x.db", "--tau-cost", "1"],
            "--log: takes no --embedder, --task, --tau-cost",
        ),
        pytest.param(["nothing.parquet"], "nothing.parquet: no such file", marks=needs_torch),
        pytest.param(
            ["DATA", "--split", "other"], "--split: stream has no split 'other'", marks=needs_torch
        ),
        pytest.param(
            ["DATA", "--without", "other"],
            "--without: stream has no model 'other'",
            marks=needs_torch,
        ),
        pytest.param(
            ["DATA", "--embedder", "hasing"], "unknown embedder 'hasing'", marks=needs_torch
        ),
        pytest.param(
            ["--log", "sqlite:///nothing.db"],
            "--log: there is no file nothing.db",
            marks=needs_torch,
        ),
    ],
)
def test_a_mistake_is_one_line(data: Path, tmp_path: Path, words: list[str], message: str) -> None:
    words = [str(data) if word == "DATA" else word for word in words]
    words += [] if "--out" in words else ["--out", str(tmp_path / "p")]
    result = run(*words)
    assert result.exit_code == 2 and message in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not (tmp_path / "p").exists()

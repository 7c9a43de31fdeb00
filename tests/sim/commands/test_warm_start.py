"""`banditroute warm-start` as a person meets it: what it writes, shows and refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from banditroute.cli import app
from banditroute.features.embedding import FEATURES, make_embedder
from banditroute.features.tasks import identity
from banditroute.learn.prior import Prior
from policies import make_policy
from policies.base import sums_of
from sim.data.dataset import Dataset, save
from sim.data.formats import load
from sim.data.synthetic import generate

PRICES = "model,input_price,output_price\nsmall,0,1\ncoder,0,2\nlarge,1,4\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = generate(rows=120, seed=3).dataset
    quality = made.quality.copy()
    quality[20:, made.models.index("coder")] = np.nan
    split = tuple("train" if i < 80 else "test" for i in range(len(made)))
    path = tmp_path_factory.mktemp("data") / "stream.parquet"
    save(Dataset(**{**_fields(made), "quality": quality, "split": split}), path)
    return path


def _fields(dataset: Dataset) -> dict[str, object]:
    return {name: getattr(dataset, name) for name in Dataset.__dataclass_fields__}


def run(*words: str | Path) -> Result:
    result = CliRunner().invoke(app, ["warm-start", *(str(word) for word in words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def fitted(out: Path, *words: str | Path) -> Prior:
    result = run(*words, "--out", out)
    assert result.exit_code == 0, result.output
    return Prior.read(out)


def test_it_fits_every_model_and_says_so(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "prior.npz"
    result = run(data, "--n-effective", "30", "--out", out)
    assert result.exit_code == 0
    prior, dataset = Prior.read(out), load(data)
    assert prior.kind == "sums" and prior.embedder == make_embedder().identity
    assert prior.arrays["arms"].tolist() == list(dataset.models)
    count = dict(zip(dataset.models, prior.arrays["count"].tolist(), strict=True))
    assert count == {name: 20.0 if name == "coder" else 30.0 for name in dataset.models}
    mean = float(np.nanmean(dataset.quality[:, 0]))
    assert f"{mean:.4f}" in result.stdout and "none: no --prices" in result.stdout
    assert "cost_gram" not in prior.arrays


def test_the_prior_is_those_rows_learned(data: Path, tmp_path: Path) -> None:
    prior = fitted(tmp_path / "p", data, "--n-effective", "1e9")
    dataset = load(data)
    x = make_embedder().features(list(dataset.prompts)).astype(np.float64)
    policy = make_policy("linucb", dim=FEATURES)
    policy.adopt(prior.arrays)
    for k, name in enumerate(dataset.models):
        policy.add_arm(name)
        judged = ~np.isnan(dataset.quality[:, k])
        gram, moment = x[judged].T @ x[judged], dataset.quality[judged, k] @ x[judged]
        precision, mean = policy.ridge.precision[k], policy.ridge.mean[k]
        theta = np.linalg.solve(gram + np.diag(precision), moment + precision * mean)
        assert np.allclose(policy.ridge.solve(0)[0][k], theta, atol=1e-9)


def test_the_same_input_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for words in ([], ["--clusters", "4"]):
        for out in (a, b):
            fitted(out, data, "--n-effective", "30", *words)
        assert a.read_bytes() == b.read_bytes()


def test_options_choose_what_it_sees(data: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text(PRICES)
    words = ["--n-effective", "60", "--split", "train", "--without", "coder", "--prices", prices]
    prior = fitted(tmp_path / "p", data, *words)
    assert sorted(sums_of(prior.arrays)) == ["large", "small"]
    assert {one.count for one in sums_of(prior.arrays).values()} == {60.0}
    costs = sums_of(prior.arrays, prefix="cost_")
    dataset = load(data)
    cost = dataset.cost_usd[:80, dataset.models.index("small")]
    expected = np.log(cost / (512 * 1 / 1e6)).mean()
    assert costs["small"].moment[-1] / costs["small"].count == pytest.approx(expected)


def test_tasks_of_the_pool_are_columns(data: Path, tmp_path: Path) -> None:
    tasks = sorted(set(load(data).task))[:2]
    words = [word for task in tasks for word in ("--task", task)]
    prior = fitted(tmp_path / "p", data, "--n-effective", "30", *words)
    assert prior.embedder == identity(make_embedder().identity, tasks)
    assert prior.arrays["moment"].shape[1] == FEATURES + len(tasks)


@pytest.mark.minilm
def test_a_neural_embedder_gets_a_basis(data: Path, tmp_path: Path) -> None:
    prior = fitted(tmp_path / "p", data, "--n-effective", "30", "--embedder", "minilm")
    again = fitted(tmp_path / "q", data, "--n-effective", "30", "--embedder", "minilm")
    assert prior.basis is not None and prior.basis.matrix.shape == (384, 32)
    assert prior.embedder == make_embedder("minilm", basis=prior.basis).identity
    assert prior.embedder != make_embedder("minilm").identity
    assert prior.dump() == again.dump()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of DATA and --log is expected"),
        (["DATA", "--log", "sqlite:///x.db"], "one of DATA and --log is expected"),
        (["DATA", "--n-effective", "0"], "--n-effective: above 0, not 0"),
        (["DATA", "--n-effective", "nan"], "--n-effective: above 0, not nan"),
        (["nothing.parquet"], "nothing.parquet: no such file"),
        (["DATA", "--split", "other"], "--split: stream has no split 'other'"),
        (["DATA", "--without", "other"], "--without: stream has no model 'other'"),
        (["DATA", "--embedder", "hasing"], "unknown embedder 'hasing'"),
        (["DATA", "--embedder", "precomputed"], "there are no vectors in DATA"),
        (["DATA", "--prices", "nothing.csv"], "--prices: nothing.csv: cannot be read"),
        (["DATA", "--out", "/nowhere/p"], "--out: /nowhere/p: No such file"),
        (["--log", "sqlite:///nothing.db"], "--log: there is no file nothing.db"),
        (["--log", "nonsense"], "database: "),
        (["--log", "sqlite:///x.db", "--task", "a"], "--log: takes no --embedder, --task"),
        (["DATA", "--task", "a", "--task", "a"], "--task: given twice"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(data: Path, tmp_path: Path, words: list[str], message: str) -> None:
    words = [str(data) if word == "DATA" else word for word in words]
    for option, value in (("--n-effective", "30"), ("--out", str(tmp_path / "p"))):
        words += [] if option in words else [option, value]
    result = run(*words)
    assert result.exit_code == 2 and message in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not (tmp_path / "p").exists()

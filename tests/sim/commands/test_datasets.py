"""Commands that take data of any format: what they say of it, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.commands import call
from typer.testing import CliRunner

from banditroute.cli import app as banditroute_app
from banditroute.learn.prior import Prior
from policies.base import sums_of
from sim.data.formats import load

CSV = "prompt,small,large\n" + "".join(
    f"question number {i} of many,{i % 3 == 0},{i % 4 != 0}\n" for i in range(24)
)
PRICES = "model,input_price,output_price\nsmall,1,2\nlarge,10,20\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mmlu.csv").write_text(CSV)
    (tmp_path / "prices.csv").write_text(PRICES)
    (tmp_path / "query.jsonl").write_text('{"task_name": "m", "query": "q"}\n')
    spend = [
        {"request_id": f"r{i}", "model": name, "prompt_tokens": 100, "completion_tokens": 1024}
        | {"spend": cost, "cache_hit": str(i == 0), "status": "success", "request_tags": []}
        for i, (name, cost) in enumerate([("small", 0.0)] + [("small", 0.002148)] * 5)
    ]
    (tmp_path / "spend.jsonl").write_text("\n".join(json.dumps(row) for row in spend))
    return tmp_path


def test_convert_keeps_data_and_notes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out, prices = folder / "mmlu.csv", folder / "out.parquet", folder / "prices.csv"
    assert call("convert", data, out, "--prices", prices) == 0
    output = capsys.readouterr()
    assert output.out == f"{out}: 24 rows, 2 models\n"
    assert output.err.startswith("mmlu: the costs of 48 answers are estimates, bytes / 4 input")
    before, after = load(data, prices=prices), load(out)
    assert after.digest() == before.digest() and after.notes == before.notes
    assert call("describe", out) == 0
    assert "out: the costs of 48 answers are estimates" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convert", "query.jsonl", "out.parquet"], "query holds prompts without outcomes"),
        (["convert", "mmlu.csv", "out.csv"], "OUT.parquet: the name must end in .parquet"),
        (["convert", "mmlu.csv", "gone/out.parquet"], "gone/out.parquet: "),
        (["describe", "absent.csv"], "absent.csv: no such file"),
        (["describe", "mmlu.csv", "--format", "rout"], "--format: unknown format 'rout'; valid: "),
        (["describe", "mmlu.csv", "--prices", "mmlu.csv"], "--prices: mmlu.csv: column 'model'"),
        (["describe", "mmlu.csv", "--pool", "p"], "--pool: of the URL"),
        (["describe", "sqlite:///absent.db"], "DATA: there is no file absent.db"),
        (["replay", "query.jsonl"], "nothing to replay; `sim describe` shows them"),
        (["replay", "spend.jsonl"], "spend: no answer is judged: nothing to replay"),
        (["replay", "mmlu.csv"], "mmlu: no answer has a cost; --prices FILE gives them one"),
        (["drive", "query.jsonl"], "query holds prompts without outcomes"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    folder: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    assert call(*words) == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and lines[-1] == errors[0] and message in errors[0]


def test_a_file_is_not_written_over_itself(folder: Path) -> None:
    out = folder / "out.parquet"
    assert call("convert", folder / "mmlu.csv", out) == 0
    assert call("convert", out, out) == 2


def test_describe_writes_what_it_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out.json"
    assert call("describe", folder / "spend.jsonl", "--json", out) == 0
    output = capsys.readouterr()
    assert "spend: 1 cache hits left out" in output.err
    assert "no propensities: only for a warm start and the direct method" in output.err
    assert "warning: no answer is judged" in output.out
    report = json.loads(out.read_text())
    assert report["rows"] == 5 and report["models"][0]["quality"] is None
    assert report["digest"] == load(folder / "spend.jsonl").digest()


def test_replay_takes_any_format_with_prices(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--policy", "linucb", "--seeds", "1", "--jobs", "1")
    assert call("replay", folder / "mmlu.csv", "--prices", folder / "prices.csv", *options) == 0
    output = capsys.readouterr()
    assert "mmlu: 24 rows, 2 models\n" in output.out
    assert "are estimates" in output.err


def test_a_spend_log_warms_costs_and_estimates_warm_nothing(folder: Path) -> None:
    words = ["--n-effective", "10", "--prices", str(folder / "prices.csv"), "--out"]

    def fitted(name: str) -> Prior:
        out = folder / f"{name}.npz"
        result = CliRunner().invoke(
            banditroute_app, ["warm-start", str(folder / name), *words, str(out)]
        )
        assert result.exit_code == 0, result.output
        return Prior.read(out)

    spend = fitted("spend.jsonl").arrays
    (quality,), (cost,) = (sums_of(spend, prefix=kind).values() for kind in ("", "cost_"))
    assert (quality.count, cost.count) == (0.0, 5.0)
    # 0.002148 USD are 1074 output tokens at 2 USD per million; no prompt was stored.
    assert cost.moment[-1] / cost.count == pytest.approx(np.log(1074 / 512), rel=1e-6)
    counts = [sums.count for sums in sums_of(fitted("mmlu.csv").arrays, prefix="cost_").values()]
    assert counts == [0.0, 0.0]
    result = CliRunner().invoke(
        banditroute_app,
        ["warm-start", str(folder / "spend.jsonl"), "--n-effective", "10", "--out", "p.npz"],
    )
    assert result.exit_code == 2
    assert "spend: no answer is judged, nor has a cost with a price" in result.output

"""The command line as a person meets it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.commands import call, started
from typer.testing import CliRunner

from banditroute.cli import app as banditroute_app
from sim.data.dataset import save
from sim.data.synthetic import generate
from sim.results import RunFile


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "stream.parquet"
    assert call("synth", str(path), "--rows", "80", "--seed", "3") == 0
    return path


def test_replay_prints_a_table_and_writes_json(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    policies = ("--policy", "linucb:alpha=0.3,ridge=30", "--policy", "fixed:arm=large")
    options = ("--seeds", "2", "--jobs", "1", "--without", "coder", "--json", str(out))
    assert call("replay", str(data), *policies, *options) == 0
    shown = capsys.readouterr().out
    assert "stream: 80 rows, 2 models" in shown
    run = RunFile.read(out)
    assert run.data["models"] == ["small", "large"]
    assert run.command == ["python", "-m", "sim", "replay", str(data), *policies, *options]
    (stage,) = run.stages
    assert [one.label for one in stage.contenders] == [
        "linucb:alpha=0.3,ridge=30",
        "fixed:arm=large",
    ]
    fixed = stage.contenders[1]
    assert {name: one.mean for name, one in fixed.share.items()} == {"small": 0.0, "large": 1.0}
    assert fixed.metrics["difference"].mean == pytest.approx(0.0, abs=1e-9)
    assert fixed.metrics["propensity"].mean == 1.0
    assert fixed.metrics["entropy"].mean == 0.0
    costs = [point.cost for point in stage.frontier]
    assert costs == sorted(costs)
    assert stage.references[1].name == "best single: large"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "linucbb"], "did you mean 'linucb'"),
        (["--policy", "linucb:alfa=1"], "alfa: unknown parameter of linucb"),
        (["--policy", "linucb:alpha=-1"], "alpha: at least 0"),
        (["--policy", "linucb:alpha"], "--policy: 'linucb:alpha': 'alpha' is not key=value"),
        (["--policy", "fixed"], "arm: required"),
        (["--policy", "fixed:arm=lage"], "arm: no such model"),
        (["--policy", "linucb", "--policy", "linucb"], "given twice"),
        (["--policy", "linucb@"], "'linucb@': a file is expected after @"),
        (["--policy", "linucb@absent.npz"], "'linucb@absent.npz': prior: absent.npz"),
        (["--models", "small,nope"], "--models: stream has no model 'nope'"),
        (["--preference", "1,2"], "--preference: '1,2'"),
        (["--preference", "0,0,0"], "--preference: '0,0,0': at least one weight must be above 0"),
        (["--preference", "1,-1,0"], "--preference: '1,-1,0': cost: Input should be greater"),
        (["--learn-fraction", "1.5"], "--learn-fraction: in [0, 1)"),
        (["--learn-split", "a"], "--test-split: "),
        (["--learn-split", "a", "--test-split", "b"], "--learn-split: stream has no split 'a'"),
        (["--learn-split", "a", "--test-split", "a"], "--test-split: 'a'"),
        (["--budget-rate", "0"], "--budget-rate: must be above 0"),
        (["--pacing", "histori"], "--pacing: unknown mode 'histori'; did you mean 'history'"),
        (["--embedder", "nope"], "--embedder: unknown embedder 'nope'"),
        (["--prices", "absent.csv"], "--prices: absent.csv"),
        (["--scenario", "absent"], "--scenario: absent: no such file, and no such scenario"),
        (["--delay", "late"], "--delay: 'late': seconds, exponential:SECONDS or log:URL expected"),
        (["--missing", "2"], "--missing: a share from 0 to 1, not 2"),
        (["--policy", "mabwiser", "--budget-rate", "1"], "mabwiser"),
        (["--policy", "absent.yaml"], "--policy: absent.yaml: No such file or directory"),
        (["--json", "absent/run.json"], "--json: absent/run.json: no such folder"),
        (["--report", "absent/run.html"], "--report: absent/run.html: no such folder"),
        (["--json", "."], "--json: .: a folder, not a file"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    data: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("replay", str(data), "--jobs", "1", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_policy_may_start_from_a_prior(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prior, out = tmp_path / "prior.npz", tmp_path / "out.json"
    fitted = CliRunner().invoke(
        banditroute_app, ["warm-start", str(data), "--n-effective", "40", "--out", str(prior)]
    )
    assert fitted.exit_code == 0, fitted.output
    policies = ("--policy", "thompson", "--policy", f"thompson@{prior}:alpha=1.0")
    options = ("--learn-fraction", "0", "--seeds", "2", "--jobs", "1", "--json", str(out))
    assert call("replay", str(data), *policies, *options) == 0
    cold, warm = (one.metrics["quality"] for one in RunFile.read(out).stages[0].contenders)
    assert warm.mean is not None and cold.mean is not None
    assert warm.mean > cold.mean
    assert call("replay", str(data), "--jobs", "1", "--policy", f"knn@{prior}") == 2
    assert "prior: knn has no use for this kind of prior" in capsys.readouterr().err
    assert call("replay", str(data), "--jobs", "1", "--policy", f"linucb@{prior}", "--tasks") == 2
    assert "prior: fitted on features of embedder" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["history", "zcl", "pacer"])
def test_a_budget_is_a_cap_whatever_prices_its_money(
    data: Path, tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    options = ("--budget-rate", "2e-4", "--pacing", mode, "--seeds", "2", "--jobs", "1")
    assert call("replay", str(data), "--policy", "pilot", *options, "--json", str(out)) == 0
    assert "budget used, %" in capsys.readouterr().out
    (stage,) = RunFile.read(out).stages
    (pilot,) = stage.contenders
    assert max(cost for cost in pilot.per_seed["cost"] if cost is not None) <= 2e-4
    assert pilot.metrics["refused"].mean == 0.0
    oracle = next(point for point in stage.references if point.name == "oracle")
    assert oracle.cost <= 2e-4 * (1 + 1e-9)


def test_a_scenario_is_played_at_each_budget_and_ends_in_a_page(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario, out, page = (tmp_path / name for name in ("s.yaml", "run.json", "run.html"))
    scenario.write_text(
        "title: large is gone\nbudget_rates: [2.0e-4]\n"
        "events:\n  - {kind: drain, model: large, at: 1/2}\n"
    )
    policy = tmp_path / "p.yaml"
    policy.write_text("policy: {name: linucb, alpha: 0.2}\nexploration_share: 0.1\n")
    asked = ["--scenario", "still", "--scenario", str(scenario), "--policy", str(policy)]
    feedback = ["--delay", "exponential:3", "--missing", "0.1", "--judge-noise", "0.05"]
    rest = ["--batch", "4", "--seeds", "2", "--jobs", "1"]
    files = ["--json", str(out), "--report", str(page)]
    assert call("replay", str(data), *asked, *feedback, *rest, *files) == 0
    assert "large is gone, 0.2 USD per 1,000 requests" in capsys.readouterr().out
    run = RunFile.read(out)
    still, gone = run.stages
    assert (still.budget_rate, gone.budget_rate) == (None, 2e-4)
    assert {still.requests, gone.requests} == {80}
    (one,) = gone.contenders
    assert one.label == str(policy) and one.shares["large"][-1] == 0.0
    assert "large is drained" in [change.label for change in gone.changes]
    assert run.settings["batch"] == 4 and run.settings["delay"] == "exponential:3"
    assert run.versions["banditroute"] and "large is gone" in page.read_text()


def test_missing_data_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("replay", "absent.parquet") == 2
    assert "absent.parquet: no such file" in capsys.readouterr().err


def test_synth_refuses_another_ending(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("synth", "out.csv") == 2
    assert ".parquet" in capsys.readouterr().err


def test_help_does_not_import_the_heavy_parts() -> None:
    code = "import sim.cli, sys; print({'numpy', 'pyarrow', 'httpx', 'pydantic'} & {*sys.modules})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupt_ends_at_once_without_a_traceback(jobs: int, tmp_path: Path) -> None:
    data = generate(rows=80, seed=3).dataset
    data.quality[0] = np.nan
    save(data, tmp_path / "gap.parquet")
    work = ("replay", tmp_path / "gap.parquet", "--seeds", "2000", "--jobs", str(jobs))
    with started(*work) as process:
        assert process.stderr is not None and "left out" in process.stderr.readline()
        # Now it plays, or starts the workers that do: these must not answer in its place.
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "")


INTERRUPT = (
    "import os, signal, time\n\ndef interrupt(*_):\n    os.kill(os.getpid(), signal.SIGINT)\n\n"
)


@pytest.mark.parametrize(
    ("module", "ignored", "status"),
    [
        ("exec('interrupt(); time.sleep(60)')", False, 130),
        ("type('Final', (), {'__del__': interrupt})(); time.sleep(60)", False, 130),
        (
            "try:\n    interrupt(); time.sleep(60)\nexcept KeyboardInterrupt:\n    pass\n"
            "time.sleep(60)",
            False,
            130,
        ),
        ("interrupt(); time.sleep(0.01); raise SystemExit(7)", True, 7),
    ],
    ids=[
        "imported within an exec",
        "dropped in a finalizer",
        "dropped by a package",
        "ignored from the start",
    ],
)
def test_interrupt_of_an_import(module: str, ignored: bool, status: int, tmp_path: Path) -> None:
    """A stand-in for pyarrow interrupts the command that imports it."""
    (tmp_path / "pyarrow.py").write_text(INTERRUPT + module)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    with started("synth", tmp_path / "out.parquet", ignored=ignored, PYTHONPATH=path) as process:
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (status, "")

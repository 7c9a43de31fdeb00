from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from support.commands import call as called
from support.small_log import Book

from banditroute.store.engine import open_engine, prepare


def call(*arguments: str) -> int:
    return called("evaluate", *arguments)


def columns(n: int, seed: int, law: list[float]) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    arm = rng.choice(3, size=n, p=law)
    right = np.where(arm == 2, 0.5, np.where((x > 0) == (arm == 0), 0.8, 0.3))
    return {
        "arm": [f"m{k}" for k in arm],
        "propensity": np.array(law)[arm],
        "reward": (rng.random(n) < right).astype(np.float64),
        "x:one": x,
        **{f"pmf:m{k}": np.full(n, p) for k, p in enumerate(law)},
    }


@pytest.fixture(scope="module")
def uniform(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log of two behaviours: `even` chose each model alike, `one` always m2."""
    even, one = columns(800, 0, [1 / 3] * 3), columns(300, 1, [0.0, 0.0, 1.0])
    both = {name: np.concatenate([even[name], one[name]]) for name in even}
    both["who"] = ["even"] * 800 + ["one"] * 300
    path = tmp_path_factory.mktemp("log") / "uniform.parquet"
    pyarrow.parquet.write_table(pyarrow.table(both), path)
    return str(path)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.db"
    engine = open_engine(f"sqlite:///{path}")
    prepare(engine)
    Book(engine, pool="mine", exploration_share=0.6, exploration_cost_share=100.0).feed(400)
    engine.dispose()
    return path


EVEN = ("--tag", "who=even")
C = ("--policy", "fixed:arm=m2")


def test_policies_are_judged_and_written(
    uniform: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    asked = (*EVEN, *C, "--policy", "linucb:alpha=0.1", "--json", str(out))
    assert call("--log", uniform, *asked) == 0
    shown = capsys.readouterr().out
    assert "uniform: 800 decisions over 3 models (m0, m1, m2)" in shown
    assert "refused" not in shown
    report = json.loads(out.read_text())
    found = {one["label"]: one for one in report["policies"]}
    assert list(found) == ["logged", "fixed:arm=m2", "linucb:alpha=0.1"]
    fixed = found["fixed:arm=m2"]["estimates"]["quality"]["dr"]["normal"]
    assert fixed["low"] < 0.5 < fixed["high"]
    assert found["linucb:alpha=0.1"]["estimates"]["quality"]["dr"]["normal"]["low"] > 0.55
    assert (report["learned"], report["judged"]) == (400, 400)
    assert [one["label"] for one in report["differences"]] == [
        "fixed:arm=m2 - logged",
        "linucb:alpha=0.1 - logged",
        "fixed:arm=m2 - linucb:alpha=0.1",
    ]


def test_the_log_alone_can_be_evaluated(uniform: str) -> None:
    assert call("--log", uniform, *EVEN) == 0


def test_a_daemons_log(database: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    url = f"sqlite:///{database}"
    asked = ("--policy", "random", "--pool", "mine", "--json", str(out))
    assert call("--log", url, *asked) == 0
    report = json.loads(out.read_text())
    assert report["decisions"] == 400
    estimates = report["policies"][1]["estimates"]
    assert list(estimates) == ["quality", "cost", "utility"]
    # Outcomes of the book are uniform, whichever model answers.
    assert estimates["quality"]["dr"]["normal"]["low"] < 0.5
    assert estimates["quality"]["dr"]["normal"]["high"] > 0.5
    assert report["zero_router"][0]["label"] == "logged"


def test_what_the_log_does_not_support_ends_with_three(
    uniform: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    asked = ("--tag", "who=one", "--policy", "fixed:arm=m0", "--json", str(out))
    assert call("--log", uniform, *asked) == 3
    assert "exploration_share" in " ".join(capsys.readouterr().out.split())
    report = json.loads(out.read_text())
    assert report["policies"][1]["estimates"] == {}
    assert "gave probability 0" in report["policies"][1]["refusal"]
    # One that is supported is enough.
    assert call("--log", uniform, *asked, *C) == 0


def test_a_policy_known_by_its_own_log_alone_is_refused(
    uniform: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--log", uniform, *EVEN, "--policy", "logged:who=one") == 3
    shown = " ".join(capsys.readouterr().out.split())
    assert "refused: logged:who=one: its log holds the probabilities of" in shown
    assert call("--log", uniform, *EVEN, "--policy", "logged:who=one", *C) == 0


def test_another_part_of_the_log_stands_beside(uniform: str, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert call("--log", uniform, *EVEN, *C, "--compare", "who=one", "--json", str(out)) == 0
    found = json.loads(out.read_text())["comparison"]
    assert found["label"] == "who=one"
    assert found["mean"]["mean"] == pytest.approx(0.5, abs=0.1)
    apart = found["differences"]["fixed:arm=m2"]
    assert apart["low"] < 0.0 < apart["high"]


@pytest.mark.parametrize("options", [("--learning",), ("--budget-rate", "0.01")])
def test_policies_that_change_are_replayed(
    uniform: str, tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert call("--log", uniform, *EVEN, *C, *options, "--json", str(out)) == 0
    assert "only rejection replay can evaluate it" in " ".join(capsys.readouterr().out.split())
    (one,) = json.loads(out.read_text())["replayed"]
    assert one["label"] == "fixed:arm=m2" and one["judged"] == 400
    assert 100 < one["accepted"] < 170
    assert one["estimates"]["quality"]["low"] < 0.5 < one["estimates"]["quality"]["high"]


def test_a_replay_that_says_nothing_ends_with_three(uniform: str) -> None:
    asked = ("--policy", "fixed:arm=m0", "--learning")
    assert call("--log", uniform, "--tag", "who=one", *asked) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--learn-fraction", "1"), "--learn-fraction: in [0, 1), not 1"),
        (("--budget-rate", "0"), "--budget-rate: must be above 0, not 0"),
        (("--baseline", "nobody"), "--baseline: 'nobody' is neither 'logged' nor a --policy"),
        (("--tag", "who"), "--tag: 'who' is not KEY=VALUE"),
        (("--tag", "colour=red"), "has no column 'colour'"),
        (("--since", "2026-01-01"), "--since: the rows of a file have no time"),
        (("--since", "yesterday"), "--since: 'yesterday' is not a date or time in ISO 8601"),
        (("--compare", "who=one"), "--compare: --tag must select other decisions, by who=OTHER"),
        (("--compare", "who=even", *EVEN), "--compare: --tag must select other decisions"),
        (("--policy", "logged"), "logged"),
        (("--policy", "fixed:arm=gone"), "arm: no such model"),
        ((*C, *C), "'fixed:arm=m2' is given twice"),
        (("--policy", "linucbb"), "did you mean 'linucb'"),
        (("--policy", "gone.yaml"), "gone.yaml: No such file or directory"),
        (("--learning",), "--learning: a --policy is expected"),
        ((*C, "--learning", "--compare", "who=one", *EVEN), "--compare: not together with --learn"),
        ((*C, "--budget-rate", "1", "--baseline", C[1]), "--baseline: not together with --budget-"),
        ((*C, "--learning", "--policy", "logged:who=one"), "--policy logged:..: not together"),
        (("--json", "/nowhere/out.json"), "--json: /nowhere/out.json"),
    ],
)
def test_wrong_input_is_one_line(
    uniform: str, options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--log", uniform, *options) == 2
    out, error = capsys.readouterr()
    # Before anything is worked out, or a long run ends with nothing to show.
    assert out == ""
    error = error.strip()
    assert message in error
    assert "\n" not in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("gone.parquet", "gone.parquet: no such file"),
        ("sqlite:////nowhere/gone.db", "--log: there is no file /nowhere/gone.db"),
        ("nosuch://host/db", "--log:"),
    ],
)
def test_logs_that_are_none(log: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--log", log, *C) == 2
    assert message in capsys.readouterr().err


def test_a_pool_that_is_none_and_a_time_without_decisions(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{shutil.copy(database, tmp_path / 'copy.db')}"
    assert call("--log", url, "--policy", "random") == 2
    assert "no policy of 'default'; it has those of: mine" in capsys.readouterr().err
    asked = ("--log", url, "--pool", "mine", "--policy", "random")
    assert call(*asked, "--since", "2026-01-01T00:00:00+02:00") == 2
    assert "no decision of pool 'mine' is left" in capsys.readouterr().err
    # The book's clock begins a millisecond after the epoch.
    assert call(*asked, "--since", "1970-01-01T00:00:00") == 0


def test_alarms_are_not_answered_in_a_log(
    uniform: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drifting = tmp_path / "drifting.yaml"
    drifting.write_text("policy: linucb\nreset_on_drift: true\n")
    assert call("--log", uniform, "--policy", str(drifting)) == 2
    assert "reset_on_drift: no alarm is answered here" in capsys.readouterr().err

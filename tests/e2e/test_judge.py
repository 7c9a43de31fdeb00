"""From a daemon over HTTP to a verdict by the command, and the truth beside it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.daemon_process import daemon, driving, environment, free_port

from banditroute.features.embedding import make_embedder
from sim.data.database import open_log
from sim.data.dataset import Dataset, save
from sim.data.formats import load
from sim.data.synthetic import generate
from sim.ope.logged_requests import DecisionHistory
from sim.ope.read_database import read
from sim.ope.target_policy import compute_action_dist, train
from sim.play.candidate import parse_candidate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals"),
]
TARGETS = ("linucb", "fixed:arm=small")
EXPLORES = {"exploration_share": 0.25, "exploration_cost_share": 1.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "planted.parquet"
    save(generate(rows=1_200, seed=11).dataset, path)
    return path


def judged(
    home: Path, data: Path, targets: Sequence[str], **options: Any
) -> tuple[int, dict[str, Any], DecisionHistory]:
    """Log the data with a daemon of such a pool; return exit code, verdict and the log."""
    config = home / "config.yaml"
    config.write_text(yaml.safe_dump({"pools": {"judged": {"policy": "linucb", **options}}}))
    with daemon(home, "--local", "--config", str(config), port=free_port()) as running:
        running.greeted()
        with driving(home, data, running.url, "--pool", "judged") as drive:
            report = drive.report()
        assert (report["decisions"], report["errors"]) == (1_200, 0)
        assert running.interrupt() == 0
    url, out = f"sqlite:///{home}/log.db", home / "found.json"
    command = [sys.executable, "-m", "sim", "evaluate", "--log", url, "--pool", "judged"]
    for target in targets:
        command += ["--policy", target]
    done = subprocess.run(
        [*command, "--json", str(out)],
        cwd=home,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120.0,
    )
    assert "Traceback" not in done.stderr, done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    with open_log(url) as store:
        return done.returncode, found, read(store, "judged")


def truth(history: DecisionHistory, target: str, dataset: Dataset) -> float:
    """Return the mean quality that a policy would have got on the judged prompts."""
    rows = {
        x.tobytes(): i for i, x in enumerate(make_embedder("hashing").features(dataset.prompts))
    }
    judged = np.arange(len(history.log) // 2, len(history.log))
    at = [rows[history.log.features[i].tobytes()] for i in judged]
    contender = parse_candidate(target)
    fold = train(history, contender, until=int(judged[0]))
    pmf = compute_action_dist(
        history.requests, history.log.models, contender.options, fold, rows=judged
    )
    columns = [dataset.models.index(name) for name in history.log.models]
    return float((pmf * dataset.quality[np.ix_(at, columns)]).sum(axis=1).mean())


def test_the_truth_is_inside_where_the_daemon_explored(tmp_path: Path, data: Path) -> None:
    code, found, history = judged(tmp_path, data, TARGETS, **EXPLORES)
    assert code == 0
    dataset = load(data)
    assert found["decisions"] == len(history.log) > 1_100
    assert found["judged"] == len(history.log) - found["learned"]
    assert all(one["refusal"] is None for one in found["policies"])
    real = {target: truth(history, target, dataset) for target in TARGETS}
    for one in found["policies"][1:]:
        ends = one["estimates"]["quality"]["dr"]["normal"]
        assert ends["low"] <= real[one["label"]] <= ends["high"], one["label"]
    (apart,) = [one for one in found["differences"] if one["label"] == " - ".join(TARGETS)]
    ends = apart["estimates"]["quality"]["dr"]["normal"]
    assert ends["low"] <= real[TARGETS[0]] - real[TARGETS[1]] <= ends["high"]
    # The two are apart, and the log can tell.
    assert ends["low"] > 0.0 and ends["high"] - ends["low"] < 0.3


def test_without_exploration_it_is_refused_and_told_what_to_change(
    tmp_path: Path, data: Path
) -> None:
    code, found, _ = judged(tmp_path, data, ("fixed:arm=small", "random"))
    assert code == 3
    refusals = [one["refusal"] for one in found["policies"] if one["label"] != "logged"]
    assert len(refusals) == 2 and all("exploration_share" in one for one in refusals)

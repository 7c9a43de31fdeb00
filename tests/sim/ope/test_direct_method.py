from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sim.data.synthetic import generate
from sim.errors import InputError
from sim.ope import direct_method as direct
from sim.ope import read_parquet as files
from sim.play.candidate import Candidate


def spend(path: Path, *, prompts: bool = False) -> Path:
    """Write a spend log in which `large` costs four times as much as `small`."""
    rows = []
    for i in range(60):
        is_large = i % 3 == 0
        row = {
            "request_id": f"r{i}",
            "model": "large" if is_large else "small",
            "spend": 0.004 if is_large else 0.001,
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "startTime": f"2026-01-01T00:00:{i:02d}",
            "status": "success",
            "cache_hit": "True" if i == 59 else "False",
        }
        rows.append(
            row | ({"messages": [{"role": "user", "content": f"hi {i}"}]} if prompts else {})
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("prompts", [False, True])
def test_a_spend_log_tells_what_each_model_would_cost(tmp_path: Path, prompts: bool) -> None:
    log = direct.read(spend(tmp_path / "spend.jsonl", prompts=prompts))
    assert len(log) == 59 and np.isnan(log.propensity).all() and np.isnan(log.quality).all()
    assert log.features.shape[1] == (47 if prompts else 1)
    policies = [
        Candidate.of("random"),
        Candidate.of("fixed", {"arm": "large"}, label="large"),
        Candidate.of("fixed", {"arm": "small"}, label="small"),
    ]
    found = direct.estimates(files.history_of(log), policies, fraction=0.5)
    assert {name: list(by) for name, by in found.items()} == {
        name: ["cost"] for name in ("logged", "random", "large", "small")
    }
    assert found["small"]["cost"] == pytest.approx(0.001, rel=0.1)
    assert found["large"]["cost"] == pytest.approx(0.004, rel=0.1)
    assert found["random"]["cost"] == pytest.approx(0.0025, rel=0.1)
    assert found["logged"]["cost"] == pytest.approx(np.nanmean(log.cost_usd[30:]))


def test_answers_of_several_models_need_no_estimate(tmp_path: Path) -> None:
    from sim.data.dataset import save

    save(generate(rows=5).dataset, tmp_path / "all.parquet")
    with pytest.raises(InputError, match="answers of several models.*`sim replay` plays it"):
        direct.read(tmp_path / "all.parquet")


def test_a_log_without_answers_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    from sim.data.dataset import save

    data = generate(rows=5).dataset
    nothing = np.full(data.quality.shape, np.nan)
    save(replace(data, quality=nothing, cost_usd=nothing), tmp_path / "none.parquet")
    with pytest.raises(InputError, match="no row has an answer"):
        direct.read(tmp_path / "none.parquet")

"""Reports: means, paired errors and the shape of the JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from sim.references import References
from sim.replay import Run
from sim.report import Estimate, as_json, show, summarise


def one(seed: int, quality: float, cost: float, lift: float = 0.0) -> Run:
    references = References.of(
        ["cheap", "dear"], np.array([[0.5 + lift, 0.9 + lift]]), np.array([[1.0, 3.0]])
    )
    share = np.array([0.25, 0.75])
    return Run("p", seed, quality, cost, share, 0.0, references, digest="")


def test_difference_is_paired_within_a_seed() -> None:
    # The level of the rows moves with the seed; the distance to the zero router hardly does.
    runs = [one(0, 0.81, 2.0), one(1, 0.91, 2.0, lift=0.1), one(2, 0.62, 2.0, lift=-0.1)]
    summary = summarise(runs, budget_rate=4.0)
    assert summary.zero.mean == pytest.approx(0.7)
    assert summary.difference.mean == pytest.approx((0.11 + 0.11 + 0.02) / 3)
    assert summary.difference.error == pytest.approx(0.03)
    assert summary.quality.error == pytest.approx(np.std([0.81, 0.91, 0.62], ddof=1) / 3**0.5)
    assert summary.quality_of_best == pytest.approx(0.78 / 0.9)
    assert summary.cost_of_best == pytest.approx(2 / 3)
    assert summary.utilisation is not None
    assert summary.utilisation.mean == pytest.approx(0.5)


def test_one_seed_has_no_error() -> None:
    assert Estimate.of([0.5]) == Estimate(0.5, None)
    assert Estimate.of([0.5]).show() == "0.5000"
    assert Estimate.of([0.4, 0.6]).show(".2f") == "0.50 ± 0.10"


def test_json_has_the_documented_shape() -> None:
    summary = summarise([one(0, 0.8, 2.0), one(1, 0.7, 2.0)])
    report = as_json("d", ["cheap", "dear"], [summary], one(0, 0, 1).references)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    policy = report["policies"]["p"]
    assert policy["quality"] == pytest.approx(0.75)
    assert policy["difference"] == pytest.approx(0.05)
    assert policy["share"] == {"cheap": 0.25, "dear": 0.75}
    assert policy["utilisation"] is None
    assert policy["per_seed"]["quality"] == [0.8, 0.7]
    assert report["references"] == {
        "random": {"quality": pytest.approx(0.7), "cost": pytest.approx(2.0)},
        "best_single": {"model": "dear", "quality": 0.9, "cost": 3.0},
        "oracle": {"quality": 0.9, "cost": 3.0},
        "zero_router": [[1.0, 0.5], [3.0, 0.9]],
    }


def test_table_tells_policies_shares_and_references() -> None:
    console = Console(width=160, record=True, quiet=True)
    summary = summarise([one(0, 0.8, 2.0), one(1, 0.7, 2.0)], budget_rate=4.0)
    console.quiet = False
    with console.capture() as captured:
        show(console, "title", [summary], one(0, 0, 1).references)
    text = captured.get()
    for shown in ("title", "0.7500 ± 0.0500", "+0.0500 ± 0.0500", "75.0% dear", "0.500 ± 0.000"):
        assert shown in text
    assert "best single: dear" in text

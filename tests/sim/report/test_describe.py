"""The description of a data set, against counts made by hand."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from sim.data.dataset import Dataset
from sim.report.describe import as_json, describe, show

NAN = float("nan")


def made(
    quality: list[list[float]], cost: list[list[float]], prompts: str = "", notes: str = ""
) -> Dataset:
    n = len(quality)
    return Dataset(
        name="data",
        prompts=tuple(prompts) or tuple(f"p{i}" for i in range(n)),
        task=("x", "y", "x", "x", "")[:n],
        split=("",) * n,
        models=tuple("abc"[: len(quality[0])]),
        quality=np.array(quality),
        cost_usd=np.array(cost),
        notes=(notes,) if notes else (),
    )


DATA = made(
    [[0.5, 0.5, 1.0], [1.0, 1.0, 1.0], [0.0, 0.5, 0.25], [1.0, NAN, 0.0]],
    [[1e-3, 2e-3, 0.0], [1e-3, 3e-3, 0.0], [1e-3, NAN, 0.0], [1e-3, NAN, 4e-3]],
    prompts="pqqp",
    notes="12 cache hits left out",
)


def test_means_shares_and_references_are_those_of_the_rows_that_have_them() -> None:
    data = describe(DATA)
    assert (data.rows, data.complete) == (4, 2)
    a, b, c = data.models
    assert a.quality == pytest.approx(0.625) and b.quality == pytest.approx(2 / 3)
    assert a.quality_se == pytest.approx(np.std([0.5, 1.0, 0.0, 1.0], ddof=1) / 2)
    assert b.cost == pytest.approx(2.5e-3) and c.cost == pytest.approx(1e-3)
    assert (a.judged, b.judged) == (1.0, 0.75)
    # Of the three rows that all are judged on: c alone, no model alone, b alone.
    assert [one.unique_best for one in data.models] == pytest.approx([0.0, 1 / 3, 1 / 3])
    assert data.references is not None
    assert data.references.models[data.references.best_single] == "c"
    assert data.references.oracle == pytest.approx((1.0, 0.0))
    assert data.tasks == {"x": 3, "y": 1}


def test_references_have_errors_of_the_complete_rows() -> None:
    """On rows one and two c is the best and costs nothing, so every reference is c."""
    lines = {one.name: one for one in describe(DATA).lines}
    assert list(lines) == ["best single: c", "zero router corner: c", "oracle"]
    assert all((one.quality, one.quality_se) == (1.0, 0.0) for one in lines.values())
    other = describe(made([[0.5, 1.0], [0.0, 0.75]], [[1e-3, 4e-3], [1e-3, 2e-3]])).lines
    assert [one.name for one in other][-2:] == ["zero router corner: b", "oracle"]
    assert other[-1].quality_se == pytest.approx(np.std([1.0, 0.75], ddof=1) / np.sqrt(2))
    assert other[-1].cost_se == pytest.approx(1e-3)


def test_gaps_and_duplicates_are_counted() -> None:
    data = describe(DATA)
    # ("p", "x") stands in the first and the last row; "q" has two tasks.
    assert (data.duplicates, data.empty_prompts) == (1, 0)
    assert (data.unjudged, data.unpriced, data.free) == (1, 1, 3)


def test_suspicious_data_gives_warnings() -> None:
    assert describe(DATA).warnings == (
        "a: its cost is 0.001 on every row: a price, not a cost?",
        "b: 1 judged answers have no cost; see --prices",
        "c: 3 of 4 costs are exactly 0: free, or rather unpriced?",
    )
    copied = made([[0.5, 1.0, 0.5], [1.0, 1.0, 1.0]], [[NAN] * 3] * 2)
    assert describe(copied).warnings == (
        "no answer has a cost; see --prices",
        "b: its quality is 1 on every row: is it judged at all?",
        "c: its quality is a copy of a's",
    )
    sound = made([[0.5, 1.0], [1.0, 0.0]], [[0.1, 0.2], [0.3, 0.4]])
    assert describe(sound).warnings == ()


def test_a_model_alone_has_no_rival() -> None:
    (one,) = describe(made([[0.5], [1.0]], [[0.1], [0.2]])).models
    assert np.isnan(one.unique_best)


def test_prompts_without_outcomes_and_logs_without_judges() -> None:
    bare = describe(made([[], []], [[], []]))
    assert bare.models == () and bare.references is None and bare.complete == 0
    assert bare.warnings == ("prompts without outcomes: there is nothing to replay",)
    spend = describe(made([[NAN], [NAN]], [[0.1], [0.2]], prompts="ab"))
    assert "no answer is judged" in spend.warnings[0]
    assert spend.models[0].cost == pytest.approx(0.15) and np.isnan(spend.models[0].quality)


def shown(dataset: Dataset) -> str:
    out = io.StringIO()
    show(Console(file=out, width=160), describe(dataset))
    return out.getvalue()


def test_tables_and_json() -> None:
    text = shown(DATA)
    for part in ("data: 4 rows, 3 models", "0.6250 ± 0.2394", "on the 2 complete rows", "75.0%"):
        assert part in text
    assert "1 duplicate prompts" in text and "warning: c: 3 of 4 costs" in text
    for bare in (made([[], []], [[], []]), made([[NAN]], [[0.1]])):
        assert "warning: " in shown(bare)
    report = json.loads(json.dumps(as_json(describe(DATA)), allow_nan=False))
    assert report["models"][1]["judged"] == 0.75
    assert report["references"]["best_single"] == "c"
    assert report["notes"] == ["12 cache hits left out"]
    assert as_json(describe(made([[NAN]], [[0.1]])))["models"][0]["quality"] is None


def test_names_are_not_taken_for_markup() -> None:
    dataset = made([[0.5], [0.5]], [[0.0], [0.0]])
    marked = Dataset(**{**{f: getattr(dataset, f) for f in Dataset.__dataclass_fields__}, "models": ("[bold]m",)})  # fmt: skip
    assert "[bold]m" in shown(marked)

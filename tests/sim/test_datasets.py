"""Loaders: what they take, what they refuse, and that nothing is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from sim.datasets import load, save
from sim.errors import InputError
from sim.synthetic import generate

GOOD: dict[str, list[Any]] = {
    "prompt": ["one", "two"],
    "quality:a": [0.25, 1.0],
    "cost:a": [1e-5, 2e-5],
    "quality:b/c": [0.5, 0.75],
    "cost:b/c": [1e-3, 2e-3],
}


def parquet(folder: Path, columns: dict[str, list[Any]]) -> Path:
    path = folder / "data.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def jsonl(folder: Path, *rows: object) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def test_parquet_holds_models_in_file_order(tmp_path: Path) -> None:
    data = load(parquet(tmp_path, GOOD))
    assert data.models == ("a", "b/c")
    assert data.prompts == ("one", "two")
    assert data.task == data.split == ("", "")
    assert data.quality.tolist() == [[0.25, 0.5], [1.0, 0.75]]
    assert data.cost.tolist() == [[1e-5, 1e-3], [2e-5, 2e-3]]


def test_round_trip_keeps_the_digest(tmp_path: Path) -> None:
    dataset = generate(rows=30, seed=4).dataset
    save(dataset, tmp_path / "out.parquet")
    again = load(tmp_path / "out.parquet")
    assert again.digest() == dataset.digest()
    assert again.take(np.arange(29)).digest() != dataset.digest()


def test_missing_labels_are_nan_and_leave_complete_rows(tmp_path: Path) -> None:
    data = load(parquet(tmp_path, GOOD | {"quality:a": [None, 1.0]}))
    assert np.isnan(data.quality[0, 0])
    assert data.complete().prompts == ("two",)
    assert data.restrict(without=["a"]).complete().prompts == ("one", "two")


def test_slightly_negative_metric_is_clipped(tmp_path: Path) -> None:
    data = load(parquet(tmp_path, GOOD | {"quality:a": [-0.02, 1.01]}))
    assert data.quality[:, 0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"quality:a": [0.5, 7.0]}, r"row 2, column 'quality:a': 7 is not in \[0, 1\]"),
        ({"quality:a": [-0.5, 1.0]}, "row 1, column 'quality:a'"),
        ({"cost:b/c": [1.0, -1.0]}, "row 2, column 'cost:b/c'"),
        ({"cost:b/c": [float("inf"), 1.0]}, "row 1, column 'cost:b/c'"),
        ({"quality:a": ["good", "bad"]}, "column 'quality:a' is not numeric"),
        ({"prompt": ["one", None]}, "row 2, column 'prompt'"),
        ({"quality:d": [0.1, 0.2]}, "column 'cost:d' is missing"),
    ],
)
def test_bad_parquet_is_refused_by_name(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        load(parquet(tmp_path, GOOD | change))
    assert "data.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lacking", ["prompt", "quality"])
def test_other_tables_are_refused(tmp_path: Path, lacking: str) -> None:
    columns = {name: values for name, values in GOOD.items() if not name.startswith(lacking)}
    with pytest.raises(InputError, match=lacking):
        load(parquet(tmp_path, columns))


@pytest.mark.parametrize("name", ["absent.parquet", "data.csv", "broken.parquet"])
def test_unreadable_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "data.csv").write_text("a,b\n")
    (tmp_path / "broken.parquet").write_text("PAR?")
    with pytest.raises(InputError, match=name):
        load(tmp_path / name)


def test_jsonl_with_line_separators_and_uneven_arms(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a\u2028b\x85c", "arms": {"x": {"reward": 0.5, "cost": 1e-4}}, "source": "gsm"},
        {"prompt": "d", "arms": {"y": {"reward": 1, "cost": 2e-4}, "x": {"reward": None}}},
    ]
    data = load(jsonl(tmp_path, *rows))
    assert data.prompts == ("a\u2028b\x85c", "d")
    assert data.models == ("x", "y")
    assert data.task == ("gsm", "")
    np.testing.assert_array_equal(data.quality, [[0.5, np.nan], [np.nan, 1.0]])
    np.testing.assert_array_equal(data.cost, [[1e-4, np.nan], [np.nan, 2e-4]])
    with pytest.raises(InputError, match="no row has every model"):
        data.complete()


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"arms": {}}, "row 2, column 'prompt'"),
        ({"prompt": "p"}, "row 2, column 'arms'"),
        ({"prompt": "p", "arms": {"x": {"reward": "1"}}}, "row 2, column 'arms.x.reward'"),
        ({"prompt": "p", "arms": {"x": {"reward": 3}}}, "row 2, column 'quality:x'"),
        ([], "row 2: not an object"),
    ],
)
def test_bad_jsonl_is_refused_by_row(tmp_path: Path, row: object, told: str) -> None:
    good = {"prompt": "p", "arms": {"x": {"reward": 0.5, "cost": 0.1}}}
    with pytest.raises(InputError, match=told):
        load(jsonl(tmp_path, good, row))


def test_restrict_names_the_option_and_the_models() -> None:
    data = generate(rows=3).dataset
    assert data.restrict(models=["large", "small"]).models == ("small", "large")
    with pytest.raises(InputError, match=r"--without: .*'lage'.*small, coder, large"):
        data.restrict(without=["lage"])
    with pytest.raises(InputError, match="no model"):
        data.restrict(without=["small", "coder", "large"])

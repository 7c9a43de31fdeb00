"""The canonical parquet: models in the order of the file, and every refusal by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from sim.data.formats import load
from sim.errors import InputError

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


def test_models_come_in_file_order(tmp_path: Path) -> None:
    data = load(parquet(tmp_path, GOOD))
    assert data.models == ("a", "b/c")
    assert data.prompts == ("one", "two")
    assert data.task == data.split == ("", "")
    assert data.quality.tolist() == [[0.25, 0.5], [1.0, 0.75]]
    assert data.cost_usd.tolist() == [[1e-5, 1e-3], [2e-5, 2e-3]]
    assert data.notes == ()


def test_missing_labels_are_nan_and_a_small_overshoot_is_clipped(tmp_path: Path) -> None:
    data = load(parquet(tmp_path, GOOD | {"quality:a": [None, 1.01], "cost:a": [None, 0.0]}))
    np.testing.assert_array_equal(data.quality[:, 0], [np.nan, 1.0])
    np.testing.assert_array_equal(data.cost_usd[:, 0], [np.nan, 0.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quality:a": [0.5, 7.0]}, r"row 2, column 'quality:a': 7 is not in \[0, 1\]"),
        ({"quality:a": [-0.5, 1.0]}, "row 1, column 'quality:a'"),
        ({"cost:b/c": [1.0, -1.0]}, "row 2, column 'cost:b/c'"),
        ({"cost:b/c": [float("inf"), 1.0]}, "row 1, column 'cost:b/c'"),
        ({"quality:a": ["0.5", "bad"]}, "row 2, column 'quality:a': 'bad' is not numeric"),
        ({"quality:a": [[0.5], [0.5]]}, "column 'quality:a' is not numeric"),
        ({"prompt": ["one", None]}, "row 2, column 'prompt': not a text"),
        ({"prompt": [1, 2]}, "row 1, column 'prompt': not a text"),
        ({"quality:d": [0.1, 0.2]}, "column 'cost:d' is missing"),
    ],
)
def test_bad_values_are_refused_by_name(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(parquet(tmp_path, GOOD | change))
    assert "data.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_that_are_missing_or_double_are_refused(tmp_path: Path) -> None:
    for lacking in ("prompt", "quality"):
        columns = {name: values for name, values in GOOD.items() if not name.startswith(lacking)}
        with pytest.raises(InputError, match=lacking):
            load(parquet(tmp_path, columns), format="canonical")
    double = pyarrow.table(
        [["p"], [0.5], [0.1], [0.5]], ["prompt", "quality:a", "cost:a", "cost:a"]
    )
    pyarrow.parquet.write_table(double, tmp_path / "double.parquet")
    with pytest.raises(InputError, match="column 'cost:a' appears twice"):
        load(tmp_path / "double.parquet")


def test_no_rows_are_no_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows"):
        load(
            parquet(tmp_path, {name: [] for name in GOOD} | {"prompt": pyarrow.array([], "string")})
        )

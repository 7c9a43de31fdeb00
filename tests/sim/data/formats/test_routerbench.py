"""RouterBench's wide table in its three containers."""

from __future__ import annotations

import csv
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from sim.data.formats import load
from sim.data.formats.routerbench import join_turns
from sim.errors import InputError

ROWS: list[dict[str, Any]] = [
    {
        "sample_id": "mmlu.1",
        "prompt": "['What is \\\\d, \"really\"?']",
        "eval_name": "mmlu",
        "b/x": 1.0,
        "a": 0.25,
        "b/x|model_response": "['A']",
        "a|total_cost": 2e-5,
        "b/x|total_cost": 1e-3,
        "oracle_model_to_route_to": "a",
    },
    {
        "sample_id": "mbpp.2",
        "prompt": "['first turn', 'second turn']",
        "eval_name": "mbpp",
        "b/x": None,
        "a": -0.01,
        "b/x|model_response": "x" * 200_000,
        "a|total_cost": 3e-5,
        "b/x|total_cost": None,
        "oracle_model_to_route_to": "no_model_correct",
    },
]


def written(folder: Path, rows: list[dict[str, Any]], suffix: str = ".csv") -> Path:
    path = folder / f"rb{suffix}"
    if suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_scores_and_costs_are_paired_by_name(tmp_path: Path, suffix: str) -> None:
    data = load(written(tmp_path, ROWS, suffix))
    assert data.models == ("b/x", "a")
    assert data.prompts == ('What is \\d, "really"?', "first turn\n\nsecond turn")
    assert data.task == ("mmlu", "mbpp")
    np.testing.assert_array_equal(data.quality, [[1.0, 0.25], [np.nan, 0.0]])
    np.testing.assert_array_equal(data.cost_usd, [[1e-3, 2e-5], [np.nan, 3e-5]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": "good"}, "row 2, column 'a': 'good' is not a number"),
        ({"a": 4}, r"row 2, column 'a': 4 is not in \[0, 1\]"),
        ({"a|total_cost": -1}, r"row 2, column 'a\|total_cost': -1 is not a cost"),
        ({"a|total_cost": "inf"}, r"row 2, column 'a\|total_cost': inf is not a finite number"),
    ],
)
def test_bad_cells_are_refused_by_row_and_column(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(written(tmp_path, [ROWS[0], ROWS[1] | change]))


@pytest.mark.parametrize("lacking", ["a", "prompt"])
def test_a_column_that_is_missing_is_named(tmp_path: Path, lacking: str) -> None:
    rows = [{name: value for name, value in row.items() if name != lacking} for row in ROWS]
    with pytest.raises(InputError, match=f"column '{lacking}' is missing"):
        load(written(tmp_path, rows))


@pytest.mark.parametrize(
    "text", ["[1, 2]", "[unclosed", "['a'] + ['b']", "[]", "plain", "[" * 3000, "['a', 1]"]
)
def test_a_prompt_that_is_no_list_of_texts_stays_as_it_is(text: str) -> None:
    assert join_turns(text) == text


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("fired"),)


def test_a_pickle_is_not_opened_unless_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rb.pkl", "renamed.csv"):
        Path(name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(InputError, match=r"runs the code .* --trust-pickle"):
            load(Path(name), format="routerbench")
    assert not Path("fired").exists()


def test_without_pandas_a_pickle_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    (tmp_path / "rb.pkl").write_bytes(pickle.dumps(1))
    with pytest.raises(InputError, match="needs pandas: pip install"):
        load(tmp_path / "rb.pkl", trust_pickle=True)


@pytest.mark.slow
def test_a_trusted_pickle_is_read_as_the_csv_is(tmp_path: Path) -> None:
    import pandas

    frame = pandas.DataFrame(ROWS).astype({"a": object, "b/x": object})
    frame.to_pickle(tmp_path / "rb.pkl")
    data = load(tmp_path / "rb.pkl", trust_pickle=True)
    assert data.digest() == load(written(tmp_path, ROWS)).digest()
    for broken in (b"\x80\x04not a pickle", pickle.dumps([1, 2])):
        (tmp_path / "rb.pkl").write_bytes(broken)
        with pytest.raises(InputError, match="not a pickle that opens|not a table but a list"):
            load(tmp_path / "rb.pkl", trust_pickle=True)

"""Reading pairwise preferences: what is accepted, and how the rest is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from banditroute.fitting.pairs import COLUMNS, read_pairs

GOOD = [("p", "x", "y", "a"), ("q", "y", "x", "b"), ("p", "z", "x", "tie")]


def written(path: Path, rows: list[tuple[object, ...]], names: tuple[str, ...] = COLUMNS) -> Path:
    columns = [pyarrow.array(column) for column in zip(*rows, strict=True)]
    parquet.write_table(pyarrow.table(columns, names=list(names)), path)
    return path


def test_pairs_are_coded(tmp_path: Path) -> None:
    pairs = read_pairs(written(tmp_path / "p.parquet", GOOD))
    assert (pairs.prompts, pairs.models, len(pairs)) == (("p", "q"), ("x", "y", "z"), 3)
    assert pairs.row.tolist() == [0, 1, 0]
    assert (pairs.a.tolist(), pairs.b.tolist()) == ([0, 1, 2], [1, 0, 0])
    assert pairs.won.tolist() == [1.0, 0.0, 0.5]
    some = pairs.take(np.array([True, False, True]))
    assert some.row.tolist() == [0, 0] and some.models == pairs.models


def test_other_columns_are_left_alone(tmp_path: Path) -> None:
    rows = [(*row, 7) for row in GOOD]
    assert len(read_pairs(written(tmp_path / "p.parquet", rows, (*COLUMNS, "judge")))) == 3


def test_strength_is_the_share_of_wins(tmp_path: Path) -> None:
    pairs = read_pairs(written(tmp_path / "p.parquet", GOOD))
    np.testing.assert_allclose(pairs.strength(), [(2.5 + 0.5) / 4, 0.5 / 3, (0.5 + 0.5) / 2])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((None, "x", "y", "a"), "row 4, column 'prompt': not a text"),
        (("p", None, "y", "a"), "row 4, column 'model_a': not a text"),
        (("p", "", "y", "a"), "row 4, column 'model_a': empty"),
        (("p", "x", "", "a"), "row 4, column 'model_b': empty"),
        (("p", "x", "x", "a"), "row 4, column 'model_b': 'x' against itself"),
        (("p", "x", "y", "A"), "row 4, column 'winner': 'A' is not a, b, tie"),
        (("p", "x", "y", None), "row 4, column 'winner': not a text"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: tuple[object, ...], message: str) -> None:
    path = written(tmp_path / "p.parquet", [*GOOD, row])
    with pytest.raises(ValueError) as caught:
        read_pairs(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("name", COLUMNS)
def test_a_missing_column_is_named(tmp_path: Path, name: str) -> None:
    names = tuple("other" if column == name else column for column in COLUMNS)
    path = written(tmp_path / "p.parquet", list(GOOD), names)
    with pytest.raises(ValueError, match=f"^{path}: column {name!r} is missing$"):
        read_pairs(path)


def test_a_column_that_appears_twice_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "p.parquet", [(*row, "a") for row in GOOD], (*COLUMNS, "winner"))
    with pytest.raises(ValueError, match=f"^{path}: column 'winner' appears twice$"):
        read_pairs(path)


def test_one_prompt_is_not_enough(tmp_path: Path) -> None:
    path = written(tmp_path / "p.parquet", [GOOD[0], GOOD[2]])
    with pytest.raises(ValueError, match=f"^{path}: column 'prompt': at least 2 different"):
        read_pairs(path)


def test_numbers_are_no_texts(tmp_path: Path) -> None:
    path = written(tmp_path / "p.parquet", [(1, "x", "y", "a")])
    with pytest.raises(ValueError, match=f"^{path}: row 1, column 'prompt': not a text$"):
        read_pairs(path)


def test_files_that_hold_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.parquet: no such file$"):
        read_pairs(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("prompt,model_a\n")
    with pytest.raises(ValueError, match=r"text\.parquet: not a parquet file \("):
        read_pairs(tmp_path / "text.parquet")
    empty = pyarrow.table({name: pyarrow.array([], pyarrow.string()) for name in COLUMNS})
    parquet.write_table(empty, tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match=r"empty\.parquet: no rows$"):
        read_pairs(tmp_path / "empty.parquet")

"""ParetoBandit's jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sim.data.formats import load
from sim.errors import InputError


def jsonl(folder: Path, *rows: object) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def test_line_separators_in_texts_and_uneven_arms(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a\u2028b\x85c", "arms": {"x": {"reward": 0.5, "cost": 1e-4}}, "source": "gsm"},
        {
            "prompt": "d",
            "arms": {"y": {"reward": 1, "cost": 2e-4}, "x": {"reward": None}},
            "split": "t",
        },
    ]
    data = load(jsonl(tmp_path, *rows))
    assert data.prompts == ("a\u2028b\x85c", "d")
    assert data.models == ("x", "y")
    assert data.task == ("gsm", "") and data.split == ("", "t")
    np.testing.assert_array_equal(data.quality, [[0.5, np.nan], [np.nan, 1.0]])
    np.testing.assert_array_equal(data.cost_usd, [[1e-4, np.nan], [np.nan, 2e-4]])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"arms": {}}, "row 2, column 'prompt': missing"),
        ({"prompt": 3, "arms": {}}, "row 2, column 'prompt': not a text"),
        ({"prompt": "p"}, "row 2, column 'arms': missing"),
        ({"prompt": "p", "arms": [1]}, "row 2, column 'arms': not an object"),
        ({"prompt": "p", "arms": {"x": 0.5}}, "row 2, column 'arms.x': not an object"),
        ({"prompt": "p", "arms": {"x": {"reward": "1"}}}, "row 2, column 'arms.x.reward': not a number"),
        ({"prompt": "p", "arms": {"x": {"reward": True}}}, "row 2, column 'arms.x.reward': not a number"),
        ({"prompt": "p", "arms": {"x": {"reward": 3}}}, r"row 2, column 'arms.x.reward': 3 is not in \[0, 1\]"),
        ({"prompt": "p", "arms": {"x": {"cost": 10**400}}}, "row 2, column 'arms.x.cost': .* is not a number"),
        ({"prompt": "p", "arms": {"x": {"cost": float("inf")}}}, "row 2, column 'arms.x.cost': inf"),
        ({"prompt": "p", "arms": {"x": {"cost": -1}}}, "row 2, column 'arms.x.cost': -1 is not a cost"),
        ([], "row 2: not an object"),
    ],
)  # fmt: skip
def test_bad_rows_are_refused_by_row_and_column(tmp_path: Path, row: object, message: str) -> None:
    good = {"prompt": "p", "arms": {"x": {"reward": 0.5, "cost": 0.1}}}
    with pytest.raises(InputError, match=message):
        load(jsonl(tmp_path, good, row))

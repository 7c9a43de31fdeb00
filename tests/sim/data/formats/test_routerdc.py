"""RouterDC's json, an array of questions with scores; LLMRouter writes the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.data.formats import load
from sim.errors import InputError

GOOD: list[Any] = [
    {"question": "one", "scores": {"a": 1.0, "b": 0.5}, "cluster_id": 4},
    {"question": "two", "scores": {"b": 1, "a": None}, "cluster_id": 2},
]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["train.json", "train.txt"])
def test_scores_are_found_by_name_whatever_their_order(
    tmp_path: Path, indent: int | None, name: str
) -> None:
    (tmp_path / name).write_text(json.dumps(GOOD, indent=indent))
    data = load(tmp_path / name)
    assert data.models == ("a", "b") and data.prompts == ("one", "two")
    np.testing.assert_array_equal(data.quality, [[1.0, 0.5], [np.nan, 1.0]])
    assert np.isnan(data.cost_usd).all()
    assert load(tmp_path / name, format="llmrouter").digest() == data.digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"question": "q", "scores": {"a": 1}}, {"question": "q", "sco', "row 2: not JSON"),
        ('[{"question": "q", "scores": {"a": 1}}', "row 1: the array does not end after it"),
        ('[{"question": "q", "scores": {"a": 1}},]', "row 2: not JSON"),
        ('[{"question": "q", "scores": {"a": 1}}] x', "row 1: the array does not end after it"),
        ('[{"question": "q", "scores": {"a": 1, "a": 0}}]', "row 1, column 'a': appears twice"),
        ('[{"question": "q", "scores": {"a": [1]}}]', "row 1, column 'scores.a': not a number"),
        ('[{"question": "q", "scores": {"a": 1}}, {"question": "q"}]', "row 2, column 'scores': missing"),
        ('[{"question": null, "scores": {"a": 1}}]', "row 1, column 'question': missing"),
        ('[{"question": "q", "scores": {"a": -Infinity}}]', "row 1, column 'scores.a': -inf"),
        ("[" * 100_000, "row 1: not JSON"),
        ("[1]", "row 1: not an object"),
        ("[]", "no rows"),
        ("{}", "unknown format: json with the columns none"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_row(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "train.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"train.json: {message}"):
        load(path)

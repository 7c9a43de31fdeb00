"""RouterArena's cached results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.data.formats import load
from sim.errors import InputError


def row(index: str, model: str, score: Any, **more: Any) -> dict[str, Any]:
    return {
        "global_index": index,
        "question": f"question of {index}",
        "llm_selected": model,
        "token_usage": {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110},
        "success": True,
        "evaluation_result": {"score": score, "metric": "mcq", "inference_cost": 3e-5},
    } | more


def jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "cached.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in rows))
    return path


def test_a_model_a_row_failures_left_out(tmp_path: Path) -> None:
    rows = [
        row("AIME_1", "a", 1.0),
        row("Arc_X_7", "b", 0.0),
        row("AIME_1", "b", 0.5),
        row("AIME_2", "a", 1.0, success=False, evaluation_result=None, token_usage=None),
        row("AIME_3", "a", None, evaluation_result={"score": None, "inference_cost": None}),
    ]
    data = load(jsonl(tmp_path, *rows))
    assert data.models == ("a", "b")
    assert data.task == ("AIME", "Arc_X", "AIME")
    nan = np.nan
    np.testing.assert_array_equal(data.quality, [[1.0, 0.5], [nan, 0.0], [nan, nan]])
    np.testing.assert_array_equal(data.cost_usd, [[3e-5, 3e-5], [nan, 3e-5], [nan, nan]])
    assert data.notes[0] == "1 failed calls left out"
    assert "no propensities" in data.notes[1]
    assert data.notes[2] == "1 of 4 answers have no cost: --prices gives them one"
    prices = tmp_path / "prices.csv"
    prices.write_text("model,input_price,output_price\na,10,100\nb,1,1\n")
    priced = load(jsonl(tmp_path, *rows), prices=prices)
    assert priced.cost_usd[2, 0] == pytest.approx(2e-3)
    assert priced.cost_usd[0, 0] == 3e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"success": "yes"}, "row 2, column 'success': neither true nor false"),
        ({"global_index": None}, "row 2, column 'global_index': missing"),
        ({"evaluation_result": 1.0}, "row 2, column 'evaluation_result': not an object"),
        (
            {"evaluation_result": {"score": 5}},
            "row 2, column 'evaluation_result.score': 5 is not in",
        ),
        (
            {"token_usage": {"output_tokens": "x"}},
            "row 2, column 'token_usage.output_tokens': not a",
        ),
        ({"llm_selected": ""}, "row 2, column 'llm_selected': empty"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(jsonl(tmp_path, row("A_1", "a", 1.0), row("A_2", "a", 1.0) | change))


def test_nothing_but_failures_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every one of its 2 calls failed"):
        load(jsonl(tmp_path, *(row(f"A_{i}", "a", 1.0, success=False) for i in range(2))))

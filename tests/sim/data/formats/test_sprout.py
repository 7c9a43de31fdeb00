"""SPROUT's parquet of structs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from sim.data.formats import load
from sim.errors import InputError


def answer(score: Any, read: Any, written: Any) -> dict[str, Any]:
    return {
        "response": "text",
        "score": score,
        "num_input_tokens": read,
        "num_output_tokens": written,
    }


GOOD: dict[str, list[Any]] = {
    "key": [1, 2],
    "dataset": ["math", "ragbench"],
    "dataset_level": ["5", None],
    "prompt": ["p", "q"],
    "golden_answer": ["1", "2"],
    "gpt-4o": [answer(1.0, 1000, 500), answer(0.5, 2000, 0)],
    "granite": [answer(0.0, 1000, 100), None],
}


def parquet(folder: Path, columns: dict[str, list[Any]]) -> Path:
    path = folder / "train-00000.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def prices(folder: Path, *lines: str) -> Path:
    path = folder / "prices.csv"
    path.write_text("\n".join(("model,input_price,output_price", *lines)) + "\n")
    return path


def test_costs_are_the_counted_tokens_at_the_price_list(tmp_path: Path) -> None:
    listed = prices(tmp_path, "gpt-4o,2.5,10", "granite,0.1,0.2")
    data = load(parquet(tmp_path, GOOD), prices=listed)
    assert data.models == ("gpt-4o", "granite") and data.task == ("math", "ragbench")
    np.testing.assert_array_equal(data.quality, [[1.0, 0.0], [0.5, np.nan]])
    np.testing.assert_allclose(data.cost_usd, [[0.0075, 0.00012], [0.005, np.nan]], rtol=1e-12)
    assert data.notes == (f"the costs of 3 answers are token counts at {listed}'s prices",)


def test_without_a_price_there_is_no_cost(tmp_path: Path) -> None:
    data = load(parquet(tmp_path, GOOD))
    assert np.isnan(data.cost_usd).all()
    assert data.notes == ("3 of 3 answers have no cost: --prices gives them one",)
    data = load(parquet(tmp_path, GOOD), prices=prices(tmp_path, "granite,0.1,0.2"))
    assert np.isnan(data.cost_usd[:, 0]).all() and data.cost_usd[0, 1] > 0.0
    assert "has no price for 'gpt-4o': its costs are missing" in data.notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"granite": [answer(3.0, 1, 1), None]}, r"row 1, column 'quality:granite': 3 is not in"),
        (
            {"granite": [answer("x", 1, 1), None]},
            "row 1, column 'granite.score': 'x' is not numeric",
        ),
        ({"granite": [answer(1.0, -1, 1), None]}, "row 1, column 'granite.num_input_tokens': -1"),
        (
            {"granite": [answer(1.0, 1, 1e12), None]},
            "row 1, column 'granite.num_output_tokens': 1e",
        ),
        ({"granite": [{"score": 1.0}, None]}, "column 'granite.num_input_tokens' is missing"),
        ({"prompt": ["p", None]}, "row 2, column 'prompt': not a text"),
    ],
)
def test_bad_values_are_refused_by_name(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(parquet(tmp_path, GOOD | change))

"""RouteLLM's csv: who was right, and no cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.data.formats import load
from sim.errors import InputError

TEXT = '\ufeffprompt,mistralai/Mixtral,gpt-4\n"one,\nof two",True,False\ntwo,false,TRUE\n'


def csv(folder: Path, text: str) -> Path:
    path = folder / "mmlu.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_right_is_1_and_the_cost_is_missing(tmp_path: Path) -> None:
    data = load(csv(tmp_path, TEXT))
    assert data.models == ("mistralai/Mixtral", "gpt-4")
    assert data.prompts == ("one,\nof two", "two")
    assert data.quality.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert np.isnan(data.cost_usd).all()
    with pytest.raises(InputError, match="mmlu: no answer has a cost; --prices"):
        data.complete()


def test_costs_from_a_price_list_are_called_estimates(tmp_path: Path) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text("model,input_price,output_price\nmistralai/Mixtral,4,1\ngpt-4,0,10\n")
    data = load(csv(tmp_path, TEXT), prices=prices)
    # bytes / 4 input tokens at 4 USD per million are a millionth per byte.
    np.testing.assert_allclose(data.cost_usd[0], [11e-6 + 512e-6, 5120e-6], rtol=1e-12)
    assert "estimates, bytes / 4 input and 512 output tokens" in data.notes[0]
    without = load(csv(tmp_path, TEXT), prices=prices, estimate_costs=False)
    assert np.isnan(without.cost_usd).all()
    assert "4 answers are missing: no tokens counted" in without.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,a\np,Tru\n", "row 1, column 'a': 'Tru' is not a number"),
        ("prompt,a\np,True\nq,7\n", r"row 2, column 'a': 7 is not in \[0, 1\]"),
        ("prompt,a\np,True\nq\n", "row 2: 1 fields where the header has 2"),
        ("prompt,a\np,True,False\n", "row 1: 3 fields where the header has 2"),
        ('prompt,a\np,True\n"q,False\n', "row 2: not CSV"),
        ("prompt,a,a\np,True,False\n", "column 'a' appears twice"),
        ("question,a\np,True\n", "unknown format: csv with the columns a, question"),
        ("prompt,a\n", "no rows"),
        ("", "no rows"),
    ],
)
def test_what_is_wrong_is_refused_by_row(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"mmlu.csv: {message}"):
        load(csv(tmp_path, text))


def test_an_empty_cell_is_no_judgement_and_an_index_no_model(tmp_path: Path) -> None:
    data = load(csv(tmp_path, ",prompt,a,b\n0,p,True,\n1,q,0.5,1\n"))
    assert data.models == ("a", "b")
    np.testing.assert_array_equal(data.quality, [[1.0, np.nan], [0.5, 1.0]])

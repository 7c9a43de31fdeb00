"""The cost prior that is drawn, and the one that is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.data.prices import draw_prices, estimate_input_tokens, read_prices
from sim.data.synthetic import generate
from sim.errors import InputError


def test_prior_costs_the_mean_up_to_a_lognormal_error() -> None:
    data = generate(rows=200).dataset
    errors = []
    for seed in range(400):
        specs = draw_prices(data, seed=seed)
        assert [spec.input_price for spec in specs] == [0.0] * 3
        prior = np.array([spec.output_price for spec in specs]) * 512 / 1e6
        errors.append(np.log(prior / data.cost_usd.mean(axis=0)))
    assert np.mean(errors) == pytest.approx(0.0, abs=0.05)
    assert np.std(errors) == pytest.approx(0.5, abs=0.05)
    assert draw_prices(data, seed=3) == draw_prices(data, seed=3)


def test_price_list_is_read_in_the_order_of_the_models(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("model,input_price,output_price\nb,1,2\nother,5,5\na/x,0.05,0.08\n")
    first, second = read_prices(path, ["a/x", "b"])
    assert (first.name, first.input_price, first.output_price) == ("a/x", 0.05, 0.08)
    assert (second.name, second.input_price, second.output_price) == ("b", 1.0, 2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,input_price\na,1\n", "column 'output_price' is missing"),
        ("model,input_price,output_price\na,1,x\n", "row 1, column 'output_price': 'x'"),
        ("model,input_price,output_price\na,-1,1\n", "row 1, column 'input_price': '-1'"),
        ("model,input_price,output_price\na,1\n", "row 1, column 'output_price'"),
        ("model,input_price,output_price\nb,1,1\n", "no price for model 'a'"),
        ("model,input_price,output_price\na,1,1\na,1,1\n", "row 2, column 'model'"),
        ("model,input_price,output_price\nb,1,1\na,1e18,1\n", "row 2, column 'input_price': Input"),
        (f"model,input_price,output_price\n{'a' * 300},1,1\n", "row 1, column 'model': String"),
    ],
)
def test_bad_price_list_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"--prices: .*{message}"):
        read_prices(path, ["a"])


def test_prompts_are_taken_for_a_token_every_four_bytes() -> None:
    assert estimate_input_tokens(["", "abcd", "\u00e9\ud800"]).tolist() == [0.0, 1.0, 1.25]

"""The price of money: a mixture of laws is a law, and a threshold leaves at least one model."""

from __future__ import annotations

import numpy as np
import pytest

from policies.base import Float64
from policies.linucb import LinUCB
from policies.pacing.price import Price, PriceTerms, below_gain, priced
from policies.thompson import Thompson

COST = np.array([[0.001, 0.01, 0.1], [0.001, 0.01, 0.1]])
OPEN = np.ones((2, 3), dtype=np.bool_)
SCORES = {
    "mean": np.array([[0.5, 0.7, 0.8], [0.5, 0.7, 0.8]], dtype=np.float32),
    "bonus": np.zeros((2, 3), dtype=np.float32),
}


def law(price: Price, cost: Float64 = COST) -> Float64:
    return priced(LinUCB, SCORES, OPEN, np.zeros((2, 3)), cost, price)


def test_money_buys_less_as_its_price_rises() -> None:
    chosen = [law(PriceTerms(price, price).rows(2)).argmax(axis=1)[0] for price in (0.0, 5.0, 50.0)]
    assert chosen == [2, 1, 0]


def test_a_mixed_price_mixes_the_laws_of_its_rows_alone() -> None:
    flat = PriceTerms(0.0, 50.0, share=0.25).rows(2)
    mixed = law(flat)
    np.testing.assert_array_equal(mixed, [[0.75, 0.0, 0.25]] * 2)
    one = Price(
        *(part.copy() for part in (flat.low, flat.high, flat.share, flat.gain, flat.rate_usd))
    )
    one.high[1] = 0.0
    np.testing.assert_array_equal(law(one), [[0.75, 0.0, 0.25], [0.0, 0.0, 1.0]])


def test_a_row_alone_has_the_bits_that_it_has_in_a_batch() -> None:
    rng = np.random.default_rng(0)
    n, k = 40, 5
    scores = {
        "mean": rng.random((n, k), dtype=np.float32),
        "scale": rng.random((n, k), dtype=np.float32) * 0.2 + 0.01,
    }
    open_to, fine, cost = rng.random((n, k)) < 0.8, rng.random((n, k)), rng.random((n, k))
    open_to[:, 0] = True
    low = rng.random((n, 1))
    high = low + np.where(rng.random((n, 1)) < 0.5, 0.0, rng.random((n, 1)))
    price = Price(low, high, rng.random((n, 1)), *np.zeros((2, n, 1)))
    whole = priced(Thompson, scores, open_to, fine, cost, price)
    np.testing.assert_allclose(whole.sum(axis=1), 1.0)
    for i in range(n):
        at = slice(i, i + 1)
        own = {name: value[at] for name, value in scores.items()}
        alone = priced(Thompson, own, open_to[at], fine[at], cost[at], price.take(at))
        np.testing.assert_array_equal(alone, whole[at])


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        (0.0, [False, False, False]),
        (3.0, [False, False, True]),  # .3 / .099 is 3.03 against the cheapest, of which .2 is kept
        (10.0, [False, False, True]),
        (30.0, [False, True, True]),
        (1e9, [False, True, True]),
    ],
)
def test_a_threshold_counts_gains_over_the_cheapest(gain: float, expected: list[bool]) -> None:
    mean = np.array([[0.5, 0.7, 0.79]], dtype=np.float32)
    found = below_gain(mean, COST[:1], OPEN[:1], np.array([[gain]]))
    assert found.tolist() == [expected]


def test_the_cheapest_eligible_model_is_never_left_out() -> None:
    mean = np.array([[0.9, -0.5, -0.7]], dtype=np.float32)
    open_to = np.array([[False, True, True]])
    assert below_gain(mean, COST[:1], open_to, np.array([[1e3]])).tolist() == [[False, False, True]]
    nothing = np.zeros((1, 3), dtype=np.bool_)
    assert not below_gain(mean, COST[:1], nothing, np.array([[1e3]])).any()

"""Time of adaptation, counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim.measure.adaptation import WINDOW, adaptation, median

SWAP = np.where(np.arange(300)[:, None] < 100, [0.2, 0.8], [0.8, 0.2])


def test_counts_until_a_window_is_nine_tenths_of_the_way() -> None:
    chosen = np.array([1] * 130 + [0] * 170)
    (after,), worth = adaptation(SWAP, chosen, [100])
    assert after == 30 - 4 + 20
    assert worth.tolist() == pytest.approx([0.8] * 100 + [0.2] * 30 + [0.8] * 170)


def test_at_once_and_never() -> None:
    assert adaptation(SWAP, np.array([1] * 100 + [0] * 200), [100])[0] == [20.0]
    assert adaptation(SWAP, np.ones(300, dtype=np.intp), [100])[0] == [math.inf]


def test_no_way_to_go_is_nan() -> None:
    (after,), _ = adaptation(SWAP, np.zeros(300, dtype=np.intp), [100])
    assert math.isnan(after)


def test_a_withdrawn_model_counts_as_the_worst() -> None:
    values = SWAP.copy()
    values[100:] = [0.5, np.nan]
    (after,), _ = adaptation(values, np.array([1] * 100 + [0] * 200), [100])
    assert math.isnan(after)
    three = np.column_stack([values, np.full(300, 0.1)])
    (after,), _ = adaptation(three, np.array([1] * 100 + [0] * 200), [100])
    assert after == 20.0


def test_refusals_are_worth_nothing() -> None:
    chosen = np.array([1] * 100 + [-1] * 60 + [0] * 140)
    # From 0.2 on, 37 of 40 good choices and 3 of nothing are nine tenths of the way.
    assert adaptation(SWAP, chosen, [100])[0] == [60 - 3 + 20]


@pytest.mark.parametrize(
    ("values", "middle"),
    [
        ([10.0, 30.0, math.inf], 30.0),
        ([10.0, 30.0, math.nan], 20.0),
        ([math.inf, math.inf, 5.0], math.inf),
        ([10.0, math.inf], math.inf),
        ([10.0, math.nan, math.nan], math.nan),
        ([10.0, math.nan], math.nan),
    ],
)
def test_median_counts_never_as_large(values: list[float], middle: float) -> None:
    assert median(values) == pytest.approx(middle, nan_ok=True)


def test_a_part_of_fewer_choices_than_are_averaged_is_never_adapted_to() -> None:
    """Values may be below 0, where a window that is half full would look better than it is."""
    values = np.tile([-0.9, -0.2], (WINDOW + 10, 1))
    values[:WINDOW] = -0.5, -0.8
    chosen = np.zeros(len(values), dtype=np.intp)
    assert adaptation(values, chosen, [WINDOW])[0] == [math.inf]

"""Means, errors and intervals, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim.measure.uncertainty import band, bootstrap, mean_with_error
from sim.results import Measure


@pytest.mark.parametrize(
    ("values", "mean", "se"),
    [
        ([0.5], 0.5, None),
        ([0.4, 0.6], 0.5, 0.1),
        ([1.0, 2.0, 3.0], 2.0, 1.0 / math.sqrt(3)),
        ([0.4, math.nan, 0.6], 0.5, 0.1),
        ([math.nan, 0.5], 0.5, None),
        ([math.nan], None, None),
        ([], None, None),
    ],
)
def test_mean_and_standard_error(values: list[float], mean: float | None, se: float | None) -> None:
    measure = mean_with_error(values)
    assert measure.mean == (None if mean is None else pytest.approx(mean))
    assert measure.se == (None if se is None else pytest.approx(se))


def test_one_curve_has_no_width() -> None:
    curve = band(np.array([[1.0, 2.0]]))
    assert curve.low == curve.mean == curve.high == [1.0, 2.0]


def test_band_covers_the_mean_of_curves() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        curve = band(rng.normal(size=(4, 1)))
        inside += curve.low[0] <= 0.0 <= curve.high[0]
    assert inside / 400 == pytest.approx(0.95, abs=0.03)


def test_bootstrap_of_a_mean_and_of_an_undefined_metric() -> None:
    values = np.random.default_rng(1).normal(size=300)

    def metrics(rows: np.ndarray) -> dict[str, float]:
        return {"mean": float(values[rows].mean()), "none": math.nan}

    errors = bootstrap(np.arange(300), metrics)
    assert errors["mean"] == pytest.approx(values.std() / math.sqrt(300), rel=0.15)
    assert errors["none"] is None
    assert bootstrap(np.arange(300), metrics) == errors
    assert Measure(mean=1.0, se=errors["none"]).se is None

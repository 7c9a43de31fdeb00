"""Bins: their ends, sums and shares."""

from __future__ import annotations

import numpy as np
import pytest

from sim.measure.over_time import (
    BINS,
    bin_ends,
    bin_means,
    bin_shares,
    bin_sums,
    propensity_histogram,
)


@pytest.mark.parametrize("n", [1, 7, BINS, BINS + 1, 1_000, 36_497])
def test_bins_are_few_and_about_equal(n: int) -> None:
    ends = bin_ends(n)
    assert len(ends) == min(n, BINS)
    assert ends[-1] == n
    sizes = np.diff(ends, prepend=0)
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1


def test_sums_means_and_shares() -> None:
    ends = np.array([2, 5])
    values = np.array([1.0, 2.0, 3.0, 4.0, 8.0])
    assert bin_sums(values, ends).tolist() == [3.0, 15.0]
    assert bin_means(values, ends).tolist() == [1.5, 5.0]
    chosen = np.array([0, -1, 1, 1, 0])
    assert bin_shares(chosen, 2, ends).tolist() == [
        [0.5, 0.0],
        [pytest.approx(1 / 3), pytest.approx(2 / 3)],
    ]


def test_histogram_has_both_ends() -> None:
    counts = propensity_histogram(np.array([0.0, 1.0, 1.0 + 1e-12, 0.26, np.nan]))
    assert counts is not None
    assert (counts[0], counts[5], counts[-1], sum(counts)) == (1, 1, 2, 4)
    assert propensity_histogram(np.array([np.nan])) is None

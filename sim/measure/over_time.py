"""What policies do over time, in bins of requests that are few enough to draw.

Pure functions of columns over n requests and of the ends int[m] of the bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policies.base import Float64

BINS = 60
PROPENSITY_BINS = 20

Ends = NDArray[np.intp]


def bin_ends(n: int) -> Ends:
    """Return the ends of at most `BINS` bins of about equal size over n requests."""
    bins = min(BINS, n)
    return np.round(np.arange(1, bins + 1) * n / bins).astype(np.intp)


def bin_sums(values: Float64, ends: Ends) -> Float64:
    """Return the sums float64[m, ..] of each bin of values[n, ..]."""
    sums: Float64 = np.add.reduceat(values, np.append(0, ends[:-1]), axis=0)
    return sums


def bin_means(values: Float64, ends: Ends) -> Float64:
    """Return the means float64[m, ..] of each bin of values[n, ..]."""
    return (bin_sums(values, ends).T / np.diff(ends, prepend=0)).T


def bin_shares(chosen: NDArray[np.intp], models: int, ends: Ends) -> Float64:
    """Return float64[m, K], the share of each model among the requests of each bin.

    Parameters
    ----------
    chosen : int[n]
        Column of the chosen model, -1 for a refusal.
    models : int
        K.
    ends : int[m]
        Ends of the bins.
    """
    one_hot = (chosen[:, None] == np.arange(models)).astype(np.float64)
    return bin_means(one_hot, ends)


def propensity_histogram(propensity: Float64) -> list[int] | None:
    """Return counts in `PROPENSITY_BINS` equal bins of [0, 1]; None where all are NaN."""
    numbers = propensity[~np.isnan(propensity)]
    if len(numbers) == 0:
        return None
    counts, _ = np.histogram(numbers.clip(0.0, 1.0), bins=PROPENSITY_BINS, range=(0.0, 1.0))
    return [int(count) for count in counts]

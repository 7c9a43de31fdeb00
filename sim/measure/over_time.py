"""What policies do over time, in bins of requests that are few enough to draw.

Pure functions of columns over n requests and the ends int[m] of the bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policies.base import Float64

BINS = 60
PROPENSITY_BINS = 20

Ends = NDArray[np.intp]


def ends(n: int) -> Ends:
    """Return the ends of at most `BINS` bins of about equal size over n requests."""
    bins = min(BINS, n)
    return np.round(np.arange(1, bins + 1) * n / bins).astype(np.intp)


def sums(values: Float64, at: Ends) -> Float64:
    """Return the sums float64[m, ..] of each bin of values[n, ..]."""
    total: Float64 = np.add.reduceat(values, np.append(0, at[:-1]), axis=0)
    return total


def means(values: Float64, at: Ends) -> Float64:
    """Return the means float64[m] of each bin of values[n]."""
    return sums(values, at) / np.diff(at, prepend=0)


def shares(chosen: NDArray[np.intp], models: int, at: Ends) -> Float64:
    """Return float64[m, K], the share of each model among the requests of each bin."""
    hot = (chosen[:, None] == np.arange(models)).astype(np.float64)
    return sums(hot, at) / np.diff(at, prepend=0)[:, None]


def histogram(propensity: Float64) -> list[int] | None:
    """Return counts in `PROPENSITY_BINS` equal bins of [0, 1]; None where all are NaN."""
    known = propensity[~np.isnan(propensity)]
    if len(known) == 0:
        return None
    counts, _ = np.histogram(known.clip(0.0, 1.0), bins=PROPENSITY_BINS, range=(0.0, 1.0))
    return [int(count) for count in counts]

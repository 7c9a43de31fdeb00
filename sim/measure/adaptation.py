"""How soon a policy is back after the world has changed.

Choices are valued by the mean of the model chosen over the part of the world that they fall in, so
that the luck of the single request is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from policies.base import Float64

WINDOW = 40
"""Choices whose mean is taken; twice as many tell what was done before a change."""

ADAPTED = 0.9
LEAST = 0.005
"""The way to go, in units of value, below which there is nothing to adapt to."""


def adaptation(
    values: Float64, chosen: NDArray[np.intp], starts: Sequence[int]
) -> tuple[list[float], Float64]:
    """Return how many requests a policy needs after each change, and what its choices are worth.

    Parameters
    ----------
    values : float64[n, K], NaN where a model is not on offer.
    chosen : int[n], columns, -1 for none, which is worth 0.
    starts : requests before which the world changes, ascending, each in [1, n).

    Returns
    -------
    adapted : for each change the requests until the mean of `WINDOW` choices has gone `ADAPTED` of
        the way from those just before it to the best single model of the part that it begins; inf
        for never, as of a part of fewer choices, NaN where there was no way to go.
    worth : float64[n], of each choice.
    """
    edges = [0, *starts, len(chosen)]
    parts = [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]
    means = [_means(values[part]) for part in parts]
    worth = [_worth(mean, chosen[part]) for mean, part in zip(means, parts, strict=True)]
    adapted = []
    for k in range(1, len(parts)):
        if np.isnan(means[k]).all():
            adapted.append(math.nan)
            continue
        # A model that is gone is worth as much as the worst that is left.
        left = np.where(np.isnan(means[k]), np.nanmin(means[k]), means[k])
        before = float(_worth(left, chosen[parts[k - 1]][-2 * WINDOW :]).mean())
        adapted.append(_reached(worth[k], before, float(np.nanmax(means[k]))))
    return adapted, np.concatenate(worth)


def median(values: Sequence[float] | Float64) -> float:
    """Return the median of the numbers in values, NaN where most are NaN; inf counts as large."""
    array = np.asarray(values, dtype=np.float64)
    known = np.sort(array[~np.isnan(array)])
    if 2 * len(known) <= len(array):
        return math.nan
    middle = known[[(len(known) - 1) // 2, len(known) // 2]]
    return float(middle[0]) if middle[0] == middle[1] else float(middle.mean())


def _means(values: Float64) -> Float64:
    here = ~np.isnan(values)
    counts = here.sum(axis=0)
    means: Float64 = np.where(here, values, 0.0).sum(axis=0) / np.where(counts, counts, np.nan)
    return means


def _worth(means: Float64, chosen: NDArray[np.intp]) -> Float64:
    return np.where(chosen < 0, 0.0, means[chosen])


def _reached(worth: Float64, start: float, goal: float) -> float:
    if goal - start < LEAST:
        return math.nan
    if len(worth) < WINDOW:
        return math.inf
    smooth = np.convolve(worth, np.full(WINDOW, 1.0 / WINDOW), mode="valid")
    # Sums of equal numbers may fall short of the goal by rounding.
    reached = np.flatnonzero(smooth >= start + ADAPTED * (goal - start) - 1e-12)
    return float(reached[0] + WINDOW // 2) if len(reached) else math.inf

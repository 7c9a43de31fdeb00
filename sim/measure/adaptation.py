"""How many requests a policy needs to adapt after the world has changed.

The world between two changes is a part. A choice counts as the mean value of the chosen model over
the part, so that the luck of the single request is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from policies.base import Float64

WINDOW = 40
"""Choices in a moving mean; the last ``2 * WINDOW`` choices before a change are the start."""

ADAPTED_SHARE = 0.9
"""Share of the way from the start to the best single model after which a policy has adapted."""

LEAST_GAP = 0.005
"""Units of value; if the best single model is less than this above the start, there is nothing to
adapt to."""


def adaptation(
    values: Float64, chosen: NDArray[np.intp], starts: Sequence[int]
) -> tuple[list[float], Float64]:
    """Return how many requests a policy needs after each change, and the values of its choices.

    Parameters
    ----------
    values : float64[n, K]
        Value of each model at each request, NaN where it is not on offer.
    chosen : int[n]
        Column of the chosen model; -1 for a refusal, which has value 0.
    starts : sequence of int
        Requests before which the world changes, ascending, each in [1, n).

    Returns
    -------
    requests : list of float
        For each change the requests until the mean of `WINDOW` choices has gone `ADAPTED_SHARE` of
        the way from the choices just before the change to the best single model after it. inf:
        never, which includes parts of fewer than `WINDOW` choices. NaN: there was no way to go.
    choice_values : float64[n]
        Mean value of the chosen model over its part.
    """
    edges = [0, *starts, len(chosen)]
    parts = [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]
    means = [_means(values[part]) for part in parts]
    choice_values = [
        _of_choices(mean, chosen[part]) for mean, part in zip(means, parts, strict=True)
    ]
    requests = []
    for k in range(1, len(parts)):
        if np.isnan(means[k]).all():
            requests.append(math.nan)
            continue
        # A model that was withdrawn counts as the worst of those that are left.
        after = np.where(np.isnan(means[k]), np.nanmin(means[k]), means[k])
        start = float(_of_choices(after, chosen[parts[k - 1]][-2 * WINDOW :]).mean())
        requests.append(_requests(choice_values[k], start, float(np.nanmax(means[k]))))
    return requests, np.concatenate(choice_values)


def median(values: Sequence[float] | Float64) -> float:
    """Return the median of the values that are not NaN; NaN where at least half of them are.

    Parameters
    ----------
    values : float64[n]
        inf counts as a large number.
    """
    array = np.asarray(values, dtype=np.float64)
    numbers = np.sort(array[~np.isnan(array)])
    if 2 * len(numbers) <= len(array):
        return math.nan
    middle = numbers[[(len(numbers) - 1) // 2, len(numbers) // 2]]
    return float(middle[0]) if middle[0] == middle[1] else float(middle.mean())


def _means(values: Float64) -> Float64:
    """Return the mean[K] of each column of values[n, K] without its NaN."""
    on_offer = ~np.isnan(values)
    counts = on_offer.sum(axis=0)
    means: Float64 = np.where(on_offer, values, 0.0).sum(axis=0) / np.where(counts, counts, np.nan)
    return means


def _of_choices(means: Float64, chosen: NDArray[np.intp]) -> Float64:
    """Return means[chosen], 0 for a refusal."""
    return np.where(chosen < 0, 0.0, means[chosen])


def _requests(choice_values: Float64, start: float, goal: float) -> float:
    """Return the requests until a moving mean of one part has gone far enough towards the goal."""
    if goal - start < LEAST_GAP:
        return math.nan
    if len(choice_values) < WINDOW:
        return math.inf
    moving = np.convolve(choice_values, np.full(WINDOW, 1.0 / WINDOW), mode="valid")
    # Sums of equal numbers may fall short of the goal by rounding.
    adapted = np.flatnonzero(moving >= start + ADAPTED_SHARE * (goal - start) - 1e-12)
    return float(adapted[0] + WINDOW // 2) if len(adapted) else math.inf

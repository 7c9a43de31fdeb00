"""Laws that several policies share, and the draw from a law.

All are pure functions, and no row depends on another row of its batch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from policies.base import Bools, Float32, Float64


def greedy(utility: Float64, eligible: Bools) -> Float64:
    """Return the law that puts all mass on the best eligible arms; ties split it evenly.

    Parameters
    ----------
    utility : float64[n, K]
        What is maximised.
    eligible : bool[n, K]
        Arms that may be drawn; a row without one has a pmf of zeros.

    Returns
    -------
    float64[n, K]
        Probability of every arm.
    """
    n, k = utility.shape
    if n == 0 or k == 0:
        return np.zeros((n, k))
    # For one row, calls into numpy would take longer than the arithmetic.
    if n == 1 and False not in eligible.tolist()[0]:
        row = utility.tolist()[0]
        best = max(row)
        if row.count(best) == 1:
            certain = np.zeros((1, k))
            certain[0, row.index(best)] = 1.0
            return certain
    whole = eligible.all()
    masked = utility if whole else np.where(eligible, utility, -np.inf)
    top = masked == masked[np.arange(n), masked.argmax(axis=1)][:, None]
    if not whole:
        top &= eligible
    pmf: Float64 = top.astype(np.float64)
    if not whole or np.count_nonzero(top) > n:
        pmf /= np.maximum(top.sum(axis=1, keepdims=True), 1)
    return pmf


def optimistic(scores: Mapping[str, Float32], eligible: Bools, penalty: Float64) -> Float64:
    """Return the law of a policy that plays the largest ``mean + bonus - penalty``.

    Parameters
    ----------
    scores : mapping from str to float32[n, K]
        ``mean`` and ``bonus``, in reward units.
    eligible : bool[n, K]
        Arms that may be drawn; a row without one has a pmf of zeros.
    penalty : float64[n, K]
        Cost and latency in quality units.

    Returns
    -------
    float64[n, K]
        Probability of every arm.
    """
    utility = np.add(scores["mean"], scores["bonus"], dtype=np.float64)
    utility -= penalty
    return greedy(utility, eligible)


def draw(pmf: Float64, u: Float64) -> NDArray[np.intp]:
    """Return the arm that each uniform number falls on.

    Parameters
    ----------
    pmf : float64[n, K]
        Probability of every arm; a row need not sum to 1.
    u : float64[n]
        Uniform numbers in [0, 1).

    Returns
    -------
    int[n]
        Column of the arm, -1 where no arm has mass.
    """
    n, k = pmf.shape
    if n == 0 or k == 0:
        return np.full(n, -1)
    if n == 1:
        sums = list(accumulate(pmf.tolist()[0]))
        arm = bisect_right(sums, u.item() * sums[-1])
        return np.array([arm if arm < k else -1])
    chosen: NDArray[np.intp] = pmf.argmax(axis=1)
    if np.count_nonzero(pmf) == n and pmf[np.arange(n), chosen].all():
        return chosen
    cumulative = pmf.cumsum(axis=1)
    total = cumulative[:, -1:]
    # In float64 u * total is below total, so no arm behind the last one with mass can be reached.
    chosen = (cumulative > u[:, None] * total).argmax(axis=1)
    chosen[total[:, 0] == 0.0] = -1
    return chosen

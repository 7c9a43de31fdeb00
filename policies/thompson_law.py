"""The probability that each of several independent normal scores is the largest.

It is integrated, never sampled, and no row depends on its batch. So a logged row gives the same
bits again.

Thompson sampling draws one score for each arm and plays the best; the propensity of an arm is the
probability of that event.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from policies.base import Bools, Float64

REACH = 6.5
"""Number of scales beyond which a tail (4e-11) counts as 0."""

_PANEL, _ALIKE = 1.25, 1.0 / 3.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)
_NODES, _WEIGHTS = 0.5 * (_NODES + 1.0), 0.5 * _WEIGHTS
_BLOCK = 1_024


def best_of(
    mean: Float64, scale: Float64, penalty: Float64, eligible: Bools, *, cap: float = 1.0
) -> Float64:
    """Return the probability that each arm has the largest utility ``min(cap, s_a) - penalty_a``.

    Parameters
    ----------
    mean : float64[n, K]
        Means of the independent scores s_a ~ N(mean_a, scale_a^2).
    scale : float64[n, K]
        Their standard deviations, above 0 for every eligible arm.
    penalty : float64[n, K]
        Cost and latency in quality units.
    eligible : bool[n, K]
        Arms that may be drawn; a row without one has a pmf of zeros.
    cap : float, default 1.0
        Scores are clipped there; arms that tie at the cap share their mass evenly.

    Returns
    -------
    float64[n, K]
        Probability of every arm.

    Raises
    ------
    ValueError
        For a scale that is not above 0.

    Notes
    -----
    Below the caps ``P_a = int f_a prod_{b != a} F_b``, by Gauss-Legendre quadrature. Panels are no
    wider than 1.25 of the smallest scale that matters there (less for more than 16 arms), so that
    scales of 1e-3 and 1 are both resolved. At each cap there is the point mass
    ``P(s_a >= cap) prod_{b not tied} F_b E[1 / (1 + others at the cap)]``; the expectation is the
    integral over t in [0, 1] of ``prod_{tied} (1 - q_b + q_b t)``. The error is below 2e-7.
    """
    # The last bits of a sum depend on the memory layout; a logged row must give the same bits.
    mean, scale, penalty = (np.ascontiguousarray(part) for part in (mean, scale, penalty))
    eligible = np.ascontiguousarray(eligible)
    if not np.where(eligible, scale > 0.0, True).all():
        raise ValueError("scale: every eligible entry positive")
    utility = np.where(eligible, mean - penalty, -np.inf)
    shift = utility.max(axis=1, keepdims=True, initial=-1e300)
    middle, reach = utility - shift, REACH * scale
    # The lid of an arm is its utility at the cap.
    lid = np.where(eligible, cap - penalty - shift, -np.inf)
    top = np.minimum(middle + reach, lid)
    floor = np.minimum(middle - reach, lid).max(axis=1, keepdims=True, initial=-np.inf)
    alive = eligible & (top >= floor)
    rivals = alive.sum(axis=1)
    most = int(rivals.max(initial=0))
    pmf: Float64 = np.where(rivals[:, None] == 1, alive, 0.0)
    if most < 2:
        return pmf
    contested = np.flatnonzero(rivals > 1)
    ceiling = np.where(alive, top, -np.inf).max(axis=1, keepdims=True)
    lid = np.where(alive, lid, -np.inf)
    step = max(_BLOCK // most, 1)
    for start in range(0, len(contested), step):
        rows = contested[start : start + step]
        index: tuple[Any, ...] = (rows,)
        if most < mean.shape[1]:
            # Arms that cannot win are sorted last and left out, which changes no bit.
            index = rows[:, None], np.argsort(~alive[rows], axis=1, kind="stable")[:, :most]
        pmf[index] = _race(
            middle[index], scale[index], lid[index], floor[rows], ceiling[rows], arms=mean.shape[1]
        )
    total: Float64 = pmf.sum(axis=1, keepdims=True)
    return pmf / np.where(total > 0.0, total, 1.0)


def _race(
    mean: Float64, scale: Float64, lid: Float64, floor: Float64, ceiling: Float64, *, arms: int
) -> Float64:
    """Return the winning probabilities[r, k]; an arm whose lid is -inf does not take part."""
    out = lid == -np.inf
    mean, inverse = np.where(out, 0.0, mean), 1.0 / np.where(out, 1.0, scale)
    # The maximum of many scores has a narrower density than any single one.
    panel = _PANEL * min(1.0, 16.0 / arms) ** 0.5
    left, width, count = _panels(mean, np.where(out, np.inf, scale), lid, floor, ceiling, panel)
    row = np.repeat(np.arange(len(mean)), count)
    points = left[:, None] + width[:, None] * _NODES
    z = (points[:, :, None] - mean[row, None]) * inverse[row, None]
    z[points[:, :, None] >= lid[row, None]] = np.inf
    cdf = ndtr(z)
    # No point lies more than REACH scales below an arm, so no factor is near 0.
    others = cdf.prod(axis=2)[:, :, None] / cdf
    mass = np.exp(-0.5 * z * z) * others * (width[:, None] * _WEIGHTS)[:, :, None]
    won: Float64 = np.add.reduceat(mass.sum(axis=1), count.cumsum() - count, axis=0)
    won *= inverse / np.sqrt(2.0 * np.pi)
    return won + _at_lids(mean, inverse, lid, arms)


def _panels(
    mean: Float64, scale: Float64, lid: Float64, floor: Float64, ceiling: Float64, panel: float
) -> tuple[Float64, Float64, NDArray[np.intp]]:
    """Return the left ends and widths of the panels of all rows, and the number in each row.

    Panels end at lids, and where the density of a narrow arm begins and ends: so only the panels
    inside are narrow.
    """
    widest = np.where(scale < np.inf, scale, 0.0).max(axis=1, keepdims=True)
    narrow = scale < _ALIKE * widest
    usual = np.where(narrow, np.inf, scale).min(axis=1, keepdims=True)
    edges, step = [lid, floor, ceiling], panel * usual
    if narrow.any():
        reach = np.where(narrow, (REACH - 1.0) * scale, np.inf)
        edges += [mean - reach, mean + reach]
    ends = np.minimum(np.maximum(np.concatenate(edges, axis=1), floor), ceiling)
    ends.sort(axis=1)
    left, width = ends[:, :-1], ends[:, 1:] - ends[:, :-1]
    if narrow.any():
        apart = np.abs((left + 0.5 * width)[:, :, None] - mean[:, None, :])
        inside = narrow[:, None, :] & (apart < reach[:, None, :])
        step = np.minimum(step, panel * np.where(inside, scale[:, None, :], np.inf).min(axis=2))
    pieces = np.ceil(width / step).astype(np.intp)
    # A row of width 0, with all of its mass at the lids, has one panel that adds exact zeros.
    pieces[~pieces.any(axis=1), 0] = 1
    owner = np.repeat(np.arange(pieces.size), pieces.ravel())
    part = width.ravel()[owner] / pieces.ravel()[owner]
    before = np.arange(len(owner)) - (pieces.cumsum() - pieces.ravel())[owner]
    return left.ravel()[owner] + before * part, part, pieces.sum(axis=1)


def _at_lids(mean: Float64, inverse: Float64, lid: Float64, arms: int) -> Float64:
    """Return the probability[r, k] that an arm wins with a score at its lid."""
    reached = np.where(lid > -np.inf, ndtr((mean - lid) * inverse), 0.0)
    # Axes: row, arm, rival.
    own, rival = lid[:, :, None], lid[:, None, :]
    z = np.where(own < rival, (own - mean[:, None, :]) * inverse[:, None, :], np.inf)
    won: Float64 = reached * ndtr(z).prod(axis=2)
    tied = (own == rival) & (reached[:, None, :] > 0.0) & ~np.eye(len(lid[0]), dtype=np.bool_)
    rows = tied.any(axis=(1, 2))
    if rows.any():
        mass = np.where(tied[rows], reached[rows, None, :], 0.0)
        nodes, weights = _unit_nodes(arms // 2 + 1)
        won[rows] *= ((1.0 - mass * (1.0 - nodes)).prod(axis=3) * weights).sum(axis=0)
    return won


@lru_cache
def _unit_nodes(count: int) -> tuple[Float64, Float64]:
    """Return nodes[count, 1, 1, 1] and weights[count, 1, 1] of Gauss-Legendre on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return 0.5 * (nodes + 1.0)[:, None, None, None], 0.5 * weights[:, None, None]

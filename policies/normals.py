"""Which of several independent normal scores is the largest, as exact probabilities.

Thompson sampling draws one score per arm and plays the best; its propensity is the probability of
that event. Here it is integrated, never sampled, so a logged row gives the same bits again and
one row's law never depends on its batch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from policies.base import Bools, Float64

REACH = 6.5
"""Scales beyond which a tail (4e-11) counts as nothing."""

_CUTS = np.array([-5.5, -4.0, -2.5, -1.25, 0.0, 1.25, 2.5, 4.0, 5.5])
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)
_BLOCK = 1 << 17


def best_of(
    mean: Float64, scale: Float64, penalty: Float64, eligible: Bools, *, cap: float = 1.0
) -> Float64:
    """Return P(arm a is the best), float64[n, K], of utilities ``min(cap, s_a) - penalty_a``.

    Parameters
    ----------
    mean, scale : float64[n, K], of the independent scores s_a ~ N(mean_a, scale_a^2); a scale of
        0 or less is a ValueError.
    penalty : float64[n, K].
    eligible : bool[n, K]; a row without an eligible arm has a pmf of zeros.
    cap : scores are clipped there; arms that tie at it share their mass evenly.

    Notes
    -----
    ``P_a = int f_a prod_{b != a} F_b`` below the caps, by Gauss-Legendre quadrature on panels cut
    at fixed quantiles of every arm, so that scales of 1e-3 and 1 are both resolved; and at each
    cap the point mass ``P(s_a >= cap) prod_{b not tied} F_b E[1 / (1 + others at the cap)]``,
    where the expectation is the integral over t in [0, 1] of ``prod_{tied} (1 - q_b + q_b t)``.
    The error is below 1e-7.
    """
    if not (scale[eligible] > 0.0).all():
        raise ValueError("scale: every eligible entry positive")
    utility = np.where(eligible, mean - penalty, -np.inf)
    shift = utility.max(axis=1, keepdims=True, initial=-1e300)
    middle = utility - shift
    lid = np.where(eligible, cap - penalty - shift, -np.inf)
    top = np.minimum(middle + REACH * scale, lid)
    floor = np.minimum(middle - REACH * scale, lid).max(axis=1, initial=-np.inf)
    alive = eligible & (top >= floor[:, None])
    pmf: Float64 = np.zeros(mean.shape)
    rivals = alive.sum(axis=1)
    pmf[rivals == 1] = alive[rivals == 1]
    contested = np.flatnonzero(rivals > 1)
    if not len(contested):
        return pmf
    # Arms that cannot win go last, where they cost little and change no bit.
    most = int(rivals.max())
    order = np.argsort(~alive[contested], axis=1, kind="stable")[:, :most]
    ceiling = np.where(alive, top, -np.inf).max(axis=1, initial=-np.inf)
    per_row = (most * (len(_CUTS) + 1) + 1) * len(_NODES) * most
    step = max(_BLOCK // per_row, 1)
    for start in range(0, len(contested), step):
        rows = contested[start : start + step]
        at = rows[:, None], order[start : start + step]
        pmf[at] = _integrate(
            middle[at], scale[at], lid[at], alive[at], floor[rows], ceiling[rows], pmf.shape[1]
        )
    total: Float64 = pmf.sum(axis=1, keepdims=True)
    return pmf / np.where(total > 0.0, total, 1.0)


def _integrate(
    mean: Float64,
    scale: Float64,
    lid: Float64,
    alive: Bools,
    floor: Float64,
    ceiling: Float64,
    arms: int,
) -> Float64:
    """Return the winning probabilities[r, k] of arms with scores capped at lid[r, k]."""
    r, k = mean.shape
    mean, lid = np.where(alive, mean, 0.0), np.where(alive, lid, -np.inf)
    inverse = 1.0 / np.where(alive, scale, 1.0)
    cuts = mean[:, :, None] + scale[:, :, None] * _CUTS
    cuts = np.where(alive[:, :, None], cuts, np.inf).reshape(r, -1)
    edges = np.concatenate([cuts, lid, floor[:, None], ceiling[:, None]], axis=1)
    edges = np.sort(np.clip(edges, floor[:, None], ceiling[:, None]), axis=1)
    half = 0.5 * np.diff(edges, axis=1)
    # Panels without width add exact zeros: leaving them out changes no bit.
    used = np.flatnonzero((half > 0.0).any(axis=0))
    half, centre = half[:, used], 0.5 * (edges[:, used] + edges[:, used + 1])
    points = (centre[:, :, None] + half[:, :, None] * _NODES).reshape(r, -1).T[:, :, None]
    weights = (half[:, :, None] * _WEIGHTS).reshape(r, -1).T[:, :, None]
    z = (points - mean) * inverse
    below = points < lid
    cdf = np.where(below, ndtr(z), 1.0)
    density = np.where(below, np.exp(-0.5 * z * z), 0.0) * (inverse / np.sqrt(2.0 * np.pi))
    mass: Float64 = (density * _others(cdf) * weights).sum(axis=0)
    return mass + _at_lids(mean, inverse, lid, alive, arms)


def _at_lids(mean: Float64, inverse: Float64, lid: Float64, alive: Bools, arms: int) -> Float64:
    """Return the probability[r, k] that an arm wins with a score at its lid."""
    finite = np.where(alive, lid, 0.0)
    reached = np.where(alive, ndtr((mean - finite) * inverse), 0.0)
    if not reached.any():
        return reached
    # Axes: rival, row, arm. Products run along the first, so that their order is the arms'.
    rival = lid.T[:, :, None]
    z = (finite - mean.T[:, :, None]) * inverse.T[:, :, None]
    lower = np.where(finite < rival, ndtr(z), 1.0).prod(axis=0)
    own = np.eye(mean.shape[1], dtype=np.bool_)[:, None, :]
    held = np.where((finite == rival) & ~own, reached.T[:, :, None], 0.0)
    nodes, weights = _unit_nodes(arms // 2 + 1)
    ties = (1.0 - held[None] * (1.0 - nodes)).prod(axis=1)
    won: Float64 = reached * lower * (ties * weights).sum(axis=0)
    return won


@lru_cache
def _unit_nodes(count: int) -> tuple[Float64, Float64]:
    """Return nodes and weights of Gauss-Legendre quadrature on [0, 1], shaped [count, 1, 1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return 0.5 * (nodes + 1.0)[:, None, None, None], 0.5 * weights[:, None, None]


def _others(factors: Float64) -> Float64:
    """Return, along the last axis, the product of all factors but the own; none is divided by."""
    before, after = np.ones_like(factors), np.ones_like(factors)
    for k in range(1, factors.shape[-1]):
        before[..., k] = before[..., k - 1] * factors[..., k - 1]
        after[..., -k - 1] = after[..., -k] * factors[..., -k]
    return before * after

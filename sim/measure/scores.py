"""Scores of a router: RouterBench's AIQ, RouterArena's score, and the captured gain.

Pure functions of means over requests. Nothing here looks at single requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.integrate import trapezoid

from policies.base import Float64
from sim.measure.baselines import hull
from sim.measure.uncertainty import standard_error
from sim.results import Measure

FULL_SCORE_USD, ZERO_SCORE_USD = 4.4e-6, 0.2
"""US dollars per request at which RouterArena's score of cost is 1, and 0."""

BETA = 0.1
LEAST_GAIN = 0.005


def aiq(
    cost_usd: Sequence[float] | Float64,
    quality: Sequence[float] | Float64,
    *,
    low_usd: float,
    high_usd: float,
) -> float:
    """Return the average improvement in quality (AIQ) of a router from several of its points.

    Parameters
    ----------
    cost_usd, quality : float64[m]
        Means of each point; cost in US dollars per request.
    low_usd, high_usd : float
        Range of cost in US dollars per request, the same for all routers that are compared.

    Returns
    -------
    float
        ``1 / (high - low) * integral of R(c) dc`` over ``[low, high]`` [1]_. R is the
        non-decreasing upper hull of the points, flat after the last one. A range of no width gives
        R there.

    Raises
    ------
    ValueError
        When no point costs `low_usd` or less, so that R is not defined there. The cheapest model
        alone, which every router can play, is such a point.

    References
    ----------
    .. [1] Hu et al. (2024). RouterBench: A Benchmark for Multi-LLM Routing System. 2403.12031.

    Examples
    --------
    >>> aiq([1.0, 3.0], [0.5, 0.9], low_usd=1.0, high_usd=5.0)
    0.8
    """
    costs, values = np.asarray(cost_usd, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    corners = hull(costs, values)
    if not corners or costs[corners[0]] > low_usd * (1.0 + 1e-12):
        raise ValueError(f"cost_usd: no point at {low_usd:g} or below")
    grid = np.unique(np.clip([low_usd, *costs[corners], high_usd], low_usd, high_usd))
    values = np.interp(grid, costs[corners], values[corners])
    if len(grid) == 1:
        return float(values[0])
    return float(trapezoid(values, grid)) / (high_usd - low_usd)


def arena_score(accuracy: float, cost_usd: float) -> float:
    """Return RouterArena's score, in percent.

    Parameters
    ----------
    accuracy : float
        Mean quality, in [0, 1].
    cost_usd : float
        US dollars per request.

    Notes
    -----
    ``S = (1 + beta) A C / (beta A + C)`` with beta 0.1. C falls from 1 to 0 in the logarithm of
    the cost from $0.0044 to $200 per thousand requests [1]_.

    References
    ----------
    .. [1] RouterArena (2025). 2510.00202.

    Examples
    --------
    >>> round(arena_score(0.7554, 0.001), 2)
    72.07
    """
    clamped_usd = min(max(cost_usd, FULL_SCORE_USD), ZERO_SCORE_USD)
    cost_score = math.log(ZERO_SCORE_USD / clamped_usd) / math.log(ZERO_SCORE_USD / FULL_SCORE_USD)
    if BETA * accuracy + cost_score == 0.0:
        return 0.0
    return 100.0 * (1.0 + BETA) * accuracy * cost_score / (BETA * accuracy + cost_score)


def captured_gain(gain: Float64, limit: Float64) -> Measure:
    """Return a policy's gain over the zero router as a share of the supervised limit's gain.

    Parameters
    ----------
    gain, limit : float64[n]
        Quality above the zero router's of the policy and of the supervised limit, paired, all at
        the same cost or rate; NaN where there is none.

    Returns
    -------
    Measure
        ``mean(gain) / mean(limit)`` with its linearised standard error. Undefined where any value
        is NaN, and where the limit gains less than `LEAST_GAIN` or 2 standard errors.
    """
    if np.isnan(gain).any() or np.isnan(limit).any():
        return Measure(mean=None)
    mean = float(limit.mean())
    if mean <= max(LEAST_GAIN, 2.0 * (standard_error(limit) or 0.0)):
        return Measure(mean=None)
    ratio = float(gain.mean()) / mean
    return Measure(mean=ratio, se=standard_error((gain - ratio * limit) / mean))

"""Scores of a router: RouterBench's AIQ, RouterArena's score, and the gain that it captures.

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

CHEAPEST, DEAREST = 4.4e-6, 0.2
"""US dollars per request at which RouterArena's score of cost is 1 and 0."""

BETA = 0.1
LEAST_GAIN = 0.005


def aiq(
    cost: Sequence[float] | Float64,
    quality: Sequence[float] | Float64,
    *,
    low: float,
    high: float,
) -> float:
    """Return the average improvement in quality of a router known at several costs.

    Parameters
    ----------
    cost, quality : means of its points; cost in US dollars per request.
    low, high : the range of cost, the same for all that are to be compared.

    Raises
    ------
    ValueError
        When no point costs `low` or less: what the router does there is not known. The cheapest
        model alone, which everybody can play, is such a point.

    Notes
    -----
    ``1 / (high - low) * integral of R(c) dc`` over ``[low, high]`` [1]_, R the non-decreasing upper
    hull of the points, flat after the last one. A range of no width gives R there.

    References
    ----------
    .. [1] Hu et al. (2024). RouterBench: A Benchmark for Multi-LLM Routing System. 2403.12031.

    Examples
    --------
    >>> aiq([1.0, 3.0], [0.5, 0.9], low=1.0, high=5.0)
    0.8
    """
    costs, values = np.asarray(cost, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    corners = hull(costs, values)
    if not corners or costs[corners[0]] > low * (1.0 + 1e-12):
        raise ValueError(f"cost: no point at {low:g} or below")
    at = np.unique(np.clip([low, *costs[corners], high], low, high))
    values = np.interp(at, costs[corners], values[corners])
    if len(at) == 1:
        return float(values[0])
    return float(trapezoid(values, at)) / (high - low)


def arena_score(accuracy: float, cost: float) -> float:
    """Return RouterArena's score, in percent.

    Parameters
    ----------
    accuracy : mean quality, in [0, 1].
    cost : US dollars per request.

    Notes
    -----
    ``S = (1 + beta) A C / (beta A + C)`` with beta 0.1, C falling from 1 to 0 in the logarithm of
    the cost from $0.0044 to $200 per thousand requests [1]_.

    References
    ----------
    .. [1] RouterArena (2025). 2510.00202.

    Examples
    --------
    >>> round(arena_score(0.7554, 0.001), 2)
    72.07
    """
    clamped = min(max(cost, CHEAPEST), DEAREST)
    thrift = math.log(DEAREST / clamped) / math.log(DEAREST / CHEAPEST)
    if BETA * accuracy + thrift == 0.0:
        return 0.0
    return 100.0 * (1.0 + BETA) * accuracy * thrift / (BETA * accuracy + thrift)


def captured_gain(gain: Float64, limit: Float64) -> Measure:
    """Return the share of what supervision gains over the zero router that a policy gains.

    Parameters
    ----------
    gain, limit : float64[n], quality above the zero router's of the policy and of the supervised
        limit, paired, all at the same cost or rate; NaN where there is none.

    Returns
    -------
    Measure
        ``mean(gain) / mean(limit)`` with its linearised standard error; undefined where anything
        is NaN, and where supervision gains less than `LEAST_GAIN` or 2 standard errors.
    """
    if np.isnan(gain).any() or np.isnan(limit).any():
        return Measure(mean=None)
    mean = float(limit.mean())
    if mean <= max(LEAST_GAIN, 2.0 * (standard_error(limit) or 0.0)):
        return Measure(mean=None)
    value = float(gain.mean()) / mean
    return Measure(mean=value, se=standard_error((gain - value * limit) / mean))

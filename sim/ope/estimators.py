"""Estimators as one function each, from logged rows to one value per row.

The mean of the values is the estimate, and a value less the mean is the row's influence on it, so
intervals need to know nothing of the estimator. w is
`EstimatorInputs.importance`, which counts a row as the inverse of its probability of being observed
and an unobserved row as nothing; q is the reward model.

References
----------
.. [1] Dudik, Erhan, Langford, Li (2014). Doubly robust policy evaluation and optimization.
.. [2] Swaminathan, Joachims (2015). The self-normalized estimator for counterfactual learning.
.. [3] Wang, Agarwal, Dudik (2017). Optimal and adaptive off-policy evaluation in contextual
   bandits.
.. [4] Su, Dimakopoulou, Krishnamurthy, Dudik (2020). Doubly robust off-policy evaluation with
   shrinkage.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from policies.base import Float64
from sim.ope.inputs import EstimatorInputs

CANDIDATES = 30


def ips(inputs: EstimatorInputs) -> Float64:
    """Return ``w r``: unbiased, and as uncertain as the largest weights."""
    return inputs.importance * inputs.reward


def clipped_ips(inputs: EstimatorInputs) -> Float64:
    """Return ``min(w, M) r``, M by the bound of the error; see `_least_error`."""

    def clip(limit: float) -> Float64:
        return np.minimum(inputs.weight, limit) * inputs.seen

    # What is cut is lost whole here, not in its distance from a model.
    most = float(np.abs(inputs.reward[inputs.seen > 0.0]).max(initial=0.0))
    limit = _least_error(inputs, clip, lambda w: w * inputs.reward, most)
    return clip(limit) * inputs.reward


def snips(inputs: EstimatorInputs) -> Float64:
    """Return values around ``V = sum w r / sum w``; all weights 0 give NaN.

    A shift of all rewards shifts V likewise, which IPS does not promise. The influence of a row is
    what leaving it out would change, ``w (r - V) / (sum w - w)``: with few large weights the
    derivative ``w (r - V) / sum w`` makes intervals too short.
    """
    w, n, total = inputs.importance, len(inputs.weight), float(inputs.importance.sum())
    if total <= 0.0:
        return np.full(n, np.nan)
    value = float(w @ inputs.reward) / total
    others = np.maximum(total - w, total * np.finfo(np.float64).eps)
    influence: Float64 = (n - 1) * w * (inputs.reward - value) / others
    values: Float64 = value + influence - influence.mean()
    return values


def dm(inputs: EstimatorInputs) -> Float64:
    """Return ``sum_a pi(a | x) q(x, a)``: as biased as its reward model, unseen."""
    return inputs.value


def dr(inputs: EstimatorInputs) -> Float64:
    """Return ``sum_a pi(a | x) q(x, a) + w (r - q(x, a))``."""
    return inputs.value + _correction(inputs, inputs.importance)


def switch_dr(inputs: EstimatorInputs) -> Float64:
    """Return DR without the corrections of weights above tau, tau by the bound of the error."""

    def kept(limit: float) -> Float64:
        return np.where(inputs.weight <= limit, inputs.importance, 0.0)

    limit = _least_error(inputs, kept, lambda w: _correction(inputs, w), _span(inputs))
    return inputs.value + _correction(inputs, kept(limit))


def dr_os(inputs: EstimatorInputs) -> Float64:
    """Return DR with ``lambda w / (w^2 + lambda)`` for w, lambda by the bound of the error."""

    def shrunk(limit: float) -> Float64:
        square = limit**2
        return square * inputs.weight / (inputs.weight**2 + square) * inputs.seen

    limit = _least_error(inputs, shrunk, lambda w: _correction(inputs, w), _span(inputs))
    return inputs.value + _correction(inputs, shrunk(limit))


ESTIMATORS: dict[str, Callable[[EstimatorInputs], Float64]] = {
    "dr": dr,
    "snips": snips,
    "ips": ips,
    "clipped ips": clipped_ips,
    "switch-dr": switch_dr,
    "dr-os": dr_os,
    "dm": dm,
}


def _correction(inputs: EstimatorInputs, w: Float64) -> Float64:
    return w * (inputs.reward - inputs.guess)


def _span(inputs: EstimatorInputs) -> float:
    """Return the range of what was observed."""
    seen = inputs.reward[inputs.seen > 0.0]
    return float(np.ptp(seen)) if len(seen) else 0.0


def _least_error(
    inputs: EstimatorInputs,
    cut: Callable[[float], Float64],
    term: Callable[[Float64], Float64],
    most: float,
) -> float:
    """Return the limit on weights whose bound of the squared error is least.

    Parameters
    ----------
    cut : from a limit to weights that are never above the plain ones, float64[n].
    term : from weights to the values whose variance counts.
    most : what a weight of 1 that is cut away loses at most.

    Notes
    -----
    The bound is ``var(term) / n + (most mean(w - cut w))^2``. Only the variance looks at rewards,
    so the limit is not chosen for what the estimate becomes.
    """
    w, n = inputs.importance, len(inputs.weight)
    positive = inputs.weight[w > 0.0]
    if not len(positive):
        return 1.0
    limits = np.unique(np.quantile(positive, np.linspace(0.0, 1.0, CANDIDATES)))
    best, least = float(limits[-1]), np.inf
    for limit in (*limits.tolist(), 1e3 * float(limits[-1])):
        kept = cut(limit)
        error = float(term(kept).var()) / n + (most * float((w - kept).mean())) ** 2
        if error < least:
            best, least = limit, error
    return best

"""Estimators as one function each, from logged rows to one value per row.

The mean of the values is the estimate, and a value less the mean is the row's influence on it, so
intervals need to know nothing of the estimator. w is `Sample.importance`, which counts a row as
the inverse of its probability of being observed and an unobserved row as nothing; q the reward
model.

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
from sim.ope.inputs import Sample

CANDIDATES = 30


def ips(sample: Sample) -> Float64:
    """Return ``w r``: unbiased, and as uncertain as the largest weights."""
    return sample.importance * sample.reward


def clipped_ips(sample: Sample) -> Float64:
    """Return ``min(w, M) r``, M by the bound of the error; see `_least_error`."""

    def clip(limit: float) -> Float64:
        return np.minimum(sample.weight, limit) * sample.seen

    # What is cut is lost whole here, not in its distance from a model.
    most = float(np.abs(sample.reward[sample.seen > 0.0]).max(initial=0.0))
    limit = _least_error(sample, clip, lambda w: w * sample.reward, most)
    return clip(limit) * sample.reward


def snips(sample: Sample) -> Float64:
    """Return values around ``V = sum w r / sum w``; all weights 0 give NaN.

    A shift of all rewards shifts V likewise, which IPS does not promise. The influence of a row is
    what leaving it out would change, ``w (r - V) / (sum w - w)``: with few large weights the
    derivative ``w (r - V) / sum w`` makes intervals too short.
    """
    w, n, total = sample.importance, len(sample.weight), float(sample.importance.sum())
    if total <= 0.0:
        return np.full(n, np.nan)
    value = float(w @ sample.reward) / total
    others = np.maximum(total - w, total * np.finfo(np.float64).eps)
    influence: Float64 = (n - 1) * w * (sample.reward - value) / others
    values: Float64 = value + influence - influence.mean()
    return values


def dm(sample: Sample) -> Float64:
    """Return ``sum_a pi(a | x) q(x, a)``: as biased as its reward model, unseen."""
    return sample.value


def dr(sample: Sample) -> Float64:
    """Return ``sum_a pi(a | x) q(x, a) + w (r - q(x, a))``."""
    return sample.value + _correction(sample, sample.importance)


def switch_dr(sample: Sample) -> Float64:
    """Return DR without the corrections of weights above tau, tau by the bound of the error."""

    def kept(limit: float) -> Float64:
        return np.where(sample.weight <= limit, sample.importance, 0.0)

    limit = _least_error(sample, kept, lambda w: _correction(sample, w), _span(sample))
    return sample.value + _correction(sample, kept(limit))


def dr_os(sample: Sample) -> Float64:
    """Return DR with ``lambda w / (w^2 + lambda)`` for w, lambda by the bound of the error."""

    def shrunk(limit: float) -> Float64:
        square = limit**2
        return square * sample.weight / (sample.weight**2 + square) * sample.seen

    limit = _least_error(sample, shrunk, lambda w: _correction(sample, w), _span(sample))
    return sample.value + _correction(sample, shrunk(limit))


ESTIMATORS: dict[str, Callable[[Sample], Float64]] = {
    "dr": dr,
    "snips": snips,
    "ips": ips,
    "clipped ips": clipped_ips,
    "switch-dr": switch_dr,
    "dr-os": dr_os,
    "dm": dm,
}


def _correction(sample: Sample, w: Float64) -> Float64:
    return w * (sample.reward - sample.guess)


def _span(sample: Sample) -> float:
    """Return the range of what was observed."""
    seen = sample.reward[sample.seen > 0.0]
    return float(np.ptp(seen)) if len(seen) else 0.0


def _least_error(
    sample: Sample,
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
    w, n = sample.importance, len(sample.weight)
    positive = sample.weight[w > 0.0]
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

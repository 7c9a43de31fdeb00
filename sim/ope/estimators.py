"""Estimators: each is a function from n logged rows to n values.

The mean of the values is the estimate. A value minus that mean is the influence of its row, so
`sim.ope.intervals` needs to know nothing about the estimator.

In the formulas pi is the target policy, p the logged propensity, r `EstimatorInputs.reward`, q the
reward model and w `EstimatorInputs.importance`. A row without an observed reward has w = 0. The
other rows make up for it, each with the inverse of its probability of being observed.

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

LIMITS_TRIED = 30
"""Limits on weights that are tried, at even quantiles of the weights."""


def ips(inputs: EstimatorInputs) -> Float64:
    """Return ``w r``, inverse propensity scoring [1]_.

    It has no bias if the propensities and the probabilities of being observed are right. Its
    uncertainty grows with the largest weights.

    Parameters
    ----------
    inputs : EstimatorInputs
        The logged rows.
    """
    return inputs.importance * inputs.reward


def clipped_ips(inputs: EstimatorInputs) -> Float64:
    """Return ``w r`` with ``min(pi / p, M)`` in place of pi / p, clipped IPS.

    M minimizes a bound of the squared error; see `_best_limit`. A clipped weight costs a share of
    the reward itself: there is no reward model to stand in for it.

    Parameters
    ----------
    inputs : EstimatorInputs
        The logged rows.
    """

    def clipped(limit: float) -> Float64:
        return np.minimum(inputs.weight, limit) * inputs.observation_weight

    observed = inputs.reward[inputs.observation_weight > 0.0]
    max_loss = float(np.abs(observed).max(initial=0.0))
    limit = _best_limit(inputs, clipped, lambda w: w * inputs.reward, max_loss)
    return clipped(limit) * inputs.reward


def snips(inputs: EstimatorInputs) -> Float64:
    """Return values with mean ``V = sum w r / sum w``, self-normalized IPS [2]_.

    If all rewards grow by a constant, V grows by the same constant; this is not so with IPS. The
    values are NaN if all weights are 0.

    Parameters
    ----------
    inputs : EstimatorInputs
        The logged rows.

    Notes
    -----
    The influence of a row is the change of V when that row is left out, times n - 1:
    ``(n - 1) w (r - V) / (sum w - w)``. The derivative of V, ``n w (r - V) / sum w``, makes
    intervals too short when few weights are large.
    """
    w, n, total = inputs.importance, len(inputs.weight), float(inputs.importance.sum())
    if total <= 0.0:
        return np.full(n, np.nan)
    mean = float(w @ inputs.reward) / total
    others = np.maximum(total - w, total * np.finfo(np.float64).eps)
    influence: Float64 = (n - 1) * w * (inputs.reward - mean) / others
    values: Float64 = mean + influence - influence.mean()
    return values


def dm(inputs: EstimatorInputs) -> Float64:
    """Return ``sum_a pi(a | x) q(x, a)``, the direct method [1]_.

    It has the bias of its reward model, which no interval shows.

    Parameters
    ----------
    inputs : EstimatorInputs
        The logged rows.
    """
    return inputs.v_hat


def dr(inputs: EstimatorInputs) -> Float64:
    """Return ``sum_a pi(a | x) q(x, a) + w (r - q(x, a))``, doubly robust [1]_.

    Parameters
    ----------
    inputs : EstimatorInputs
        The logged rows.
    """
    return inputs.v_hat + _correction(inputs, inputs.importance)


def switch_dr(inputs: EstimatorInputs) -> Float64:
    """Return DR without the correction of rows whose pi / p is above tau, SWITCH-DR [3]_.

    tau minimizes a bound of the squared error; see `_best_limit`.

    Parameters
    ----------
    inputs : EstimatorInputs
        The logged rows.
    """

    def switched(limit: float) -> Float64:
        return np.where(inputs.weight <= limit, inputs.importance, 0.0)

    limit = _best_limit(inputs, switched, lambda w: _correction(inputs, w), _reward_range(inputs))
    return inputs.v_hat + _correction(inputs, switched(limit))


def dr_os(inputs: EstimatorInputs) -> Float64:
    """Return DR with ``lambda u / (u^2 + lambda)`` in place of ``u = pi / p``, DR-OS [4]_.

    Optimistic shrinkage pulls large weights towards 0. lambda minimizes a bound of the squared
    error; see `_best_limit`.

    Parameters
    ----------
    inputs : EstimatorInputs
        The logged rows.
    """

    def shrunk(limit: float) -> Float64:
        square = limit**2
        return square * inputs.weight / (inputs.weight**2 + square) * inputs.observation_weight

    limit = _best_limit(inputs, shrunk, lambda w: _correction(inputs, w), _reward_range(inputs))
    return inputs.v_hat + _correction(inputs, shrunk(limit))


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
    return w * (inputs.reward - inputs.q_hat)


def _reward_range(inputs: EstimatorInputs) -> float:
    """Return the largest observed reward minus the smallest."""
    observed = inputs.reward[inputs.observation_weight > 0.0]
    return float(np.ptp(observed)) if len(observed) else 0.0


def _best_limit(
    inputs: EstimatorInputs,
    reduce: Callable[[float], Float64],
    term: Callable[[Float64], Float64],
    max_loss: float,
) -> float:
    """Return the limit on weights that minimizes a bound of the squared error.

    Parameters
    ----------
    inputs : EstimatorInputs
        The logged rows.
    reduce : callable
        From a limit to weights, float64[n], that are never above ``inputs.importance``.
    term : callable
        From weights to the values, float64[n], whose variance counts.
    max_loss : float
        The most that a row loses, in units of the reward, per unit of weight that is taken away.

    Notes
    -----
    The bound is ``var(term) / n + (max_loss mean(w - reduce(w)))^2``, a variance and a squared
    bias [3]_. Of the rewards only the variance is used, so the limit is not chosen by the estimate
    that it leads to.
    """
    w, n = inputs.importance, len(inputs.weight)
    positive = inputs.weight[w > 0.0]
    if not len(positive):
        return 1.0
    limits = np.unique(np.quantile(positive, np.linspace(0.0, 1.0, LIMITS_TRIED)))
    best, least = float(limits[-1]), np.inf
    # The last limit is so high that it leaves all weights as they are.
    for limit in (*limits.tolist(), 1e3 * float(limits[-1])):
        reduced = reduce(limit)
        error = float(term(reduced).var()) / n + (max_loss * float((w - reduced).mean())) ** 2
        if error < least:
            best, least = limit, error
    return best

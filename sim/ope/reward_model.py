"""The reward model that estimators use, and the probability that an outcome is observed.

A reward must be predicted from earlier rows alone. A learning policy chooses by what earlier rows
gave, so a model that was fitted to later rows would know something about this row's reward.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from policies.base import Bools, Float32, Float64
from sim.ope.bandit_log import BanditLog

RIDGE, INTERCEPT_RIDGE = 4.0, 2.0
"""Penalties of the regression of rewards, in rows: of a feature's weight, of the intercept."""
REFITS = 64
LEAST_OBSERVED = 0.05
_LOGISTIC_RIDGE = 1.0


def predict_rewards(x: Float32, chosen: NDArray[np.intp], reward: Float64, arms: int) -> Float64:
    """Return the reward of every arm in every row as earlier rows predict it, float64[n, K].

    Parameters
    ----------
    x : float32[n, d]
        Features, in the order of the log; the last column is the intercept.
    chosen : int[n]
        The logged arm.
    reward : float64[n]
        NaN where it was not observed.
    arms : int
        K.

    Notes
    -----
    There is a ridge regression for each arm. It predicts the difference of the reward from the mean
    reward of all arms so far. An arm that was never chosen is predicted to have that mean, and
    every prediction is clipped to the range of the rewards that were observed so far.

    The model is refitted at `REFITS` evenly spaced rows, and early on whenever the log has doubled.
    """
    n, d = x.shape
    features = x.astype(np.float64)
    ridge = RIDGE * np.eye(d)
    ridge[-1, -1] = INTERCEPT_RIDGE
    q_hat = np.zeros((n, arms))
    gram, moment, total = np.zeros((arms, d, d)), np.zeros((arms, d)), np.zeros((arms, d))
    count, sum_of_rewards, low, high = 0, 0.0, np.inf, -np.inf
    powers = np.power(2, np.arange(n.bit_length()))
    even = np.linspace(0, n, REFITS + 1).astype(int)[1:]
    start = 0
    for end in np.unique(np.concatenate([powers[powers < n], even])).tolist():
        block = slice(start, end)
        if count:
            mean = sum_of_rewards / count
            weights = np.linalg.solve(gram + ridge, (moment - mean * total)[..., None])[..., 0]
            q_hat[block] = np.clip(mean + features[block] @ weights.T, low, high)
        observed = np.flatnonzero(~np.isnan(reward[block])) + start
        for arm in np.unique(chosen[observed]).tolist():
            own = observed[chosen[observed] == arm]
            gram[arm] += features[own].T @ features[own]
            moment[arm] += reward[own] @ features[own]
            total[arm] += features[own].sum(axis=0)
        if len(observed):
            count += len(observed)
            sum_of_rewards += float(reward[observed].sum())
            low, high = min(low, reward[observed].min()), max(high, reward[observed].max())
        start = end
    return q_hat


def observed_rewards(log: BanditLog, measure: str) -> tuple[Float64, Float64]:
    """Return the rewards of a log and their observation weights, as `EstimatorInputs` has them.

    Parameters
    ----------
    log : BanditLog
        The evaluated rows alone: feedback may have been rarer or more frequent before them.
    measure : str
        Name for `BanditLog.measure`.
    """
    reward = log.measure(measure)
    is_observed = ~np.isnan(reward)
    probability = observed_probability(log.features, log.chosen, is_observed, len(log.models))
    return np.where(is_observed, reward, 0.0), np.where(is_observed, 1.0 / probability, 0.0)


def observed_probability(
    x: Float32, chosen: NDArray[np.intp], is_observed: Bools, arms: int
) -> Float64:
    """Return the probability with which the outcome of each row is observed, float64[n].

    Parameters
    ----------
    x : float32[n, d]
        Features; the last column is the intercept.
    chosen : int[n]
        The logged arm.
    is_observed : bool[n]
        Whether the outcome was observed.
    arms : int
        K.

    Notes
    -----
    This is a logistic regression on the features and the arm with a ridge penalty, and never below
    `LEAST_OBSERVED`. It assumes that, given those, an outcome is not missing because of its value;
    no log can tell whether that is so.
    """
    n = len(is_observed)
    if is_observed.all() or not is_observed.any():
        return np.ones(n)
    one_hot = np.zeros((n, arms))
    one_hot[np.arange(n), chosen] = 1.0
    features = np.hstack([x.astype(np.float64), one_hot])
    sign = np.where(is_observed, 1.0, -1.0)
    ridge = np.full(features.shape[1], _LOGISTIC_RIDGE)
    ridge[x.shape[1] - 1] = 1e-6

    def loss(weights: Float64) -> tuple[float, Float64]:
        margin = sign * (features @ weights)
        value = np.logaddexp(0.0, -margin).sum() + 0.5 * float(ridge @ weights**2)
        slope = -sign / (1.0 + np.exp(np.clip(margin, -500.0, 500.0)))
        return float(value), features.T @ slope + ridge * weights

    fitted = minimize(loss, np.zeros(features.shape[1]), jac=True, method="L-BFGS-B")
    logit = np.clip(features @ fitted.x, -500.0, 500.0)
    probability: Float64 = 1.0 / (1.0 + np.exp(-logit))
    return np.maximum(probability, LEAST_OBSERVED)

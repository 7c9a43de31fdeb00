"""The reward model that estimators lean on, and the probability that an outcome is observed.

A row is predicted by what was learned from rows before it. Logs of a learning policy are not
exchangeable: a fit on later rows would know, through the choices they made, what this row gave.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from policies.base import Bools, Float32, Float64

RIDGE = 4.0
LEVEL_WORTH = 2.0
REFITS = 64
LEAST_OBSERVED = 0.05
_PENALTY = 1.0


def predicted(x: Float32, chosen: NDArray[np.intp], reward: Float64, arms: int) -> Float64:
    """Return the reward of every arm in every row, float64[n, K], as earlier rows predict it.

    Parameters
    ----------
    x : float32[n, d], in the order of the log; the last column is the intercept.
    chosen : int[n], the logged arm.
    reward : float64[n], NaN where nothing was observed.
    arms : K.

    Notes
    -----
    A ridge regression for each arm, of what is left of the reward beside the mean of all arms so
    far, fitted anew `REFITS` times at even distances and, early, whenever the log has doubled; an
    arm that nobody chose has that mean.
    Predictions stay within the rewards that were observed before.
    """
    n, d = x.shape
    wide = x.astype(np.float64)
    shrink = RIDGE * np.eye(d)
    shrink[-1, -1] = LEVEL_WORTH
    found = np.zeros((n, arms))
    gram, moment, total = np.zeros((arms, d, d)), np.zeros((arms, d)), np.zeros((arms, d))
    count, sums, low, high = 0, 0.0, np.inf, -np.inf
    at = 0
    early = np.power(2, np.arange(n.bit_length()))
    ends = np.concatenate([early[early < n], np.linspace(0, n, REFITS + 1).astype(int)[1:]])
    for end in np.unique(ends).tolist():
        block = slice(at, end)
        if count:
            mean = sums / count
            weights = np.linalg.solve(gram + shrink, (moment - mean * total)[..., None])[..., 0]
            found[block] = np.clip(mean + wide[block] @ weights.T, low, high)
        known = np.flatnonzero(~np.isnan(reward[block])) + at
        for arm in np.unique(chosen[known]).tolist():
            own = known[chosen[known] == arm]
            gram[arm] += wide[own].T @ wide[own]
            moment[arm] += reward[own] @ wide[own]
            total[arm] += wide[own].sum(axis=0)
        if len(known):
            count, sums = count + len(known), sums + float(reward[known].sum())
            low, high = min(low, reward[known].min()), max(high, reward[known].max())
        at = end
    return found


def observed(x: Float32, chosen: NDArray[np.intp], seen: Bools, arms: int) -> Float64:
    """Return the probability that each row's outcome is observed, float64[n].

    Parameters
    ----------
    x, chosen, arms : see `predicted`.
    seen : bool[n], whether it was.

    Notes
    -----
    A logistic regression on the features and the arm, ridge `_PENALTY`, never below
    `LEAST_OBSERVED`. What is missing must not depend on the reward beyond those: no log can tell.
    """
    if seen.all() or not seen.any():
        return np.ones(len(seen))
    ones = np.zeros((len(seen), arms))
    ones[np.arange(len(seen)), chosen] = 1.0
    wide = np.hstack([x.astype(np.float64), ones])
    sign = np.where(seen, 1.0, -1.0)
    free = np.full(wide.shape[1], _PENALTY)
    free[x.shape[1] - 1] = 1e-6

    def loss(weights: Float64) -> tuple[float, Float64]:
        margin = sign * (wide @ weights)
        value = np.logaddexp(0.0, -margin).sum() + 0.5 * float(free @ weights**2)
        slope = -sign / (1.0 + np.exp(np.clip(margin, -500.0, 500.0)))
        return float(value), wide.T @ slope + free * weights

    fitted = minimize(loss, np.zeros(wide.shape[1]), jac=True, method="L-BFGS-B")
    chance: Float64 = 1.0 / (1.0 + np.exp(-np.clip(wide @ fitted.x, -500.0, 500.0)))
    return np.maximum(chance, LEAST_OBSERVED)

"""The exploration law: a uniform share over eligible arms, paid from a budget of its own.

It exists for those who want stronger off-policy evaluation, or who run a deterministic policy.
At share 0 nothing here has any effect: no share and no floor.
"""

from __future__ import annotations

import numpy as np

from policies.base import Bools, Float64


def shares(
    pmf: Float64,
    eligible: Bools,
    cost: Float64,
    *,
    share: float,
    cost_share: float,
    spend_rate: float | None,
    min_propensity: float,
) -> tuple[Float64, Bools]:
    """Return each arm's absolute exploration share[n, K], and the arms[n, K] that cost too much.

    Parameters
    ----------
    pmf : float64[n, K], the law without exploration; its mode is the exploit choice.
    eligible : bool[n, K].
    cost : float64[n, K], predicted US dollars.
    share : mass spread uniformly over the eligible arms, in [0, 1); at 0 all shares are 0 and
        nothing is excluded.
    cost_share : cap on the expected extra cost, as a share of `spend_rate`.
    spend_rate : US dollars per request; None means the cost of the exploit choice.
    min_propensity : floor of a share, at most an even split; an arm whose floor breaks the cap
        is returned as excluded.

    Notes
    -----
    The cap is split evenly over the arms dearer than the exploit choice, so that
    ``sum_a share_a (c_a - c_exploit)+ <= cost_share * spend_rate``.
    """
    if share <= 0.0 or not cost.size:
        return np.zeros(cost.shape), np.zeros(cost.shape, dtype=np.bool_)
    count = np.maximum(eligible.sum(axis=1, keepdims=True), 1)
    floor = np.minimum(min_propensity, 1.0 / count)
    exploit = cost[np.arange(len(cost)), pmf.argmax(axis=1)][:, None]
    extra = np.where(eligible, np.maximum(cost - exploit, 0.0), 0.0)
    dearer = np.maximum((extra > 0.0).sum(axis=1, keepdims=True), 1)
    cap = cost_share * (exploit if spend_rate is None else spend_rate) / dearer
    with np.errstate(over="ignore"):
        affordable = np.where(extra > 0.0, cap / np.where(extra > 0.0, extra, 1.0), 1.0)
    scaled = np.maximum(np.minimum(share / count, affordable), floor)
    excluded = eligible & (floor > affordable)
    return np.where(eligible & ~excluded, scaled, 0.0), excluded

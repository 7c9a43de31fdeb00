"""The exploration law: a share of the draw for arms as such, paid from a budget of its own.

A uniform share is for those who want stronger off-policy evaluation, or who run a deterministic
policy; a trial share sees to it that an arm which came late is tried at all, and that one which
was found worse is looked at again. At share 0 nothing here has any effect: no share and no floor.
"""

from __future__ import annotations

import numpy as np

from policies.base import Bools, Float64


def shares(
    pmf: Float64,
    eligible: Bools,
    cost_usd: Float64,
    *,
    share: float,
    cost_share: float,
    spend_rate_usd: float | Float64 | None,
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
    cost_share : cap on the expected extra cost, as a share of `spend_rate_usd`.
    spend_rate_usd : US dollars per request, for all or float64[n, 1]; None means the cost of the
        exploit choice.
    min_propensity : floor of a share, at most an even split; an arm whose floor breaks the cap
        is returned as excluded.

    Notes
    -----
    The cap is split evenly over the arms dearer than the exploit choice, so that
    ``sum_a share_a (c_a - c_exploit)+ <= cost_share * spend_rate_usd``.
    """
    if share <= 0.0 or not cost_usd.size:
        return np.zeros(cost_usd.shape), np.zeros(cost_usd.shape, dtype=np.bool_)
    count = np.maximum(eligible.sum(axis=1, keepdims=True), 1)
    floor = np.minimum(min_propensity, 1.0 / count)
    exploit, extra = _extra(pmf, eligible, cost_usd)
    affordable = _affordable(
        extra, cost_share * (exploit if spend_rate_usd is None else spend_rate_usd)
    )
    scaled = np.maximum(np.minimum(share / count, affordable), floor)
    excluded = eligible & (floor > affordable)
    return np.where(eligible & ~excluded, scaled, 0.0), excluded


def trial_shares(
    pmf: Float64,
    eligible: Bools,
    cost_usd: Float64,
    explore: Float64,
    *,
    arms: Bools,
    share: float,
    cost_share: float,
    spend_rate_usd: float | Float64 | None,
) -> Float64:
    """Return `explore`[n, K] with the eligible of `arms` lifted to an even split of `share`.

    Parameters
    ----------
    pmf, eligible, cost, cost_share, spend_rate_usd : see `shares`.
    explore : float64[n, K], shares that are spent already.
    arms : bool[K], the arms on trial.
    share : mass for all of them together, in [0, 1).

    Notes
    -----
    What `explore` has left of the cap is split evenly over the arms on trial that are dearer than
    the exploit choice. A share that it does not pay for is cut down; the arm stays eligible.
    """
    exploit, extra = _extra(pmf, eligible, cost_usd)
    cap = cost_share * (exploit if spend_rate_usd is None else spend_rate_usd)
    left = np.maximum(cap - (explore * extra).sum(axis=1, keepdims=True), 0.0)
    trying = eligible & arms
    own = share / np.maximum(trying.sum(axis=1, keepdims=True), 1)
    lift = np.where(trying, np.maximum(own - explore, 0.0), 0.0)
    lift = np.minimum(lift, _affordable(np.where(trying, extra, 0.0), left))
    free = np.maximum(1.0 - explore.sum(axis=1, keepdims=True), 0.0)
    lifted: Float64 = explore + lift * np.minimum(
        1.0, free / np.maximum(lift.sum(axis=1, keepdims=True), 1e-300)
    )
    return lifted


def exploration_usd(
    exploit: Float64, eligible: Bools, cost_usd: Float64, explore: Float64
) -> float:
    """Return the US dollars that exploration is expected to cost n requests together.

    Parameters
    ----------
    exploit : float64[n, K], the law without exploration.
    eligible, cost, explore : see `trial_shares`.
    """
    if not explore.any():
        return 0.0
    return float((explore * _extra(exploit, eligible, cost_usd)[1]).sum())


def _extra(pmf: Float64, eligible: Bools, cost_usd: Float64) -> tuple[Float64, Float64]:
    """Return the cost[n, 1] of the exploit choice, and how much more each arm[n, K] costs."""
    exploit = cost_usd[np.arange(len(cost_usd)), pmf.argmax(axis=1)][:, None]
    return exploit, np.where(eligible, np.maximum(cost_usd - exploit, 0.0), 0.0)


def _affordable(extra: Float64, cap: float | Float64) -> Float64:
    """Return the share[n, K] of each arm that an even split of `cap` over the dearer ones pays."""
    dearer = np.maximum((extra > 0.0).sum(axis=1, keepdims=True), 1)
    with np.errstate(over="ignore"):
        paid: Float64 = np.where(
            extra > 0.0, (cap / dearer) / np.where(extra > 0.0, extra, 1.0), 1.0
        )
    return paid

"""Exploration: shares of the draw that do not depend on scores, within a cap on their cost.

At share 0 nothing here has any effect: there is neither a share nor a floor.

A uniform share serves stronger off-policy evaluation, and deterministic policies. A trial share
makes sure that an arm which was added late is tried, and that an arm which became worse is tried
again.
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
    """Return the uniform exploration share of each arm.

    Parameters
    ----------
    pmf : float64[n, K]
        The law without exploration; its mode is the exploit choice.
    eligible : bool[n, K]
        Arms that may be drawn.
    cost_usd : float64[n, K]
        Predicted cost.
    share : float
        Mass that is spread uniformly over the eligible arms, in [0, 1); at 0 all shares are 0 and
        no arm is excluded.
    cost_share : float
        Cap on the expected extra cost, as a share of `spend_rate_usd`.
    spend_rate_usd : float or float64[n, 1] or None
        US dollars per request; None for the cost of the exploit choice.
    min_propensity : float
        Floor of a share, at most an even split.

    Returns
    -------
    shares : float64[n, K]
        Absolute share of each arm.
    excluded : bool[n, K]
        Eligible arms whose floor alone would exceed their part of the cap.

    Notes
    -----
    The cap is split evenly over the arms that cost more than the exploit choice, so that
    ``sum_a share_a (c_a - c_exploit)+ <= cost_share * spend_rate_usd``.
    """
    if share <= 0.0 or not cost_usd.size:
        return np.zeros(cost_usd.shape), np.zeros(cost_usd.shape, dtype=np.bool_)
    count = np.maximum(eligible.sum(axis=1, keepdims=True), 1)
    floor = np.minimum(min_propensity, 1.0 / count)
    exploit, extra = _extra(pmf, eligible, cost_usd)
    cap = cost_share * (exploit if spend_rate_usd is None else spend_rate_usd)
    affordable = _affordable(extra, cap)
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
    """Return exploration shares in which the arms on trial have at least an even part of a share.

    Parameters
    ----------
    pmf : float64[n, K]
        See `shares`.
    eligible : bool[n, K]
        See `shares`.
    cost_usd : float64[n, K]
        See `shares`.
    explore : float64[n, K]
        Shares so far.
    arms : bool[K]
        The arms on trial.
    share : float
        Mass for all arms on trial together, in [0, 1).
    cost_share : float
        See `shares`.
    spend_rate_usd : float or float64[n, 1] or None
        See `shares`.

    Returns
    -------
    float64[n, K]
        Absolute share of each arm, nowhere below `explore`.

    Notes
    -----
    What `explore` leaves of the cap is split evenly over the arms on trial that cost more than the
    exploit choice. A share that this does not pay for is cut; the arm stays eligible.
    """
    exploit, extra = _extra(pmf, eligible, cost_usd)
    cap = cost_share * (exploit if spend_rate_usd is None else spend_rate_usd)
    left = np.maximum(cap - (explore * extra).sum(axis=1, keepdims=True), 0.0)
    on_trial = eligible & arms
    own = share / np.maximum(on_trial.sum(axis=1, keepdims=True), 1)
    more = np.where(on_trial, np.maximum(own - explore, 0.0), 0.0)
    more = np.minimum(more, _affordable(np.where(on_trial, extra, 0.0), left))
    free = np.maximum(1.0 - explore.sum(axis=1, keepdims=True), 0.0)
    raised: Float64 = explore + more * np.minimum(
        1.0, free / np.maximum(more.sum(axis=1, keepdims=True), 1e-300)
    )
    return raised


def exploration_usd(
    exploit: Float64, eligible: Bools, cost_usd: Float64, explore: Float64
) -> float:
    """Return the US dollars that exploration is expected to cost n requests together.

    Parameters
    ----------
    exploit : float64[n, K]
        The law without exploration; its mode is the exploit choice.
    eligible : bool[n, K]
        Arms that may be drawn.
    cost_usd : float64[n, K]
        Predicted cost.
    explore : float64[n, K]
        Absolute share of each arm.
    """
    if not explore.any():
        return 0.0
    return float((explore * _extra(exploit, eligible, cost_usd)[1]).sum())


def _extra(pmf: Float64, eligible: Bools, cost_usd: Float64) -> tuple[Float64, Float64]:
    """Return the cost[n, 1] of the exploit choice, and how much more each arm costs, [n, K]."""
    exploit = cost_usd[np.arange(len(cost_usd)), pmf.argmax(axis=1)][:, None]
    return exploit, np.where(eligible, np.maximum(cost_usd - exploit, 0.0), 0.0)


def _affordable(extra: Float64, cap: float | Float64) -> Float64:
    """Return the share[n, K] of each arm that an even part of the cap pays for.

    The arms of positive extra[n, K] cost divide the cap; for the others any share is free.
    """
    count = np.maximum((extra > 0.0).sum(axis=1, keepdims=True), 1)
    with np.errstate(over="ignore"):
        paid: Float64 = np.where(
            extra > 0.0, (cap / count) / np.where(extra > 0.0, extra, 1.0), 1.0
        )
    return paid

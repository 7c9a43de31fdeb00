"""The caller's preference: cost and latency turned into quality units.

Three separate models predict quality, cost and latency. Their predictions meet only here and in
``pacing/price.py``. So a new price or another preference changes the next decision, and nothing
has to be learned again.
"""

from __future__ import annotations

import numpy as np

from policies.base import Float64

QUALITY_WEIGHT_FLOOR = 1e-9
"""Smallest weight of quality: at weight 0 arms rank by penalty, and by score only within ties."""


def penalty(
    cost_usd: Float64,
    latency_ms: Float64,
    preference: Float64,
    *,
    tau_cost_usd: float,
    tau_latency_ms: float,
) -> Float64:
    """Return the penalty of cost and latency in quality units.

    Parameters
    ----------
    cost_usd : float64[n, K]
        Predicted cost c.
    latency_ms : float64[n, K]
        Predicted latency l; 0 for a model without latency data.
    preference : float64[n, 3]
        Weights of (quality, cost, latency), at least 0.
    tau_cost_usd : float
        Cost that counts as 1.
    tau_latency_ms : float
        Latency that counts as 1.

    Returns
    -------
    float64[n, K]
        ``(w_c min(c/tau_c, 1) + w_l min(l/tau_l, 1)) / w_q``.
    """
    w_quality = np.maximum(preference[:, :1], QUALITY_WEIGHT_FLOOR)
    cost = np.minimum(cost_usd / tau_cost_usd, 1.0)
    latency = np.minimum(latency_ms / tau_latency_ms, 1.0)
    weighted = preference[:, 1:2] * cost + preference[:, 2:3] * latency
    return weighted / w_quality

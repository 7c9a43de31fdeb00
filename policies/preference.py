"""The caller's preference: cost and latency turned into quality units.

Quality, cost and latency are predicted by three separate models and meet only here and in
price.py, so that a new price or another preference changes the next decision with nothing learned
again.
"""

from __future__ import annotations

import numpy as np

from policies.base import Float64

# At w_q = 0 the ranking is the limit w_q -> 0: by penalty, and by score only within its ties.
QUALITY_WEIGHT_FLOOR = 1e-9


def penalty(
    cost_usd: Float64,
    latency_ms: Float64,
    preference: Float64,
    *,
    tau_cost_usd: float,
    tau_latency_ms: float,
) -> Float64:
    """Return ``(w_c min(c/tau_c, 1) + w_l min(l/tau_l, 1)) / w_q``, float64[n, K].

    Parameters
    ----------
    cost_usd : float64[n, K], predicted US dollars.
    latency_ms : float64[n, K], predicted milliseconds; 0 where nothing is known.
    preference : float64[n, 3], weights of (quality, cost, latency), at least 0.
    tau_cost_usd, tau_latency_ms : the cost (US dollars) and latency (ms) that count as 1.
    """
    w_quality = np.maximum(preference[:, :1], QUALITY_WEIGHT_FLOOR)
    c = np.minimum(cost_usd / tau_cost_usd, 1.0)
    slow = np.minimum(latency_ms / tau_latency_ms, 1.0)
    weighted = preference[:, 1:2] * c + preference[:, 2:3] * slow
    return weighted / w_quality

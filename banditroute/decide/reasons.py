"""Why a model is not eligible for a request.

The log stores the index of a reason: append to the tuple, never reorder it.
"""

from __future__ import annotations

REASONS = (
    "eligible",
    "draining",
    "capability",
    "context_length",
    "not_allowed",
    "max_cost_usd",
    "max_latency_ms",
    "budget",
    "exploration_cost",
    "price_of_money",
)
"""In the order in which they were added."""

CODES = {reason: code for code, reason in enumerate(REASONS)}
BUDGET = CODES["budget"]

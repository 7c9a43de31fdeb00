"""Budgets as values: a cap, its window, and the requests that it applies to.

Money is stored as a whole number of nano-dollars. The cheapest real requests cost about 26,000
nano-dollars; a single token may cost less than 1. Times are microseconds since the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from banditroute.core.pool import NANO

ROLLING = "rolling"
MOST_USD = 1e9
"""The largest cap, in US dollars. In nano-dollars, the sum of several such caps fits 64 bits."""

_US = 1_000_000
_CALENDAR_US = {"hour": 3_600 * _US, "day": 86_400 * _US, "month": 31 * 86_400 * _US}
"""So long after the start of a window the next one has begun, and the one after it has not."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A cap on what the decisions of a pool may cost.

    Attributes
    ----------
    id : int
        Id of its row.
    pool : str
        Name of its pool.
    name : str
        Name of the budget, unique in its pool.
    cap_nano : int
        Limit on the total cost of the decisions of one window, in nano-dollars.
    period : str
        ``total``, ``hour``, ``day``, ``month`` or ``rolling``; ``hour``, ``day`` and ``month`` are
        calendar periods in UTC.
    rolling_s : int or None
        Length of a rolling window, in seconds.
    scope_tag, scope_value : str or None
        The tag that a request must have for the budget to apply; None applies to all requests.
    request_ceiling_nano : int or None
        Limit on what a single request may reserve, in nano-dollars; None: no limit.
    pacing : str
        Which pacing of `policies.pacing` spreads the money over the window; ``none``: no pacing.
    expected_requests : int or None
        Expected number of requests per window; None if it is not known.
    rate_nano : int or None
        Spend that pacing aims at, in nano-dollars per request; None: it follows from the window.
    quality_floor : float or None
        Mean quality in [0, 1] that pacing ``history`` reaches at the lowest cost; None: no floor.
    """

    id: int
    pool: str
    name: str
    cap_nano: int
    period: str
    rolling_s: int | None = None
    scope_tag: str | None = None
    scope_value: str | None = None
    request_ceiling_nano: int | None = None
    pacing: str = "history"
    expected_requests: int | None = None
    rate_nano: int | None = None
    quality_floor: float | None = None

    @property
    def span_us(self) -> int:
        """Length of a rolling window in microseconds, 0 for other windows."""
        return (self.rolling_s or 0) * _US

    def ceiled(self, nano: int) -> int:
        """Return an amount in nano-dollars, at most what a single request may reserve."""
        return nano if self.request_ceiling_nano is None else min(nano, self.request_ceiling_nano)

    def applies_to(self, tags: Mapping[str, str] | None) -> bool:
        """Return whether the budget applies to a request with these tags."""
        if self.scope_tag is None:
            return True
        return tags is not None and tags.get(self.scope_tag) == self.scope_value

    def window_start_us(self, now_us: int) -> int:
        """Return the start of the current window.

        The result is 0 for ``total`` and ``rolling``. A rolling window has no fixed start: each
        decision counts for `span_us` from its own time.
        """
        if self.period not in _CALENDAR_US:
            return 0
        start = datetime.fromtimestamp(now_us // _US, tz=UTC).replace(minute=0, second=0)
        if self.period != "hour":
            start = start.replace(hour=0)
        if self.period == "month":
            start = start.replace(day=1)
        return round(start.timestamp()) * _US

    def resets_at_us(self, now_us: int) -> int | None:
        """Return the start of the next window; None for ``total`` and ``rolling``."""
        if self.period not in _CALENDAR_US:
            return None
        return self.window_start_us(self.window_start_us(now_us) + _CALENDAR_US[self.period])


def nanos(usd: float) -> int:
    """Return US dollars as the nearest whole number of nano-dollars."""
    return round(usd * NANO)

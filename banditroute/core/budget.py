"""Budgets as values: a cap, its window, and the requests that it applies to.

Stored money is a whole number of nano-dollars. The cheapest real requests cost some 26,000 of
them, a single token may cost a fraction of one. Times are microseconds since the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from banditroute.core.pool import NANO

ROLLING = "rolling"
PERIODS = ("total", "hour", "day", "month", ROLLING)
MOST_USD = 1e9
"""The largest cap, in US dollars; in nano-dollars it fits 64 bits, with room for sums."""

_US = 1_000_000


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
        Nano-dollars that the decisions of one window may cost.
    period : str
        One of `PERIODS`; hour, day and month are those of the calendar, UTC.
    rolling_s : int or None
        Length of a rolling window, in seconds.
    scope_tag, scope_value : str or None
        The tag that a request must have for the budget to apply; None applies to all requests.
    request_ceiling_nano : int or None
        Nano-dollars that a single request may reserve.
    pacing : str
        How the money is spread over the window, see `policies.pacing`; ``none`` does not.
    expected_requests : int or None
        Requests per window, where that number is known.
    rate_nano : int or None
        Nano-dollars per request to pace to, where the window does not give a rate.
    quality_floor : float or None
        Mean quality that pacing ``history`` meets at the least cost, in [0, 1].
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

    def applies_to(self, tags: Mapping[str, str] | None) -> bool:
        """Return whether the budget applies to a request with these tags."""
        if self.scope_tag is None:
            return True
        return tags is not None and tags.get(self.scope_tag) == self.scope_value

    def window_start_us(self, now_us: int) -> int:
        """Return when the current window began.

        It is 0 for ``total``, and for ``rolling``, whose decisions count from their own times.
        """
        start = _calendar_start(self.period, now_us)
        return 0 if start is None else _us(start)

    def resets_at_us(self, now_us: int) -> int | None:
        """Return when the next window begins, None if there is only one."""
        start = _calendar_start(self.period, now_us)
        if start is None:
            return None
        if self.period == "month":
            first_of_next = (start.replace(day=28) + timedelta(days=4)).replace(day=1)
            return _us(first_of_next)
        return _us(start + timedelta(**{f"{self.period}s": 1}))


def _calendar_start(period: str, now_us: int) -> datetime | None:
    """Return the start of the current hour, day or month, None for other periods."""
    moment = datetime.fromtimestamp(now_us // _US, tz=UTC)
    hour = moment.replace(minute=0, second=0, microsecond=0)
    if period == "hour":
        return hour
    if period == "day":
        return hour.replace(hour=0)
    return hour.replace(hour=0, day=1) if period == "month" else None


def _us(moment: datetime) -> int:
    return round(moment.timestamp()) * _US


def nanos(usd: float) -> int:
    """Return US dollars as the nearest whole number of nano-dollars."""
    return round(usd * NANO)

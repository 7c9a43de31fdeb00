"""Budgets as values: a cap in nano-dollars, its window, and the requests that it holds for.

Money is a whole number of nano-dollars wherever it is kept; the cheapest real requests cost some
26,000 of them, and a token a fraction of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from banditroute.core.pool import NANO

ROLLING = "rolling"
PERIODS = ("total", "hour", "day", "month", ROLLING)
MOST_USD = 1e9
"""A cap that still fits 64 bits in nano-dollars, with room for sums."""

_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """A cap on what the decisions of a pool may cost.

    Attributes
    ----------
    id : of its row.
    pool, name : the name is unique in its pool.
    cap_nano : nano-dollars of a window.
    period : one of `PERIODS`; hour, day and month are those of the calendar, UTC.
    rolling_s : seconds of a rolling window.
    scope_tag, scope_value : the tag that a request must have to be held by it; None: all are.
    request_ceiling_nano : the most that a single request may reserve.
    pacing : how its money is spread over the window, see `policies.pacing`; ``none``: not.
    expected_requests : requests of a window, where that is known.
    rate_nano : nano-dollars per request to pace to, where no window gives one.
    quality_floor : mean quality that pacing ``history`` meets at the least cost.
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
        """Microseconds of a rolling window, 0 for others."""
        return (self.rolling_s or 0) * _US

    def holds(self, tags: Mapping[str, str] | None) -> bool:
        """Return whether a request with these tags is held by it."""
        if self.scope_tag is None:
            return True
        return tags is not None and tags.get(self.scope_tag) == self.scope_value

    def window(self, now: int) -> int:
        """Return when the window began that `now` is in, microseconds UTC.

        One window for ever begins at 0, and so do leases of a rolling one: its decisions count
        from their own times.
        """
        began = _began(self.period, now)
        return 0 if began is None else _us(began)

    def resets_at(self, now: int) -> int | None:
        """Return when the window ends and the next one begins, None where none does."""
        began = _began(self.period, now)
        if began is None:
            return None
        if self.period == "month":
            first_of_next = (began.replace(day=28) + timedelta(days=4)).replace(day=1)
            return _us(first_of_next)
        return _us(began + timedelta(**{f"{self.period}s": 1}))


def _began(period: str, now: int) -> datetime | None:
    moment = datetime.fromtimestamp(now // _US, tz=UTC)
    hour = moment.replace(minute=0, second=0, microsecond=0)
    if period == "hour":
        return hour
    if period == "day":
        return hour.replace(hour=0)
    return hour.replace(hour=0, day=1) if period == "month" else None


def _us(moment: datetime) -> int:
    return round(moment.timestamp()) * _US


def nanos(usd: float) -> int:
    """Return US dollars as the nearest nano-dollars."""
    return round(usd * NANO)

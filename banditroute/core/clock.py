"""Time and time-ordered names: the only place where the daemon reads the clock for the log."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

_random = random.Random(random.SystemRandom().getrandbits(256))


def new_id(now: int) -> str:
    """Return 32 hex digits that sort by time: microseconds, then 72 random bits.

    The bits come from a generator seeded by the system: asking the system each time gives the
    interpreter lock away in the middle of every request.
    """
    return f"{now:014x}{_random.getrandbits(72):018x}"


def now_us() -> int:
    """Return microseconds since the epoch, UTC."""
    return time.time_ns() // 1_000


def iso(us: int) -> str:
    """Return a time in microseconds as ISO 8601, UTC."""
    moment = datetime.fromtimestamp(us / 1e6, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

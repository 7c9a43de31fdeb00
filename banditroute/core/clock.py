"""Times and time-ordered ids; the daemon must read the clock for the log nowhere else."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

_random = random.Random(random.SystemRandom().getrandbits(256))


def new_id(time_us: int) -> str:
    """Return 32 hex digits that sort by time: microseconds since the epoch, then 72 random bits.

    The generator is seeded by the system once. Asking the system for each id would release the
    interpreter lock in the middle of every request.
    """
    return f"{time_us:014x}{_random.getrandbits(72):018x}"


def now_us() -> int:
    """Return the time in microseconds since the epoch, UTC."""
    return time.time_ns() // 1_000


def iso(time_us: int) -> str:
    """Return a time in microseconds since the epoch as ISO 8601, UTC."""
    moment = datetime.fromtimestamp(time_us / 1e6, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

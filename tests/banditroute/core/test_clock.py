from __future__ import annotations

import time

from banditroute.core.clock import iso, new_id, now_us


def test_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_id(us) for us in (1, 255, 256, 1_700_000_000_000_000, 2**55)]
    assert ids == sorted(ids) and all(len(name) == 32 for name in ids)
    assert len({new_id(7) for _ in range(10_000)}) == 10_000


def test_the_clock_counts_microseconds() -> None:
    assert abs(now_us() / 1e6 - time.time()) < 5.0


def test_times_are_shown_in_utc() -> None:
    assert iso(0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_700_000_000_123_456) == "2023-11-14T22:13:20.123Z"

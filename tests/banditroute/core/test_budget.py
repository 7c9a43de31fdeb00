"""Budgets as values: calendar windows in UTC, and the requests that they apply to."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from banditroute.contract.body import parse
from banditroute.contract.schemas import NewBudget
from banditroute.core.budget import Budget, nanos
from banditroute.core.errors import InvalidValue


def us(text: str, more: int = 0) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000 + more


def budget(period: str = "total", **fields: Any) -> Budget:
    return Budget(id=1, pool="p", name="b", cap_nano=1_000, period=period, **fields)


WINDOWS = [
    ("hour", "2026-03-01T10:59:59", "2026-03-01T10:00", "2026-03-01T11:00"),
    ("hour", "2026-03-01T11:00:00", "2026-03-01T11:00", "2026-03-01T12:00"),
    ("hour", "2026-12-31T23:59:59", "2026-12-31T23:00", "2027-01-01T00:00"),
    ("day", "2026-03-29T02:30:00", "2026-03-29T00:00", "2026-03-30T00:00"),  # summer time begins
    ("day", "2026-12-31T23:59:59", "2026-12-31T00:00", "2027-01-01T00:00"),
    ("month", "2026-12-31T23:59:59", "2026-12-01T00:00", "2027-01-01T00:00"),
    ("month", "2027-01-01T00:00:00", "2027-01-01T00:00", "2027-02-01T00:00"),
    ("month", "2027-01-31T12:00:00", "2027-01-01T00:00", "2027-02-01T00:00"),
    ("month", "2027-02-28T23:59:59", "2027-02-01T00:00", "2027-03-01T00:00"),
    ("month", "2028-02-29T23:59:59", "2028-02-01T00:00", "2028-03-01T00:00"),
    ("month", "2026-04-30T23:59:59", "2026-04-01T00:00", "2026-05-01T00:00"),
]


@pytest.mark.parametrize(("period", "now", "start", "end"), WINDOWS)
def test_a_window_is_that_of_the_calendar_in_utc(
    period: str, now: str, start: str, end: str
) -> None:
    periodic, now_us = budget(period), us(now, more=999_999)
    assert periodic.window_start_us(now_us) == us(start)
    assert periodic.resets_at_us(now_us) == us(end)
    # The end of a window is the start of the next one.
    assert periodic.window_start_us(us(end) - 1) == us(start)
    assert periodic.window_start_us(us(end)) == us(end)


@pytest.mark.parametrize("zone", ["America/St_Johns", "Pacific/Kiritimati"])
def test_the_zone_of_the_machine_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert budget("day").window_start_us(us("2026-03-01T10:59")) == us("2026-03-01T00:00")
        assert budget("hour").resets_at_us(us("2026-03-01T10:59")) == us("2026-03-01T11:00")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_total_and_rolling_windows_start_at_0_and_never_reset() -> None:
    for unbounded in (budget(), budget("rolling", rolling_s=60)):
        assert unbounded.window_start_us(us("2026-03-01T10:59")) == 0
        assert unbounded.resets_at_us(us("2026-03-01T10:59")) is None
    assert budget("rolling", rolling_s=90).span_us == 90_000_000 and budget().span_us == 0


@pytest.mark.parametrize(
    ("tags", "applies"),
    [
        (None, False),
        ({}, False),
        ({"team": "b"}, False),
        ({"teams": "a"}, False),
        ({"team": "a", "x": "y"}, True),
    ],
)
def test_a_budget_with_a_tag_applies_to_requests_with_it(
    tags: dict[str, str] | None, applies: bool
) -> None:
    assert budget(scope_tag="team", scope_value="a").applies_to(tags) is applies
    assert budget().applies_to(tags)


def test_dollars_become_the_nearest_nano_dollars() -> None:
    # The double next to 0.1 + 0.2 lies above 0.3.
    assert [nanos(usd) for usd in (0.0, 1e-9, 0.1 + 0.2, 1e9)] == [0, 1, 300_000_000, 10**18]
    assert nanos(2.6e-9) == 3


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "b", "cap_usd": 1e-10}, "cap_usd"),
        ({"name": "b", "cap_usd": 1.0, "rate_usd": 9e-10}, "rate_usd"),
        ({"name": "..", "cap_usd": 1.0}, "name"),
        ({"name": "b", "cap_usd": 1.0, "quality_floor": 0.5, "pacing": "zcl"}, "quality_floor"),
    ],
)
def test_a_budget_that_could_not_be_stored_is_refused(body: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        parse(NewBudget, json.dumps(body).encode())
    assert refused.value.param == param
    assert parse(NewBudget, b'{"name": "b", "cap_usd": 1e-9, "rate_usd": 0}').cap_usd == 1e-9

"""What a call reserves from leases, row by row, on values alone."""

from __future__ import annotations

from typing import Any

import pytest

from banditroute.budgets.reservation import NO_LIMIT, LocalLease, Reservations
from banditroute.core.budget import Budget


def lease_of(left_nano: int, name: str = "b", id_: int = 1, **fields: Any) -> LocalLease:
    terms = {"cap_nano": 1_000, "period": "total"} | fields
    budget = Budget(id=id_, pool="p", name=name, **terms)
    start_us = budget.window_start_us(7_200_000_001)
    return LocalLease(id_ + 10, budget, start_us, NO_LIMIT, left_nano=left_nano, deadline_s=100.0)


def call_of(*leases: list[LocalLease], now_s: float = 1.0) -> Reservations:
    return Reservations(leases, lambda: now_s)


def test_a_row_without_a_budget_may_reserve_anything() -> None:
    call = call_of([], [lease_of(5)])
    assert call.headroom(0) == call.spare(0) == NO_LIMIT and call.headroom(1) == 5
    call.take(0, 10**9)
    assert call.headroom(1) == 5 and call.of_decision(0, "d", now_us=1, expires_at_us=2) == []


def test_what_a_row_takes_the_next_row_lacks_in_every_budget_they_share() -> None:
    shared, second = lease_of(100), lease_of(60, "c", id_=2)
    call = call_of([shared], [shared, second])
    call.take(0, 50)
    assert (call.headroom(0), call.headroom(1)) == (50, 50)
    call.take(1, 30)
    assert (shared.left_nano, second.left_nano) == (20, 30) and (
        shared.pending,
        second.pending,
    ) == (2, 1)
    call.undo(1)
    call.logged(0)
    assert (shared.left_nano, second.left_nano) == (50, 60) and (
        shared.pending,
        second.pending,
    ) == (0, 0)
    call.undo_all()  # nothing is left to undo
    assert (shared.left_nano, second.left_nano) == (50, 60)


def test_nothing_is_reserved_after_a_deadline() -> None:
    assert call_of([lease_of(5)], now_s=99.9).headroom(0) == 5
    assert call_of([lease_of(5)], now_s=100.0).headroom(0) == 0


def test_a_reservation_counts_in_the_window_of_its_lease_or_from_its_own_time() -> None:
    hourly = lease_of(50, period="hour")
    rolling = lease_of(50, "r", id_=2, period="rolling", rolling_s=60)
    call = call_of([hourly, rolling])
    call.take(0, 7)
    made = call.of_decision(0, "d", now_us=10_800_000_001, expires_at_us=9)
    # The next hour has begun, but the reservation counts in the hour of its lease.
    assert [(own.budget_id, own.lease_id, own.window_start_us) for own in made] == [
        (1, 11, 7_200_000_000),
        (2, 12, 10_800_000_001),
    ]
    assert {(own.decision_id, own.reserved_nano, own.expires_at_us) for own in made} == {
        ("d", 7, 9)
    }


def test_the_tightest_budget_is_the_one_that_leaves_the_least() -> None:
    wide, capped = lease_of(90), lease_of(500, "c", id_=2, request_ceiling_nano=80)
    assert call_of([wide, capped]).tightest(0).name == "c"
    assert call_of([lease_of(70), capped]).tightest(0).name == "b"
    none = lease_of(500, "none", id_=3, request_ceiling_nano=0)
    assert call_of([wide, capped, none]).tightest(0).name == "none"


def test_a_lease_lasts_for_a_while() -> None:
    small = lease_of(0, cap_nano=16_000)
    assert small.ideal_nano(0) == 1_000 and small.ideal_nano(400) == 512 * 100
    call = call_of([small])
    for _ in range(200):
        small.left_nano = 100
        call.take(0, 40)
    assert small.typical_nano == pytest.approx(40.0, rel=0.01)
    assert small.ideal_nano(0) == 512 * int(small.typical_nano)

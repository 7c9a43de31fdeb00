"""What a call takes from the slices that hold it, row by row, on values alone."""

from __future__ import annotations

from typing import Any

import pytest

from banditroute.budgets.reservation import NO_LIMIT, LocalLease, Reservations
from banditroute.core.budget import Budget


def slice_of(left: int, name: str = "b", at: int = 1, **fields: Any) -> LocalLease:
    terms = {"cap_nano": 1_000, "period": "total"} | fields
    budget = Budget(id=at, pool="p", name=name, **terms)
    window = budget.window_start_us(7_200_000_001)
    return LocalLease(at + 10, budget, window, NO_LIMIT, left=left, deadline=100.0)


def purse_of(*slices: list[LocalLease], clock: float = 1.0) -> Reservations:
    return Reservations(slices, lambda: clock)


def test_a_row_that_no_budget_holds_may_spend_anything() -> None:
    purse = purse_of([], [slice_of(5)])
    assert purse.headroom(0) == purse.spare(0) == NO_LIMIT and purse.headroom(1) == 5
    purse.take(0, 10**9)
    assert purse.headroom(1) == 5 and purse.draws(0, "d", now=1, expires_at=2) == []


def test_what_one_row_takes_the_next_one_lacks_in_every_budget_they_share() -> None:
    both, one = slice_of(100), slice_of(60, "c", at=2)
    purse = purse_of([both], [both, one])
    purse.take(0, 50)
    assert (purse.headroom(0), purse.headroom(1)) == (50, 50)
    purse.take(1, 30)
    assert (both.left, one.left) == (20, 30) and (both.pending, one.pending) == (2, 1)
    purse.undo(1)
    purse.logged(0)
    assert (both.left, one.left) == (50, 60) and (both.pending, one.pending) == (0, 0)
    purse.undo_all()  # of which nothing is left to undo
    assert (both.left, one.left) == (50, 60)


def test_nothing_is_had_after_a_deadline() -> None:
    assert purse_of([slice_of(5)], clock=99.9).headroom(0) == 5
    assert purse_of([slice_of(5)], clock=100.0).headroom(0) == 0


def test_a_reservation_counts_in_the_window_of_its_lease_or_from_its_own_time() -> None:
    hourly = slice_of(50, period="hour")
    rolling = slice_of(50, "r", at=2, period="rolling", rolling_s=60)
    purse = purse_of([hourly, rolling])
    purse.take(0, 7)
    draws = purse.draws(0, "d", now=10_800_000_001, expires_at=9)
    # The next hour has begun, but the money is of the hour that leased it.
    assert [(one.budget_id, one.lease_id, one.window_start_us) for one in draws] == [
        (1, 11, 7_200_000_000),
        (2, 12, 10_800_000_001),
    ]
    assert {(one.decision_id, one.reserved_nano, one.expires_at_us) for one in draws} == {
        ("d", 7, 9)
    }


def test_the_tightest_budget_is_the_one_that_leaves_the_least() -> None:
    wide, capped = slice_of(90), slice_of(500, "c", at=2, request_ceiling_nano=80)
    assert purse_of([wide, capped]).tightest(0).name == "c"
    assert purse_of([slice_of(70), capped]).tightest(0).name == "b"
    none = slice_of(500, "none", at=3, request_ceiling_nano=0)
    assert purse_of([wide, capped, none]).tightest(0).name == "none"


def test_a_slice_lasts_for_a_while() -> None:
    small = slice_of(0, cap_nano=16_000)
    assert small.ideal(0) == 1_000 and small.ideal(400) == 512 * 100
    purse = purse_of([small])
    for _ in range(200):
        small.left = 100
        purse.take(0, 40)
    assert small.typical == pytest.approx(40.0, rel=0.01)
    assert small.ideal(0) == 512 * int(small.typical)

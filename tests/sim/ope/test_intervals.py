from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm, t

from sim.ope.intervals import MAX_GROUPS, Interval, bootstrap, empirical_bernstein, normal


def test_sessions_of_one_row_give_the_plain_formula() -> None:
    values = np.random.default_rng(0).normal(size=200)
    found = normal(values, np.random.default_rng(1).permutation(200))
    wide = t.ppf(0.975, 199) * values.std(ddof=1) / math.sqrt(200)
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - wide, values.mean() + wide))
    assert found.half_width == pytest.approx(wide)
    assert found.error == pytest.approx(wide / norm.ppf(0.975))


@pytest.mark.parametrize("times", [2, 5])
def test_repeated_rows_of_a_session_do_not_narrow_an_interval(times: int) -> None:
    values = np.random.default_rng(0).normal(size=100)
    again, session = np.repeat(values, times), np.repeat(np.arange(100), times)
    once = normal(values, np.arange(100))
    found = normal(again, session)
    assert (found.mean, found.low) == pytest.approx((once.mean, once.low))
    alone = normal(again, np.arange(100 * times))
    assert alone.half_width == pytest.approx(once.half_width / math.sqrt(times), rel=0.02)
    rng = np.random.default_rng
    wide = bootstrap(again[:, None], session, rng(2))[0].half_width
    narrow = bootstrap(again[:, None], np.arange(100 * times), rng(2))[0].half_width
    assert wide > 1.2 * narrow
    guaranteed = empirical_bernstein(again, session, 6.0).half_width
    assert guaranteed == pytest.approx(empirical_bernstein(values, np.arange(100), 6.0).half_width)


def test_one_session_has_an_infinite_interval() -> None:
    found = normal(np.array([0.2, 0.4]), np.zeros(2, dtype=np.intp))
    assert found == Interval(pytest.approx(0.3), -math.inf, math.inf)
    assert found.covers(1e9)


def test_few_sessions_get_the_wider_quantile() -> None:
    """With four sessions the normal quantile would cover the truth in some 85 of 100 logs."""
    rng, session = np.random.default_rng(3), np.repeat(np.arange(4), 3)
    effects = rng.normal(size=(2_000, 4))
    covered = [normal(np.repeat(one, 3), session).covers(0.0) for one in effects]
    assert 0.93 < np.mean(covered) < 0.97


def test_the_bootstrap_is_near_the_normal_interval_and_repeats_itself() -> None:
    rng = np.random.default_rng(4)
    session = np.sort(rng.integers(300, size=900))
    session = np.unique(session, return_inverse=True)[1]
    values = np.column_stack([rng.normal(size=900), rng.exponential(size=900)])
    found = bootstrap(values, session, np.random.default_rng(5))
    assert found == bootstrap(values, session, np.random.default_rng(5))
    assert found != bootstrap(values, session, np.random.default_rng(6))
    for one, column in zip(found, values.T, strict=True):
        plain = normal(column, session)
        assert one.mean == pytest.approx(plain.mean)
        assert one.half_width == pytest.approx(plain.half_width, rel=0.1)
        assert one.low < one.mean < one.high


def test_many_sessions_are_resampled_in_groups() -> None:
    """The interval is as wide as without groups; resampling 100,000 sessions would take minutes."""
    rng, n = np.random.default_rng(7), 6 * MAX_GROUPS + 100
    values = rng.exponential(size=(n, 1))
    found = bootstrap(values, np.arange(n), rng)[0]
    assert found.mean == pytest.approx(values.mean())
    assert found.half_width == pytest.approx(normal(values[:, 0], np.arange(n)).half_width, rel=0.1)


def test_the_guaranteed_interval_contains_the_normal_one() -> None:
    rng = np.random.default_rng(8)
    for n in (10, 100, 10_000):
        values, session = rng.random(n), np.arange(n) // 2
        guaranteed, plain = empirical_bernstein(values, session, 1.0), normal(values, session)
        assert guaranteed.low < plain.low and plain.high < guaranteed.high


def test_the_guaranteed_interval_by_hand() -> None:
    values = np.array([0.0, 1.0, 0.0, 1.0])
    log = math.log(60.0)
    wide = math.sqrt(2 * 0.25 * log / 4) + 3 * 2.0 * log / 4
    assert empirical_bernstein(values, np.arange(4), 2.0).half_width == pytest.approx(wide)

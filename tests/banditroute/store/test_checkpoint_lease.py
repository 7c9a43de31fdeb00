"""Learners on one database: only the lease holder stores checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Engine, select
from support.small_log import Book

from banditroute.learn import learner as learner_module
from banditroute.learn.learner import Checkpoint, Learner
from banditroute.store.checkpoint_lease import LEASE_US, CheckpointLease
from banditroute.store.log import Log
from banditroute.store.tables import checkpoints, learner_leases


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(book: Book, clock: Clock) -> Callable[[], CheckpointLease]:
    def write(work: Any, *, durable: bool) -> Any:
        with book.begin() as connection:
            return work(connection)

    return lambda: CheckpointLease(write, clock=clock)


def kept(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(select(checkpoints.c.seq).order_by("seq")).scalars())


def holder(engine: Engine) -> tuple[str, int]:
    with engine.connect() as connection:
        (row,) = connection.execute(select(learner_leases))
        return row.holder, row.epoch


def checkpoint(seq: int) -> Checkpoint:
    return Checkpoint("default", 4, seq, "i", "d", b"state")


def test_one_holds_the_lease_as_long_as_it_renews(
    engine: Engine, make: Callable[[], CheckpointLease], clock: Clock
) -> None:
    first, second = make(), make()
    for _ in range(5):
        assert first.renew() and not second.renew()
        clock.now += LEASE_US - 1
    assert holder(engine) == (first.holder, 1)
    assert (first.epoch, second.epoch) == (1, 0)


def test_after_its_end_another_takes_the_lease_and_a_sleeper_is_refused(
    engine: Engine,
    make: Callable[[], CheckpointLease],
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = make(), make()
    first.keep(checkpoint(10))
    clock.now += LEASE_US
    assert second.renew()
    assert holder(engine) == (second.holder, 2)
    second.keep(checkpoint(20))
    with caplog.at_level(logging.WARNING):
        first.keep(checkpoint(30))
        first.keep(checkpoint(31))
    assert kept(engine) == [10, 20] and not first.renew()
    assert caplog.text.count("another learner has the lease") == 1
    # The other one dies.
    clock.now += LEASE_US
    assert first.renew() and not second.renew()
    assert holder(engine) == (first.holder, 3)
    first.keep(checkpoint(30))
    second.keep(checkpoint(40))
    assert kept(engine) == [10, 20, 30]


def test_a_late_holder_goes_on_if_no_other_took_over(
    engine: Engine, make: Callable[[], CheckpointLease], clock: Clock
) -> None:
    lease = make()
    assert lease.renew()
    clock.now += 100 * LEASE_US
    lease.keep(checkpoint(10))
    assert kept(engine) == [10] and holder(engine) == (lease.holder, 1)


def test_a_clock_that_lags_does_not_help_a_sleeper(
    engine: Engine, make: Callable[[], CheckpointLease], clock: Clock
) -> None:
    first, second = make(), make()
    assert first.renew()
    clock.now += LEASE_US
    assert second.renew()
    clock.now -= LEASE_US
    first.keep(checkpoint(10))
    assert kept(engine) == []


def test_a_released_lease_can_be_taken_at_once(
    engine: Engine, make: Callable[[], CheckpointLease]
) -> None:
    first, second, third = make(), make(), make()
    assert first.renew() and not second.renew()
    third.release()  # of what it does not have
    assert not second.renew()
    first.release()
    assert second.renew() and holder(engine) == (second.holder, 2)
    assert not first.renew()


def test_of_many_that_start_at_once_one_holds_the_lease(
    engine: Engine, make: Callable[[], CheckpointLease]
) -> None:
    together = Barrier(4)

    def start(lease: CheckpointLease) -> bool:
        together.wait()
        return lease.renew()

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(start, [make() for _ in range(4)])) == [False, False, False, True]
    assert holder(engine)[1] == 1


def test_a_learner_without_the_lease_folds_and_stores_nothing(
    book: Book,
    make: Callable[[], CheckpointLease],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learner_module, "CHECKPOINT_EVERY", 6)
    leases = make(), make()
    assert leases[0].renew()
    learners = [Learner(Log(book.engine), keep=lease.keep) for lease in leases]
    for _ in range(2):
        book.feed(2)
        for learner in reversed(learners):
            learner.catch_up()
    first = kept(book.engine)
    assert len(first) == 2
    clock.now += LEASE_US  # the first one is stopped, and the second goes on
    assert leases[1].renew()
    book.feed(4)
    learners[1].catch_up()
    second = kept(book.engine)
    assert len(second) == 4
    learners[0].catch_up()
    learners[0].keep_first()
    assert kept(book.engine) == second
    for learner in learners:
        fold = learner.fold("default")
        assert fold is not None and fold.digest() == book.digest() == book.digest(checkpoints=True)

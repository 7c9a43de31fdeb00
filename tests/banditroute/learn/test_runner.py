from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support.small_log import Book

from banditroute.decide.columns import Snapshot
from banditroute.learn import learner as learner_module
from banditroute.learn import runner
from banditroute.learn.fold import Fold
from banditroute.learn.learner import Checkpoint
from banditroute.learn.runner import LearnerLoop
from banditroute.serve.local import LocalLearner
from banditroute.store.feedback import Post
from banditroute.store.log import Log
from banditroute.store.tables import events

PATIENCE_S = 20.0


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


class Refusing:
    """A keeper for logs that are too short for a checkpoint."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def renew(self) -> bool:
        self.calls.append("renew")
        return True

    def keep(self, _: Checkpoint) -> None:
        raise AssertionError("no checkpoint is due")

    def release(self) -> None:
        self.calls.append("release")


@pytest.fixture
def published() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def loop(book: Book, published: list[tuple[str, int]]) -> Iterator[LearnerLoop]:
    def note(pool: str, fold: Fold) -> None:
        published.append((pool, fold.version))

    made = LearnerLoop(book.log, keeper=Refusing(), publish=note, interval_s=0.005)
    yield made
    made.stop()


def test_what_is_committed_is_published(
    book: Book, loop: LearnerLoop, published: list[tuple[str, int]]
) -> None:
    loop.thread.start()
    until(lambda: published == [("default", book.log.end())])
    for _ in range(3):
        book.feed(2)
        loop.wake()
        until(lambda: published[-1] == ("default", book.log.end()))
    versions = [version for _, version in published]
    assert versions == sorted(set(versions))
    status = loop.status("default")
    assert status is not None
    assert (status["version"], status["digest"]) == (book.log.end(), book.digest())
    assert loop.status("nobody") is None


def test_the_log_is_watched_without_being_woken(
    book: Book, loop: LearnerLoop, published: list[tuple[str, int]]
) -> None:
    loop.thread.start()
    book.feed(1)
    until(lambda: ("default", book.log.end()) in published)


def test_a_failure_starts_over_from_the_log(
    book: Book,
    loop: LearnerLoop,
    published: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(runner, "RETRY_S", 0.01)
    bad = book.append("from_the_future")
    loop.thread.start()
    until(lambda: "starts over" in caplog.text)
    assert loop.thread.is_alive() and published == []
    with book.begin() as connection:
        connection.execute(events.delete().where(events.c.seq == bad))
    book.feed(2)
    until(lambda: ("default", book.log.end()) in published)
    status = loop.status("default")
    assert status is not None and status["digest"] == book.digest()


def test_a_learner_that_keeps_failing_does_not_spin(
    book: Book,
    loop: LearnerLoop,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(runner, "RETRY_S", 600.0)
    book.append("from_the_future")
    loop.thread.start()
    stop = threading.Event()

    def nag() -> None:
        while not stop.wait(0.001):
            loop.wake()

    nagging = threading.Thread(target=nag)
    nagging.start()
    until(lambda: "starts over" in caplog.text)
    time.sleep(0.2)
    stop.set()
    nagging.join()
    failures = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(failures) == 1


class Late(Refusing):
    """A keeper that waits until another learner's lease ends."""

    def __init__(self, wait: int) -> None:
        super().__init__()
        self.wait, self.kept = wait, 0

    def renew(self) -> bool:
        self.calls.append("renew")
        if len(self.calls) == 2:
            raise OSError("the database is away")
        return len(self.calls) > self.wait

    def keep(self, _: Checkpoint) -> None:
        self.kept += 1


def test_the_lease_is_renewed_and_what_was_missed_is_kept_once_it_is_there(
    book: Book, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner, "RENEW_S", 0.0)
    monkeypatch.setattr(learner_module, "CHECKPOINT_EVERY", 2)
    book.feed(1)
    keeper = Late(wait=5)
    loop = LearnerLoop(book.log, keeper=keeper, publish=lambda *_: None, interval_s=0.001)
    loop.thread.start()
    until(lambda: len(keeper.calls) > 8)
    loop.stop()
    assert keeper.kept == 2  # with the rebuild, which another's lease held up, and with the lease
    assert keeper.calls.count("release") == 1 and keeper.calls[-1] == "release"
    assert "could not be renewed: the database is away" in caplog.text
    assert "starts over" not in caplog.text


def test_stop_before_the_start_is_harmless(book: Book) -> None:
    LearnerLoop(book.log, keeper=Refusing(), publish=lambda *_: None, interval_s=0.01).stop()


def test_the_local_learner_delivers_in_the_event_loop(book: Book) -> None:
    delivered: list[tuple[str, Snapshot, int]] = []

    def deliver(pool: str, snapshot: Snapshot) -> None:
        delivered.append((pool, snapshot, threading.get_ident()))

    async def eventually(version: int) -> Snapshot:
        async with asyncio.timeout(PATIENCE_S):
            while not delivered or delivered[-1][1].version < version:
                await asyncio.sleep(0.002)
        return delivered[-1][1]

    async def main() -> None:
        link = LocalLearner(Log(book.engine), keeper=Refusing(), every_s=0.005)
        assert not link.alive()
        await link.start(deliver)
        assert link.alive()
        first = await eventually(book.log.end())
        _, (one,) = book.decide(1)
        book.send(Post(one, "default", quality=1.0))
        link.wake()
        second = await eventually(book.log.end())
        assert second is not first and second.policy.arms == ["small", "large", "medium"]
        status = await link.status("default")
        assert status is not None and status["digest"] == book.digest()
        await link.stop()
        assert not link.alive()

    asyncio.run(main())
    assert {thread for _, _, thread in delivered} == {threading.get_ident()}

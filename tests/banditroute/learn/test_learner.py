from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine
from support.databases import SQLITE
from support.small_log import Book, prior_of

from banditroute.core.pool import ModelSpec
from banditroute.learn import learner as learner_module
from banditroute.learn.fold import Event, Fold, install
from banditroute.learn.learner import Checkpoint, Learner, rebuild
from banditroute.learn.prior import unpack
from banditroute.store import pools
from banditroute.store.feedback import Post, default_expired
from banditroute.store.log import Log, keep_checkpoint
from banditroute.store.tables import events


def keeper(book: Book) -> Callable[[Checkpoint], None]:
    def keep(checkpoint: Checkpoint) -> None:
        with book.begin() as connection:
            keep_checkpoint(connection, checkpoint, now_us=0)

    return keep


class Window:
    """The log as it was at position `shown`, which only grows: a reader between two commits."""

    def __init__(self, log: Log) -> None:
        self.log, self.shown = log, 0

    def end(self) -> int:
        return min(self.shown, self.log.end())

    def started_pools(self) -> list[str]:
        return [
            p for p in self.log.started_pools() if self.log.policy_identity(p, until=self.shown)
        ]

    def _cut(self, until: int | None) -> int:
        return self.shown if until is None else min(until, self.shown)

    def events(self, *, after: int, until: int | None = None, pool: str | None = None) -> Any:
        return self.log.events(after=after, until=self._cut(until), pool=pool)

    def policy_identity(self, pool: str, *, until: int | None = None) -> Any:
        return self.log.policy_identity(pool, until=self._cut(until))

    def rollbacks(self, pool: str, *, until: int) -> Any:
        return self.log.rollbacks(pool, until=self._cut(until))

    def models_added(self, pool: str, *, until: int) -> Any:
        return self.log.models_added(pool, until=self._cut(until))

    def checkpoint(self, pool: str, *, policy_seq: int, until: int | None) -> Any:
        return self.log.checkpoint(pool, policy_seq=policy_seq, until=self._cut(until))


def eventful(engine: Engine) -> tuple[Book, Book]:
    """Two pools whose logs interleave and hold every kind of event."""
    one, two = Book(engine), Book(engine, pool="other", policy="epsilon-greedy", seed=1)
    for round_ in range(6):
        one.feed(9)
        two.feed(4)
        if round_ == 1:
            back = one.append("rollback", version=one.log.end() - 20)
        if round_ == 2:
            with one.begin() as connection:
                late = ModelSpec(name="late", input_price=0.2, output_price=0.3)
                lesson = {"prior": prior_of("late").text(), "optimism": 0.3}
                pools.add_model(connection, "default", late, source="api", now_us=one.now, **lesson)
                hoped = ModelSpec(name="hoped", input_price=0.2, output_price=0.3)
                pools.add_model(connection, "other", hoped, source="api", now_us=1, optimism=0.1)
                pools.drain_model(connection, "default", "small", now_us=one.now)
        if round_ == 3:
            one.append("reset", arm="large")
            one.append("rollback", version=back)
        if round_ == 4:
            two.start("linucb", gamma=0.99)
    return one, two


def test_fold_does_not_depend_on_micro_batches_restarts_or_checkpoints(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner_module, "CHECKPOINT_EVERY", 7)
    books = eventful(engine)
    end = books[0].log.end()
    rng = np.random.default_rng(5)
    for round_ in range(8 if engine.dialect.name == "sqlite" else 2):
        window = Window(books[0].log)
        keep = keeper(books[0])
        learner = Learner(window, keep=keep)
        cuts = [*np.sort(rng.integers(1, end, size=rng.integers(1, 40))).tolist(), end]
        for cut in cuts:
            window.shown = cut
            changed = learner.catch_up()
            assert learner.cursor == cut or not changed
            if round_ % 2 and rng.random() < 0.3:
                learner = Learner(window, keep=keep)
        for book in books:
            fold = learner.fold(book.pool)
            assert fold is not None and fold.digest() == book.digest()
    kept = books[0].log.checkpoint("default", policy_seq=4, until=None)
    assert kept is not None and kept[0] > end // 2


@SQLITE  # hundreds of folds, over the same reads as above
def test_every_position_can_be_rebuilt_from_its_nearest_checkpoint(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner_module, "CHECKPOINT_EVERY", 5)
    book, _ = eventful(engine)
    window = Window(book.log)
    learner = Learner(window, keep=keeper(book))
    window.shown = book.log.end()
    learner.catch_up()
    for until in range(4, book.log.end(), 3):
        assert book.digest(until=until, checkpoints=True) == book.digest(until=until)


def test_catch_up_says_which_pools_changed(engine: Engine) -> None:
    one, two = Book(engine), Book(engine, pool="other")
    learner = Learner(one.log, keep=keeper(one))
    assert learner.catch_up() == set()
    two.feed(1)
    assert learner.catch_up() == {"other"}
    one.feed(1)
    two.feed(1)
    assert learner.catch_up() == {"default", "other"}
    assert sorted(learner.pools) == ["default", "other"]


def test_a_pool_without_a_policy_is_left_alone_until_it_starts(book: Book) -> None:
    learner = Learner(book.log, keep=keeper(book))
    with book.begin() as connection:
        spec = ModelSpec(name="m", input_price=1.0, output_price=1.0)
        pools.ensure_pool(connection, "later", options={}, now_us=1)
        pools.add_model(connection, "later", spec, source="api", now_us=1)
    assert learner.catch_up() == set()
    assert learner.fold("later") is None and learner.status("later") is None
    later = Book(book.engine, pool="later")
    assert learner.catch_up() == {"later"}
    fold = learner.fold("later")
    assert fold is not None and fold.digest() == later.digest()
    assert fold.policy.arms == ["m", "small", "large", "medium"]


def test_rollback_restores_the_state_and_goes_on_from_there(book: Book) -> None:
    book.feed(10)
    there, then = book.log.end(), book.digest()
    book.feed(10)
    assert book.digest() != then
    seq = book.append("rollback", version=there)
    built = rebuild(book.log, "default")
    assert built is not None
    assert (built[1].digest(), built[1].version) == (then, seq)
    book.feed(3)
    after = book.digest()
    assert after != then
    # A rollback to a position behind that rollback, and one across it.
    again = book.log.end()
    book.feed(2)
    book.append("rollback", version=again)
    assert book.digest() == after
    book.append("rollback", version=seq - 1)
    assert book.digest() not in (then, after)
    book.append("rollback", version=there)
    assert book.digest() == then


def test_a_rollback_forward_is_an_error(book: Book) -> None:
    book.append("rollback", version=book.log.end() + 1)
    with pytest.raises(ValueError, match="rollback"):
        rebuild(book.log, "default")


@SQLITE  # about the fold's passes, not about how quick a page is read
def test_many_rollbacks_cost_one_pass(book: Book) -> None:
    for _ in range(200):
        book.append("rollback", version=book.log.end())
    start = book.log.end()
    book.append("rollback", version=start)
    assert book.digest() == book.digest(until=start)


def test_checkpoints_come_every_so_many_learned_outcomes(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner_module, "CHECKPOINT_EVERY", 10)
    kept: list[Checkpoint] = []
    learner = Learner(book.log, keep=kept.append)
    book.feed(11)
    learner.catch_up()
    assert [unpack(one.state)["learned"].item() for one in kept] == [10, 20, 30]
    for one in kept:
        assert one.digest == book.digest(until=one.seq)
        assert (one.pool, one.policy_seq) == ("default", 4)
    # A policy that starts over a long log keeps one at once, whatever it could learn of it.
    for embedder in ("other", "words"):
        seq = book.start("linucb", embedder=embedder)
        learner.catch_up()
        assert (kept[-1].policy_seq, kept[-1].seq) == (seq, seq)
    assert len(kept) == 5


def test_outcomes_of_another_embedder_are_no_reason_for_a_checkpoint(book: Book) -> None:
    kept: list[Checkpoint] = []
    learner = Learner(book.log, keep=kept.append)
    _, ids = book.decide(20)
    book.start("linucb", embedder="other")
    book.send(*(Post(one, "default", quality=0.5) for one in ids))
    learner.catch_up()
    assert kept == []


def test_a_rollback_forgets_outcomes_but_no_model(book: Book) -> None:
    book.feed(5)
    there = book.log.end()
    with book.begin() as connection:
        spec = ModelSpec(name="new", input_price=0.0, output_price=0.0)
        pools.add_model(connection, "default", spec, source="api", now_us=1)
    before, ids = book.decide(20)
    learner = Learner(book.log, keep=keeper(book))
    book.append("rollback", version=there)
    book.send(*(Post(one, "default", quality=0.5) for one in ids))
    learner.catch_up()
    fold = learner.fold("default")
    assert fold is not None and fold.policy.arms[-1] == "new"
    assert "new" in {before.scored.columns.models[k].name for k in before.chosen}
    assert fold.learned == 15 + len(ids)
    assert fold.digest() == book.digest()


def test_other_parameters_learn_the_log_again(book: Book) -> None:
    book.feed(20)
    first = book.digest()
    book.start("linucb", gamma=0.9)
    built = rebuild(book.log, "default")
    assert built is not None
    assert built[1].learned == 60 and built[1].digest() != first
    book.start("linucb")
    assert book.digest() == first


def test_a_long_log_is_learned_again_once(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_module, "CHECKPOINT_EVERY", 50)
    book.feed(20)
    seq = book.start("linucb", gamma=0.9)
    assert book.log.checkpoint("default", policy_seq=seq, until=None) is None
    Learner(book.log, keep=keeper(book))
    kept = book.log.checkpoint("default", policy_seq=seq, until=None)
    assert kept is not None and kept[0] == book.log.end()


def test_features_of_another_embedder_are_left_out(book: Book) -> None:
    book.feed(20)
    book.start("linucb", embedder="other")
    built = rebuild(book.log, "default")
    assert built is not None
    fresh = built[1]
    assert (fresh.learned, fresh.skipped) == (0, 60)
    assert fresh.policy.arms == ["small", "large", "medium"]
    book.feed(1)
    again = rebuild(book.log, "default")
    assert again is not None and again[1].learned == 3


def test_a_model_added_late_is_learned_from_then_on(book: Book) -> None:
    book.feed(5)
    learner = Learner(book.log, keep=keeper(book))
    late = ModelSpec(name="late", input_price=0.01, output_price=0.01)
    with book.begin() as connection:
        pools.add_model(connection, "default", late, source="api", now_us=book.now)
    book.feed(40)
    learner.catch_up()
    fold = learner.fold("default")
    assert fold is not None
    assert fold.policy.arms[-1] == fold.cost.arms[-1] == fold.latency.arms[-1] == "late"
    assert fold.latency.kept["count"][-1] > 0
    assert fold.digest() == book.digest()


def test_default_events_are_learned_once(book: Book) -> None:
    _, ids = book.decide(3)
    book.send(Post(ids[0], "default", quality=1.0), Post(ids[1], "default", cost_usd=0.1))
    book.now += 2_000_000
    with book.begin() as connection:
        arguments = {"pool": "default", "quality": 0.25, "now_us": book.now}
        assert default_expired(connection, **arguments) == 2
        assert default_expired(connection, **arguments) == 0
    assert book.send(Post(ids[1], "late", quality=1.0)) == ["late"]
    built = rebuild(book.log, "default")
    assert built is not None
    assert (built[1].learned, built[1].policy.clock) == (4, 3)
    assert [e.value for e in book.events() if e.kind == "default"] == [0.25, 0.25]


def test_an_event_of_unknown_kind_stops_the_fold(book: Book) -> None:
    learner = Learner(book.log, keep=keeper(book))
    book.append("from_the_future")
    with pytest.raises(ValueError, match="unknown kind 'from_the_future'"):
        learner.catch_up()
    with pytest.raises(ValueError, match="unknown kind"):
        Learner(book.log, keep=keeper(book))


@pytest.mark.parametrize("policy", ["linucb", "random", "epsilon-greedy", "knn"])
def test_state_survives_dump_and_restore_bit_for_bit(engine: Engine, policy: str) -> None:
    book = Book(engine, policy=policy)
    book.feed(25)
    built = rebuild(book.log, "default")
    assert built is not None
    fold = built[1]
    again = Fold.restore(fold.policy_identity, fold.version, fold.dump())
    assert again.digest() == fold.digest()
    assert (again.version, again.learned, again.skipped) == (fold.version, 75, 0)
    for name, array in fold.state().items():
        other = again.state()[name]
        assert other.dtype == array.dtype and other.tobytes() == array.tobytes(), name
    book.feed(10)
    for event in book.log.events(after=fold.version):
        fold.apply(event)
        again.apply(event)
    assert again.digest() == fold.digest() == book.digest()
    published, view = fold.publish(), again.publish()
    assert all(view[name].tobytes() == array.tobytes() for name, array in published.items())


def test_a_checkpoint_holds_no_pickle(book: Book) -> None:
    book.feed(3)
    built = rebuild(book.log, "default")
    assert built is not None
    assert all(array.dtype != object for array in unpack(built[1].dump()).values())


def test_the_digest_covers_cost_and_latency(book: Book) -> None:
    _, ids = book.decide(2)
    seen = {book.digest()}
    book.send(Post(ids[0], "default", cost_usd=0.5))
    seen.add(book.digest())
    book.send(Post(ids[1], "default", latency_ms=5.0))
    seen.add(book.digest())
    assert len(seen) == 3


def test_an_installed_snapshot_scores_like_the_one_it_was_taken_from(book: Book) -> None:
    book.feed(30)
    built = rebuild(book.log, "default")
    assert built is not None
    fold = built[1]
    snapshot = install(fold.policy_identity, fold.version, fold.publish())
    own = fold.snapshot()
    asks = book.requests(6)
    for one, other in zip(
        snapshot.policy.estimate(asks.features), own.policy.estimate(asks.features), strict=True
    ):
        assert one.tobytes() == other.tobytes()
    assert snapshot.latency.predict(1).tobytes() == own.latency.predict(1).tobytes()


def test_status_says_what_was_learned(book: Book) -> None:
    book.feed(4)
    learner = Learner(book.log, keep=keeper(book))
    status = learner.status("default")
    assert status is not None
    assert (status["learned"], status["skipped"]) == (12, 0)
    assert status["version"] == book.log.end()
    assert status["digest"] == book.digest()
    assert json.dumps(status)


def test_the_fold_reads_nothing_but_the_events(book: Book) -> None:
    """Feedback rows, decisions, prices and times may change: the state does not."""
    book.feed(10)
    before = book.digest()
    with book.begin() as connection:
        for table in ("feedback", "decisions", "prices", "models"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
        connection.execute(events.update().values(created_at=0))
    assert book.digest() == before


def test_events_of_one_pool_say_nothing_to_another(book: Book) -> None:
    fold = Fold(book.router().snapshot.policy_identity)
    fold.apply(Event(1, "default", "model_added", payload={"name": "only"}))
    fold.apply(Event(2, "default", "model_drained", payload={"name": "only"}))
    assert (fold.policy.arms, fold.version) == (["only"], 2)


def test_a_prior_of_another_embedder_teaches_nothing(book: Book) -> None:
    fold, text = (
        Fold(book.router().snapshot.policy_identity),
        prior_of("m", embedder="other").text(),
    )
    fold.apply(Event(1, "default", "model_added", payload={"name": "m"}))
    before = fold.state()
    fold.apply(Event(2, "default", "prior", payload={"arm": "m", "prior": text}))
    after = fold.state()
    assert (fold.version, int(before.pop("skipped")), int(after.pop("skipped"))) == (2, 0, 1)
    assert all(array.tobytes() == before[name].tobytes() for name, array in after.items())

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import select
from support.small_log import Book

from banditroute.learn.learner import Checkpoint
from banditroute.store import log as log_module
from banditroute.store.feedback import Post
from banditroute.store.idempotency import IDEMPOTENCY_TTL_US, forget, recall, remember
from banditroute.store.log import keep_checkpoint
from banditroute.store.tables import checkpoints


def seqs(book: Book, **window: object) -> list[int]:
    return [event.seq for event in book.log.events(**window)]  # type: ignore[arg-type]


def test_positions_grow_by_commit_order_and_are_never_used_again(book: Book) -> None:
    first = book.append("model_drained", name="small")
    with book.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM events WHERE seq = {first}")
    assert book.append("model_drained", name="small") == first + 1


def test_an_event_is_read_back_bit_for_bit(book: Book) -> None:
    decided, (one,) = book.decide(1)
    book.send(Post(one, "default", quality=1 / 3, cost_usd=0.1, latency_ms=7.0))
    read = list(book.log.events(after=4))
    assert [(e.kind, e.embedder, e.payload) for e in read] == [("feedback", "words", {})] * 3
    quality, cost, latency = (event.outcome for event in read)
    assert quality is not None and cost is not None and latency is not None
    chosen = int(decided.chosen[0])
    assert (quality.field, quality.value, quality.seq) == ("quality", 1 / 3, read[0].seq)
    assert (cost.field, cost.value) == ("cost", 0.1)
    assert (latency.field, latency.value) == ("latency", 7.0)
    for outcome in (quality, cost, latency):
        assert outcome.x.dtype == np.float32
        assert outcome.x.tobytes() == decided.scored.requests.features[0].tobytes()
        assert outcome.arm == decided.scored.columns.models[chosen].name
        assert outcome.decision_id == one and outcome.cost_usd == 0.1
        assert outcome.propensity == decided.pmf[0, chosen]
        assert list(outcome.preference) == decided.scored.requests.preference[0].tolist()
        assert (
            outcome.input_cost_usd
            == decided.scored.input_cost_usd[0, chosen]
            < outcome.cost_prior_usd
        )


def test_other_events_carry_their_payload(book: Book) -> None:
    read = list(book.log.events(after=0))
    assert [e.kind for e in read] == ["model_added"] * 3 + ["policy_started"]
    assert read[0].payload == {"name": "small"} and read[0].outcome is None


@pytest.mark.parametrize("page", [1, 3, 4, 1_000])
def test_pages_hold_every_event_once_and_in_order(
    book: Book, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Book(book.engine, pool="other").feed(2)
    book.feed(3)
    end = book.log.end()
    monkeypatch.setattr(log_module, "PAGE", page)
    assert seqs(book, after=0) == list(range(1, end + 1))
    assert seqs(book, after=5, until=9) == [6, 7, 8, 9]
    assert seqs(book, after=end) == []
    mine = seqs(book, after=0, pool="default")
    other = seqs(book, after=0, pool="other")
    assert sorted(mine + other) == list(range(1, end + 1)) and 5 not in mine


def test_the_end_of_an_empty_log_is_zero(book: Book) -> None:
    with book.begin() as connection:
        connection.exec_driver_sql("DELETE FROM events")
    assert book.log.end() == 0
    assert book.log.started_pools() == []
    assert book.log.policy_identity("default") is None


def test_the_identity_is_that_of_the_newest_start_so_far(book: Book) -> None:
    second = book.start("linucb", gamma=0.5)
    found = book.log.policy_identity("default", until=second - 1)
    assert found is not None and found[0] == 4 and found[1].params["gamma"] == 1.0
    found = book.log.policy_identity("default")
    assert found is not None and found[0] == second and found[1].params["gamma"] == 0.5
    assert found[1].id != book.log.policy_identity("default", until=4)[1].id  # type: ignore[index]
    assert book.log.policy_identity("default", until=3) is None


def test_rollbacks_are_listed_up_to_a_position(book: Book) -> None:
    first = book.append("rollback", version=2)
    second = book.append("rollback", version=3)
    assert book.log.rollbacks("default", until=second) == [(first, 2), (second, 3)]
    assert book.log.rollbacks("default", until=first) == [(first, 2)]
    assert book.log.rollbacks("other", until=second) == []


def test_the_newest_checkpoint_of_this_policy_is_found(book: Book) -> None:
    with book.begin() as connection:
        for policy_seq, seq in ((4, 10), (4, 20), (15, 18)):
            one = Checkpoint("default", policy_seq, seq, "i", "d", f"{policy_seq}/{seq}".encode())
            keep_checkpoint(connection, one, now_us=0)
    find = book.log.checkpoint
    assert find("default", policy_seq=4, until=None) == (20, b"4/20")
    assert find("default", policy_seq=4, until=19) == (10, b"4/10")
    assert find("default", policy_seq=4, until=9) is None
    assert find("default", policy_seq=15, until=None) == (18, b"15/18")
    assert find("other", policy_seq=4, until=None) is None


def test_a_checkpoint_is_kept_once(book: Book) -> None:
    one = Checkpoint("default", 4, 10, "i", "d", b"state")
    for now in (1, 2):
        with book.begin() as connection:
            keep_checkpoint(connection, one, now_us=now)
    with book.engine.connect() as connection:
        assert [row.created_at for row in connection.execute(select(checkpoints))] == [1]


def test_idempotency_keys_last_a_day(book: Book) -> None:
    with book.begin() as connection:
        remember(connection, [("k", "route", "d", b"r", 0)])
        assert recall(connection, ["k", "other"], now_us=IDEMPOTENCY_TTL_US) == {
            ("k", "route"): ("d", b"r")
        }
        assert recall(connection, ["k"], now_us=IDEMPOTENCY_TTL_US + 1) == {}
        # It is gone, so the key can be used again.
        remember(connection, [("k", "route", "e", b"s", IDEMPOTENCY_TTL_US + 1)])
        assert forget(connection, now_us=IDEMPOTENCY_TTL_US) == 0
        assert forget(connection, now_us=3 * IDEMPOTENCY_TTL_US) == 1


def test_decisions_and_feedback_are_found_by_id(book: Book) -> None:
    ids = book.feed(3)
    found = book.log.decision(ids[1])
    assert found is not None and found["id"] == ids[1]
    assert book.log.decision("nobody") is None
    said = book.log.history_of(found)
    (sent,) = said["feedback"]
    assert sent["key"] == "default" and sent["status"] == "accepted"
    assert [one["field"] for one in said["learned"]] == ["quality", "cost", "latency"]
    assert said["comparisons"] == said["session_feedback"] == []
    book.feed(2)
    versions = [row["version"] for row in book.log.decisions("default")]
    assert len(versions) == 5 and versions == sorted(versions)

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import IntegrityError
from support.small_log import TTL, Book

from banditroute.core.errors import InvalidValue
from banditroute.learn import learner as learner_module
from banditroute.learn.learner import Learner, rebuild
from banditroute.store.comparisons import Preferred
from banditroute.store.feedback import FeedbackResult, Post
from banditroute.store.log import keep_checkpoint
from banditroute.store.tables import comparisons, decisions
from banditroute.store.verify import audit


def stored(book: Book) -> list[Any]:
    with book.engine.connect() as connection:
        return list(connection.execute(select(comparisons).order_by(comparisons.c.id)))


def learned(book: Book) -> list[Any]:
    return [event for event in book.events() if event.kind == "comparison"]


def pair(book: Book, *models: str, prompt: str = "p") -> list[str]:
    """Return decisions on one prompt, of the small and the large model where none are named."""
    named = models or ("small", "large")
    return [book.decide(1, prompt=prompt, models=[{name}])[1][0] for name in named]


def alter(book: Book, one: str, **values: Any) -> None:
    with book.begin() as connection:
        connection.execute(update(decisions).where(decisions.c.id == one).values(**values))


def test_an_event_holds_all_that_the_fold_may_know(book: Book) -> None:
    won, lost = pair(book)
    alter(book, lost, propensity=0.25)
    assert book.post(Preferred(won, lost, "k", "judge")) == [FeedbackResult("accepted")]
    (event,), (row,) = learned(book), stored(book)
    found = book.log.decision(won)
    assert found is not None
    copied = ("pool", "embedder", "features", "propensity", "w_quality", "w_cost", "w_latency")
    for name in copied:
        assert getattr(event, name) == found[name]
    assert (event.decision_id, event.arm, event.field, event.value) == (won, "small", None, None)
    assert json.loads(event.payload) == {"over": lost, "arm": "large", "propensity": 0.25}
    assert (row.decision_id, row.preferred_over, row.key, row.source) == (won, lost, "k", "judge")
    (read,) = (e.comparison for e in book.log.events(after=0) if e.kind == "comparison")
    assert read is not None
    assert (read.seq, read.decision_id, read.over) == (event.seq, won, lost)
    assert (read.winner, read.propensity) == ("small", 1.0)
    assert (read.loser, read.loser_propensity) == ("large", 0.25)
    assert read.x.tobytes() == found["features"]
    assert read.preference == (found["w_quality"], found["w_cost"], found["w_latency"])


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one batch"])
def test_exactly_once_by_pair_and_key(book: Book, together: bool) -> None:
    a, b = pair(book)
    steps = [
        (Preferred(a, b, "k", "judge"), FeedbackResult("accepted")),
        (Preferred(a, b, "k", "judge"), FeedbackResult("duplicate")),
        (Preferred(a, b, "k", "user"), FeedbackResult("conflict", "key")),
        (Preferred(a, b, "k"), FeedbackResult("conflict", "key")),
        (Preferred(a, b, "other", "judge"), FeedbackResult("accepted")),
        (Preferred(b, a, "k", "judge"), FeedbackResult("accepted")),
        (Preferred("nobody", b, "k"), FeedbackResult("unknown", "decision_id")),
        (Preferred(a, "nobody", "k"), FeedbackResult("unknown", "preferred_over")),
    ]
    posts = [post for post, _ in steps]
    became = book.post(*posts) if together else [one for post in posts for one in book.post(post)]
    assert became == [expected for _, expected in steps]
    assert [(e.arm, json.loads(e.payload)["arm"]) for e in learned(book)] == [
        ("small", "large"), ("small", "large"), ("large", "small"),
    ]  # fmt: skip
    assert len(stored(book)) == 3


def test_the_table_itself_refuses_a_second_row(book: Book) -> None:
    a, b = pair(book)
    book.send(Preferred(a, b, "k"))
    copy = {name: value for name, value in stored(book)[0]._mapping.items() if name != "id"}
    with pytest.raises(IntegrityError), book.begin() as connection:
        connection.execute(insert(comparisons), copy)


@pytest.mark.parametrize("which", [0, 1])
def test_late_for_either_is_stored_and_not_learned(book: Book, which: int) -> None:
    ids = pair(book)
    alter(book, ids[which], expires_at=book.now - 1)
    assert book.send(Preferred(*ids, "k"), Preferred(*ids, "k")) == ["late", "duplicate"]
    assert learned(book) == [] and [row.status for row in stored(book)] == ["late"]


def test_at_the_last_moment_it_is_learned(book: Book) -> None:
    ids = pair(book)
    book.now += TTL
    assert book.send(Preferred(*ids, "k")) == ["accepted"]
    assert len(learned(book)) == 1


@pytest.mark.parametrize("which", [0, 1])
def test_an_answer_of_another_model_teaches_nothing(book: Book, which: int) -> None:
    ids = pair(book)
    both = Post(ids[which], "gateway", model="medium"), Preferred(*ids, "k")
    assert book.send(*both) == ["accepted", "accepted"]
    assert learned(book) == [] and [row.status for row in stored(book)] == ["accepted"]


def test_two_answers_of_one_model_teach_nothing(book: Book) -> None:
    assert book.send(Preferred(*pair(book, "small", "small"), "k")) == ["accepted"]
    assert learned(book) == [] and len(stored(book)) == 1


def test_what_cannot_be_compared_refuses_the_whole_batch(engine: Engine) -> None:
    book, other = Book(engine), Book(engine, pool="other")
    good, (foreign,) = pair(book), pair(other, "small")
    (elsewhere,), (unmarked,) = pair(book, "small", prompt="q"), book.decide(1)[1]
    for loser, message in (
        (foreign, "is of pool 'other', but decision_id is of pool 'default'"),
        (elsewhere, "different prompts"),
        (unmarked, "hash_key"),
    ):
        posts = (
            Post(good[0], "k", quality=1.0),
            Preferred(*good, "k"),
            Preferred(good[0], loser, "k"),
        )
        with pytest.raises(InvalidValue, match=message) as caught:
            book.post(*posts)
        assert (caught.value.row, caught.value.param) == (2, "preferred_over")
    assert stored(book) == learned(book) == []
    assert (
        book.log.history_of({"id": good[0], "pool": "default", "session_id": None})["feedback"]
        == []
    )


def test_no_hash_on_either_side_is_no_match(book: Book) -> None:
    ids = [book.decide(1, models=[{name}])[1][0] for name in ("small", "large")]
    with pytest.raises(InvalidValue, match="hash_key"):
        book.post(Preferred(*ids, "k"))


def test_both_decisions_show_a_comparison(book: Book) -> None:
    a, b = pair(book)
    book.send(Preferred(a, b, "k"), Preferred(b, a, "l", "user"), Post(b, "m", quality=0.5))
    for one in (a, b):
        found = book.log.decision(one)
        assert found is not None
        said = book.log.history_of(found)
        assert said["comparisons"] == [
            {
                "decision_id": a,
                "preferred_over": b,
                "key": "k",
                "source": None,
                "status": "accepted",
            },
            {
                "decision_id": b,
                "preferred_over": a,
                "key": "l",
                "source": "user",
                "status": "accepted",
            },
        ]
    assert [(one["kind"], one["value"]) for one in said["learned"]] == [
        ("comparison", None), ("feedback", 0.5),
    ]  # fmt: skip


# --- the fold ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("database_url", "policy"),
    [("sqlite", "pilot"), ("sqlite", "linucb"), ("sqlite", "thompson"), ("postgresql", "pilot")],
    indirect=["database_url"],
)
def test_the_log_with_comparisons_is_sound(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setattr(learner_module, "CHECKPOINT_EVERY", 7)
    book, rng = Book(engine, policy=policy), np.random.default_rng(3)

    def keep(checkpoint: Any) -> None:
        with book.begin() as connection:
            keep_checkpoint(connection, checkpoint, now_us=0)

    learner = Learner(book.log, keep=keep)
    for round_ in range(6):
        book.feed(4)
        for _ in range(4):
            book.compare(rng)
        if round_ == 3:
            book.append("rollback", version=book.log.end() - 9)
        learner.catch_up()
    policy_seq = next(e.seq for e in book.events() if e.kind == "policy_started")
    kept = book.log.checkpoint("default", policy_seq=policy_seq, until=None)
    assert kept is not None and kept[0] > book.log.end() // 2
    fold = learner.fold("default")
    assert fold is not None
    assert book.digest() == book.digest(checkpoints=True) == fold.digest()
    found = audit(book.log, "default")
    assert found.sound(), found.lines()
    assert found.outcomes == fold.learned


def test_a_duplicate_changes_nothing_and_a_comparison_does(engine: Engine) -> None:
    book = Book(engine, policy="pilot")
    a, b = pair(book)
    before = book.digest()
    book.send(Preferred(a, b, "k"))
    after, end = book.digest(), book.log.end()
    assert after != before
    assert book.send(Preferred(a, b, "k"), Preferred(a, b, "k", "x")) == ["duplicate", "conflict"]
    assert (book.digest(), book.log.end()) == (after, end)


def test_features_of_another_embedder_are_skipped(engine: Engine) -> None:
    book = Book(engine, policy="pilot")
    a, b = pair(book)
    alter(book, b, embedder="sentences", features=b"")
    book.send(Preferred(a, b, "k"), Preferred(b, a, "k"))
    built = rebuild(book.log, "default")
    assert built is not None
    assert (built[1].learned, built[1].skipped) == (1, 1)

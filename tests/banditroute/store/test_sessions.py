from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select
from support.databases import POSTGRESQL, SQLITE
from support.small_log import TTL, Book

from banditroute.service.feedback import Feedback
from banditroute.store import sessions
from banditroute.store.feedback import FeedbackResult, Post, default_expired
from banditroute.store.sessions import SessionQuality
from banditroute.store.tables import session_feedback


def session_quality(quality: float, key: str = "k", **fields: Any) -> SessionQuality:
    return SessionQuality(
        **{"pool": "default", "session_id": "s", "key": key, "quality": quality} | fields
    )


def qualities(book: Book) -> dict[str, float]:
    learned = [e for e in book.events() if e.field == "quality" and e.pool == book.pool]
    assert len({e.decision_id for e in learned}) == len(learned)
    return {e.decision_id: e.value for e in learned}


def stored(book: Book) -> list[tuple[str, float, int]]:
    table = session_feedback
    columns = table.c.key, table.c.quality, table.c.decisions
    with book.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(*columns).order_by(table.c.id))]


def test_every_decision_of_the_session_learns_the_same(book: Book) -> None:
    _, ids = book.decide(3, session="s")
    book.decide(1, session="t"), book.decide(1)
    assert book.post(session_quality(0.25)) == [FeedbackResult("accepted", decisions=3)]
    assert qualities(book) == dict.fromkeys(ids, 0.25)
    for event in book.events()[-3:]:
        found = book.log.decision(event.decision_id)
        assert found is not None
        assert (event.kind, event.arm, event.features) == (
            "feedback",
            found["model"],
            found["features"],
        )
        assert event.propensity == found["propensity"] and event.cost is None
    assert stored(book) == [("k", 0.25, 3)]


def test_exactly_once_by_session_and_key(book: Book) -> None:
    book.decide(2, session="s")
    steps = [
        (session_quality(0.5), FeedbackResult("accepted", decisions=2)),
        (session_quality(0.5), FeedbackResult("duplicate", decisions=2)),
        (session_quality(0.6), FeedbackResult("conflict", "key")),
        (session_quality(0.5, source="judge"), FeedbackResult("conflict", "key")),
        (session_quality(0.9, key="l"), FeedbackResult("superseded", decisions=0)),
        (session_quality(0.9, key="l"), FeedbackResult("duplicate", decisions=0)),
        (session_quality(0.5, session_id="nobody"), FeedbackResult("unknown", "session_id")),
        (session_quality(0.5, pool="nowhere"), FeedbackResult("unknown", "session_id")),
    ]
    end = book.log.end()
    assert book.post(*(post for post, _ in steps)) == [expected for _, expected in steps]
    assert book.log.end() == end + 2 and set(qualities(book).values()) == {0.5}


def test_later_decisions_need_another_key(book: Book) -> None:
    _, (first,) = book.decide(1, session="s")
    book.send(session_quality(0.5))
    _, (second,) = book.decide(1, session="s")
    assert book.post(session_quality(0.5)) == [FeedbackResult("duplicate", decisions=1)]
    assert book.post(session_quality(0.75, key="end")) == [FeedbackResult("accepted", decisions=1)]
    assert qualities(book) == {first: 0.5, second: 0.75}


def test_a_quality_of_its_own_stands(book: Book) -> None:
    _, (rated, foreign, cheap, silent) = book.decide(4, session="s")
    chosen = book.log.decision(foreign)
    assert chosen is not None
    other = "large" if chosen["model"] != "large" else "small"
    book.send(Post(rated, "a", quality=1.0), Post(foreign, "a", model=other))
    book.send(Post(cheap, "gateway", cost_usd=0.25), Post(cheap, "b", cost_usd=0.75, latency_ms=1))
    assert book.post(session_quality(0.0)) == [FeedbackResult("accepted", decisions=2)]
    assert qualities(book) == {rated: 1.0, cheap: 0.0, silent: 0.0}
    known = {e.decision_id: e.cost for e in book.events() if e.field == "quality"}
    assert (known[cheap], known[silent]) == (0.25, None)


def test_after_a_session_quality_a_decision_learns_the_other_fields_alone(book: Book) -> None:
    _, (one, two) = book.decide(2, session="s")
    book.send(session_quality(0.5))
    assert book.send(
        Post(one, "a", quality=1.0),
        Post(one, "b", quality=1.0, latency_ms=3.0),
        Post(two, "k", quality=0.5),
        Post(two, "k", quality=0.5),
    ) == ["superseded", "accepted", "superseded", "duplicate"]
    assert qualities(book) == {one: 0.5, two: 0.5}
    assert [(e.decision_id, e.value) for e in book.events() if e.field == "latency"] == [(one, 3.0)]


def test_expired_decisions_learn_nothing(book: Book) -> None:
    _, (old,) = book.decide(1, session="s")
    book.now += 10
    _, (young,) = book.decide(1, session="s")
    book.now += TTL - 9  # the old one's last moment is over
    assert book.post(session_quality(0.5)) == [FeedbackResult("accepted", decisions=1)]
    assert qualities(book) == {young: 0.5}
    book.now += TTL
    assert book.post(session_quality(1.0, "l"), session_quality(1.0, "l")) == [
        FeedbackResult("late", decisions=0), FeedbackResult("duplicate", decisions=0),
    ]  # fmt: skip
    with book.begin() as connection:
        assert default_expired(connection, pool="default", quality=0.125, now_us=book.now) == 1
    assert qualities(book) == {young: 0.5, old: 0.125}


def test_at_its_last_moment_a_decision_still_learns(book: Book) -> None:
    book.decide(1, session="s")
    book.now += TTL
    assert book.post(session_quality(0.5)) == [FeedbackResult("accepted", decisions=1)]


def test_a_session_belongs_to_one_pool(engine: Engine) -> None:
    book, other = Book(engine), Book(engine, pool="other")
    book.decide(1, session="s"), other.decide(2, session="s")
    assert book.post(session_quality(0.5, pool="other")) == [
        FeedbackResult("accepted", decisions=2)
    ]
    assert qualities(book) == {} and len(qualities(other)) == 2


@SQLITE  # whose planner needs the help; the plan of PostgreSQL depends on statistics
@pytest.mark.parametrize("query", [sessions._LAST_EXPIRES, sessions._OPEN])
def test_a_session_is_found_without_reading_its_pool(book: Book, query: Any) -> None:
    statement = str(query.compile(book.engine))
    with book.engine.connect() as connection:
        values = tuple("x" * statement.count("?"))
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    assert any("(pool=? AND session_id=?)" in step[3] for step in plan), plan
    assert not any("SCAN" in step[3] for step in plan), plan


def test_a_session_of_thousands_is_rated_whole(book: Book) -> None:
    for _ in range(3):
        book.decide(1_000, session="s")
    assert book.post(session_quality(0.5)) == [FeedbackResult("accepted", decisions=3_000)]


def test_a_decision_shows_the_session_quality_and_what_it_learned(book: Book) -> None:
    _, (one,) = book.decide(1, session="s")
    book.send(session_quality(0.5, source="csat"), Post(one, "a", quality=1.0))
    found = book.log.decision(one)
    assert found is not None
    said = book.log.history_of(found)
    assert said["session_feedback"] == [
        {"key": "k", "source": "csat", "quality": 0.5, "decisions": 1}
    ]
    assert [row["status"] for row in said["feedback"]] == ["superseded"]
    assert [(row["field"], row["value"]) for row in said["learned"]] == [("quality", 0.5)]


# --- whatever the order --------------------------------------------------------------------------

QUALITY = st.sampled_from([0.0, 0.5, 1.0])
STEP = st.one_of(
    st.tuples(st.just("post"), st.integers(0, 4), st.sampled_from("ab"), QUALITY),
    st.tuples(st.just("cost"), st.integers(0, 4), st.sampled_from("ab"), QUALITY),
    st.tuples(st.just("override"), st.integers(0, 4), st.just("o"), QUALITY),
    st.tuples(st.just("session"), st.integers(0, 1), st.sampled_from("ab"), QUALITY),
)


def check_sequence(
    engine: Engine, steps: list[tuple[str, int, str, float]], cut: int, split: int
) -> None:
    """Five decisions, `split` of them in one session and the others in another, against a model."""
    with engine.connect() as connection:
        known = int(connection.exec_driver_sql("SELECT count(*) FROM pools").scalar_one())
    book = Book(engine, pool=f"p{known}")
    ids = [book.decide(1, session="st"[at >= split], models=[{"small"}])[1][0] for at in range(5)]

    posts: list[Feedback] = []
    expected: list[str] = []
    learned: dict[str, float] = {}
    seen: dict[Any, Any] = {}
    had: dict[str, set[str]] = defaultdict(set)
    overridden: set[str] = set()
    for kind, at, key, value in steps:
        post: Feedback
        if kind == "session":
            inside = [one for i, one in enumerate(ids) if ("st"[i >= split]) == "st"[at]]
            post = SessionQuality(book.pool, "st"[at], key, value)
            named: Any = ("session", at, key)
        else:
            fields: dict[str, Any] = {
                "post": {"quality": value}, "cost": {"cost_usd": value}, "override": {"model": "large"},
            }[kind]  # fmt: skip
            post, named = Post(ids[at], key, **fields), (ids[at], key)
        posts.append(post)
        if named in seen:
            expected.append("duplicate" if seen[named] == post else "conflict")
            continue
        if kind == "session":
            if not inside:
                expected.append("unknown")
                continue
            fresh = [one for one in inside if one not in learned and one not in overridden]
            learned |= dict.fromkeys(fresh, value)
            for one in fresh:
                had[one].add("quality")
            expected.append("accepted" if fresh else "superseded")
        elif kind == "override":
            overridden.add(ids[at])
            expected.append("accepted")
        else:
            field = "quality" if kind == "post" else "cost"
            expected.append("superseded" if field in had[ids[at]] else "accepted")
            if field not in had[ids[at]] and field == "quality" and ids[at] not in overridden:
                learned[ids[at]] = value
            had[ids[at]].add(field)
        seen[named] = post
    statuses = [s for i in range(0, len(posts), cut) for s in book.send(*posts[i : i + cut])]
    assert statuses == expected
    assert qualities(book) == learned


@SQLITE
@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    steps=st.lists(STEP, min_size=1, max_size=20), cut=st.integers(1, 20), split=st.integers(0, 4)
)
def test_a_quality_is_learned_once_and_from_the_first_feedback(
    engine: Engine, steps: list[tuple[str, int, str, float]], cut: int, split: int
) -> None:
    check_sequence(engine, steps, cut, split)


@POSTGRESQL
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    steps=st.lists(STEP, min_size=1, max_size=20), cut=st.integers(1, 20), split=st.integers(0, 4)
)
def test_a_quality_is_learned_once_and_from_the_first_feedback_on_postgresql(
    engine: Engine, steps: list[tuple[str, int, str, float]], cut: int, split: int
) -> None:
    check_sequence(engine, steps, cut, split)


@pytest.mark.parametrize("policy", ["linucb", "pilot"])
def test_session_qualities_fold_like_single_ones(engine: Engine, policy: str) -> None:
    book = Book(engine, policy=policy)
    book.decide(4, session="s")
    before = book.digest()
    book.send(session_quality(0.5))
    after = book.digest()
    assert after != before
    book.send(session_quality(0.5), session_quality(0.6), session_quality(0.9, "l"))
    assert book.digest() == book.digest(checkpoints=True) == after

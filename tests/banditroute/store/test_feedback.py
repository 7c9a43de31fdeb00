from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import IntegrityError
from support.databases import POSTGRESQL, SQLITE
from support.small_log import TTL, Book

from banditroute.core.errors import InvalidValue
from banditroute.core.pool import NANO, ModelSpec
from banditroute.store import pools
from banditroute.store.feedback import Post, ceil_nano, default_expired
from banditroute.store.tables import decisions, events, feedback

Step = tuple[str, dict[str, Any]]


def learned(book: Book, decision_id: str) -> list[tuple[str, float]]:
    return [(e.field, e.value) for e in book.events() if e.decision_id == decision_id]


def stored(book: Book) -> list[Any]:
    with book.engine.connect() as connection:
        return list(connection.execute(select(feedback).order_by(feedback.c.id)))


def decision(book: Book, decision_id: str) -> Any:
    with book.engine.connect() as connection:
        return connection.execute(select(decisions).where(decisions.c.id == decision_id)).one()


SEQUENCES: dict[str, tuple[Sequence[tuple[dict[str, Any], str]], list[tuple[str, float]]]] = {
    "one of each": (
        [({"quality": 0.5, "cost_usd": 0.1, "latency_ms": 9.0}, "accepted")],
        [("quality", 0.5), ("cost", 0.1), ("latency", 9.0)],
    ),
    "fields one by one, each under its own key": (
        [
            ({"key": "gateway", "cost_usd": 0.1}, "accepted"),
            ({"key": "clock", "latency_ms": 9.0}, "accepted"),
            ({"key": "judge", "quality": 1.0}, "accepted"),
        ],
        [("cost", 0.1), ("latency", 9.0), ("quality", 1.0)],
    ),
    "a retry": (
        [({"quality": 0.5}, "accepted"), ({"quality": 0.5}, "duplicate")],
        [("quality", 0.5)],
    ),
    "another payload under the same key": (
        [
            ({"quality": 0.5}, "accepted"),
            ({"quality": 0.6}, "conflict"),
            ({"quality": 0.5, "cost_usd": 1.0}, "conflict"),
            ({"quality": 0.5, "source": "other"}, "conflict"),
            ({"quality": 0.5}, "duplicate"),
        ],
        [("quality", 0.5)],
    ),
    "the first one wins": (
        [
            ({"quality": 0.5}, "accepted"),
            ({"key": "b", "quality": 0.9}, "superseded"),
            ({"key": "b", "quality": 0.9}, "duplicate"),
            ({"key": "b", "quality": 0.8}, "conflict"),
        ],
        [("quality", 0.5)],
    ),
    "partly superseded": (
        [
            ({"quality": 0.5}, "accepted"),
            ({"key": "b", "quality": 0.9, "latency_ms": 3.0}, "accepted"),
            ({"key": "c", "quality": 0.9, "latency_ms": 4.0}, "superseded"),
        ],
        [("quality", 0.5), ("latency", 3.0)],
    ),
    "zero is a value": (
        [
            ({"quality": 0.0, "cost_usd": 0.0, "latency_ms": 0.0}, "accepted"),
            ({"key": "b", "quality": 1.0, "cost_usd": 1.0, "latency_ms": 1.0}, "superseded"),
        ],
        [("quality", 0.0), ("cost", 0.0), ("latency", 0.0)],
    ),
    "half of the tokens says nothing of cost": (
        [({"quality": 0.5, "output_tokens": 10}, "accepted"), ({"key": "b", "cost_usd": 1.0}, "accepted")],
        [("quality", 0.5), ("cost", 1.0)],
    ),
    "answered by the chosen model after all": (
        [({"model": "CHOSEN", "quality": 0.5}, "accepted")],
        [("quality", 0.5)],
    ),
    "answered by another model": (
        [
            ({"model": "OTHER", "quality": 0.5, "cost_usd": 0.1}, "accepted"),
            ({"key": "b", "quality": 0.9, "latency_ms": 1.0}, "accepted"),
        ],
        [],
    ),
    "another model, said late": (
        [({"quality": 0.5}, "accepted"), ({"key": "b", "model": "OTHER"}, "accepted")],
        [("quality", 0.5)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one batch"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(book: Book, name: str, together: bool) -> None:
    steps, expected = SEQUENCES[name]
    _, (one,) = book.decide(1)
    chosen = decision(book, one).model
    names = {"CHOSEN": chosen, "OTHER": "large" if chosen != "large" else "small"}
    posts = []
    for fields, _ in steps:
        named = {"key": "default"} | fields
        if "model" in named:
            named["model"] = names[named["model"]]
        posts.append(Post(one, **named))
    if together:
        statuses = book.send(*posts)
    else:
        statuses = [status for post in posts for status in book.send(post)]
    assert statuses == [status for _, status in steps]
    assert learned(book, one) == expected
    kept = [status for status in statuses if status in ("accepted", "superseded")]
    assert [row.status for row in stored(book)] == kept


def test_an_event_holds_all_that_the_fold_may_know(book: Book) -> None:
    decided, (one, _) = book.decide(2)
    book.send(Post(one, "judge", quality=0.25, cost_usd=0.5))
    row, chosen = decision(book, one), int(decided.chosen[0])
    quality, cost = book.events()[-2:]
    for event in (quality, cost):
        assert (event.pool, event.kind, event.decision_id) == ("default", "feedback", one)
        assert (event.arm, event.embedder) == (row.model, "words")
        assert event.features == decided.scored.requests.features[0].tobytes()
        assert event.propensity == decided.pmf[0, chosen]
        weights = [event.w_quality, event.w_cost, event.w_latency]
        assert weights == decided.scored.requests.preference[0].tolist()
        assert (event.cost_prior, event.input_cost) == (row.cost_prior, row.input_cost)
        assert event.cost == 0.5
    assert [(e.field, e.value) for e in (quality, cost)] == [("quality", 0.25), ("cost", 0.5)]


def test_the_cost_known_so_far_goes_with_the_quality(book: Book) -> None:
    _, (one, two) = book.decide(2)
    book.send(Post(one, "judge", quality=1.0), Post(one, "gateway", cost_usd=0.25))
    book.send(Post(two, "gateway", cost_usd=0.25))
    book.send(Post(two, "judge", quality=1.0, cost_usd=0.75))
    known = {(e.decision_id, e.field): e.cost for e in book.events() if e.kind == "feedback"}
    assert known == {
        (one, "quality"): None,
        (one, "cost"): 0.25,
        (two, "cost"): 0.25,
        (two, "quality"): 0.25,
    }


def test_tokens_cost_what_the_price_row_of_the_decision_says(book: Book) -> None:
    _, (one,) = book.decide(1)
    row = decision(book, one)
    expensive = ModelSpec(name=row.model, input_price=900.0, output_price=900.0)
    with book.begin() as connection:
        pools.set_price(connection, "default", expensive, source="api", now_us=book.now)
        at = json.loads(row.prices)[json.loads(row.arms).index(row.model)]
        price = connection.exec_driver_sql(f"SELECT * FROM prices WHERE id = {at}").one()
    assert book.send(Post(one, "default", input_tokens=1_000, output_tokens=300)) == ["accepted"]
    (event,) = (e for e in book.events() if e.kind == "feedback")
    read = 1_000 * price.input_price / 1e6
    assert event.value == pytest.approx(read + 300 * price.output_price / 1e6, rel=1e-12)
    assert event.input_cost == pytest.approx(read, rel=1e-12)
    output_prior = row.cost_prior - row.input_cost
    assert event.cost_prior == pytest.approx(read + output_prior, rel=1e-9)
    assert stored(book)[0].cost_nano == ceil_nano(event.value)


def test_a_cost_that_was_sent_outranks_the_tokens(book: Book) -> None:
    _, (one,) = book.decide(1)
    book.send(Post(one, "default", cost_usd=0.5, input_tokens=10, output_tokens=3))
    assert learned(book, one) == [("cost", 0.5)]


def test_tokens_of_another_model_cost_its_price(book: Book) -> None:
    _, (one,) = book.decide(1)
    other = "large" if decision(book, one).model != "large" else "small"
    price = {"large": 15.0, "small": 0.5}[other]
    post = Post(one, "default", model=other, quality=1.0, input_tokens=0, output_tokens=1_000_000)
    assert book.send(post) == ["accepted"]
    assert stored(book)[0].cost_nano == price * NANO
    assert decision(book, one).overridden_by == other
    assert learned(book, one) == []


def test_tokens_of_a_model_that_came_later_cost_its_newest_price(book: Book) -> None:
    _, (one,) = book.decide(1)
    spec = ModelSpec(name="new", input_price=0.0, output_price=7.0)
    with book.begin() as connection:
        pools.add_model(connection, "default", spec, source="api", now_us=book.now)
    book.send(Post(one, "default", model="new", input_tokens=5, output_tokens=1_000_000))
    assert stored(book)[0].cost_nano == 7 * NANO


def test_money_is_rounded_up_to_nano_dollars() -> None:
    assert ceil_nano(0.0) == 0
    assert ceil_nano(26e-6) == 26_000
    assert ceil_nano(1.1e-9) == 2
    assert ceil_nano(0.1) == 100_000_000
    assert ceil_nano(0.29) == 290_000_000


def test_an_unknown_model_refuses_the_whole_batch(book: Book) -> None:
    _, (one, two) = book.decide(2)
    posts = [Post(one, "default", quality=1.0), Post(two, "default", quality=1.0, model="nope")]
    with pytest.raises(InvalidValue, match="no model 'nope'") as caught:
        book.send(*posts)
    assert (caught.value.row, caught.value.param) == (1, "model")
    assert stored(book) == [] and learned(book, one) == []


def test_an_override_of_a_refused_batch_is_undone(book: Book) -> None:
    _, (one, two) = book.decide(2)
    other = "large" if decision(book, one).model != "large" else "small"
    with pytest.raises(InvalidValue):
        book.send(Post(one, "default", model=other), Post(two, "default", model="nope"))
    assert decision(book, one).overridden_by is None


def test_late_feedback_is_stored_and_not_learned(book: Book) -> None:
    _, (one,) = book.decide(1)
    book.now += TTL
    assert book.send(Post(one, "on time", quality=0.5)) == ["accepted"]
    book.now += 1
    assert book.send(Post(one, "a", cost_usd=0.5)) == ["late"]
    assert book.send(Post(one, "a", cost_usd=0.5)) == ["duplicate"]
    assert book.send(Post(one, "a", cost_usd=0.6)) == ["conflict"]
    assert learned(book, one) == [("quality", 0.5)]
    assert [row.status for row in stored(book)] == ["accepted", "late"]


def test_unknown_decisions_are_results_and_leave_no_trace(book: Book) -> None:
    _, (one,) = book.decide(1)
    statuses = book.send(Post("who", "default", quality=1.0), Post(one, "default", quality=1.0))
    assert statuses == ["unknown", "accepted"]
    assert [row.decision_id for row in stored(book)] == [one]


def test_the_log_itself_refuses_a_second_outcome(book: Book) -> None:
    (one,) = book.feed(1)
    row = {"pool": "default", "kind": "feedback", "created_at": 1, "decision_id": one}
    with pytest.raises(IntegrityError), book.begin() as connection:
        connection.execute(insert(events), row | {"field": "quality", "value": 1.0})
    copy = {"decision_id": one, "key": "default", "digest": "", "status": "", "received_at": 0}
    with pytest.raises(IntegrityError), book.begin() as connection:
        connection.execute(insert(feedback), copy)


def test_a_default_comes_only_where_a_quality_never_did(book: Book) -> None:
    _, (rated, cheap, overridden, silent, young) = book.decide(5)
    book.send(Post(rated, "default", quality=1.0), Post(cheap, "default", cost_usd=1.0))
    chosen = decision(book, overridden).model
    book.send(Post(overridden, "default", model="large" if chosen != "large" else "small"))
    book.now += TTL + 1
    with book.begin() as connection:
        later = update(decisions).where(decisions.c.id == young)
        connection.execute(later.values(expires_at=book.now + 1))
        arguments = {"pool": "default", "quality": 0.125, "now_us": book.now}
        assert default_expired(connection, **arguments, limit=1) == 1
        assert default_expired(connection, **arguments) == 1
        assert default_expired(connection, **arguments) == 0
    defaults = [(e.decision_id, e.field, e.value) for e in book.events() if e.kind == "default"]
    assert defaults == [(cheap, "quality", 0.125), (silent, "quality", 0.125)]


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "quality": st.sampled_from([0.0, 0.5, 1.0]),
        "cost_usd": st.sampled_from([0.0, 0.01]),
        "latency_ms": st.sampled_from([1.0, 20.0]),
    },
).filter(bool)
POSTS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from("abc"), FIELDS), min_size=1, max_size=25
)


def check_retries(
    engine: Engine, posts: list[tuple[int, str, dict[str, float]]], data: st.DataObject
) -> None:
    with engine.connect() as connection:
        known = int(connection.exec_driver_sql("SELECT count(*) FROM pools").scalar_one())
    book = Book(engine, pool=f"p{known}")
    _, ids = book.decide(3)
    made = [Post(ids[at], key, **fields) for at, key, fields in posts]
    retries = data.draw(st.lists(st.sampled_from(made), max_size=15))
    sent = data.draw(st.permutations(made + retries))
    cuts = data.draw(st.integers(1, len(sent)))
    statuses = [s for i in range(0, len(sent), cuts) for s in book.send(*sent[i : i + cuts])]

    rows: dict[tuple[str, str], Post] = {}
    first: dict[tuple[str, str], float] = {}
    for post, status in zip(sent, statuses, strict=True):
        earlier = rows.get((post.decision_id, post.key))
        if earlier is not None:
            assert status == ("duplicate" if earlier == post else "conflict")
            continue
        rows[post.decision_id, post.key] = post
        new = False
        for field, name in (
            ("quality", "quality"),
            ("cost", "cost_usd"),
            ("latency", "latency_ms"),
        ):
            value = getattr(post, name)
            if value is not None and (post.decision_id, field) not in first:
                first[post.decision_id, field] = value
                new = True
        assert status == ("accepted" if new else "superseded")
    outcomes = [e for e in book.events() if e.pool == book.pool and e.kind == "feedback"]
    assert Counter((e.decision_id, e.field) for e in outcomes) == Counter(first.keys())
    assert {(e.decision_id, e.field): e.value for e in outcomes} == first
    mine = [row for row in stored(book) if row.decision_id in ids]
    assert len(mine) == len(rows)


@SQLITE
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(posts=POSTS, data=st.data())
def test_exactly_once_whatever_the_order_and_the_retries(
    engine: Engine, posts: list[tuple[int, str, dict[str, float]]], data: st.DataObject
) -> None:
    check_retries(engine, posts, data)


@POSTGRESQL
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(posts=POSTS, data=st.data())
def test_exactly_once_whatever_the_order_and_the_retries_on_postgresql(
    engine: Engine, posts: list[tuple[int, str, dict[str, float]]], data: st.DataObject
) -> None:
    check_retries(engine, posts, data)

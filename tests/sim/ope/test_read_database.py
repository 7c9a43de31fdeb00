from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, select, update
from support.small_log import MODELS, TTL, Book

from banditroute.core.pool import ModelSpec
from banditroute.decide.reasons import REASONS
from banditroute.store import pools
from banditroute.store.feedback import Post, default_expired
from banditroute.store.sessions import SessionQuality
from banditroute.store.settlement import cancel
from banditroute.store.tables import decisions
from sim.errors import InputError
from sim.ope.logged_requests import DecisionHistory
from sim.ope.read_database import read
from sim.ope.target_policy import compute_action_dist, train
from sim.play.candidate import Candidate


def give_feedback(book: Book, ids: Sequence[str], quality: float = 0.5, **more: Any) -> None:
    book.send(*(Post(one, "default", quality=quality, **more) for one in ids))


def alter(book: Book, one: str, **values: Any) -> None:
    with book.begin() as connection:
        connection.execute(update(decisions).where(decisions.c.id == one).values(**values))


def logged(book: Book) -> list[Any]:
    with book.engine.connect() as connection:
        return list(connection.execute(select(decisions).order_by(decisions.c.id)))


def test_a_log_holds_decisions_and_feedback(book: Book) -> None:
    first = book.feed(20)
    decided, ids = book.decide(5)
    found = read(book.log, "default")
    log, rows = found.log, logged(book)
    assert found.ids == [*first, *ids]
    assert set(log.models) == {"small", "large", "medium"}
    assert [log.models[k] for k in log.chosen] == [row.model for row in rows]
    assert log.propensity.tolist() == [row.propensity for row in rows]
    assert log.action_dist is not None
    assert (log.action_dist[np.arange(25), log.chosen] == log.propensity).all()
    assert log.action_dist.sum(axis=1) == pytest.approx(1.0)
    assert (log.features[20:] == decided.scored.requests.features).all()
    assert np.isnan(log.quality[20:]).all() and not np.isnan(log.quality[:20]).any()
    quality = [e.value for e in book.events() if e.field == "quality"]
    cost = [e.value for e in book.events() if e.field == "cost"]
    assert log.quality[:20].tolist() == quality
    assert log.cost_usd[:20] == pytest.approx(cost, abs=1e-9)
    assert log.preference[20:] == pytest.approx(decided.scored.requests.preference)
    assert (log.tau_cost_usd == 0.01).all()
    assert len(set(log.session.tolist())) == 25
    assert log.left_out == {} and log.notes == []
    assert found.policy_identity.policy == "linucb"
    assert len(found.events) == len(book.events())


def test_decisions_that_say_nothing_about_a_policy_are_left_out_and_counted(book: Book) -> None:
    ids = book.feed(10)
    alter(book, ids[0], overridden_by="large")
    alter(book, ids[1], embedder="other")
    with book.begin() as connection:
        connection.execute(update(decisions).where(decisions.c.id == ids[2]).values(cancelled_at=5))
    book.decide(2, models=[{"small"}, {"small"}])
    found = read(book.log, "default")
    assert found.ids == ids[3:]
    assert found.log.left_out == {
        "overridden": 1,
        "of another embedder": 1,
        "cancelled": 1,
        "pinned: only one model was open": 2,
    }
    assert "fewer than two models" in found.log.notes[0]


def test_a_decision_that_the_daemon_cancelled_is_left_out(book: Book) -> None:
    book.feed(3)
    _, (one,) = book.decide(1)
    with book.begin() as connection:
        assert cancel(connection, one, now_us=book.now) == "cancelled"
    assert one not in read(book.log, "default").ids


def test_a_request_that_allows_two_models_has_only_those_open(book: Book) -> None:
    book.feed(3)
    _, (one,) = book.decide(1, models=[{"small", "large"}])
    found = read(book.log, "default")
    at = found.ids.index(one)
    assert found.requests.batch.models is not None
    assert found.requests.batch.models[at] == {"small", "large"}


@pytest.mark.parametrize(
    ("reason", "is_open"),
    [
        ("exploration_cost", True),
        ("price_of_money", True),
        ("budget", False),
        ("max_cost_usd", False),
        ("draining", False),
    ],
)
def test_a_model_that_the_policy_left_out_by_itself_is_open(
    book: Book, reason: str, is_open: bool
) -> None:
    ids = book.feed(4)
    row = logged(book)[1]
    arms = json.loads(row.arms)
    verdict = np.zeros(len(arms), dtype=np.uint8)
    other = next(k for k, name in enumerate(arms) if name != row.model)
    verdict[other] = REASONS.index(reason)
    alter(book, ids[1], verdict=verdict.tobytes())
    found = read(book.log, "default")
    column = found.log.models.index(arms[other])
    assert found.requests.batch.models is not None
    assert found.requests.batch.models[1] is not None
    assert (arms[other] in found.requests.batch.models[1]) is is_open
    pmf = scored(found, "random")
    assert bool(pmf[1, column] > 0.0) is is_open
    assert pmf[1].sum() == pytest.approx(1.0)


def scored(found: DecisionHistory, name: str, **params: Any) -> Any:
    candidate = Candidate.of(name, params)
    fold = train(found, candidate, until=len(found.log))
    every = np.arange(len(found.log))
    return compute_action_dist(
        found.requests, found.log.models, candidate.options, fold, rows=every
    )


def test_late_feedback_counts_and_defaults_do_not(book: Book) -> None:
    book.feed(5)
    _, (late, never) = book.decide(2)
    book.now += TTL + 1
    with book.begin() as connection:
        assert default_expired(connection, pool="default", quality=0.0, now_us=book.now) == 2
    assert book.send(Post(late, "default", quality=0.75, cost_usd=0.002)) == ["late"]
    found = read(book.log, "default")
    at = {one: k for k, one in enumerate(found.ids)}
    assert found.log.quality[at[late]] == 0.75 and found.log.cost_usd[at[late]] == 0.002
    assert np.isnan(found.log.quality[at[never]]) and np.isnan(found.log.cost_usd[at[never]])


def test_the_first_feedback_counts(book: Book) -> None:
    (one, *_) = book.decide(3)[1]
    book.send(Post(one, "user", quality=0.25), Post(one, "judge", quality=0.75))
    book.send(Post(one, "bill", cost_usd=0.5), Post(one, "again", cost_usd=0.7))
    log = read(book.log, "default").log
    assert (log.quality[0], log.cost_usd[0]) == (0.25, 0.5)


def test_feedback_on_a_session_counts_for_each_of_its_decisions(book: Book) -> None:
    book.decide(3, session="s")
    book.decide(2)
    book.post(SessionQuality("default", "s", "default", 0.5))
    log = read(book.log, "default").log
    assert np.isfinite(log.quality).tolist() == [True] * 3 + [False] * 2
    assert len(set(log.session[:3].tolist())) == 1 and len(set(log.session.tolist())) == 3


def test_young_decisions_are_left_out_with_feedback_or_without(book: Book) -> None:
    """To keep those with feedback would prefer outcomes that are quick to arrive."""
    for _ in range(20):
        ids = book.decide(2)[1]
        book.now += 100
        give_feedback(book, ids)
        book.now += 900
    quick, slow = book.decide(2)[1]
    give_feedback(book, [quick])
    before = book.decide(1)[1][0]
    book.now += 50
    give_feedback(book, [before])
    found = read(book.log, "default")
    assert found.log.left_out == {"too young for feedback": 3}
    assert quick not in found.ids and slow not in found.ids and len(found.ids) == 40


def test_a_log_whose_feedback_came_at_one_time_keeps_its_rows(book: Book) -> None:
    """The delays are then as long as the log, and do not say which feedback is still to come."""
    ids = []
    for _ in range(30):
        ids += book.decide(2)[1]
        book.now += 1_000
    give_feedback(book, ids[::2])
    book.now += 1
    after = book.decide(1)[1]
    found = read(book.log, "default")
    assert found.ids == ids and after[0] not in found.ids
    assert np.isnan(found.log.quality).tolist() == [False, True] * 30
    assert any("as late as the log is long" in one for one in found.log.notes)


def test_without_feedback_nothing_is_too_young(book: Book) -> None:
    book.decide(4)
    found = read(book.log, "default")
    assert len(found.log) == 4 and np.isnan(found.log.quality).all()


def test_tags_and_since(book: Book) -> None:
    ids = book.feed(6)
    for k, one in enumerate(ids):
        alter(book, one, created_at=100 * k, tags=json.dumps({"team": "ab"[k % 2], "n": "1"}))
    assert read(book.log, "default", since_us=300).ids == ids[3:]
    assert read(book.log, "default", tags={"team": "b"}).ids == ids[1::2]
    assert read(book.log, "default", tags={"team": "b", "n": "1"}, since_us=301).ids == [ids[5]]
    alter(book, ids[0], tags=None)
    assert read(book.log, "default", tags={"n": "1"}).ids == ids[1:]
    with pytest.raises(InputError, match=r"no decision of pool 'default' is left \(it has none\)"):
        read(book.log, "default", tags={"team": "c"})


def test_a_log_with_no_row_left_is_refused_with_the_reasons(book: Book) -> None:
    book.decide(2, models=[{"small"}] * 2)
    with pytest.raises(InputError, match=r"is left \(2 pinned: only one model was open\)"):
        read(book.log, "default")


def test_an_unknown_pool_is_refused_with_the_names_of_all(engine: Engine) -> None:
    book = Book(engine, pool="mine")
    with pytest.raises(InputError, match=r"no policy of 'default'; it has those of: mine"):
        read(book.log, "default")


def test_each_row_has_the_prices_of_its_time(book: Book) -> None:
    book.feed(4)
    with book.begin() as connection:
        cheap = ModelSpec(name="large", input_price=0.2, output_price=0.9)
        pools.set_price(connection, "default", cheap, source="api", now_us=book.now + 1)
        late = ModelSpec(name="late", input_price=0.1, output_price=0.1)
        pools.add_model(connection, "default", late, source="api", now_us=book.now + 1)
    book.now += 1
    book.feed(3)
    found = read(book.log, "default")
    assert [rows.tolist() for rows, _ in found.requests.model_sets] == [[0, 1, 2, 3], [4, 5, 6]]
    price = [{m.name: m.output_price for m in models} for _, models in found.requests.model_sets]
    assert price == [
        {"small": 0.5, "large": 15.0, "medium": 2.0},
        {"small": 0.5, "large": 0.9, "medium": 2.0, "late": 0.1},
    ]
    column = found.log.models.index("late")
    assert found.log.action_dist is not None and not found.log.action_dist[:4, column].any()
    assert found.requests.batch.models is not None
    assert ["late" in (names or ()) for names in found.requests.batch.models] == [False] * 4 + [
        True
    ] * 3
    pmf = scored(found, "random")
    assert not pmf[:4, column].any() and (pmf[4:, column] > 0.2).all()


def test_the_output_limit_of_the_chosen_model_does_not_reach_others(engine: Engine) -> None:
    """The log has the smaller of it and the request's; a target must not know the logged choice."""
    book = Book(engine, policy="random", seed=4)
    book.feed(30)
    book.decide(12, max_output_tokens=np.full(12, 60.0))
    book.decide(12, max_output_tokens=np.full(12, np.inf))
    found = read(book.log, "default")
    limits = found.requests.batch.max_output_tokens
    assert limits is not None
    medium = found.log.models.index("medium")
    assert (found.log.chosen == medium).any() and not (found.log.chosen == medium).all()
    assert np.isinf(limits[:30]).all() and np.isinf(limits[42:]).all()
    assert (limits[30:42] == 60.0).all()


def test_decisions_under_a_price_of_money_are_counted(book: Book) -> None:
    ids = book.feed(3)
    alter(book, ids[1], lambda_high=2.0)
    assert read(book.log, "default").requests.priced == 1


def test_a_policy_that_changed_leaves_its_decisions(book: Book) -> None:
    ids = book.feed(10)
    book.start("random")
    ids += book.feed(10)
    found = read(book.log, "default")
    assert found.ids == ids and found.policy_identity.policy == "random"
    assert found.log.action_dist is not None
    assert found.log.action_dist[10:] == pytest.approx(np.full((10, 3), 1 / 3))
    assert len({model.name for model in MODELS}) == 3

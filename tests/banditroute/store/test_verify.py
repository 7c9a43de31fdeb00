from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, func, select, update
from support.databases import SQLITE
from support.small_log import Book

from banditroute.core.pool import ModelSpec
from banditroute.learn.learner import Checkpoint, Learner
from banditroute.store import pools
from banditroute.store.decision_row import TERMS
from banditroute.store.log import keep_checkpoint
from banditroute.store.tables import checkpoints, decisions, events
from banditroute.store.verify import audit


def alter(book: Book, change: Callable[[Any], dict[str, Any]], *, at: int = 20) -> None:
    """Change columns of one decision row."""
    with book.begin() as connection:
        row = connection.execute(select(decisions).order_by(decisions.c.id).offset(at)).first()
        assert row is not None
        connection.execute(update(decisions).where(decisions.c.id == row.id).values(change(row)))


def term(row: Any, name: str) -> tuple[Any, Any]:
    k = len(row.terms) // (8 * len(TERMS))
    terms = np.frombuffer(row.terms, dtype="<f8").reshape(len(TERMS), k).copy()
    return terms, terms[TERMS.index(name)]


@pytest.fixture
def mixed(engine: Engine) -> Book:
    """A log with a spread law, filtered models, a late model, a rollback and a policy change."""
    book = Book(engine, exploration_share=0.3, exploration_cost_share=10.0)
    for round_ in range(5):
        book.feed(12)
        book.decide(3, max_cost_usd=np.array([0.0005, np.inf, 0.01]))
        if round_ == 1:
            with book.begin() as connection:
                late = ModelSpec(name="late", input_price=0.1, output_price=0.1)
                pools.add_model(connection, "default", late, source="api", now_us=book.now)
        if round_ == 2:
            book.append("rollback", version=book.log.end() - 15)
        if round_ == 3:
            book.start("linucb", gamma=0.98)
    return book


def test_an_untouched_log_is_sound(mixed: Book) -> None:
    found = audit(mixed.log, "default")
    assert found.sound(), found.lines()
    assert found.decisions >= 70 and found.rescored == found.decisions
    assert (found.other_pmf, found.other_draw, found.flipped) == (0, 0, 0)
    assert found.digest_of_log == mixed.digest()
    assert found.lines()["sound"] == "yes"


def test_every_policy_is_sound(engine: Engine) -> None:
    for policy in ("random", "epsilon-greedy", "knn", "fixed"):
        book = Book(engine, pool=policy, policy="random" if policy == "fixed" else policy)
        book.feed(20)
        book.feed(20)
        assert audit(book.log, policy).sound(), policy


def flip_pmf(row: Any) -> dict[str, Any]:
    terms, pmf = term(row, "pmf")
    pmf[0] = np.nextafter(pmf[0], 2.0)
    return {"terms": terms.tobytes()}


def raise_penalty(row: Any) -> dict[str, Any]:
    terms, penalty = term(row, "penalty")
    penalty += np.arange(len(penalty))
    return {"terms": terms.tobytes()}


def shift_estimate(row: Any) -> dict[str, Any]:
    estimates = np.frombuffer(row.estimates, dtype="<f4").copy()
    estimates[0] += 1e-3
    return {"estimates": estimates.tobytes()}


def lose_estimate(row: Any) -> dict[str, Any]:
    estimates = np.frombuffer(row.estimates, dtype="<f4").copy()
    estimates[-1] = np.nan
    return {"estimates": estimates.tobytes()}


def shift_feature(row: Any) -> dict[str, Any]:
    features = np.frombuffer(row.features, dtype="<f4").copy()
    features[0] += 1.0
    return {"features": features.tobytes()}


TAMPERED = {
    "a bit of the pmf": flip_pmf,
    "the penalty": raise_penalty,
    "an estimate": shift_estimate,
    "an estimate that is no number": lose_estimate,
    "a feature": shift_feature,
    "the draw": lambda row: {"u": 0.999999 if row.u < 0.5 else 0.0},
    "the propensity": lambda row: {"propensity": row.propensity * 0.999},
    "the model": lambda row: {"model": "medium" if row.model != "medium" else "small"},
}


@pytest.mark.parametrize("what", TAMPERED)
@SQLITE
def test_an_altered_row_is_found(engine: Engine, what: str) -> None:
    book = Book(engine, policy="random" if what == "the draw" else "linucb")
    book.feed(15)
    book.feed(15)
    assert audit(book.log, "default").sound()
    alter(book, TAMPERED[what])
    found = audit(book.log, "default")
    assert not found.sound()
    assert found.lines()["sound"] == "NO"


def test_an_altered_event_shows_in_the_estimates(book: Book) -> None:
    book.feed(15)
    book.feed(15)
    with book.begin() as connection:
        # The very first: decisions are scored after it, so that it shows in their estimates.
        first = select(func.min(events.c.seq)).where(events.c.field == "quality").scalar_subquery()
        connection.execute(update(events).where(events.c.seq == first).values(value=0.999))
    assert not audit(book.log, "default").sound()


def test_an_altered_checkpoint_shows_in_the_digest(book: Book) -> None:
    kept: list[Checkpoint] = []
    learner = Learner(book.log, keep=kept.append)
    book.feed(10)
    learner.catch_up()
    learner._checkpoint("default")
    with book.begin() as connection:
        keep_checkpoint(connection, kept[0], now_us=0)
    assert audit(book.log, "default").sound()
    other = Book(book.engine, pool="other", seed=3)
    other.feed(10)
    learner.catch_up()
    learner._checkpoint("other")
    with book.begin() as connection:
        mine = checkpoints.c.pool == "default"
        connection.execute(update(checkpoints).where(mine).values(state=kept[1].state))
    found = audit(book.log, "default")
    assert found.digest_of_log != found.digest_of_checkpoint and not found.sound()


def test_a_pool_that_never_started_is_an_error(book: Book) -> None:
    with pytest.raises(ValueError, match="'nobody' never started"):
        audit(book.log, "nobody")

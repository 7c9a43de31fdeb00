"""The daemon's own log as a data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update
from support.small_log import TTL, Book

from banditroute.store.engine import open_engine, prepare
from banditroute.store.feedback import Post, default_expired
from banditroute.store.tables import decisions
from sim.data.formats import load
from sim.errors import InputError


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    engine = open_engine(f"sqlite:///{tmp_path / 'log.db'}")
    prepare(engine)
    yield Book(engine)
    engine.dispose()


def test_only_the_chosen_model_has_an_outcome(book: Book, tmp_path: Path) -> None:
    small, large = ([frozenset({name})] * 2 for name in ("small", "large"))
    ids = [*book.decide(2, models=small)[1], *book.decide(2, models=large)[1]]
    assert len(book.send(Post(ids[0], "default", quality=0.5, cost_usd=0.01))) == 1
    book.send(Post(ids[2], "default", quality=0.25), Post(ids[3], "default", cost_usd=0.5))
    data = load(f"sqlite:///{tmp_path / 'log.db'}")
    assert data.name == "default" and data.models == ("small", "large")
    assert data.prompts == data.task == ("",) * 4
    nan = np.nan
    np.testing.assert_array_equal(data.quality, [[0.5, nan], [nan, nan], [nan, 0.25], [nan, nan]])
    np.testing.assert_array_equal(data.cost_usd, [[0.01, nan], [nan, nan], [nan, nan], [nan, 0.5]])
    assert data.notes == (
        "a log does not store prompts, and has the outcome of the chosen model only",
    )
    with pytest.raises(InputError, match="default: no row has the quality of every model"):
        data.complete()


def test_overridden_and_cancelled_decisions_and_defaults_do_not_count(
    book: Book, tmp_path: Path
) -> None:
    _, ids = book.decide(4, models=[frozenset({"small"})] * 4)
    book.send(*(Post(one, "default", quality=0.5) for one in ids[:2]))
    book.send(Post(ids[1], "late", cost_usd=0.1, model="large"))
    with book.begin() as connection:
        default_expired(connection, pool="default", quality=0.0, now_us=book.now + 2 * TTL)
        cancelled = update(decisions).where(decisions.c.id == ids[2])
        connection.execute(cancelled.values(cancelled_at=book.now))
    data = load(f"sqlite:///{tmp_path / 'log.db'}")
    np.testing.assert_array_equal(data.quality, [[0.5], [np.nan]])
    assert data.notes[:2] == ("1 overridden decisions left out", "1 cancelled decisions left out")


def test_which_pool_is_said_or_asked_for(book: Book, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    with pytest.raises(InputError, match="the log of pool 'default' has no decision"):
        load(url)
    other = Book(book.engine, pool="other")
    other.decide(3)
    with pytest.raises(InputError, match="--pool: there are several pools.*default, other"):
        load(url)
    with pytest.raises(InputError, match="--pool: no pool 'nope'; the log has default, other"):
        load(url, pool="nope")
    assert len(load(url, pool="other")) == 3


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///nothing.db", "DATA: there is no file nothing.db"),
        ("nonsense://x", "DATA: database: "),
        ("sqlite://", "DATA: database: an in-memory"),
    ],
)
def test_a_database_that_is_not_there(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(url)
    with pytest.raises(InputError, match="--format: of a file"):
        load(url, format="litellm")


def test_a_database_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with pytest.raises(InputError, match="DATA: .*is not a daemon's database"):
        load(f"sqlite:///{tmp_path / 'empty.db'}")

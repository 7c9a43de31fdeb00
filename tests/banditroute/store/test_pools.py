from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select
from support.small_log import Book

from banditroute.core.pool import Model, ModelSpec
from banditroute.store import pools
from banditroute.store.tables import prices

SPEC = ModelSpec(
    name="m", input_price=1.0, output_price=2.0, max_output_tokens=9, capabilities=["b", "a"]
)


def loaded(book: Book) -> tuple[int, dict[str, Any], dict[str, Model]]:
    with book.engine.connect() as connection:
        revision, options, models = pools.load_pools(connection)["default"]
    return revision, options, {model.name: model for model in models}


def add(book: Book, spec: ModelSpec, source: str = "api") -> bool:
    book.now += 10
    with book.begin() as connection:
        return pools.add_model(connection, "default", spec, source=source, now_us=book.now)


def price(book: Book, spec: ModelSpec, source: str = "api") -> None:
    book.now += 10
    with book.begin() as connection:
        pools.set_price(connection, "default", spec, source=source, now_us=book.now)


def drain(book: Book, name: str) -> None:
    with book.begin() as connection:
        pools.drain_model(connection, "default", name, now_us=book.now)


def priced(spec: ModelSpec, value: float) -> ModelSpec:
    return spec.model_copy(update={"input_price": value, "output_price": value})


def test_a_model_is_read_back_as_it_was_added(book: Book) -> None:
    assert add(book, SPEC)
    model = loaded(book)[2]["m"]
    assert (model.input_price, model.output_price, model.max_output_tokens) == (1.0, 2.0, 9)
    assert (model.capabilities, model.draining) == (frozenset("ab"), False)
    assert list(loaded(book)[2]) == ["small", "large", "medium", "m"]


def test_an_active_model_is_not_added_again(book: Book) -> None:
    add(book, SPEC)
    before = loaded(book), len(book.events())
    assert not add(book, priced(SPEC, 5.0))
    assert (loaded(book), len(book.events())) == before


def test_a_price_never_changes_a_new_row_takes_over(book: Book) -> None:
    add(book, SPEC)
    first, revision = loaded(book)[2]["m"], loaded(book)[0]
    price(book, priced(SPEC, 7.0))
    second = loaded(book)[2]["m"]
    assert second.price_id > first.price_id and second.input_price == 7.0
    assert loaded(book)[0] == revision + 1
    with book.engine.connect() as connection:
        rows = connection.execute(select(prices).where(prices.c.model == "m")).all()
    assert [(r.input_price, r.output_price) for r in rows] == [(1.0, 2.0), (7.0, 7.0)]
    assert rows[0].valid_from < rows[1].valid_from


def test_a_drained_model_stays_and_comes_back_with_what_it_learned(book: Book) -> None:
    book.feed(30)
    before = book.digest()
    drain(book, "large")
    assert loaded(book)[2]["large"].draining
    again = ModelSpec(name="large", input_price=4.0, output_price=4.0, context_length=100)
    assert add(book, again)
    model = loaded(book)[2]["large"]
    assert (model.draining, model.input_price, model.context_length) == (False, 4.0, 100)
    assert [(e.kind, e.payload) for e in book.events()[-2:]] == [
        ("model_drained", '{"name": "large"}'),
        ("model_added", '{"name": "large"}'),
    ]
    assert book.digest() == before
    assert list(loaded(book)[2]) == ["small", "large", "medium"]


def test_a_description_changes_without_price_or_event(book: Book) -> None:
    add(book, SPEC)
    events, before = len(book.events()), loaded(book)[2]["m"]
    other = SPEC.model_copy(update={"context_length": 5, "capabilities": ["tools"]})
    with book.begin() as connection:
        pools.describe_model(connection, "default", other)
    model = loaded(book)[2]["m"]
    assert (model.context_length, model.capabilities) == (5, frozenset({"tools"}))
    assert model.price_id == before.price_id and len(book.events()) == events


@pytest.mark.parametrize("change", ["add", "price", "describe", "drain"])
def test_every_change_moves_the_revision_of_its_pool_alone(book: Book, change: str) -> None:
    Book(book.engine, pool="other")
    add(book, SPEC)
    with book.engine.connect() as connection:
        before = pools.revisions(connection)
    if change == "add":
        add(book, SPEC.model_copy(update={"name": "n"}))
    elif change == "price":
        price(book, SPEC)
    elif change == "describe":
        with book.begin() as connection:
            pools.describe_model(connection, "default", SPEC)
    else:
        drain(book, "m")
    with book.engine.connect() as connection:
        after = pools.revisions(connection)
    assert after["default"] > before["default"] and after["other"] == before["other"]


def test_the_price_of_the_file_is_not_that_of_the_api(book: Book) -> None:
    with book.engine.connect() as connection:
        assert pools.file_price(connection, "default", "small") is None
    add(book, SPEC, source="file")
    price(book, priced(SPEC, 3.0))
    with book.engine.connect() as connection:
        assert pools.file_price(connection, "default", "m") == (1.0, 2.0)
    assert loaded(book)[2]["m"].input_price == 3.0
    price(book, priced(SPEC, 4.0), source="file")
    with book.engine.connect() as connection:
        assert pools.file_price(connection, "default", "m") == (4.0, 4.0)
    assert loaded(book)[2]["m"].input_price == 4.0


def test_ensure_pool_makes_it_once_and_sets_its_options(book: Book) -> None:
    with book.begin() as connection:
        assert pools.ensure_pool(connection, "new", options={"a": 1}, now_us=1)
        assert not pools.ensure_pool(connection, "new", options={"a": 2}, now_us=2)
        assert pools.load_pools(connection)["new"] == (1, {"a": 2}, [])

from __future__ import annotations

import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    event,
    select,
    text,
)
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from support.databases import POSTGRESQL, SQLITE
from support.small_log import Book

from banditroute.store.bulk import columns, insert_many
from banditroute.store.tables import decisions, events, feedback

SIZES = [0, 1, 2, 3, 255, 256, 1023, 1024]
metadata = MetaData()
numbers = Table(
    "numbers",
    metadata,
    Column("at", Integer, primary_key=True, autoincrement=True),
    Column("value", Integer, unique=True),
    Column("name", String(10)),
)
mixed = Table(
    "mixed",
    metadata,
    Column("at", Integer, primary_key=True, autoincrement=True),
    Column("big", BigInteger),
    Column("real", Float),
    Column("raw", LargeBinary),
    Column("flag", Boolean),
    Column("words", Text),
)


@pytest.mark.parametrize("size", SIZES)
def test_every_row_goes_in_once_and_in_order(engine: Engine, size: int) -> None:
    metadata.create_all(engine)
    rows = [(7 * i % 1_031, f"n{i}") for i in range(size)]
    with engine.begin() as connection:
        insert_many(connection, numbers, rows)
        query = select(numbers.c.value, numbers.c.name).order_by(numbers.c.at)
        assert [tuple(row) for row in connection.execute(query)] == rows


def test_values_come_back_as_they_went_in(engine: Engine) -> None:
    metadata.create_all(engine)
    values = (2**62, -0.1, b"\x00%s\xff?", True, "100 % of %s, %(x)s and ? \U0001f600 \\")
    missing = (None,) * 5
    with engine.begin() as connection:
        insert_many(connection, mixed, [values, missing])
        rows = connection.execute(select(mixed).order_by(mixed.c.at)).all()
    assert [tuple(row)[1:] for row in rows] == [values, missing]
    assert [type(value) for value in rows[0][1:]] == [type(value) for value in values]


@SQLITE
def test_few_statements_serve_every_size(engine: Engine) -> None:
    metadata.create_all(engine)
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    with engine.begin() as connection:
        insert_many(connection, numbers, [(i, "") for i in range(1_000)])
    inserts = [one for one in seen if one.startswith("INSERT")]
    assert len(inserts) <= 10
    assert all(one.count("?") <= 32_000 for one in inserts)


@POSTGRESQL
def test_what_fails_is_an_error_of_sqlalchemy(engine: Engine) -> None:
    metadata.create_all(engine)
    with pytest.raises(DataError) as caught, engine.begin() as connection:
        insert_many(connection, numbers, [(1, "longer than ten")])
    assert not caught.value.connection_invalidated and "longer" not in str(caught.value.statement)
    with (
        engine.connect() as other,
        pytest.raises(DBAPIError) as caught,
        engine.begin() as connection,
    ):
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        insert_many(connection, numbers, [(1, "")])
    assert caught.value.connection_invalidated
    with engine.begin() as connection, connection.begin_nested():
        insert_many(connection, numbers, [(1, "")])


def test_a_failure_leaves_the_transaction_to_the_caller(engine: Engine) -> None:
    metadata.create_all(engine)
    rows = [(i, "") for i in range(300)]
    with pytest.raises(IntegrityError), engine.begin() as connection:
        insert_many(connection, numbers, [*rows, (7, "again")])
    with engine.connect() as connection:
        assert connection.execute(select(numbers)).first() is None


@pytest.mark.parametrize("size", SIZES[1:])
def test_whole_decision_rows(book: Book, size: int) -> None:
    _, ids = book.decide(size)
    with book.engine.connect() as connection:
        kept = connection.execute(select(decisions.c.id).order_by(decisions.c.id)).scalars()
        assert list(kept) == ids and len(ids) == size


def test_columns_leave_out_only_serial_keys() -> None:
    assert columns(decisions) == tuple(column.name for column in decisions.columns)
    assert "seq" not in columns(events) and "id" not in columns(feedback)

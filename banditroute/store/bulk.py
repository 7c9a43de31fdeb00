"""Inserting many rows as few statements.

A driver hands the interpreter lock back and forth once per statement, and under load each hand-over
waits for the event loop; one statement with many rows pays that once. Chunks are powers of two, so
that a handful of prepared statements serves every batch size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Table

# SQLite allows 32,766 variables, PostgreSQL 65,535.
_MAX_VARIABLES = 32_000


def insert_many(connection: Connection, table: Table, rows: Sequence[Sequence[Any]]) -> None:
    """Insert `rows`, each a sequence in the order of `columns(table)`."""
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    names = columns(table)
    largest = 1 << ((_MAX_VARIABLES // len(names)).bit_length() - 1)
    at = 0
    while at < len(rows):
        size = min(largest, 1 << ((len(rows) - at).bit_length() - 1))
        statement = _statement(table.name, names, size, mark)
        connection.exec_driver_sql(statement, tuple(chain.from_iterable(rows[at : at + size])))
        at += size


@cache
def columns(table: Table) -> tuple[str, ...]:
    """Return the columns that an insert sets: all but a serial primary key."""
    return tuple(
        column.name
        for column in table.columns
        if not (column.primary_key and column.autoincrement is True)
    )


@cache
def _statement(table: str, names: tuple[str, ...], rows: int, mark: str) -> str:
    one = f"({', '.join([mark] * len(names))})"
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES {', '.join([one] * rows)}"

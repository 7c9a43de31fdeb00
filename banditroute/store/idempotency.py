"""Answers kept under the caller's ``Idempotency-Key`` for 24 hours: a retry gets the same one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from banditroute.store.bulk import insert_many
from banditroute.store.tables import idempotency_keys

IDEMPOTENCY_TTL_US = 24 * 3600 * 1_000_000


def recall(
    connection: Connection, keys: Sequence[str], *, now_us: int
) -> dict[tuple[str, str], tuple[str, bytes]]:
    """Return {(key, endpoint): (payload digest, response)} of keys younger than 24 hours."""
    named = idempotency_keys.c.key.in_(keys)
    rows = connection.execute(select(idempotency_keys).where(named)).all()
    oldest = now_us - IDEMPOTENCY_TTL_US
    if any(row.created_at < oldest for row in rows):
        old = idempotency_keys.c.created_at < oldest
        connection.execute(idempotency_keys.delete().where(named, old))
    return {
        (row.key, row.endpoint): (row.digest, row.response)
        for row in rows
        if row.created_at >= oldest
    }


def remember(connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
    """Keep answers; each row is (key, endpoint, payload digest, response, time)."""
    insert_many(connection, idempotency_keys, rows)


def forget(connection: Connection, *, now_us: int, limit: int = 2_000) -> int:
    """Drop idempotency keys older than 24 hours, some `limit` at a time; return how many."""
    age = idempotency_keys.c.created_at
    oldest = now_us - IDEMPOTENCY_TTL_US
    nth = select(age).where(age < oldest).order_by(age).offset(limit - 1).limit(1)
    last = connection.execute(nth).scalar()
    old = age < oldest if last is None else age <= last
    return connection.execute(idempotency_keys.delete().where(old)).rowcount

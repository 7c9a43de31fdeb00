"""Answers stored under an ``Idempotency-Key`` for 24 hours: a retry gets the same answer."""

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
    oldest_us = now_us - IDEMPOTENCY_TTL_US
    if any(row.created_at < oldest_us for row in rows):
        old = idempotency_keys.c.created_at < oldest_us
        connection.execute(idempotency_keys.delete().where(named, old))
    return {
        (row.key, row.endpoint): (row.digest, row.response)
        for row in rows
        if row.created_at >= oldest_us
    }


def remember(connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
    """Store answers, each a row (key, endpoint, payload digest, response, microseconds)."""
    insert_many(connection, idempotency_keys, rows)


def forget(connection: Connection, *, now_us: int, limit: int = 2_000) -> int:
    """Delete about `limit` keys that are older than 24 hours; return how many were deleted."""
    created_at = idempotency_keys.c.created_at
    oldest_us = now_us - IDEMPOTENCY_TTL_US
    too_old = select(created_at).where(created_at < oldest_us).order_by(created_at)
    last = connection.execute(too_old.offset(limit - 1).limit(1)).scalar()
    old = created_at < oldest_us if last is None else created_at <= last
    return connection.execute(idempotency_keys.delete().where(old)).rowcount

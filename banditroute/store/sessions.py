"""Sessions: one verdict on a conversation, given to every decision of it that has none yet.

Exactly-once by (pool, session, key). A verdict becomes a quality event of each decision that is
neither expired nor overridden nor rated; what is said of a single decision afterwards comes too
late, what was said before stands. Decisions to come take nothing from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Connection, bindparam, func, insert, select

from banditroute.store.feedback import (
    DECISION,
    WAITING,
    FeedbackResult,
    append_outcomes,
    known_costs_usd,
    outcome_columns,
)
from banditroute.store.tables import decisions, session_feedback

_INSIDE = (
    decisions.c.pool == bindparam("pool"),
    decisions.c.session_id == bindparam("session"),
)
# The sum keeps SQLite from the index on the end of life, by which it would read the whole pool.
_END = decisions.c.expires_at + 0
_LAST = select(func.max(_END)).where(*_INSIDE)
_OPEN = (
    select(*DECISION)
    .where(*_INSIDE, bindparam("now", type_=BigInteger) <= _END, *WAITING)
    .order_by(decisions.c.id)
)
_KNOWN = select(session_feedback).where(
    session_feedback.c.pool == bindparam("pool"),
    session_feedback.c.session_id == bindparam("session"),
    session_feedback.c.key == bindparam("key"),
)


@dataclass(frozen=True, slots=True)
class SessionQuality:
    """How good a whole session was."""

    pool: str
    session_id: str
    key: str
    quality: float
    source: str | None = None


def record_session(connection: Connection, post: SessionQuality, *, now_us: int) -> FeedbackResult:
    """Store `post` and append its events; return what became of it.

    Returns
    -------
    ``accepted``, ``duplicate``, ``superseded`` (no decision was left to rate) or ``late`` (all
    have expired), with how many decisions it rated; ``unknown`` or ``conflict``.
    """
    named = {"pool": post.pool, "session": post.session_id, "key": post.key}
    known = connection.execute(_KNOWN, named).first()
    if known is not None:
        if (known.quality, known.source) != (post.quality, post.source):
            return FeedbackResult("conflict", "key")
        return FeedbackResult("duplicate", decisions=known.decisions)
    last = connection.execute(_LAST, named).scalar()
    if last is None:
        return FeedbackResult("unknown", "session_id")
    rows = connection.execute(_OPEN, named | {"now": now_us}).mappings().all()
    costs = known_costs_usd(connection, [row["id"] for row in rows])
    told = {"kind": "feedback", "field": "quality", "value": post.quality, "created_at": now_us}
    append_outcomes(
        connection,
        [outcome_columns(dict(row)) | told | {"cost": costs.get(row["id"])} for row in rows],
    )
    stored = {
        "pool": post.pool,
        "session_id": post.session_id,
        "key": post.key,
        "source": post.source,
        "quality": post.quality,
        "decisions": len(rows),
        "received_at": now_us,
    }
    connection.execute(insert(session_feedback), stored)
    status = "late" if last < now_us else "accepted" if rows else "superseded"
    return FeedbackResult(status, decisions=len(rows))

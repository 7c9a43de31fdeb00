"""Feedback on sessions: one quality for a conversation, learned by each unrated decision of it.

Exactly-once by (pool, session, key). The quality becomes an event of each decision that is not
expired, overridden, cancelled or rated. An earlier quality of a single decision stands; a later
one is superseded. Later decisions of the session learn nothing from it.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, bindparam, func, insert, select

from banditroute.store.feedback import (
    DECISION,
    UNRATED,
    FeedbackResult,
    append_qualities,
)
from banditroute.store.tables import decisions, session_feedback

_INSIDE = (
    decisions.c.pool == bindparam("pool"),
    decisions.c.session_id == bindparam("session_id"),
)
# The sum keeps SQLite from the index on expires_at, by which it would read the whole pool.
_EXPIRES = decisions.c.expires_at + 0
_LAST_EXPIRES = select(func.max(_EXPIRES)).where(*_INSIDE)
_OPEN = (
    select(*DECISION)
    .where(*_INSIDE, bindparam("now", type_=BigInteger) <= _EXPIRES, *UNRATED)
    .order_by(decisions.c.id)
)
_EARLIER = select(session_feedback).where(
    session_feedback.c.pool == bindparam("pool"),
    session_feedback.c.session_id == bindparam("session_id"),
    session_feedback.c.key == bindparam("key"),
)


class SessionQuality(NamedTuple):
    """The quality of a session, as the caller sent it.

    Attributes
    ----------
    pool, session_id : str
        The session.
    key : str
        Feedback under the same key is the same piece of feedback.
    quality : float
        In [0, 1].
    source : str or None
        Who judged.
    """

    pool: str
    session_id: str
    key: str
    quality: float
    source: str | None = None


def record_session(connection: Connection, post: SessionQuality, *, now_us: int) -> FeedbackResult:
    """Store feedback on a session and append its events.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    post : SessionQuality
        The feedback.
    now_us : int
        The time.

    Returns
    -------
    FeedbackResult
        ``superseded`` if no decision was left to rate, ``late`` if all have expired.
    """
    sent = post._asdict()
    earlier = connection.execute(_EARLIER, sent).first()
    if earlier is not None:
        if (earlier.quality, earlier.source) != (post.quality, post.source):
            return FeedbackResult("conflict", "key")
        return FeedbackResult("duplicate", decisions=earlier.decisions)
    last_expires_us = connection.execute(_LAST_EXPIRES, sent).scalar()
    if last_expires_us is None:
        return FeedbackResult("unknown", "session_id")
    rows = connection.execute(_OPEN, sent | {"now": now_us}).mappings().all()
    append_qualities(connection, rows, kind="feedback", quality=post.quality, now_us=now_us)
    learned = {"decisions": len(rows), "received_at": now_us}
    connection.execute(insert(session_feedback), sent | learned)
    status = "late" if last_expires_us < now_us else "accepted" if rows else "superseded"
    return FeedbackResult(status, decisions=len(rows))

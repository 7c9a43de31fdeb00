"""Sessions: one verdict on a conversation, given to every decision of it that has none yet.

Exactly-once by (pool, session, key). A verdict becomes a quality event of each decision that is
neither expired nor overridden nor rated; what is said of a single decision afterwards comes too
late, what was said before stands. Decisions to come take nothing from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, insert, select

from banditroute.pool import NANO
from banditroute.store.feedback import DECISION, WAITING, Became, append_outcomes, outcome_columns
from banditroute.store.tables import decisions, feedback, session_feedback


@dataclass(frozen=True, slots=True)
class Verdict:
    """How good a whole session was."""

    pool: str
    session_id: str
    key: str
    quality: float
    source: str | None = None


def judge(connection: Connection, post: Verdict, *, now: int) -> Became:
    """Store `post` and append its events; return what became of it.

    Returns
    -------
    ``accepted``, ``duplicate``, ``superseded`` (no decision was left to rate) or ``late`` (all
    have expired), with how many decisions it rated; ``unknown`` or ``conflict``.
    """
    named = and_(
        session_feedback.c.pool == post.pool,
        session_feedback.c.session_id == post.session_id,
        session_feedback.c.key == post.key,
    )
    known = connection.execute(select(session_feedback).where(named)).first()
    if known is not None:
        if (known.quality, known.source) != (post.quality, post.source):
            return Became("conflict", "key")
        return Became("duplicate", decisions=known.decisions)
    inside = decisions.c.pool == post.pool, decisions.c.session_id == post.session_id
    last = connection.execute(select(func.max(decisions.c.expires_at)).where(*inside)).scalar()
    if last is None:
        return Became("unknown", "session_id")
    open_ = *inside, decisions.c.expires_at >= now, *WAITING
    waiting = select(*DECISION).where(*open_).order_by(decisions.c.id)
    rows = connection.execute(waiting).mappings().all()
    costs = _costs(connection, inside) if rows else {}
    told = {"kind": "feedback", "field": "quality", "value": post.quality, "created_at": now}
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
        "received_at": now,
    }
    connection.execute(insert(session_feedback), stored)
    status = "late" if last < now else "accepted" if rows else "superseded"
    return Became(status, decisions=len(rows))


def _costs(connection: Connection, inside: Sequence[Any]) -> dict[str, float]:
    """Return the cost in US dollars of each decision that an accepted row tells it of."""
    sent = select(feedback.c.decision_id, feedback.c.cost_nano).where(
        feedback.c.decision_id == decisions.c.id,
        feedback.c.status == "accepted",
        feedback.c.cost_nano.is_not(None),
        *inside,
    )
    rows = connection.execute(sent.order_by(feedback.c.id.desc()))
    return {row.decision_id: row.cost_nano / NANO for row in rows}  # the first one stays

"""Comparisons: whose answer to the same prompt was preferred, stored once and learned once.

Exactly-once by (decision, the other decision, key). Two opinions may contradict each other, and
both are learned; late ones, and those about an answer that another model gave, are only stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select

from banditroute.core.errors import InvalidValue
from banditroute.store.bulk import columns, insert_many
from banditroute.store.feedback import (
    FeedbackResult,
    append_outcomes,
    decisions_of,
    outcome_columns,
)
from banditroute.store.tables import comparisons

_ROW = columns(comparisons)
_SENT = select(comparisons).where(comparisons.c.decision_id.in_(bindparam("ids", expanding=True)))

Decision = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Preferred:
    """That the answer of one decision was preferred over that of another."""

    decision_id: str
    over: str
    key: str
    source: str | None = None


def record_comparisons(
    connection: Connection, posts: Sequence[Preferred], *, now_us: int
) -> list[FeedbackResult]:
    """Store `posts` in order and append their events; return what became of each.

    Returns
    -------
    list of ``accepted``, ``duplicate``, ``late``, ``unknown`` (and which id) or ``conflict``.

    Raises
    ------
    InvalidValue
        For decisions that cannot be compared, with the row of their post; nothing has been
        written then.
    """
    ids = {post.decision_id for post in posts}
    found = decisions_of(connection, list(ids | {post.over for post in posts}))
    sources = {
        (row.decision_id, row.preferred_over, row.key): row.source
        for row in connection.execute(_SENT, {"ids": list(ids)})
    }
    rows: list[dict[str, Any]] = []
    learned: list[dict[str, Any]] = []
    became: list[FeedbackResult] = []
    for position, post in enumerate(posts):
        winner, loser = found.get(post.decision_id), found.get(post.over)
        if winner is None or loser is None:
            became.append(FeedbackResult("unknown", "preferred_over" if winner else "decision_id"))
            continue
        problem = _incomparable(winner, loser)
        if problem is not None:
            raise InvalidValue(problem, param="preferred_over", row=position)
        named = post.decision_id, post.over, post.key
        if named in sources:
            same = sources[named] == post.source
            became.append(
                FeedbackResult("duplicate") if same else FeedbackResult("conflict", "key")
            )
            continue
        sources[named] = post.source
        late = now_us > min(winner["expires_at"], loser["expires_at"])
        rows.append(
            {
                "pool": winner["pool"],
                "decision_id": post.decision_id,
                "preferred_over": post.over,
                "key": post.key,
                "source": post.source,
                "status": "late" if late else "accepted",
                "received_at": now_us,
            }
        )
        became.append(FeedbackResult(rows[-1]["status"]))
        others = winner["overridden_by"] or loser["overridden_by"]
        unused = winner["cancelled_at"] or loser["cancelled_at"]
        if not (late or others or unused) and winner["model"] != loser["model"]:
            learned.append(_event(winner, loser, now_us))
    insert_many(connection, comparisons, [[row[name] for name in _ROW] for row in rows])
    append_outcomes(connection, learned)
    return became


def _incomparable(winner: Decision, loser: Decision) -> str | None:
    """Return why two decisions cannot be compared, None if they can."""
    if winner["pool"] != loser["pool"]:
        return f"of pool {loser['pool']!r}, the other is of {winner['pool']!r}"
    if winner["prompt_hash"] is None or loser["prompt_hash"] is None:
        return (
            "nothing tells whether both answered the same prompt: a daemon keeps hashes of "
            "prompts once its setting `hash_key` is set, and has none of an embedding alone"
        )
    if winner["prompt_hash"] != loser["prompt_hash"]:
        return "the two decisions are about different prompts"
    return None


def _event(winner: Decision, loser: Decision, now_us: int) -> dict[str, Any]:
    known = {"over": loser["id"], "arm": loser["model"], "propensity": loser["propensity"]}
    own = {"kind": "comparison", "created_at": now_us, "payload": json.dumps(known)}
    return outcome_columns(winner) | own

"""Comparisons of two answers to the same prompt: each is stored once and learned once.

(preferred decision, other decision, key) identifies a comparison. Comparisons that contradict each
other are all learned. A comparison is stored but not learned if it is late, if a decision was
cancelled or its answer came from another model than the chosen one, or if both decisions chose the
same model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select

from banditroute.core.errors import InvalidValue
from banditroute.store.bulk import insert_many
from banditroute.store.feedback import (
    FeedbackResult,
    append_outcomes,
    decisions_of,
    outcome_columns,
)
from banditroute.store.tables import comparisons

_SENT = select(comparisons).where(comparisons.c.decision_id.in_(bindparam("ids", expanding=True)))

Decision = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Preferred:
    """A comparison as the caller sent it.

    Attributes
    ----------
    decision_id, over : str
        The decision of the preferred answer, and the decision of the other answer.
    key : str
        Tells comparisons of the same two decisions apart; a retry sends the same key.
    source : str or None
        Who judged.
    """

    decision_id: str
    over: str
    key: str
    source: str | None = None


def record_comparisons(
    connection: Connection, posts: Sequence[Preferred], *, now_us: int
) -> list[FeedbackResult]:
    """Store comparisons in order and append their events.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    posts : sequence of Preferred
        The comparisons.
    now_us : int
        The time.

    Returns
    -------
    list of FeedbackResult
        The result of each comparison.

    Raises
    ------
    InvalidValue
        If two decisions cannot be compared; the error names the row of the comparison. Nothing
        has been written then.
    """
    ids = {post.decision_id for post in posts}
    decisions_by_id = decisions_of(connection, list(ids | {post.over for post in posts}))
    sources = {
        (row.decision_id, row.preferred_over, row.key): row.source
        for row in connection.execute(_SENT, {"ids": list(ids)})
    }
    rows: list[tuple[Any, ...]] = []
    outcomes: list[dict[str, Any]] = []
    results: list[FeedbackResult] = []
    for position, post in enumerate(posts):
        winner, loser = decisions_by_id.get(post.decision_id), decisions_by_id.get(post.over)
        if winner is None or loser is None:
            param = "preferred_over" if winner else "decision_id"
            results.append(FeedbackResult("unknown", param))
            continue
        problem = _incomparable(winner, loser)
        if problem is not None:
            raise InvalidValue(problem, param="preferred_over", row=position)
        identity = post.decision_id, post.over, post.key
        if identity in sources:
            same = sources[identity] == post.source
            result = FeedbackResult("duplicate") if same else FeedbackResult("conflict", "key")
            results.append(result)
            continue
        sources[identity] = post.source
        late = now_us > min(winner["expires_at"], loser["expires_at"])
        status = "late" if late else "accepted"
        rows.append((winner["pool"], *identity, post.source, status, now_us))
        results.append(FeedbackResult(status))
        overridden = winner["overridden_by"] or loser["overridden_by"]
        cancelled = winner["cancelled_at"] or loser["cancelled_at"]
        if not (late or overridden or cancelled) and winner["model"] != loser["model"]:
            outcomes.append(_event(winner, loser, now_us))
    insert_many(connection, comparisons, rows)
    append_outcomes(connection, outcomes)
    return results


def _incomparable(winner: Decision, loser: Decision) -> str | None:
    """Return why two decisions cannot be compared, None if they can."""
    if winner["pool"] != loser["pool"]:
        return f"is of pool {loser['pool']!r}, but decision_id is of pool {winner['pool']!r}"
    if winner["prompt_hash"] is None or loser["prompt_hash"] is None:
        return (
            "the daemon cannot check that both decisions are about the same prompt: it stores "
            "no hash of a prompt without the setting `hash_key`, or if only an embedding was sent"
        )
    if winner["prompt_hash"] != loser["prompt_hash"]:
        return "the two decisions are about different prompts"
    return None


def _event(winner: Decision, loser: Decision, now_us: int) -> dict[str, Any]:
    payload = {"over": loser["id"], "arm": loser["model"], "propensity": loser["propensity"]}
    own = {"kind": "comparison", "created_at": now_us, "payload": json.dumps(payload)}
    return outcome_columns(winner) | own

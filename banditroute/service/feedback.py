"""Feedback of every kind: from requests to the store, in order, all of a call or none.

A mistake of one call must never undo the feedback of another one in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from sqlalchemy import Connection

from banditroute.contract.schemas import FeedbackRequest
from banditroute.core.errors import InvalidValue
from banditroute.store.comparisons import Preferred, record_comparisons
from banditroute.store.feedback import FeedbackResult, Post, record
from banditroute.store.sessions import SessionQuality, record_session

Feedback = Post | Preferred | SessionQuality
"""Feedback of any kind, as the store takes it: on a decision, a pair of them, or a session."""


def feedback_of(request: FeedbackRequest) -> Feedback:
    """Return a request as the store takes it.

    Parameters
    ----------
    request : FeedbackRequest
        The request; its ``key`` defaults to its ``source``, then to ``default``.
    """
    key = request.key or request.source or "default"
    if request.decision_id is None:
        assert request.session_id is not None and request.quality is not None
        return SessionQuality(
            request.pool, request.session_id, key, request.quality, request.source
        )
    if request.preferred_over is not None:
        return Preferred(request.decision_id, request.preferred_over, key, request.source)
    return Post(
        decision_id=request.decision_id,
        key=key,
        source=request.source,
        quality=request.quality,
        cost_usd=request.cost_usd,
        input_tokens=request.input_tokens,
        output_tokens=request.output_tokens,
        latency_ms=request.latency_ms,
        model=request.model,
    )


def store_feedback(
    connection: Connection, feedback: Sequence[Feedback], *, now_us: int
) -> list[FeedbackResult]:
    """Store the feedback of a call, in order.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    feedback : sequence of Feedback
        The rows of the call.
    now_us : int
        The time.

    Returns
    -------
    list of FeedbackResult
        What became of each row.

    Raises
    ------
    InvalidValue
        With the row that is wrong; nothing of the call has been written then.
    """
    runs = [list(run) for _, run in groupby(feedback, key=type)]
    if len(runs) == 1:
        return _store_run(connection, runs[0], now_us)
    # A savepoint: a mistake in a later run undoes the earlier runs of this call, and no other call.
    with connection.begin_nested():
        results: list[FeedbackResult] = []
        for run in runs:
            try:
                results += _store_run(connection, run, now_us)
            except InvalidValue as fault:
                if fault.row is not None:
                    fault.row += len(results)  # counted from the first row of the call
                raise
        return results


def _store_run(
    connection: Connection, run: Sequence[Feedback], now_us: int
) -> list[FeedbackResult]:
    """Store rows of one kind."""
    posts = [row for row in run if isinstance(row, Post)]
    if posts:
        statuses = record(connection, posts, now_us=now_us)
        return [FeedbackResult(status, _PARAM_OF_STATUS.get(status)) for status in statuses]
    pairs = [row for row in run if isinstance(row, Preferred)]
    if pairs:
        return record_comparisons(connection, pairs, now_us=now_us)
    sessions = [row for row in run if isinstance(row, SessionQuality)]
    return [record_session(connection, row, now_us=now_us) for row in sessions]


_PARAM_OF_STATUS = {"unknown": "decision_id", "conflict": "key"}
"""The field of a `Post` that is the reason for a status."""

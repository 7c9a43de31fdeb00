"""Feedback of every kind, from the wire to the store: in order, and whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from sqlalchemy import Connection

from banditroute.contract.schemas import FeedbackRequest
from banditroute.core.errors import InvalidValue
from banditroute.store.comparisons import Preferred, record_comparisons
from banditroute.store.feedback import FeedbackResult, Post, record
from banditroute.store.sessions import SessionQuality, record_session

Posted = Post | Preferred | SessionQuality


def read(request: FeedbackRequest) -> Posted:
    """Return what a row of the wire says."""
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


def store(connection: Connection, posts: Sequence[Posted], *, now: int) -> list[FeedbackResult]:
    """Store `posts` in order; return what became of each.

    Raises
    ------
    InvalidValue
        For what cannot be, with its row: nothing has been written then.
    """
    runs = [list(run) for _, run in groupby(posts, key=type)]
    if len(runs) == 1:
        return _store_alike(connection, runs[0], now)
    # A mistake in a later run undoes the earlier ones, and no neighbour of this call.
    with connection.begin_nested():
        became: list[FeedbackResult] = []
        for run in runs:
            try:
                became += _store_alike(connection, run, now)
            except InvalidValue as fault:
                if fault.row is not None:
                    fault.row += len(became)  # counted from the first post of the call
                raise
        return became


def _store_alike(connection: Connection, posts: Sequence[Posted], now: int) -> list[FeedbackResult]:
    """Store posts of one kind."""
    plain = [post for post in posts if isinstance(post, Post)]
    if plain:
        statuses = record(connection, plain, now_us=now)
        return [FeedbackResult(status, _BLAMED.get(status)) for status in statuses]
    pairs = [post for post in posts if isinstance(post, Preferred)]
    if pairs:
        return record_comparisons(connection, pairs, now_us=now)
    return [
        record_session(connection, post, now_us=now)
        for post in posts
        if isinstance(post, SessionQuality)
    ]


_BLAMED = {"unknown": "decision_id", "conflict": "key"}

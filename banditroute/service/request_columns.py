"""Requests as columns: their features, their limits, and the tokens that they take.

`check_features` must have passed a request before its features are computed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from banditroute.contract.schemas import RouteRequest, ScoredPrompt
from banditroute.core.errors import InvalidValue
from banditroute.decide.columns import RequestBatch
from banditroute.features.tasks import widen
from banditroute.service.pool import Pool
from policies.base import Float32, Float64

OFF_LOOP_CHARACTERS = 65_536
"""Characters of text beyond which features are computed in a thread, beside the event loop."""

LARGEST_COORDINATE = 1e3
"""Largest absolute value in an embedding of a request."""


async def features_of(pool: Pool, requests: Sequence[RouteRequest | ScoredPrompt]) -> Float32:
    """Return the features of requests that `check_features` has passed.

    Parameters
    ----------
    pool : Pool
        The pool of all requests.
    requests : sequence of RouteRequest or ScoredPrompt
        n requests.

    Returns
    -------
    float32[n, d]
        The contexts that the pool's policy reads.
    """
    texts = [request.text() for request in requests]
    rows = [i for i, request in enumerate(requests) if request.embedding is not None]
    vectors: Any = None
    if rows:
        vectors = np.array([requests[i].embedding for i in rows], dtype=np.float32)
        if len(rows) < len(requests):
            by_row = dict(zip(rows, vectors, strict=True))
            vectors = [by_row.get(i) for i in range(len(requests))]
    embed = pool.embedder.features
    if pool.embedder.slow or sum(len(text or "") for text in texts) > OFF_LOOP_CHARACTERS:
        features = await asyncio.to_thread(embed, texts, vectors)
    else:
        features = embed(texts, vectors)
    return widen(features, [request.task for request in requests], pool.options.tasks)


def batch_of(pool: Pool, requests: Sequence[RouteRequest], features: Float32) -> RequestBatch:
    """Return requests as the columns that the router reads.

    Parameters
    ----------
    pool : Pool
        The pool of all requests.
    requests : sequence of RouteRequest
        n requests.
    features : float32[n, d]
        From `features_of`.
    """
    default_weights = pool.options.preference.weights()
    text_bytes = [float(len((r.text() or "").encode())) for r in requests]
    sent_tokens = [r.input_tokens for r in requests]
    return RequestBatch(
        features=features,
        preference=np.array(
            [r.preference.weights() if r.preference else default_weights for r in requests]
        ),
        input_tokens=np.array(
            [
                size / 4 if tokens is None else float(tokens)
                for size, tokens in zip(text_bytes, sent_tokens, strict=True)
            ]
        ),
        input_bound=np.array(
            [
                size if tokens is None else float(tokens)
                for size, tokens in zip(text_bytes, sent_tokens, strict=True)
            ]
        ),
        max_output_tokens=_limits([r.max_output_tokens for r in requests]),
        max_cost_usd=_limits([r.max_cost_usd for r in requests]),
        max_latency_ms=_limits([r.max_latency_ms for r in requests]),
        models=(
            [None if r.models is None else frozenset(r.models) for r in requests]
            if any(r.models is not None for r in requests)
            else None
        ),
        requires=(
            [frozenset(r.requires or ()) for r in requests]
            if any(r.requires for r in requests)
            else None
        ),
    )


def check_features(pool: Pool, request: RouteRequest | ScoredPrompt, path: str) -> None:
    """Refuse a request that the pool's embedder cannot turn into features.

    Parameters
    ----------
    pool : Pool
        The pool.
    request : RouteRequest or ScoredPrompt
        The request.
    path : str
        Path of the request in the body, such as ``requests[3].``; an error puts it before the
        field that is wrong.

    Raises
    ------
    InvalidValue
        If the request has no text where one is needed, or an embedding of another size or with
        values that are too large.
    """
    vector = request.embedding
    if vector is None:
        if pool.options.embedder == "precomputed":
            raise InvalidValue("required: this pool has no text embedder", param=f"{path}embedding")
        text = request.text()
        if not text or text.isspace():
            field = "messages" if request.prompt is None else "prompt"
            raise InvalidValue("holds no text", param=f"{path}{field}")
        return
    dim = pool.embedder.vector_dim
    if len(vector) != dim:
        raise InvalidValue(
            f"{dim} numbers are expected, not {len(vector)}", param=f"{path}embedding"
        )
    if max(vector) > LARGEST_COORDINATE or min(vector) < -LARGEST_COORDINATE:
        limit = f"{LARGEST_COORDINATE:,.0f}"
        raise InvalidValue(
            f"numbers from -{limit} to {limit} are expected", param=f"{path}embedding"
        )


def _limits(values: Sequence[float | None]) -> Float64 | None:
    """Return a limit per request, inf where a request sets none; None where no request does."""
    if all(value is None for value in values):
        return None
    return np.array([np.inf if value is None else float(value) for value in values])

"""From the wire to columns: the features of requests, and what they ask for."""

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
from policies.base import Float32

OFF_LOOP_BYTES = 65_536
LARGEST_COORDINATE = 1e3


async def features_of(pool: Pool, requests: Sequence[RouteRequest | ScoredPrompt]) -> Float32:
    """Return the features[n, d] of requests that `check_features` has passed."""
    texts = [request.text() for request in requests]
    filled = [i for i, request in enumerate(requests) if request.embedding is not None]
    vectors: Any = None
    if filled:
        vectors = np.array([requests[i].embedding for i in filled], dtype=np.float32)
        if len(filled) < len(requests):
            placed = dict(zip(filled, vectors, strict=True))
            vectors = [placed.get(i) for i in range(len(requests))]
    embed = pool.embedder.features
    if pool.embedder.slow or sum(len(text or "") for text in texts) > OFF_LOOP_BYTES:
        features = await asyncio.to_thread(embed, texts, vectors)
    else:
        features = embed(texts, vectors)
    return widen(features, [request.task for request in requests], pool.options.tasks)


def batch_of(pool: Pool, requests: Sequence[RouteRequest], features: Float32) -> RequestBatch:
    """Return requests as the columns that the router reads."""
    standard = pool.options.preference.weights()
    sizes = [float(len((r.text() or "").encode())) for r in requests]
    sent = [r.input_tokens for r in requests]
    return RequestBatch(
        features=features,
        preference=np.array(
            [r.preference.weights() if r.preference else standard for r in requests]
        ),
        input_tokens=np.array(
            [b / 4 if t is None else float(t) for b, t in zip(sizes, sent, strict=True)]
        ),
        input_bound=np.array(
            [b if t is None else float(t) for b, t in zip(sizes, sent, strict=True)]
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


def check_features(pool: Pool, request: RouteRequest | ScoredPrompt, at: str) -> None:
    """Refuse what the pool's embedder cannot turn into features, naming the field below `at`."""
    vector = request.embedding
    if vector is None:
        if pool.options.embedder == "precomputed":
            raise InvalidValue("required: this pool has no text embedder", param=f"{at}embedding")
        text = request.text()
        if not text or text.isspace():
            field = "messages" if request.prompt is None else "prompt"
            raise InvalidValue("holds no text", param=f"{at}{field}")
        return
    wanted = pool.embedder.vector_dim
    if len(vector) != wanted:
        raise InvalidValue(
            f"{wanted} numbers are expected, not {len(vector)}", param=f"{at}embedding"
        )
    if max(vector) > LARGEST_COORDINATE or min(vector) < -LARGEST_COORDINATE:
        most = f"{LARGEST_COORDINATE:,.0f}"
        raise InvalidValue(f"numbers from -{most} to {most} are expected", param=f"{at}embedding")


def _limits(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    if all(value is None for value in values):
        return None
    return np.array([np.inf if value is None else float(value) for value in values])

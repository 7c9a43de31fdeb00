"""Routing: from requests to logged decisions, many at a time.

Every check that can fail comes before the first draw, so a call is decided whole or not at all.
Nothing is answered before its decision is in the log.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from pydantic_core import to_json
from sqlalchemy import Connection

from banditroute.errors import ApiError, invalid
from banditroute.gather import Gather
from banditroute.metrics import Metrics
from banditroute.pool import NANO
from banditroute.registry import Pool, Registry
from banditroute.router import REASONS, Asks, Decisions
from banditroute.schemas import RouteRequest, ScoredPrompt
from banditroute.store import codec
from banditroute.store.log import insert_decisions, recall, remember
from banditroute.store.writer import Writer
from banditroute.tasks import widen
from banditroute.times import iso, new_id, now_us
from policies.base import Float32

OFF_LOOP_BYTES = 65_536
LARGEST_COORDINATE = 1e3
_ANSWERED = itemgetter(
    *map(codec.DECISION_COLUMNS.index, ("id", "propensity", "max_output_tokens", "reserved_nano"))
)

Answer = dict[str, Any]
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP call: its requests, and where errors point."""

    requests: Sequence[RouteRequest]
    batch: bool
    request_id: str | None = None
    key: str | None = None

    @property
    def endpoint(self) -> str:
        """The name under which an idempotency key is kept."""
        return "route/batch" if self.batch else "route"

    def path(self, row: int, field: str) -> str:
        """Return the path of a field of one request."""
        return f"requests[{row}].{field}" if self.batch else field

    def key_name(self) -> str:
        """Return the name that the idempotency key is kept under: its hash."""
        return hashlib.blake2b((self.key or "").encode(), digest_size=32).hexdigest()

    def digest(self) -> str:
        """Return a digest of the payload, to tell a retry from another request.

        It is keyed by the caller's own key, which is not in the database: nobody who reads that
        can tell whether a prompt that he guesses was asked.
        """
        secret = hashlib.sha256((self.key or "").encode()).digest()
        sha = hashlib.blake2b(key=secret, digest_size=16)
        for request in self.requests:
            sha.update(request.model_dump_json(exclude_unset=True).encode())
        return sha.hexdigest()


class Decider:
    """Decides and logs.

    Parameters
    ----------
    registry : the pools.
    writer : the one writer of this process.
    metrics : where decisions are counted.
    hash_key : key of the prompts' hashes; None leaves no trace of a prompt.
    capacity : single requests of a pool that may wait; more are refused with HTTP 503.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        writer: Writer,
        metrics: Metrics,
        hash_key: bytes | None,
        capacity: int,
    ) -> None:
        self._registry, self._writer, self._metrics = registry, writer, metrics
        self._hash_key, self._capacity = hash_key, capacity
        self._gathers: dict[str, Gather[Call, bytes]] = {}

    async def route(self, call: Call) -> bytes:
        """Return the JSON answer to `call`, once its decisions are in the log.

        A single request that no model is eligible for is an `ApiError`; in a batch it is an
        error at its place.
        """
        await self._check(call)
        if call.batch:
            (result,) = await self._together([call])
            if isinstance(result, Exception):
                raise result
            return result
        # By pool, so that a slow embedder holds up nobody else.
        pool = call.requests[0].pool
        if pool not in self._gathers:
            self._gathers[pool] = Gather(self._together, capacity=self._capacity)
        return await self._gathers[pool](call)

    async def _check(self, call: Call) -> None:
        for i, request in enumerate(call.requests):
            wanted = request.models or ()
            pool = await self._registry.found(request.pool, models=wanted, path=call.path(i, ""))
            if pool.router is None and pool.models:
                await self._registry.started(pool)
            if request.models is not None:
                known = {model.name for model in pool.models}
                for j, name in enumerate(request.models):
                    if name not in known:
                        raise invalid(call.path(i, f"models[{j}]"), f"pool has no model {name!r}")
            check_features(pool, request, call.path(i, ""))

    async def _together(self, calls: Sequence[Call]) -> list[bytes | Exception]:
        """Decide all requests of `calls`, a vectorised step per pool, and log them at once."""
        owners = [(c, i) for c, call in enumerate(calls) for i in range(len(call.requests))]
        answers: list[list[Answer]] = [[{}] * len(call.requests) for call in calls]
        rows: list[list[Row]] = [[] for _ in calls]
        by_pool: dict[str, list[tuple[int, int]]] = {}
        for c, i in owners:
            by_pool.setdefault(calls[c].requests[i].pool, []).append((c, i))
        for name, at in by_pool.items():
            pool = self._registry.pool(name)
            asked = [calls[c].requests[i] for c, i in at]
            if pool.router is None:
                for c, i in at:
                    answers[c][i] = no_models(name).body()
                continue
            features = await features_of(pool, asked)
            began = time.perf_counter()
            decided = pool.router.decide(_asks(pool, asked, features))
            self._metrics.decided(name, decided, time.perf_counter() - began)
            ids = [calls[c].request_id for c, _ in at]
            answered = self._answer(pool, asked, decided, ids)
            for (c, i), (answer, row) in zip(at, answered, strict=True):
                answers[c][i] = answer
                if row is not None:
                    rows[c].append(row)
        results: list[bytes | Exception] = [
            to_json({"decisions": own})
            if call.batch
            else to_json(own[0])
            if logged
            else refused(own[0])
            for call, own, logged in zip(calls, answers, rows, strict=True)
        ]
        return await self._log(calls, results, rows)

    async def _log(
        self,
        calls: Sequence[Call],
        answers: Sequence[bytes | Exception],
        rows: Sequence[Sequence[Row]],
    ) -> list[bytes | Exception]:
        """Log `rows`; a call whose idempotency key is known gets the answer it got before."""
        everything = [row for own in rows for row in own]
        if all(call.key is None for call in calls):
            await self._writer.append(everything)
            return list(answers)
        now = now_us()
        digests = ["" if call.key is None else call.digest() for call in calls]

        def work(connection: Connection) -> list[bytes | Exception]:
            names = ["" if call.key is None else call.key_name() for call in calls]
            known = recall(connection, [name for name in names if name], now=now)
            logged: list[Row] = []
            fresh: list[Row] = []
            results = list(answers)
            for c, (call, name, digest) in enumerate(zip(calls, names, digests, strict=True)):
                kept = known.get((name, call.endpoint)) if name else None
                if kept is not None:
                    results[c] = kept[1] if kept[0] == digest else _conflict()
                    continue
                logged += rows[c]
                answer = answers[c]
                if name and rows[c] and isinstance(answer, bytes):
                    fresh.append((name, call.endpoint, digest, answer, now))
                    known[name, call.endpoint] = digest, answer
            insert_decisions(connection, logged)
            remember(connection, fresh)
            return results

        return await self._writer.write(work, durable=False)

    def _answer(
        self,
        pool: Pool,
        requests: Sequence[RouteRequest],
        decided: Decisions,
        request_ids: Sequence[str | None],
    ) -> list[tuple[Answer, Row | None]]:
        now = now_us()
        expires = now + int(pool.options.feedback_ttl_s * 1e6)
        notes = [
            codec.Note(
                id=new_id(now),
                prompt_hash=self._hash(request.text()),
                session_id=request.session_id,
                task=request.task,
                tags=to_json(request.tags).decode() if request.tags else None,
                request_id=request_id,
            )
            for request, request_id in zip(requests, request_ids, strict=True)
        ]
        rows = iter(
            codec.encode(decided, notes, pool=pool.name, created_at=now, expires_at=expires)
        )
        until = iso(expires)
        names = [model.name for model in decided.frame.models]
        snapshot = decided.frame.snapshot
        answered: list[tuple[Answer, Row | None]] = []
        chosen_and_others = zip(decided.chosen.tolist(), decided.fallbacks(), strict=True)
        for i, (chosen, others) in enumerate(chosen_and_others):
            if chosen < 0:
                answered.append((no_eligible(decided, i).body(), None))
                continue
            row = next(rows)
            decision_id, propensity, limit, reserved = _ANSWERED(row)
            answer = {
                "decision_id": decision_id,
                "model": names[chosen],
                "fallbacks": others,
                "propensity": propensity,
                "max_output_tokens": limit,
                "policy": snapshot.charter.identity,
                "policy_version": snapshot.version,
                "reserved_cost_usd": reserved / NANO,
                "expires_at": until,
            }
            answered.append((answer, row))
        return answered

    def _hash(self, text: str | None) -> str | None:
        if self._hash_key is None or text is None:
            return None
        return hmac.new(self._hash_key, text.encode(), "sha256").hexdigest()[:32]


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


def _asks(pool: Pool, requests: Sequence[RouteRequest], features: Float32) -> Asks:
    standard = pool.options.preference.weights()
    sizes = [float(len((r.text() or "").encode())) for r in requests]
    sent = [r.input_tokens for r in requests]
    return Asks(
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
            raise invalid(f"{at}embedding", "required: this pool has no text embedder")
        text = request.text()
        if not text or text.isspace():
            raise invalid(
                f"{at}{'messages' if request.prompt is None else 'prompt'}", "holds no text"
            )
        return
    wanted = pool.embedder.vector_dim
    if len(vector) != wanted:
        raise invalid(f"{at}embedding", f"{wanted} numbers are expected, not {len(vector)}")
    if max(vector) > LARGEST_COORDINATE or min(vector) < -LARGEST_COORDINATE:
        most = f"{LARGEST_COORDINATE:,.0f}"
        raise invalid(f"{at}embedding", f"numbers from -{most} to {most} are expected")


def _limits(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    if all(value is None for value in values):
        return None
    return np.array([np.inf if value is None else float(value) for value in values])


def no_models(pool: str) -> ApiError:
    """Return the error of a row whose pool is empty."""
    return ApiError(422, f"pool {pool!r} has no models", code="no_eligible_model", param="pool")


def no_eligible(decided: Decisions, row: int) -> ApiError:
    """Return the error of a row that no model is eligible for, with every reason."""
    names = (model.name for model in decided.frame.models)
    why = ", ".join(
        f"{name}: {REASONS[code]}" for name, code in zip(names, decided.verdict[row], strict=True)
    )
    return ApiError(422, f"no eligible model ({why})", code="no_eligible_model", param="models")


def refused(answer: Answer) -> ApiError:
    """Return the error body of a single request as the error that it is."""
    error = answer["error"]
    return ApiError(422, error["message"], code=error["code"], param=error["param"])


def _conflict() -> ApiError:
    return ApiError(
        409,
        "this Idempotency-Key was used with another payload",
        code="idempotency_conflict",
        param="Idempotency-Key",
    )

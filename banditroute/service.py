"""What the daemon does, without HTTP: route, take feedback, keep pools.

A service lives in one event loop. It decides from snapshots, writes through the one writer and
never waits for the learner, except once: a new model is answered for when the policy knows it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import logging
import time
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from pydantic_core import to_json
from sqlalchemy import Connection, Engine

from banditroute.errors import ApiError, invalid
from banditroute.host import LearnerLink
from banditroute.metrics import Metrics
from banditroute.pool import NANO
from banditroute.registry import Pool, Registry
from banditroute.router import REASONS, Asks, Decisions
from banditroute.schemas import FeedbackRequest, RouteRequest
from banditroute.settings import Settings
from banditroute.store import codec
from banditroute.store.feedback import Post, default_expired, record
from banditroute.store.log import Log, forget, insert_decisions, remember, remembered
from banditroute.store.writer import Writer
from banditroute.times import iso, new_id, now_us
from policies.base import Float32

logger = logging.getLogger("banditroute")
_ANSWERED = ("id", "propensity", "max_output_tokens", "reserved_nano")
_answered = itemgetter(*(codec.DECISION_COLUMNS.index(name) for name in _ANSWERED))
OFF_LOOP_BYTES = 65_536
HOUSEKEEPING_S = 1.0
LARGEST_COORDINATE = 1e6
FORGET_EVERY = 600


class Service:
    """The daemon's work.

    Parameters
    ----------
    settings : what was configured.
    engine : a database that `store.engine.prepare` has accepted.
    writer : the one writer of this process.
    learner : the link to the learner.
    """

    def __init__(
        self, *, settings: Settings, engine: Engine, writer: Writer, learner: LearnerLink
    ) -> None:
        self.settings, self.writer, self.learner = settings, writer, learner
        self.registry = Registry(
            settings=settings,
            log=Log(engine),
            writer=writer,
            learner=learner,
            rng=np.random.default_rng(),
        )
        self.metrics = Metrics(writer=writer, versions=self.registry.versions)
        self._hash_key = (
            settings.hash_key.get_secret_value().encode() if settings.hash_key else None
        )
        self._chores: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the pools and begin housekeeping."""
        await self.registry.start()
        self._chores = asyncio.create_task(self._housekeeping())

    async def stop(self) -> None:
        """Stop housekeeping and learner; commit what waits."""
        if self._chores is not None:
            self._chores.cancel()
        await self.learner.stop()
        await asyncio.to_thread(self.writer.close)

    def missing(self) -> list[str]:
        """Return what keeps the daemon from answering; empty when it is ready."""
        missing = self.registry.missing()
        if not self.writer.alive:
            missing.append("the writer is not running")
        if not self.learner.alive():
            missing.append("the learner is not running")
        return missing

    # Deciding

    async def route(
        self,
        requests: Sequence[RouteRequest],
        *,
        request_id: str | None = None,
        idempotency_key: str | None = None,
        endpoint: str = "route",
    ) -> bytes | list[dict[str, Any]]:
        """Decide every request and return once the decisions are in the log.

        Returns
        -------
        list of answers, each a decision or ``{"error": ...}``, in the order of `requests`; the
        bytes of the first answer when this idempotency key was seen before.
        """
        answers: list[dict[str, Any]] = [{}] * len(requests)
        rows: list[tuple[Any, ...]] = []
        by_pool: dict[str, list[int]] = {}
        ready: list[tuple[Pool, list[int], list[RouteRequest], Float32]] = []
        for i, request in enumerate(requests):
            by_pool.setdefault(request.pool, []).append(i)
        # Everything that can be wrong is found before the first decision is made.
        for name, at in by_pool.items():
            pool = self.registry.pool(
                name, path="" if endpoint == "route" else f"requests[{at[0]}]."
            )
            if not pool.models:
                for i in at:
                    answers[i] = no_models(pool.name).body()
                continue
            await self.registry.started(pool)
            asked = [requests[i] for i in at]
            _check_names(pool, asked, at, endpoint)
            ready.append((pool, at, asked, await self._features(pool, asked, at, endpoint)))
        for pool, at, asked, features in ready:
            began = time.perf_counter()
            decided = self._decide(pool, asked, features)
            self.metrics.decided(pool.name, decided, time.perf_counter() - began)
            answered, logged = self._answer(pool, asked, decided, request_id)
            rows += logged
            for i, answer in zip(at, answered, strict=True):
                answers[i] = answer
        if idempotency_key is None:
            await self.writer.append(rows)
            return answers
        return await self._once(requests, answers, rows, key=idempotency_key, endpoint=endpoint)

    async def _once(
        self,
        requests: Sequence[RouteRequest],
        answers: list[dict[str, Any]],
        rows: list[tuple[Any, ...]],
        *,
        key: str,
        endpoint: str,
    ) -> bytes | list[dict[str, Any]]:
        sha = hashlib.blake2b(digest_size=16)
        for request in requests:
            sha.update(request.model_dump_json(exclude_unset=True).encode())
        digest, now = sha.hexdigest(), now_us()
        single = endpoint == "route"
        response = to_json(answers[0] if single else {"decisions": answers})

        def work(connection: Connection) -> bytes:
            kept = remembered(connection, key=key, endpoint=endpoint, now=now)
            if kept is None:
                insert_decisions(connection, rows)
                if rows:
                    remember(
                        connection,
                        key=key,
                        endpoint=endpoint,
                        digest=digest,
                        response=response,
                        now=now,
                    )
                return response
            if kept[0] != digest:
                raise ApiError(
                    409,
                    "this Idempotency-Key was used with another payload",
                    code="idempotency_conflict",
                    param="Idempotency-Key",
                )
            return kept[1]

        stored = await self.writer.write(work, durable=False)
        return answers if stored is response else stored

    async def _features(
        self, pool: Pool, requests: Sequence[RouteRequest], at: Sequence[int], endpoint: str
    ) -> Float32:
        texts = [request.text() for request in requests]
        given = [request.embedding for request in requests]
        vectors: Any = None
        for i, (text, vector) in enumerate(zip(texts, given, strict=True)):
            path = "" if endpoint == "route" else f"requests[{at[i]}]."
            if vector is not None and len(vector) != pool.embedder.vector_dim:
                wanted = pool.embedder.vector_dim
                raise invalid(
                    f"{path}embedding", f"{wanted} numbers are expected, not {len(vector)}"
                )
            if vector is None and pool.options.embedder == "precomputed":
                raise invalid(f"{path}embedding", "required: this pool has no text embedder")
            if vector is None and not (text and text.strip()):
                field = "messages" if requests[i].messages is not None else "prompt"
                raise invalid(f"{path}{field}", "holds no text")
        filled = [i for i, vector in enumerate(given) if vector is not None]
        if filled:
            block = np.array([given[i] for i in filled], dtype=np.float64)
            if (wrong := np.abs(block).max(axis=1) > LARGEST_COORDINATE).any():
                path = "" if endpoint == "route" else f"requests[{at[filled[wrong.argmax()]]}]."
                most = f"{LARGEST_COORDINATE:,.0f}"
                raise invalid(f"{path}embedding", f"numbers from -{most} to {most} are expected")
            vectors = block.astype(np.float32)
            if len(filled) < len(given):
                placed = dict(zip(filled, vectors, strict=True))
                vectors = [placed.get(i) for i in range(len(given))]
        embed = pool.embedder.features
        if pool.embedder.slow or sum(len(text or "") for text in texts) > OFF_LOOP_BYTES:
            return await asyncio.to_thread(embed, texts, vectors)
        return embed(texts, vectors)

    def _decide(
        self,
        pool: Pool,
        requests: Sequence[RouteRequest],
        features: Float32,
    ) -> Decisions:
        if pool.router is None:
            raise ApiError(503, "the policy is starting", code="unavailable", retry_after=1.0)
        standard = pool.options.preference.weights()
        sizes = [float(len((r.text() or "").encode())) for r in requests]
        sent = [r.input_tokens for r in requests]
        asks = Asks(
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
        return pool.router.decide(asks)

    def _answer(
        self,
        pool: Pool,
        requests: Sequence[RouteRequest],
        decided: Decisions,
        request_id: str | None,
    ) -> tuple[list[dict[str, Any]], list[tuple[Any, ...]]]:
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
            for request in requests
        ]
        rows = codec.encode(decided, notes, pool=pool.name, created_at=now, expires_at=expires)
        charter, until = decided.frame.snapshot.charter, iso(expires)
        names = [model.name for model in decided.frame.models]
        answers: list[dict[str, Any]] = []
        logged = iter(rows)
        for i, (chosen, others) in enumerate(
            zip(decided.chosen.tolist(), decided.fallbacks(), strict=True)
        ):
            if chosen < 0:
                answers.append(no_eligible(decided, i).body())
                continue
            row = dict(zip(_ANSWERED, _answered(next(logged)), strict=True))
            answers.append(
                {
                    "decision_id": row["id"],
                    "model": names[chosen],
                    "fallbacks": others,
                    "propensity": row["propensity"],
                    "max_output_tokens": row["max_output_tokens"],
                    "policy": charter.identity,
                    "policy_version": decided.frame.snapshot.version,
                    "reserved_cost_usd": row["reserved_nano"] / NANO,
                    "expires_at": until,
                }
            )
        return answers, rows

    def _hash(self, text: str | None) -> str | None:
        if self._hash_key is None or text is None:
            return None
        return hmac.new(self._hash_key, text.encode(), "sha256").hexdigest()[:32]

    # Feedback

    async def feedback(self, requests: Sequence[FeedbackRequest]) -> list[str]:
        """Store feedback and return the status of each, once durable."""
        posts = [
            Post(
                decision_id=r.decision_id,
                key=r.key or r.source or "default",
                source=r.source,
                quality=r.quality,
                cost_usd=r.cost_usd,
                input_tokens=r.input_tokens,
                output_tokens=r.output_tokens,
                latency_ms=r.latency_ms,
                model=r.model,
            )
            for r in requests
        ]
        now = now_us()
        statuses = await self.writer.write(lambda connection: record(connection, posts, now=now))
        self.metrics.fed_back(statuses)
        return statuses

    # Housekeeping

    async def _housekeeping(self) -> None:
        """See changes made elsewhere, give defaults to what expired, drop old keys."""
        for count in itertools.count():
            await asyncio.sleep(HOUSEKEEPING_S)
            try:
                await self.registry.reload()
                for pool in list(self.registry.pools.values()):
                    await self._default(pool)
                if count % FORGET_EVERY == 0:
                    await self.writer.write(lambda connection: forget(connection, now=now_us()))
            except Exception:
                logger.exception("housekeeping failed and will be tried again")

    async def _default(self, pool: Pool) -> None:
        quality = pool.options.default_quality
        if quality is not None:
            now = now_us()
            await self.writer.write(
                lambda connection: default_expired(
                    connection, pool=pool.name, quality=quality, now=now
                )
            )


def _limits(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    if all(value is None for value in values):
        return None
    return np.array([np.inf if value is None else float(value) for value in values])


def _check_names(
    pool: Pool, requests: Sequence[RouteRequest], at: Sequence[int], endpoint: str
) -> None:
    known = {model.name for model in pool.models}
    for i, request in zip(at, requests, strict=True):
        for j, name in enumerate(request.models or ()):
            if name not in known:
                path = "" if endpoint == "route" else f"requests[{i}]."
                raise invalid(f"{path}models[{j}]", f"pool has no model {name!r}")


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

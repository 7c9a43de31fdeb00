"""Routing: from requests to logged decisions, many at a time.

Every check that can fail comes before the first draw, so a call is decided whole or not at all.
Nothing is answered before its decision is in the log.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic_core import to_json
from sqlalchemy import Connection

from banditroute.budgets.leases import Leases
from banditroute.budgets.pacing import MoneyPrices
from banditroute.budgets.reservation import Reservations
from banditroute.contract.schemas import RouteRequest
from banditroute.core.clock import iso, new_id, now_us
from banditroute.core.errors import IdempotencyConflict, InvalidValue, RouterFault
from banditroute.core.pool import NANO
from banditroute.decide.columns import Decisions, ScoredBatch
from banditroute.decide.reasons import BUDGET
from banditroute.service.batcher import MicroBatcher
from banditroute.service.metrics import Metrics
from banditroute.service.pools import Pool, Pools
from banditroute.service.refusals import exceeded, no_eligible, no_models
from banditroute.service.request_columns import asks_of, check_features, features_of
from banditroute.service.views import fault_view
from banditroute.store.decision_row import Note, as_rows, encode
from banditroute.store.idempotency import recall, remember
from banditroute.store.ledger import LeaseLost
from banditroute.store.log import Entry, log_decisions
from banditroute.store.writer import Writer

STALE_S = 0.25
"""How old the sums of a budget in an error may be: refusing costs little, however many ask."""

Answer = dict[str, Any]
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Taken:
    """A decision on its way into the log, and what it took from a purse."""

    entry: Entry
    purse: Reservations | None
    row: int

    def logged(self) -> None:
        if self.purse is not None:
            self.purse.logged(self.row)

    def undo(self) -> None:
        if self.purse is not None:
            self.purse.undo(self.row)


@dataclass(frozen=True, slots=True)
class RouteCall:
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


class Routing:
    """Decides and logs.

    Parameters
    ----------
    registry : the pools.
    writer : the one writer of this process.
    treasury : the slices of budgets that this process holds.
    spending : what money costs by now.
    metrics : where decisions are counted.
    hash_key : key of the prompts' hashes; None leaves no trace of a prompt.
    capacity : single requests of a pool that may wait; more are refused as `Unavailable`.
    """

    def __init__(
        self,
        *,
        registry: Pools,
        writer: Writer,
        treasury: Leases,
        spending: MoneyPrices,
        metrics: Metrics,
        hash_key: bytes | None,
        capacity: int,
    ) -> None:
        self._registry, self._writer, self._metrics = registry, writer, metrics
        self._treasury, self._spending = treasury, spending
        self._hash_key, self._capacity = hash_key, capacity
        self._gathers: dict[str, MicroBatcher[RouteCall, bytes]] = {}

    async def route(self, call: RouteCall) -> bytes:
        """Return the JSON answer to `call`, once its decisions are in the log.

        A single request that no model is eligible for is a `RouterFault`; in a batch it is an
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
            self._gathers[pool] = MicroBatcher(self._together, capacity=self._capacity)
        return await self._gathers[pool](call)

    async def _check(self, call: RouteCall) -> None:
        for i, request in enumerate(call.requests):
            wanted = request.models or ()
            pool = await self._registry.found(request.pool, models=wanted, path=call.path(i, ""))
            if pool.router is None and pool.models:
                await self._registry.started(pool)
            if request.models is not None:
                known = {model.name for model in pool.models}
                for j, name in enumerate(request.models):
                    if name not in known:
                        raise InvalidValue(
                            f"pool has no model {name!r}", param=call.path(i, f"models[{j}]")
                        )
            check_features(pool, request, call.path(i, ""))
            self._check_size(request, call.path(i, ""))

    def _check_size(self, request: RouteRequest, at: str) -> None:
        """Refuse a request whose reservation nobody could compute."""
        if request.input_tokens is not None or request.text() is not None:
            return
        for budget in self._treasury.budgets(request.pool):
            if budget.applies_to(request.tags):
                raise InvalidValue(
                    f"required with an embedding alone: budget {budget.name!r} applies",
                    param=f"{at}input_tokens",
                )

    async def _together(self, calls: Sequence[RouteCall]) -> list[bytes | Exception]:
        """Decide all requests of `calls`, a vectorised step per pool, and log them at once."""
        owners = [(c, i) for c, call in enumerate(calls) for i in range(len(call.requests))]
        answers: list[list[Answer | RouterFault]] = [[{}] * len(call.requests) for call in calls]
        rows: list[list[_Taken]] = [[] for _ in calls]
        by_pool: dict[str, list[tuple[int, int]]] = {}
        for c, i in owners:
            by_pool.setdefault(calls[c].requests[i].pool, []).append((c, i))
        purses: list[Reservations] = []
        try:
            for name, at in by_pool.items():
                pool = self._registry.pool(name)
                asked = [calls[c].requests[i] for c, i in at]
                ids = [calls[c].request_id for c, _ in at]
                answered = await self._decide(pool, asked, ids, purses)
                for (c, i), (answer, taken) in zip(at, answered, strict=True):
                    answers[c][i] = answer
                    if taken is not None:
                        rows[c].append(taken)
            results: list[bytes | Exception] = [
                to_json({"decisions": [_body(one) for one in own]})
                if call.batch
                else own[0]
                if isinstance(own[0], RouterFault)
                else to_json(own[0])
                for call, own in zip(calls, answers, strict=True)
            ]
            answered_again, logged = await self._log(calls, results, rows)
        except BaseException as failure:
            for purse in purses:
                purse.undo_all()
            if isinstance(failure, LeaseLost):
                self._treasury.lost(failure.lease_ids)
            raise
        for one in (one for own in rows for one in own):
            one.logged() if id(one) in logged else one.undo()
        return answered_again

    async def _decide(
        self,
        pool: Pool,
        asked: Sequence[RouteRequest],
        request_ids: Sequence[str | None],
        purses: list[Reservations],
    ) -> list[tuple[Answer | RouterFault, _Taken | None]]:
        """Decide requests of one pool; what they take from is appended to `purses` before that."""
        if pool.router is None:
            return [(no_models(pool.name), None) for _ in asked]
        requests = asks_of(pool, asked, await features_of(pool, asked))
        began = time.perf_counter()
        scored = pool.router.score(requests)
        took_s = time.perf_counter() - began
        purse = await self._purse(pool, asked, scored)
        began = time.perf_counter()
        price = self._spending.price(purse, len(asked)) if purse else None
        if purse is not None:
            purses.append(purse)
        decided = pool.router.choose(scored, price=price, purse=purse)
        if purse is not None:
            self._spending.observe(purse, pool.router, decided)
        self._metrics.decided(pool.name, decided, took_s + time.perf_counter() - began)
        refusals = await self._refusals(decided, purse)
        return self._answer(pool, asked, decided, refusals, request_ids, purse)

    async def _purse(
        self, pool: Pool, requests: Sequence[RouteRequest], scored: ScoredBatch
    ) -> Reservations | None:
        if not self._treasury.budgets(pool.name):
            return None
        most_nano = scored.reservation_nano.max(axis=1, initial=0).tolist()
        return await self._treasury.purse(pool.name, [r.tags for r in requests], most_nano)

    async def _refusals(
        self, decided: Decisions, purse: Reservations | None
    ) -> dict[int, RouterFault]:
        """Return the error of each row that no model was eligible for."""
        refusals: dict[int, RouterFault] = {}
        for row in np.flatnonzero(decided.chosen < 0).tolist():
            if purse is not None and (decided.reasons[row] == BUDGET).any():
                budget = purse.tightest(row)
                least = int(
                    decided.scored.reservation_nano[row][decided.reasons[row] == BUDGET].min()
                )
                sums = await self._treasury.sums(budget, stale_s=STALE_S)
                if sums.free >= least:
                    # Sums from before it was spent would contradict the refusal.
                    sums = await self._treasury.sums(budget)
                refusals[row] = exceeded(budget, sums, least, now=now_us())
                self._metrics.over_budget(budget.pool, budget.name)
            else:
                refusals[row] = no_eligible(decided, row)
        return refusals

    async def _log(
        self,
        calls: Sequence[RouteCall],
        answers: Sequence[bytes | Exception],
        rows: Sequence[Sequence[_Taken]],
    ) -> tuple[list[bytes | Exception], set[int]]:
        """Log `rows`; a call whose idempotency key is known gets the answer it got before.

        Returns
        -------
        The answers, and the ids of those of `rows` that are in the log.
        """
        everything = [one for own in rows for one in own]
        if all(call.key is None for call in calls):
            await self._writer.append([one.entry for one in everything])
            return list(answers), {id(one) for one in everything}
        now = now_us()
        digests = ["" if call.key is None else call.digest() for call in calls]

        def work(connection: Connection) -> tuple[list[bytes | Exception], set[int]]:
            names = ["" if call.key is None else call.key_name() for call in calls]
            known = recall(connection, [name for name in names if name], now=now)
            logged: list[_Taken] = []
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
            log_decisions(connection, [one.entry for one in logged])
            remember(connection, fresh)
            return results, {id(one) for one in logged}

        return await self._writer.write(work, durable=False)

    def _answer(
        self,
        pool: Pool,
        requests: Sequence[RouteRequest],
        decided: Decisions,
        refusals: Mapping[int, RouterFault],
        request_ids: Sequence[str | None],
        purse: Reservations | None,
    ) -> list[tuple[Answer | RouterFault, _Taken | None]]:
        now = now_us()
        expires = now + int(pool.options.feedback_ttl_s * 1e6)
        settled_by = now + int(pool.options.reservation_ttl_s * 1e6)
        notes = [
            Note(
                id=new_id(now),
                prompt_hash=self._hash(request.text()),
                session_id=request.session_id,
                task=request.task,
                tags=to_json(request.tags).decode() if request.tags else None,
                request_id=request_id,
            )
            for request, request_id in zip(requests, request_ids, strict=True)
        ]
        logged = encode(decided, notes, pool=pool.name, created_at=now, expires_at=expires)
        rows = zip(
            as_rows(logged),
            logged["id"],
            logged["propensity"],
            logged["max_output_tokens"],
            logged["reserved_nano"],
            strict=True,
        )
        until = iso(expires)
        names = [model.name for model in decided.scored.columns.models]
        snapshot = decided.scored.columns.snapshot
        answered: list[tuple[Answer | RouterFault, _Taken | None]] = []
        chosen_and_others = zip(decided.chosen.tolist(), decided.fallbacks(), strict=True)
        for i, (chosen, others) in enumerate(chosen_and_others):
            if chosen < 0:
                answered.append((refusals[i], None))
                continue
            row, decision_id, propensity, output_tokens, reserved_nano = next(rows)
            answer = {
                "decision_id": decision_id,
                "model": names[chosen],
                "fallbacks": others,
                "propensity": propensity,
                "max_output_tokens": output_tokens,
                "policy": snapshot.policy_identity.id,
                "policy_version": snapshot.version,
                "reserved_cost_usd": reserved_nano / NANO,
                "expires_at": until,
            }
            draws = purse.draws(i, decision_id, now=now, expires_at=settled_by) if purse else ()
            answered.append((answer, _Taken(Entry(row, draws), purse, i)))
        return answered

    def _hash(self, text: str | None) -> str | None:
        if self._hash_key is None or text is None:
            return None
        return hmac.new(self._hash_key, text.encode(), "sha256").hexdigest()[:32]


def _body(answer: Answer | RouterFault) -> Answer:
    return fault_view(answer) if isinstance(answer, RouterFault) else answer


def _conflict() -> IdempotencyConflict:
    return IdempotencyConflict(
        "this Idempotency-Key was used with another payload", param="Idempotency-Key"
    )

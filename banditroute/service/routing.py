"""Routing: from requests to logged decisions, many at a time.

All checks of a call's requests come before the first draw: a mistake in one refuses the call.
A call must never be answered before its decisions are in the log.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic_core import to_json

from banditroute.budgets.leases import Leases
from banditroute.budgets.pacing import MoneyPrices
from banditroute.budgets.reservation import Reservations
from banditroute.contract.schemas import RouteRequest
from banditroute.core import clock
from banditroute.core.errors import InvalidValue, RouterFault
from banditroute.decide.columns import Decisions, ScoredBatch
from banditroute.decide.reasons import BUDGET
from banditroute.service.batcher import MicroBatcher
from banditroute.service.idempotency import Answer, OnceKey, log_once
from banditroute.service.metrics import Metrics
from banditroute.service.pool import Pool
from banditroute.service.pools import Pools
from banditroute.service.refusals import exceeded, no_eligible, no_models
from banditroute.service.request_columns import batch_of, check_features, features_of
from banditroute.service.views import fault_view, route_views
from banditroute.store.decision_row import Note, as_rows, encode
from banditroute.store.ledger import LeaseLost, Reservation
from banditroute.store.log import Entry
from banditroute.store.writer import Writer

STALE_S = 0.25
"""Age of the sums of a budget in an error, so that many refusals cost few readings."""


@dataclass(frozen=True, slots=True)
class RouteCall:
    """One HTTP call.

    Attributes
    ----------
    requests : sequence of RouteRequest
        Its requests; a single one unless `batch`.
    batch : bool
        Whether it came to the endpoint of batches.
    request_id : str or None
        Id of the call, for the log.
    key : str or None
        Its ``Idempotency-Key``.
    """

    requests: Sequence[RouteRequest]
    batch: bool
    request_id: str | None = None
    key: str | None = None

    def path(self, row: int, field: str) -> str:
        """Return the path of a field of one request in the body."""
        return f"requests[{row}].{field}" if self.batch else field

    def once(self) -> OnceKey | None:
        """Return what identifies the call if it must take effect once; None without a key."""
        if self.key is None:
            return None
        return OnceKey.of(self.key, "route/batch" if self.batch else "route", self.requests)


@dataclass(slots=True, eq=False)
class _Job:
    """One request on its way to an answer.

    Attributes
    ----------
    request : RouteRequest
        The request.
    request_id : str or None
        Id of its call.
    view : dict or RouterFault or None
        The answer as the HTTP API shows it, or a fault in its place; None before the decision.
    entry : Entry or None
        The decision to log; None where no model was chosen.
    reservations : Reservations or None
        What its pool's requests have reserved; None where no budget applies.
    row : int
        Its row in `reservations`.
    """

    request: RouteRequest
    request_id: str | None
    view: dict[str, Any] | RouterFault | None = None
    entry: Entry | None = None
    reservations: Reservations | None = None
    row: int = -1

    def end(self, *, logged: bool) -> None:
        """Keep what it reserved, or give it back."""
        if self.entry is not None and self.reservations is not None:
            (self.reservations.logged if logged else self.reservations.undo)(self.row)


class Routing:
    """Decides requests and logs the decisions.

    Parameters
    ----------
    pools : Pools
        The pools.
    writer : Writer
        The one writer of this process.
    leases : Leases
        The leases of this process.
    money_prices : MoneyPrices
        The current prices of money.
    metrics : Metrics
        Counts decisions.
    hash_key : bytes or None
        Key of the hashes of prompts in the log; None logs no hash.
    capacity : int
        Single requests of a pool that may wait; more are refused as `Unavailable`.
    """

    def __init__(
        self,
        *,
        pools: Pools,
        writer: Writer,
        leases: Leases,
        money_prices: MoneyPrices,
        metrics: Metrics,
        hash_key: bytes | None,
        capacity: int,
    ) -> None:
        self._pools, self._writer, self._metrics = pools, writer, metrics
        self._leases, self._money_prices = leases, money_prices
        self._hash_key, self._capacity = hash_key, capacity
        self._batchers: dict[str, MicroBatcher[RouteCall, bytes]] = {}

    async def route(self, call: RouteCall) -> bytes:
        """Return the JSON answer to a call, once its decisions are in the log.

        Parameters
        ----------
        call : RouteCall
            The call.

        Returns
        -------
        bytes
            The body of the answer.

        Raises
        ------
        RouterFault
            If a request is wrong, or if a single request has no eligible model; in a batch such a
            request has an error at its place.
        """
        await self._check(call)
        if call.batch:
            (answer,) = await self._decide_calls([call])
            if isinstance(answer, Exception):
                raise answer
            return answer
        # A batcher per pool, so that a slow embedder delays no other pool.
        pool = call.requests[0].pool
        if pool not in self._batchers:
            self._batchers[pool] = MicroBatcher(self._decide_calls, capacity=self._capacity)
        return await self._batchers[pool](call)

    async def _check(self, call: RouteCall) -> None:
        """Refuse a call with a request that cannot be decided; name the field that is wrong."""
        for i, request in enumerate(call.requests):
            pool = await self._pools.find(
                request.pool, models=request.models or (), path=call.path(i, "")
            )
            if pool.router is None and pool.models:
                await self._pools.policies.started(pool)
            if request.models is not None:
                names = {model.name for model in pool.models}
                for j, name in enumerate(request.models):
                    if name not in names:
                        raise InvalidValue(
                            f"pool has no model {name!r}", param=call.path(i, f"models[{j}]")
                        )
            check_features(pool, request, call.path(i, ""))
            self._check_size(request, call.path(i, ""))

    def _check_size(self, request: RouteRequest, path: str) -> None:
        """Refuse a request without a size, from which its reservation would be computed."""
        if request.input_tokens is not None or request.text() is not None:
            return
        for budget in self._leases.budgets(request.pool):
            if budget.applies_to(request.tags):
                raise InvalidValue(
                    f"required with an embedding alone: budget {budget.name!r} applies",
                    param=f"{path}input_tokens",
                )

    async def _decide_calls(self, calls: Sequence[RouteCall]) -> list[Answer]:
        """Decide the requests of all calls, a pool at a time, and log them in one transaction."""
        jobs = [[_Job(request, call.request_id) for request in call.requests] for call in calls]
        by_pool: dict[str, list[_Job]] = {}
        for job in (job for of_call in jobs for job in of_call):
            by_pool.setdefault(job.request.pool, []).append(job)
        taken: list[Reservations] = []
        try:
            for name, of_pool in by_pool.items():
                await self._decide(self._pools.by_name[name], of_pool, taken)
            results = await self._log(calls, jobs)
        except BaseException as failure:
            for reservations in taken:
                reservations.undo_all()
            if isinstance(failure, LeaseLost):
                self._leases.lost(failure.lease_ids)
            raise
        for (_, logged), of_call in zip(results, jobs, strict=True):
            for job in of_call:
                job.end(logged=logged)
        return [answer for answer, _ in results]

    async def _decide(self, pool: Pool, jobs: Sequence[_Job], taken: list[Reservations]) -> None:
        """Decide requests of one pool: set the view of each job, and its entry for the log.

        The reservations are appended to `taken` before anything is reserved, so that the caller
        can undo them on any failure.
        """
        if pool.router is None:
            for job in jobs:
                job.view = no_models(pool.name)
            return
        requests = [job.request for job in jobs]
        batch = batch_of(pool, requests, await features_of(pool, requests))
        began_s = time.perf_counter()
        scored = pool.router.score(batch)
        took_s = time.perf_counter() - began_s
        reservations = await self._reservations(pool, requests, scored)
        began_s = time.perf_counter()
        price = None
        if reservations is not None:
            price = self._money_prices.price(reservations, len(jobs))
            taken.append(reservations)
        decided = pool.router.choose(scored, price=price, purse=reservations)
        if reservations is not None:
            self._money_prices.observe(reservations, pool.router, decided)
        self._metrics.decided(pool.name, decided, took_s + time.perf_counter() - began_s)
        for row in np.flatnonzero(decided.chosen < 0).tolist():
            jobs[row].view = await self._refusal(decided, row, reservations)
        self._encode(pool, jobs, decided, reservations)

    async def _reservations(
        self, pool: Pool, requests: Sequence[RouteRequest], scored: ScoredBatch
    ) -> Reservations | None:
        """Return what the requests may reserve; None where no budget applies to any of them."""
        if not self._leases.budgets(pool.name):
            return None
        most_nano = scored.reservation_nano.max(axis=1, initial=0).tolist()
        return await self._leases.reservations(pool.name, [r.tags for r in requests], most_nano)

    async def _refusal(
        self, decided: Decisions, row: int, reservations: Reservations | None
    ) -> RouterFault:
        """Return the fault of a row that no model is eligible for."""
        over_budget = decided.reasons[row] == BUDGET
        if reservations is None or not over_budget.any():
            return no_eligible(decided, row)
        budget = reservations.tightest(row)
        least_nano = int(decided.scored.reservation_nano[row][over_budget].min())
        sums = await self._leases.sums(budget, stale_s=STALE_S)
        if sums.free_nano >= least_nano:
            # These sums are from before the money was spent, and would contradict the refusal.
            sums = await self._leases.sums(budget)
        self._metrics.over_budget(budget.pool, budget.name)
        return exceeded(budget, sums, least_nano, now_us=clock.now_us())

    def _encode(
        self,
        pool: Pool,
        jobs: Sequence[_Job],
        decided: Decisions,
        reservations: Reservations | None,
    ) -> None:
        """Set the view of each job that has a model, and its entry for the log."""
        now_us = clock.now_us()
        expires_at_us = now_us + int(pool.options.feedback_ttl_s * 1e6)
        settle_by_us = now_us + int(pool.options.reservation_ttl_s * 1e6)
        notes = [self._note(job, now_us) for job in jobs]
        columns = encode(
            decided, notes, pool=pool.name, created_at_us=now_us, expires_at_us=expires_at_us
        )
        with_model = [(i, job) for i, job in enumerate(jobs) if job.view is None]
        views = route_views(decided, columns, expires_at_us=expires_at_us)
        for (i, job), view, row in zip(with_model, views, as_rows(columns), strict=True):
            reserved: Sequence[Reservation] = ()
            if reservations is not None:
                reserved = reservations.of_decision(
                    i, view["decision_id"], now_us=now_us, expires_at_us=settle_by_us
                )
            job.view, job.entry = view, Entry(row, reserved)
            job.reservations, job.row = reservations, i

    def _note(self, job: _Job, now_us: int) -> Note:
        """Return what the log holds of a request beside its decision."""
        request, text = job.request, job.request.text()
        prompt_hash = None
        if self._hash_key is not None and text is not None:
            prompt_hash = hmac.new(self._hash_key, text.encode(), "sha256").hexdigest()[:32]
        return Note(
            id=clock.new_id(now_us),
            prompt_hash=prompt_hash,
            session_id=request.session_id,
            task=request.task,
            tags=to_json(request.tags).decode() if request.tags else None,
            request_id=job.request_id,
        )

    async def _log(
        self, calls: Sequence[RouteCall], jobs: Sequence[Sequence[_Job]]
    ) -> list[tuple[Answer, bool]]:
        """Log the decisions; return each call's answer, and whether they are in the log now."""
        answers = [_answer(call, of_call) for call, of_call in zip(calls, jobs, strict=True)]
        entries = [[job.entry for job in of_call if job.entry is not None] for of_call in jobs]
        if all(call.key is None for call in calls):
            await self._writer.append([entry for of_call in entries for entry in of_call])
            return [(answer, True) for answer in answers]
        keys, now_us = [call.once() for call in calls], clock.now_us()
        return await self._writer.write(
            lambda connection: log_once(connection, keys, answers, entries, now_us=now_us),
            durable=False,
        )


def _answer(call: RouteCall, jobs: Sequence[_Job]) -> Answer:
    """Return the answer to a call: JSON, or the fault of a single request."""
    if not call.batch:
        view = jobs[0].view
        return view if isinstance(view, RouterFault) else to_json(view)
    views = [fault_view(j.view) if isinstance(j.view, RouterFault) else j.view for j in jobs]
    return to_json({"decisions": views})

"""The daemon without HTTP: it routes, takes feedback, and keeps pools and budgets.

A service lives in one event loop. It decides from snapshots and writes through the one writer. A
decision must never wait for the learner; only starting a policy and adding a model wait until the
learner has published.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from sqlalchemy import Connection, Engine

from banditroute.budgets.leases import Leases
from banditroute.budgets.pacing import MoneyPrices
from banditroute.contract.schemas import FeedbackRequest, RouteRequest
from banditroute.core import clock
from banditroute.core.errors import RouterFault, UnknownPool
from banditroute.learn.runner import LearnerLink
from banditroute.service.budgets import BudgetService
from banditroute.service.feedback import feedback_of, store_feedback
from banditroute.service.metrics import Metrics
from banditroute.service.pool import Pool
from banditroute.service.pools import Pools
from banditroute.service.routing import RouteCall, Routing
from banditroute.settings import Settings
from banditroute.store.feedback import DEFAULTS_AT_ONCE, FeedbackResult, default_expired
from banditroute.store.idempotency import forget
from banditroute.store.log import Log, append_resets
from banditroute.store.writer import Writer

logger = logging.getLogger("banditroute")
HOUSEKEEPING_S = 1.0
"""Pause between two rounds of housekeeping."""

FORGET_EVERY = 600
"""Rounds of housekeeping after which old idempotency keys are deleted."""


class Service:
    """A daemon without HTTP.

    Parameters
    ----------
    settings : Settings
        The configuration.
    engine : Engine
        A database that `store.engine.prepare` has accepted.
    writer : Writer
        The one writer of this process.
    learner : LearnerLink
        The link to the learner.
    claimed_file : file or None
        The claim on a SQLite file, which is closed at the end.

    Attributes
    ----------
    pools : Pools
        Pools, models and policies.
    leases : Leases
        The leases of budgets that this process holds.
    money_prices : MoneyPrices
        The price of money of each budget.
    budgets : BudgetService
        Changes of budgets.
    metrics : Metrics
        The counters.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        engine: Engine,
        writer: Writer,
        learner: LearnerLink,
        claimed_file: IO[bytes] | None = None,
    ) -> None:
        self.settings, self.writer, self.learner = settings, writer, learner
        self._engine, self._claimed_file = engine, claimed_file
        self.pools = Pools(
            settings=settings,
            log=Log(engine),
            writer=writer,
            learner=learner,
            rng=np.random.default_rng(),
        )
        key = settings.hash_key.get_secret_value().encode() if settings.hash_key else None
        self.leases = Leases(engine, writer)
        self.money_prices = MoneyPrices(engine, self.leases)
        self.metrics = Metrics(
            writer=writer, snapshots=self.pools.policies.snapshots, prices=self.money_prices.prices
        )
        self.budgets = BudgetService(pools=self.pools, leases=self.leases, writer=writer)
        self._routing = Routing(
            pools=self.pools,
            writer=writer,
            leases=self.leases,
            money_prices=self.money_prices,
            metrics=self.metrics,
            hash_key=key,
            capacity=settings.write_queue,
        )
        self._housekeeper: asyncio.Task[None] | None = None
        # By pool: decisions that expired before this time have their default quality.
        self._defaulted_until_us: dict[str, int] = {}

    async def start(self) -> None:
        """Start the pools and begin housekeeping."""
        await self.pools.start()
        await self.leases.start()
        self._housekeeper = asyncio.create_task(self._housekeeping())

    async def stop(self) -> None:
        """Stop housekeeping and learner, give back the leases, and commit what waits."""
        if self._housekeeper is not None:
            self._housekeeper.cancel()
        if self.writer.alive:
            try:
                await self.leases.stop()
            except Exception:
                logger.exception("leases stay open until the next start")
        await self.learner.stop()
        await asyncio.to_thread(self.writer.close)
        self._engine.dispose()
        if self._claimed_file is not None:
            self._claimed_file.close()

    def missing(self) -> list[str]:
        """Return what keeps the daemon from answering, a sentence each; empty when it is ready."""
        missing = self.pools.missing()
        if not self.writer.alive:
            missing.append("the writer is not running")
        if not self.learner.alive():
            missing.append("the learner is not running")
        return missing

    async def route(
        self,
        requests: Sequence[RouteRequest],
        *,
        batch: bool = False,
        request_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> bytes:
        """Return the JSON answer to a call, once its decisions are in the log.

        Parameters
        ----------
        requests : sequence of RouteRequest
            The requests; exactly one unless `batch`.
        batch : bool
            Whether the answer is that of the endpoint of batches.
        request_id : str or None
            Id of the call, for the log.
        idempotency_key : str or None
            Key under which the call takes effect once.

        Raises
        ------
        RouterFault
            See `Routing.route`.
        """
        call = RouteCall(requests, batch=batch, request_id=request_id, key=idempotency_key)
        return await self._routing.route(call)

    async def feedback(self, requests: Sequence[FeedbackRequest]) -> list[FeedbackResult]:
        """Store feedback; return what became of each row, once it is durable.

        Parameters
        ----------
        requests : sequence of FeedbackRequest
            The rows of a call, which are stored in order.

        Raises
        ------
        RouterFault
            With the row that is wrong, if one is; nothing has been written then.
        """
        for i, request in enumerate(requests):
            if request.session_id is not None:
                try:
                    await self.pools.find(request.pool)
                except UnknownPool as fault:
                    fault.row = i
                    raise
        feedback = [feedback_of(request) for request in requests]

        def work(connection: Connection) -> list[FeedbackResult] | RouterFault:
            # Returned, not raised: an exception would undo other calls of the same transaction.
            try:
                return store_feedback(connection, feedback, now_us=clock.now_us())
            except RouterFault as fault:
                return fault

        results = await self.writer.write(work)
        if isinstance(results, RouterFault):
            raise results
        self.leases.refunded()
        self.metrics.fed_back([result.status for result in results])
        return results

    async def policy(self, pool_name: str) -> dict[str, Any]:
        """Return name, parameters, version and state digest of a pool's policy."""
        return await self.pools.policies.describe(await self.pools.find(pool_name))

    async def _housekeeping(self) -> None:
        """Do what is due every second, until the task is cancelled.

        Take over changes of other processes, answer drift alarms, append default qualities, solve
        prices of money, delete old idempotency keys.
        """
        for count in itertools.count():
            await asyncio.sleep(HOUSEKEEPING_S)
            try:
                await self.pools.reload()
                await self.leases.refresh()
                for pool in list(self.pools.by_name.values()):
                    await self._answer_alarms(pool)
                    await self._append_defaults(pool)
                    await self.money_prices.refresh(pool.name, pool.router)
                if count % FORGET_EVERY == 0:
                    while await self.writer.write(_forget_keys):
                        pass
            except Exception:
                logger.exception("housekeeping failed and will be tried again")

    async def _answer_alarms(self, pool: Pool) -> None:
        """Append a reset for each drift alarm that has none in the log."""
        if pool.router is None or not pool.options.reset_on_drift:
            return
        snapshot = pool.router.snapshot
        alarms = snapshot.alarms()
        if not alarms:
            return
        now_us, policy = clock.now_us(), snapshot.policy_identity.id

        def work(connection: Connection) -> list[int]:
            return append_resets(
                connection, pool=pool.name, policy=policy, alarms=alarms, now_us=now_us
            )

        if await self.writer.write(work):
            logger.warning("pool %s: drift alarm, reset of %s", pool.name, ", ".join(alarms))

    async def _append_defaults(self, pool: Pool) -> None:
        """Append the pool's default quality to decisions that expired without a quality."""
        quality = pool.options.default_quality
        if quality is None:
            return
        now_us, since_us = clock.now_us(), self._defaulted_until_us.get(pool.name, 0)

        def work(connection: Connection) -> int:
            return default_expired(
                connection, pool=pool.name, quality=quality, now_us=now_us, since_us=since_us
            )

        while await self.writer.write(work) == DEFAULTS_AT_ONCE:
            pass
        self._defaulted_until_us[pool.name] = now_us


def _forget_keys(connection: Connection) -> int:
    """Delete old idempotency keys, a part at a time; return how many."""
    return forget(connection, now_us=clock.now_us())

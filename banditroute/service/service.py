"""What the daemon does, without HTTP: route, take feedback, keep pools.

A service lives in one event loop. It decides from snapshots, writes through the one writer and
never waits for the learner, except once: a new model is answered for when the policy knows it.
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
from banditroute.core.clock import now_us
from banditroute.core.errors import RouterFault, UnknownPool
from banditroute.learn.runner import LearnerLink
from banditroute.service import feedback as posting
from banditroute.service.budgets import BudgetService
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
FORGET_EVERY = 600


class Service:
    """The daemon's work.

    Parameters
    ----------
    settings : what was configured.
    engine : a database that `store.engine.prepare` has accepted.
    writer : the one writer of this process.
    learner : the link to the learner.
    claimed_file : the claim on a SQLite file, to be closed at the end.
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
        self._chores: asyncio.Task[None] | None = None
        # Up to when each pool's expired decisions have their default; a start looks at all.
        self._swept: dict[str, int] = {}

    async def start(self) -> None:
        """Start the pools and begin housekeeping."""
        await self.pools.start()
        await self.leases.start()
        self._chores = asyncio.create_task(self._housekeeping())

    async def stop(self) -> None:
        """Stop housekeeping and learner; commit what waits."""
        if self._chores is not None:
            self._chores.cancel()
        if self.writer.alive:
            try:
                await self.leases.stop()
            except Exception:
                logger.exception("leases stay open; the next start closes them")
        await self.learner.stop()
        await asyncio.to_thread(self.writer.close)
        self._engine.dispose()
        if self._claimed_file is not None:
            self._claimed_file.close()

    def missing(self) -> list[str]:
        """Return what keeps the daemon from answering; empty when it is ready."""
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
        """Return the JSON answer to a call, once its decisions are in the log."""
        call = RouteCall(requests, batch=batch, request_id=request_id, key=idempotency_key)
        return await self._routing.route(call)

    async def feedback(self, requests: Sequence[FeedbackRequest]) -> list[FeedbackResult]:
        """Store feedback and return what became of each, once durable.

        Raises
        ------
        RouterFault
            With the row that is wrong, where one is; nothing has been written then.
        """
        for i, request in enumerate(requests):
            if request.session_id is not None:
                try:
                    await self.pools.find(request.pool)
                except UnknownPool as fault:
                    fault.row = i
                    raise
        posts = [posting.read(request) for request in requests]

        def work(connection: Connection) -> list[FeedbackResult] | RouterFault:
            # Returned, not raised: a caller's mistake must not undo its neighbours' group.
            try:
                return posting.store(connection, posts, now=now_us())
            except RouterFault as mistake:
                return mistake

        became = await self.writer.write(work)
        if isinstance(became, RouterFault):
            raise became
        self.leases.refunded()
        self.metrics.fed_back([one.status for one in became])
        return became

    async def policy(self, pool_name: str) -> dict[str, Any]:
        """Return name, parameters, version and state digest of a pool's policy."""
        return await self.pools.policies.describe(await self.pools.find(pool_name))

    async def _housekeeping(self) -> None:
        """See changes made elsewhere, answer alarms, default what expired, drop old keys."""
        for count in itertools.count():
            await asyncio.sleep(HOUSEKEEPING_S)
            try:
                await self.pools.reload()
                await self.leases.refresh()
                for pool in list(self.pools.by_name.values()):
                    await self._answer_alarms(pool)
                    await self._default(pool)
                    await self.money_prices.refresh(pool.name, pool.router)
                if count % FORGET_EVERY == 0:
                    while await self.writer.write(lambda one: forget(one, now_us=now_us())):
                        pass
            except Exception:
                logger.exception("housekeeping failed and will be tried again")

    async def _answer_alarms(self, pool: Pool) -> None:
        """Append the resets that drift alarms call for; one that is in the log already is not."""
        if pool.router is None or not pool.options.reset_on_drift:
            return
        snapshot = pool.router.snapshot
        alarms = snapshot.alarms()
        if not alarms:
            return
        now, policy = now_us(), snapshot.policy_identity.id

        def work(connection: Connection) -> list[int]:
            return append_resets(
                connection, pool=pool.name, policy=policy, alarms=alarms, now_us=now
            )

        if await self.writer.write(work):
            logger.warning("pool %s: drift alarm, reset of %s", pool.name, ", ".join(alarms))

    async def _default(self, pool: Pool) -> None:
        quality = pool.options.default_quality
        if quality is None:
            return
        now, since = now_us(), self._swept.get(pool.name, 0)

        def work(connection: Connection) -> int:
            return default_expired(
                connection, pool=pool.name, quality=quality, now_us=now, since_us=since
            )

        while await self.writer.write(work) == DEFAULTS_AT_ONCE:
            pass
        self._swept[pool.name] = now

"""The policies of this process's pools: started in the log, and served from their snapshots.

A new pool's policy starts with its first request, because the scales that are frozen then depend
on all of its models. Snapshots come from the learner; before the first one a pool has no router.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sqlalchemy import Connection

from banditroute.core import clock
from banditroute.core.errors import NoEligibleModel, Unavailable
from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import PoolOptions, default_tau_cost_usd
from banditroute.decide.columns import Snapshot
from banditroute.decide.router import Router
from banditroute.features.embedding import FEATURES
from banditroute.learn.runner import LearnerLink
from banditroute.service.pool import Pool
from banditroute.service.views import policy_view
from banditroute.store.log import append_event, policy_identity
from banditroute.store.writer import Writer
from policies import full_params

POLICY_WAIT_S = 30.0


class Policies:
    """Starts policies, and swaps in the snapshots that the learner publishes.

    Parameters
    ----------
    pools : mapping of str to Pool
        The pools of this process; it may grow.
    writer : Writer
        The one writer of this process.
    learner : LearnerLink
        The link to the learner.
    rng : numpy.random.Generator
        Source of the routers' uniforms.
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        *,
        writer: Writer,
        learner: LearnerLink,
        rng: np.random.Generator,
    ) -> None:
        self._pools, self._writer, self._learner, self._rng = pools, writer, learner, rng
        self._delivered: dict[str, Snapshot] = {}
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Start the learner, and wait for the policies of all pools that have models."""
        await self._learner.start(self._deliver)
        for pool in self._pools.values():
            if pool.models:
                # Without a limit: before the log is folded no request can be answered.
                await self.started(pool, patience_s=None)

    async def started(self, pool: Pool, *, patience_s: float | None = POLICY_WAIT_S) -> None:
        """Return once the pool's policy has started and the pool has a router.

        Parameters
        ----------
        pool : Pool
            A pool with models.
        patience_s : float or None
            Seconds to wait for the snapshot; None waits without limit.

        Raises
        ------
        NoEligibleModel
            When the pool has no models.
        Unavailable
            When the snapshot does not come in time.
        """
        if pool.router is not None:
            return
        if not pool.models:
            raise NoEligibleModel("the pool has no models", param="pool")
        async with pool.starting:
            identity = _configured_identity(pool)

            def start(connection: Connection) -> None:
                # Several replicas may do this at once: only the first appends the event.
                current = policy_identity(connection, pool.name)
                if current is None or _differs(current[1], identity, pool.options):
                    append_event(
                        connection,
                        pool=pool.name,
                        kind="policy_started",
                        payload=identity.payload(),
                        now_us=clock.now_us(),
                    )

            await self._writer.write(start)
            await self._wait_until(lambda: self._serves(pool, identity), patience_s=patience_s)

    async def knows(self, pool: Pool, model: str) -> None:
        """Wait until the pool's router can choose a new model; return at once without a router."""

        def can_choose() -> bool:
            router = pool.router
            return router is None or any(m.name == model for m in router.columns.models)

        await self._wait_until(can_choose)

    async def describe(self, pool: Pool) -> dict[str, Any]:
        """Return name, parameters, version and state digest of a pool's policy."""
        await self.started(pool)
        state = await self._learner.status(pool.name)
        if state is None or pool.router is None:
            raise Unavailable("the policy is starting")
        return policy_view(pool.name, pool.router.snapshot, state)

    def snapshots(self) -> dict[str, Snapshot]:
        """Return the snapshot that each pool decides from."""
        return {name: pool.router.snapshot for name, pool in self._pools.items() if pool.router}

    def _serves(self, pool: Pool, identity: PolicyIdentity) -> bool:
        """Return whether the pool has a router of this policy; make it if its snapshot is here."""
        snapshot = self._delivered.get(pool.name)
        if snapshot is None or snapshot.policy_identity.id != identity.id:
            return False
        if pool.router is None:
            pool.router = Router(
                options=pool.options, snapshot=snapshot, models=pool.models, rng=self._rng
            )
        return True

    def _deliver(self, pool_name: str, snapshot: Snapshot) -> None:
        """Swap in a snapshot that the learner published."""
        self._delivered[pool_name] = snapshot
        pool = self._pools.get(pool_name)
        if pool is not None and pool.router is not None:
            pool.router.swap(snapshot=snapshot)
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait_until(
        self, done: Callable[[], bool], *, patience_s: float | None = POLICY_WAIT_S
    ) -> None:
        """Wait for snapshots until `done()`; raise `Unavailable` when that takes too long."""
        try:
            async with asyncio.timeout(patience_s):
                while not done():
                    await self._changed.wait()
        except TimeoutError:
            raise Unavailable("the learner is behind") from None


def _configured_identity(pool: Pool) -> PolicyIdentity:
    """Return the identity of the policy in the pool's settings."""
    options = pool.options
    return PolicyIdentity(
        policy=options.policy.name,
        params=full_params(options.policy.name, options.policy.params),
        embedder=pool.features,
        dim=FEATURES + len(options.tasks),
        tau_cost_usd=options.tau_cost or default_tau_cost_usd(pool.models),
        tau_latency_ms=options.tau_latency_ms,
        prior=pool.prior.text() if pool.prior else "",
    )


def _differs(current: PolicyIdentity, configured: PolicyIdentity, options: PoolOptions) -> bool:
    """Return whether the settings ask for another policy than the current one."""
    if current.id != configured.id or current.tau_latency_ms != configured.tau_latency_ms:
        return True
    return options.tau_cost is not None and options.tau_cost != current.tau_cost_usd

"""The pools of this process: their models and prices, and the snapshot that each decides from.

SQL is the truth; this is what one process has read of it, and another may have changed it since:
what is not known, or is to be changed, is read again first. A pool's policy starts with its first
request, so that the scales it freezes know all models, and a new model can be chosen from the
moment on that the policy knows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection

from banditroute.contract.schemas import ModelChange, NewModel
from banditroute.core.clock import now_us
from banditroute.core.errors import NoEligibleModel, Unavailable, UnknownModel, UnknownPool
from banditroute.core.policy_identity import PolicyIdentity, digest
from banditroute.core.pool import Model, ModelSpec, PoolOptions, default_tau_cost_usd
from banditroute.decide.columns import Snapshot
from banditroute.decide.router import Router
from banditroute.features import tasks
from banditroute.features.embedding import FEATURES, Embedder, make_embedder
from banditroute.learn.prior import Prior, fitting
from banditroute.learn.runner import LearnerLink
from banditroute.service.refusals import exists
from banditroute.service.views import model_view, properties_view
from banditroute.settings import Settings
from banditroute.store import pools
from banditroute.store.log import Log, append_event, policy_identity
from banditroute.store.writer import Writer
from policies import full_params

POLICY_WAIT_S = 30.0


class Pool:
    """One pool as this process knows it."""

    def __init__(
        self,
        name: str,
        revision: int,
        options: PoolOptions,
        models: list[Model],
        embedder: Embedder,
        prior: Prior | None = None,
    ) -> None:
        self.name, self.revision, self.options = name, revision, options
        self.models, self.embedder, self.prior = models, embedder, prior
        self.router: Router | None = None
        self.starting = asyncio.Lock()

    @property
    def version(self) -> int:
        """Log position of the snapshot in use, -1 before there is one."""
        return self.router.snapshot.version if self.router else -1

    @property
    def features(self) -> str:
        """Identity of the features that its policy reads."""
        return tasks.identity(self.embedder.identity, self.options.tasks)


class Pools:
    """Pools by name.

    Parameters
    ----------
    settings : what was configured.
    log : the store, for reading.
    writer : the one writer of this process.
    learner : the link to the learner.
    rng : source of the routers' uniforms.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        log: Log,
        writer: Writer,
        learner: LearnerLink,
        rng: np.random.Generator,
    ) -> None:
        self.pools: dict[str, Pool] = {}
        self._settings, self.log, self._writer, self._rng = settings, log, writer, rng
        self._learner = learner
        self._embedders: dict[tuple[str, int | None, str | None], Embedder] = {}
        self._delivered: dict[str, Snapshot] = {}
        self._changed = asyncio.Event()
        self._reloading = asyncio.Lock()

    async def start(self) -> None:
        """Bring pools up to the settings, start the learner and wait for the policies."""
        await self._writer.write(self._sync_file)
        await self.reload()
        await self._learner.start(self._deliver)
        for pool in self.pools.values():
            if pool.models:
                # However long a log is to be learned again: there is nothing to answer before.
                await self.started(pool, patience=None)

    def missing(self) -> list[str]:
        """Return what keeps these pools from deciding; empty when nothing does."""
        return [
            f"pool {pool.name} has no policy snapshot"
            for pool in self.pools.values()
            if pool.models and pool.router is None and pool.name in self._settings.pools
        ]

    def snapshots(self) -> dict[str, Snapshot]:
        """Return the snapshot that each pool decides from."""
        return {name: pool.router.snapshot for name, pool in self.pools.items() if pool.router}

    async def prospect(self, name: str) -> Pool:
        """Return a pool, or what it would be if a model were added to it."""
        await self.reload()
        known = self.pools.get(name)
        if known is not None:
            return known
        options = self._settings.options_of(name)
        try:
            return await asyncio.to_thread(self._open, name, 0, options, [])
        except ValueError as error:
            raise Unavailable(str(error)) from error

    async def add_model(self, new: NewModel, *, prior: str = "") -> dict[str, Any]:
        """Add a model to a pool, made with default settings if it is missing.

        Parameters
        ----------
        new : the model.
        prior : text of the `Prior` that teaches it, "" for none.
        """
        spec = ModelSpec.model_validate(new.model_dump(include=set(ModelSpec.model_fields)))
        optimism = (await self.prospect(new.pool)).options.newcomer_optimism
        now = now_us()

        def work(connection: Connection) -> bool:
            pools.ensure_pool(connection, new.pool, options=None, now=now)
            return pools.add_model(
                connection,
                new.pool,
                spec,
                source="api",
                now=now,
                prior=prior,
                optimism=optimism,
            )

        if not await self._writer.write(work):
            raise exists(new)
        await self.reload()
        pool = self.pools[new.pool]
        if pool.router is not None:
            await self._until(
                lambda: (
                    pool.router is not None
                    and any(m.name == new.name for m in pool.router.columns.models)
                )
            )
        return model_view(self._model(pool, new.name))

    async def change_model(self, pool_name: str, name: str, change: ModelChange) -> dict[str, Any]:
        """Change a model; a price takes effect with the next decision."""
        await self.reload()
        self._model(self.pool(pool_name), name)
        fields = change.model_dump(exclude_none=True)
        now = now_us()

        def work(connection: Connection) -> None:
            # What is not sent stays as SQL has it by now, not as this process saw it last.
            (old,) = (m for m in pools.load_pools(connection)[pool_name][2] if m.name == name)
            before = {key: getattr(old, key) for key in ModelChange.model_fields}
            before["capabilities"] = sorted(old.capabilities)
            spec = ModelSpec.model_validate({"name": name} | before | fields)
            if fields.keys() & {"input_price", "output_price"}:
                pools.set_price(connection, pool_name, spec, source="api", now=now)
            if fields.keys() - {"input_price", "output_price"}:
                pools.describe_model(connection, pool_name, spec)

        await self._writer.write(work)
        await self.reload()
        return model_view(self._model(self.pool(pool_name), name))

    async def drain_model(self, pool_name: str, name: str) -> dict[str, Any]:
        """Stop choosing a model; what it has taught stays."""
        await self.reload()
        self._model(self.pool(pool_name), name)
        now = now_us()
        await self._writer.write(
            lambda connection: pools.drain_model(connection, pool_name, name, now=now)
        )
        await self.reload()
        return model_view(self._model(self.pool(pool_name), name))

    async def models(self, pool_name: str) -> list[dict[str, Any]]:
        """Return the models of a pool with the prices in force."""
        await self.reload()
        return [model_view(model) for model in self.pool(pool_name).models]

    async def policy(self, pool_name: str) -> dict[str, Any]:
        """Return name, parameters, version and state digest of a pool's policy."""
        pool = await self.found(pool_name)
        await self.started(pool)
        state = await self._learner.status(pool_name)
        if state is None or pool.router is None:
            raise Unavailable("the policy is starting")
        policy_identity = pool.router.snapshot.policy_identity
        own = {"pool": pool_name, "name": policy_identity.policy, "params": policy_identity.params}
        scales = {
            "tau_cost": policy_identity.tau_cost_usd,
            "tau_latency_ms": policy_identity.tau_latency_ms,
        }
        rest = {"embedder": policy_identity.embedder, "serving_version": pool.version}
        rest["prior"] = digest(policy_identity.prior) or None
        return own | state | scales | rest

    async def found(self, name: str, *, models: Sequence[str] = (), path: str = "") -> Pool:
        """Return a pool; SQL is asked for one, or for `models` of it, that are not known here."""
        known = self.pools.get(name)
        if known is None or (models and set(models) - {model.name for model in known.models}):
            await self.reload()
        return self.pool(name, path)

    def pool(self, name: str, path: str = "") -> Pool:
        """Return a pool that is known here; raise `UnknownPool` for another."""
        try:
            return self.pools[name]
        except KeyError:
            raise UnknownPool(name, param=f"{path}pool") from None

    @staticmethod
    def _model(pool: Pool, name: str) -> Model:
        for model in pool.models:
            if model.name == name:
                return model
        raise UnknownModel(pool.name, name)

    def _sync_file(self, connection: Connection) -> None:
        """Create what the settings file names; a price of the file holds when the file moved it."""
        now = now_us()
        for name, wanted in self._settings.pools.items():
            optimism = self._settings.options_of(name).newcomer_optimism
            pools.ensure_pool(connection, name, options=self._settings.own_options(name), now=now)
            known = {m.name: m for m in pools.load_pools(connection)[name][2]}
            for spec in wanted.models:
                if spec.name not in known:
                    pools.add_model(
                        connection, name, spec, source="file", now=now, optimism=optimism
                    )
                    continue
                price = spec.input_price, spec.output_price
                if pools.file_price(connection, name, spec.name) != price:
                    pools.set_price(connection, name, spec, source="file", now=now)
                if properties_view(known[spec.name]) != properties_view(spec):
                    pools.describe_model(connection, name, spec)

    async def reload(self) -> None:
        """Take over pools, models and prices as SQL has them."""
        # One at a time: an older reading must not undo what a newer one has taken over.
        async with self._reloading:
            await self._reload()

    async def _reload(self) -> None:
        known_at = {name: pool.revision for name, pool in self.pools.items()}
        loaded = await asyncio.to_thread(self._load, known_at)
        for name, (revision, kept, models) in loaded.items():
            known = self.pools.get(name)
            if known is None:
                options = self._settings.options_of(name, kept)
                self.pools[name] = await asyncio.to_thread(
                    self._open, name, revision, options, models
                )
            elif known.revision != revision:
                known.revision, known.models = revision, models
                if known.router is not None:
                    known.router.swap(models=models)

    def _load(self, known_at: dict[str, int]) -> dict[str, tuple[int, dict[str, Any], list[Model]]]:
        """Return all pools, or none when they are still at the revisions that are known."""
        with self.log.engine.connect() as connection:
            if pools.revisions(connection) == known_at:
                return {}
            return pools.load_pools(connection)

    def _open(self, name: str, revision: int, options: PoolOptions, models: list[Model]) -> Pool:
        """Return a pool with its embedder and its prior; one that does not fit is a ValueError."""
        try:
            prior = fitting(options)
            pool = Pool(name, revision, options, models, self._embedder(options, prior), prior)
            if prior is not None:
                prior.belongs_to(pool.features)
        except ValueError as error:
            about_prior = str(error).startswith("prior: ")
            raise ValueError(f"pools.{name}{'.' if about_prior else ': '}{error}") from error
        return pool

    def _embedder(self, options: PoolOptions, prior: Prior | None) -> Embedder:
        basis = prior.basis if prior else None
        at = (options.embedder, options.embedding_dim, options.prior if basis else None)
        if at not in self._embedders:
            self._embedders[at] = make_embedder(
                options.embedder, dim=options.embedding_dim, basis=basis
            )
        return self._embedders[at]

    async def started(self, pool: Pool, *, patience: float | None = POLICY_WAIT_S) -> None:
        """See that the pool's policy has started and that its snapshot is here.

        Parameters
        ----------
        pool : a pool with models.
        patience : seconds to wait for the snapshot, then `Unavailable`; None waits for ever.
        """
        if pool.router is not None:
            return
        if not pool.models:
            raise NoEligibleModel("the pool has no models", param="pool")
        async with pool.starting:
            wanted = self._wanted_identity(pool)

            def start(connection: Connection) -> None:
                # Replicas start together, and one of them is first.
                current = policy_identity(connection, pool.name)
                if current is None or _differs(current[1], wanted, pool.options):
                    payload, now = wanted.payload(), now_us()
                    append_event(
                        connection, pool=pool.name, kind="policy_started", payload=payload, now=now
                    )

            await self._writer.write(start)
            await self._until(lambda: self._serves(pool, wanted), patience=patience)

    def _serves(self, pool: Pool, wanted: PolicyIdentity) -> bool:
        snapshot = self._delivered.get(pool.name)
        if snapshot is None or snapshot.policy_identity.id != wanted.id:
            return False
        if pool.router is None:
            pool.router = Router(
                options=pool.options, snapshot=snapshot, models=pool.models, rng=self._rng
            )
        return True

    def _wanted_identity(self, pool: Pool) -> PolicyIdentity:
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

    def _deliver(self, pool_name: str, snapshot: Snapshot) -> None:
        """Swap in a snapshot that the learner published."""
        self._delivered[pool_name] = snapshot
        pool = self.pools.get(pool_name)
        if pool is not None and pool.router is not None:
            pool.router.swap(snapshot=snapshot)
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(
        self, done: Callable[[], bool], *, patience: float | None = POLICY_WAIT_S
    ) -> None:
        """Wait for snapshots until `done()`; raise `Unavailable` when that takes too long."""
        try:
            async with asyncio.timeout(patience):
                while not done():
                    await self._changed.wait()
        except TimeoutError:
            raise Unavailable("the learner is behind") from None


def _differs(current: PolicyIdentity, wanted: PolicyIdentity, options: PoolOptions) -> bool:
    if current.id != wanted.id or current.tau_latency_ms != wanted.tau_latency_ms:
        return True
    return options.tau_cost is not None and options.tau_cost != current.tau_cost_usd

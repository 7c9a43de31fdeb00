"""The pools of this process, their models and prices.

SQL is the truth: this module has what one process has read of it, and another process may have
changed it since. So SQL is read again before a change, and for a name that is unknown here. A new
model can be chosen once the policy knows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection

from banditroute.contract.schemas import ModelChange, NewModel
from banditroute.core import clock
from banditroute.core.errors import Unavailable, UnknownModel, UnknownPool
from banditroute.core.pool import Model, ModelSpec, PoolOptions
from banditroute.features.embedding import Embedder, make_embedder
from banditroute.learn.prior import Prior, configured_prior
from banditroute.learn.runner import LearnerLink
from banditroute.service.policies import Policies
from banditroute.service.pool import Pool
from banditroute.service.refusals import exists
from banditroute.service.views import model_view, properties_view
from banditroute.settings import Settings
from banditroute.store import pools as stored
from banditroute.store.log import Log
from banditroute.store.writer import Writer


class Pools:
    """Pools by name.

    Parameters
    ----------
    settings : Settings
        The configuration.
    log : Log
        The store, for reading.
    writer : Writer
        The one writer of this process.
    learner : LearnerLink
        The link to the learner.
    rng : numpy.random.Generator
        Source of the routers' uniforms.

    Attributes
    ----------
    by_name : dict of str to Pool
        The pools that this process has read.
    policies : Policies
        The policies of these pools.
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
        self.by_name: dict[str, Pool] = {}
        self.policies = Policies(self.by_name, writer=writer, learner=learner, rng=rng)
        self.log = log
        self._settings, self._writer = settings, writer
        self._embedders: dict[tuple[str, int | None, str | None], Embedder] = {}
        self._reloading = asyncio.Lock()

    async def start(self) -> None:
        """Make the pools, models and prices of the settings, and start the policies."""
        await self._writer.write(self._apply_settings)
        await self.reload()
        await self.policies.start()

    def missing(self) -> list[str]:
        """Return what keeps the configured pools from deciding; empty when nothing does."""
        return [
            f"pool {pool.name} has no policy snapshot"
            for pool in self.by_name.values()
            if pool.models and pool.router is None and pool.name in self._settings.pools
        ]

    async def find(self, name: str, *, models: Sequence[str] = (), path: str = "") -> Pool:
        """Return a pool; read SQL again if the pool, or a model of it, is unknown here.

        Parameters
        ----------
        name : str
            The pool's name.
        models : sequence of str
            Models that the request names.
        path : str
            Path of the request in the body; an error puts it before ``pool``.

        Raises
        ------
        UnknownPool
            When SQL has no pool of this name.
        """
        pool = self.by_name.get(name)
        if pool is None or (models and set(models) - {model.name for model in pool.models}):
            await self.reload()
        try:
            return self.by_name[name]
        except KeyError:
            raise UnknownPool(name, param=f"{path}pool") from None

    async def find_or_preview(self, name: str) -> Pool:
        """Return a pool; a missing one as it would be if a model were added to it."""
        await self.reload()
        pool = self.by_name.get(name)
        if pool is not None:
            return pool
        options = self._settings.options_of(name)
        try:
            return await asyncio.to_thread(self._open, name, 0, options, [])
        except ValueError as error:
            raise Unavailable(str(error)) from error

    async def models(self, pool_name: str) -> list[dict[str, Any]]:
        """Return the models of a pool with the prices in force."""
        return [model_view(model) for model in (await self._fresh(pool_name)).models]

    async def add_model(self, new: NewModel, *, prior: str = "") -> dict[str, Any]:
        """Add a model to a pool, which is made with default settings if it is missing.

        Parameters
        ----------
        new : NewModel
            The model.
        prior : str
            Text of the `Prior` that teaches it, "" for none.

        Returns
        -------
        dict
            The model as the HTTP API shows it, once it can be chosen.

        Raises
        ------
        Exists
            If the pool has a model of this name that is not draining.
        """
        spec = ModelSpec.model_validate(new.model_dump(include=set(ModelSpec.model_fields)))
        optimism = (await self.find_or_preview(new.pool)).options.newcomer_optimism
        now_us = clock.now_us()

        def work(connection: Connection) -> bool:
            stored.ensure_pool(connection, new.pool, options=None, now_us=now_us)
            return stored.add_model(
                connection,
                new.pool,
                spec,
                source="api",
                now_us=now_us,
                prior=prior,
                optimism=optimism,
            )

        if not await self._writer.write(work):
            raise exists(new)
        pool = await self._fresh(new.pool)
        await self.policies.knows(pool, new.name)
        return model_view(_model(pool, new.name))

    async def change_model(self, pool_name: str, name: str, change: ModelChange) -> dict[str, Any]:
        """Change a model; a price takes effect with the next decision."""
        _model(await self._fresh(pool_name), name)
        fields = change.model_dump(exclude_none=True)
        now_us = clock.now_us()

        def work(connection: Connection) -> None:
            # Read again here: a field that was not sent keeps its value of this very moment.
            (old,) = (m for m in stored.load_pools(connection)[pool_name][2] if m.name == name)
            before = {key: getattr(old, key) for key in ModelChange.model_fields}
            before["capabilities"] = sorted(old.capabilities)
            spec = ModelSpec.model_validate({"name": name} | before | fields)
            if fields.keys() & {"input_price", "output_price"}:
                stored.set_price(connection, pool_name, spec, source="api", now_us=now_us)
            if fields.keys() - {"input_price", "output_price"}:
                stored.describe_model(connection, pool_name, spec)

        await self._writer.write(work)
        return model_view(_model(await self._fresh(pool_name), name))

    async def drain_model(self, pool_name: str, name: str) -> dict[str, Any]:
        """Stop choosing a model; what was learned of it stays."""
        _model(await self._fresh(pool_name), name)
        now_us = clock.now_us()
        await self._writer.write(
            lambda connection: stored.drain_model(connection, pool_name, name, now_us=now_us)
        )
        return model_view(_model(await self._fresh(pool_name), name))

    async def reload(self) -> None:
        """Take over pools, models and prices as SQL has them."""
        # One reading at a time: an older one must not undo what a newer one has taken over.
        async with self._reloading:
            revisions = {name: pool.revision for name, pool in self.by_name.items()}
            loaded = await asyncio.to_thread(self._load, revisions)
            for name, (revision, options, models) in loaded.items():
                await self._take_over(name, revision, options, models)

    async def _fresh(self, name: str) -> Pool:
        """Return a pool as SQL has it now."""
        await self.reload()
        return await self.find(name)

    async def _take_over(
        self, name: str, revision: int, kept_options: dict[str, Any], models: list[Model]
    ) -> None:
        pool = self.by_name.get(name)
        if pool is None:
            options = self._settings.options_of(name, kept_options)
            self.by_name[name] = await asyncio.to_thread(
                self._open, name, revision, options, models
            )
        elif pool.revision != revision:
            pool.revision, pool.models = revision, models
            if pool.router is not None:
                pool.router.swap(models=models)

    def _load(
        self, revisions: dict[str, int]
    ) -> dict[str, tuple[int, dict[str, Any], list[Model]]]:
        """Return all pools, or none if their revisions are still `revisions`."""
        with self.log.engine.connect() as connection:
            if stored.revisions(connection) == revisions:
                return {}
            return stored.load_pools(connection)

    def _apply_settings(self, connection: Connection) -> None:
        """Make the pools, models and prices of the settings file.

        A price takes effect only if it has changed in the file. So a price that was set over HTTP
        survives a restart.
        """
        now_us = clock.now_us()
        for name, configured in self._settings.pools.items():
            optimism = self._settings.options_of(name).newcomer_optimism
            stored.ensure_pool(
                connection, name, options=self._settings.own_options(name), now_us=now_us
            )
            models = {m.name: m for m in stored.load_pools(connection)[name][2]}
            for spec in configured.models:
                if spec.name not in models:
                    stored.add_model(
                        connection, name, spec, source="file", now_us=now_us, optimism=optimism
                    )
                    continue
                price = spec.input_price, spec.output_price
                if stored.file_price(connection, name, spec.name) != price:
                    stored.set_price(connection, name, spec, source="file", now_us=now_us)
                if properties_view(models[spec.name]) != properties_view(spec):
                    stored.describe_model(connection, name, spec)

    def _open(self, name: str, revision: int, options: PoolOptions, models: list[Model]) -> Pool:
        """Return a pool with its embedder and its prior; raise ValueError if they do not fit."""
        try:
            prior = configured_prior(options)
            pool = Pool(name, revision, options, models, self._embedder(options, prior), prior)
            if prior is not None:
                prior.check_embedder(pool.features)
        except ValueError as error:
            about_prior = str(error).startswith("prior: ")
            raise ValueError(f"pools.{name}{'.' if about_prior else ': '}{error}") from error
        return pool

    def _embedder(self, options: PoolOptions, prior: Prior | None) -> Embedder:
        """Return the embedder that the options ask for; pools with the same one share it."""
        basis = prior.basis if prior else None
        key = (options.embedder, options.embedding_dim, options.prior if basis else None)
        if key not in self._embedders:
            self._embedders[key] = make_embedder(
                options.embedder, dim=options.embedding_dim, basis=basis
            )
        return self._embedders[key]


def _model(pool: Pool, name: str) -> Model:
    for model in pool.models:
        if model.name == name:
            return model
    raise UnknownModel(pool.name, name)

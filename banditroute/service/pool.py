"""A pool: its models and settings, as this process has read them last."""

from __future__ import annotations

import asyncio

from banditroute.core.pool import Model, PoolOptions
from banditroute.decide.router import Router
from banditroute.features import tasks
from banditroute.features.embedding import Embedder
from banditroute.learn.prior import Prior


class Pool:
    """A pool's models and settings, and the router that decides for it.

    Parameters
    ----------
    name : str
        The pool's name.
    revision : int
        Revision of its row in SQL; another revision means that models or prices have changed.
    options : PoolOptions
        Its settings.
    models : list of Model
        Its models with the prices in force.
    embedder : Embedder
        Turns prompts into features.
    prior : Prior, optional
        The prior that its policy starts from.

    Attributes
    ----------
    router : Router or None
        None until the policy has started and a snapshot of it is here.
    starting : asyncio.Lock
        Held by the request that starts the policy.
    """

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

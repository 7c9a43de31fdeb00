"""The daemon in one process: the learner runs in a thread beside the event loop.

The learner must never call into the event loop but by `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import Engine
from starlette.applications import Starlette

from banditroute.api.app import create_app
from banditroute.learn.fold import Fold
from banditroute.learn.runner import CheckpointKeeper, Deliver, LearnerLink, LearnerLoop
from banditroute.serve.compose import make_service
from banditroute.settings import Settings
from banditroute.store.checkpoint_lease import CheckpointLease
from banditroute.store.log import Log
from banditroute.store.writer import Writer


def local_app(settings: Settings) -> Starlette:
    """Return the app, with the learner in a thread of this process.

    Parameters
    ----------
    settings : Settings
        The configuration.
    """

    def learner(engine: Engine, writer: Writer) -> LearnerLink:
        lease = CheckpointLease(writer.write_now)
        return LocalLearner(Log(engine), keeper=lease, every_s=settings.publish_ms / 1e3)

    return create_app(lambda: make_service(settings, learner))


class LocalLearner:
    """The learner in a thread of this process; implements `LearnerLink`.

    Parameters
    ----------
    log : Log
        The store, for reading.
    keeper : CheckpointKeeper
        Stores the learner's checkpoints.
    every_s : float
        Least number of seconds between two snapshots of a pool.
    """

    def __init__(self, log: Log, *, keeper: CheckpointKeeper, every_s: float) -> None:
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._deliver: Deliver | None = None
        self._learner = LearnerLoop(log, keeper=keeper, publish=self._publish, interval_s=every_s)

    async def start(self, deliver: Deliver) -> None:
        """See `LearnerLink.start`."""
        self._event_loop, self._deliver = asyncio.get_running_loop(), deliver
        self._learner.thread.start()

    def wake(self) -> None:
        """See `LearnerLink.wake`."""
        self._learner.wake()

    async def status(self, pool: str) -> dict[str, Any] | None:
        """See `LearnerLink.status`."""
        return await asyncio.to_thread(self._learner.status, pool)

    def alive(self) -> bool:
        """See `LearnerLink.alive`."""
        return self._learner.healthy

    async def stop(self) -> None:
        """See `LearnerLink.stop`."""
        await asyncio.to_thread(self._learner.stop)

    def _publish(self, pool: str, fold: Fold) -> None:
        snapshot = fold.snapshot()
        loop = self._event_loop
        if loop is not None and self._deliver is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._deliver, pool, snapshot)

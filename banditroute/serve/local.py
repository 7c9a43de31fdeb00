"""In one process: the app, with the learner in a thread beside it."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import Engine
from starlette.applications import Starlette

from banditroute.api.app import create_app
from banditroute.learn.fold import Fold
from banditroute.learn.runner import Deliver, Keeper, LearnerLink, LearnerLoop
from banditroute.serve.compose import make_service
from banditroute.settings import Settings
from banditroute.store.checkpoint_lease import CheckpointLease
from banditroute.store.log import Log
from banditroute.store.writer import Writer


def local_app(settings: Settings) -> Starlette:
    """Return the app with the learner in a thread of this process."""

    def learner(engine: Engine, writer: Writer) -> LearnerLink:
        lease = CheckpointLease(writer.write_now)
        return LocalLearner(Log(engine), keeper=lease, every=settings.publish_ms / 1e3)

    return create_app(lambda: make_service(settings, learner))


class LocalLearner:
    """The learner in a thread of this process; implements `LearnerLink`."""

    def __init__(self, log: Log, *, keeper: Keeper, every: float) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deliver: Deliver | None = None
        self._host = LearnerLoop(log, keeper=keeper, published=self._publish, every=every)

    async def start(self, deliver: Deliver) -> None:
        """See `LearnerLink`."""
        self._loop, self._deliver = asyncio.get_running_loop(), deliver
        self._host.thread.start()

    def wake(self) -> None:
        """See `LearnerLink`."""
        self._host.wake()

    async def status(self, pool: str) -> dict[str, Any] | None:
        """See `LearnerLink`."""
        return await asyncio.to_thread(self._host.status, pool)

    def alive(self) -> bool:
        """See `LearnerLink`."""
        return self._host.well

    async def stop(self) -> None:
        """See `LearnerLink`."""
        await asyncio.to_thread(self._host.stop)

    def _publish(self, pool: str, fold: Fold) -> None:
        snapshot = fold.snapshot()
        if self._loop is not None and self._deliver is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, pool, snapshot)

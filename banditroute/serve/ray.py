"""On Ray Serve: the application, and the learner as an actor beside it.

`build_app` is what ``serve run`` and ``serve deploy`` take. Each replica is the same Starlette app
around a `Service` of its own; the learner is one detached, named actor that Ray restarts when it
dies. While it is away, replicas decide from their last snapshot and go on storing feedback.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection
from starlette.applications import Starlette

from banditroute import __version__
from banditroute.api.app import create_app
from banditroute.core.policy_identity import PolicyIdentity
from banditroute.learn.fold import Fold, install
from banditroute.learn.prior import pack, unpack
from banditroute.learn.runner import Deliver, LearnerLoop
from banditroute.serve.compose import check_replicas, make_service
from banditroute.settings import Settings, load_settings
from banditroute.store.checkpoint_lease import CheckpointLease
from banditroute.store.engine import WRITER, open_engine
from banditroute.store.log import Log

logger = logging.getLogger("banditroute")
T = TypeVar("T")
NAMESPACE = "banditroute"
APP_NAME = "banditroute"
POLL_S = 10.0

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "2",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Must be set before Ray is imported; what the operator has set stays."""


class LearnerActor:
    """The learner's host on Ray: folds in a thread, answers long polls in its event loop."""

    def __init__(self, database: str, every: float) -> None:
        engine = open_engine(database)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._views: dict[str, tuple[int, dict[str, Any], bytes]] = {}
        self._changed = asyncio.Event()

        def write(work: Callable[[Connection], T], *, durable: bool) -> T:
            with engine.connect().execution_options(**WRITER) as connection, connection.begin():
                return work(connection)

        lease = CheckpointLease(write)
        self._host = LearnerLoop(Log(engine), keeper=lease, published=self._publish, every=every)
        self._host.thread.start()

    def _publish(self, pool: str, fold: Fold) -> None:
        self._views[pool] = (fold.version, fold.policy_identity.payload(), pack(fold.publish()))
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._changed.set)

    async def poll(self, known: dict[str, int]) -> dict[str, tuple[int, dict[str, Any], bytes]]:
        """Return the published views newer than `known`, as soon as there are any."""
        self._loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                while not (fresh := self._newer(known)):
                    self._changed.clear()
                    await self._changed.wait()
                return fresh
        return {}

    def _newer(self, known: dict[str, int]) -> dict[str, tuple[int, dict[str, Any], bytes]]:
        return {
            pool: view for pool, view in list(self._views.items()) if view[0] > known.get(pool, -1)
        }

    async def status(self, pool: str) -> dict[str, Any] | None:
        """Return version, learned outcomes and digest of a pool's fold."""
        return await asyncio.to_thread(self._host.status, pool)


class RayLearner:
    """The link of a replica to the `LearnerActor`; implements `LearnerLink`."""

    def __init__(self, database: str, every: float) -> None:
        self._database, self._every = database, every
        self._actor: Any = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, deliver: Deliver) -> None:
        """See `LearnerLink`."""
        self._actor = learner_actor(self._database, self._every)
        self._task = asyncio.create_task(self._follow(deliver))

    async def _follow(self, deliver: Deliver) -> None:
        known: dict[str, int] = {}
        while True:
            try:
                fresh = await self._actor.poll.remote(known)
                for pool, (version, payload, view) in fresh.items():
                    identity = PolicyIdentity.from_payload(payload)
                    deliver(pool, install(identity, version, unpack(view)))
                    known[pool] = version
            except Exception as error:
                logger.warning("the learner is away (%s); trying again", type(error).__name__)
                await asyncio.sleep(0.25)

    def wake(self) -> None:
        """See `LearnerLink`: nothing to do, the actor looks at the log every tick."""

    async def status(self, pool: str) -> dict[str, Any] | None:
        """See `LearnerLink`."""
        state: dict[str, Any] | None = await self._actor.status.remote(pool)
        return state

    def alive(self) -> bool:
        """See `LearnerLink`."""
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        """See `LearnerLink`: the actor outlives its replicas."""
        if self._task is not None:
            self._task.cancel()


def learner_name(database: str, every: float) -> str:
    """Return a name of its own for each log, setting and version: an actor outlives a deploy."""
    shaping = f"{database} {every} {__version__}"
    return f"learner-{hashlib.sha256(shaping.encode()).hexdigest()[:12]}"


def learner_actor(database: str, every: float) -> Any:
    """Return the handle of the one learner, started if need be."""
    import ray

    return (
        ray.remote(LearnerActor)
        .options(
            name=learner_name(database, every),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=1000,
            num_cpus=0,
        )
        .remote(database, every)
    )


def build_app(args: dict[str, Any]) -> Any:
    """Return the Serve application.

    Parameters
    ----------
    args : ``{"config": FILE}``, or settings by name; neither means the demo pool.

    Raises
    ------
    ValueError
        For more than one replica on SQLite, which one process must own.
    """
    config = args.get("config")
    flags = {key: value for key, value in args.items() if key != "config"}
    return application(load_settings(Path(config) if config else None, **flags))


def application(settings: Settings) -> Any:
    """Return the Serve application for settings that are loaded; see `build_app`."""
    from ray import serve

    check_replicas(settings)
    every = settings.publish_ms / 1e3

    def make_app() -> Starlette:
        return create_app(
            lambda: make_service(settings, lambda *_: RayLearner(settings.database, every))
        )

    logging_config = {"enable_access_log": False, "log_level": "WARNING"}

    @serve.deployment(
        name="Ingress",
        num_replicas=settings.replicas,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0.1},
        logging_config=logging_config,
    )
    @serve.ingress(make_app)
    class Ingress:
        """One replica: HTTP, a service and its writer."""

    return Ingress.bind()  # type: ignore[attr-defined]

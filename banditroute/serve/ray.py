"""The daemon on Ray Serve: replicas of the app, and the learner as an actor beside them.

``serve run`` and ``serve deploy`` take `build_app`. Each replica is the same Starlette app around
its own `Service`. The learner is one detached, named actor, which Ray restarts when it dies.
Meanwhile the replicas decide from their last snapshot and go on storing feedback.
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
QUIET = {"enable_access_log": False, "log_level": "WARNING"}
"""Ray Serve's logging."""

POLL_S = 10.0
"""How long the learner holds a poll open when there is nothing new."""

RETRY_S = 0.25
"""Pause of a replica before it polls again after a failure."""

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
"""To be set before Ray is imported; a variable that the operator has set stays as it is."""


View = tuple[int, dict[str, Any], bytes]
"""What the learner publishes of a pool: version, payload of its policy identity, packed arrays."""


class LearnerActor:
    """The learner on Ray: folds in a thread, and answers long polls in its event loop.

    Parameters
    ----------
    database : str
        URL of the database.
    every_s : float
        Least number of seconds between two snapshots of a pool.
    """

    def __init__(self, database: str, every_s: float) -> None:
        engine = open_engine(database)
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._views: dict[str, View] = {}
        self._changed = asyncio.Event()

        def write(work: Callable[[Connection], T], *, durable: bool) -> T:
            with engine.connect().execution_options(**WRITER) as connection, connection.begin():
                return work(connection)

        lease = CheckpointLease(write)
        self._learner = LearnerLoop(
            Log(engine), keeper=lease, publish=self._publish, interval_s=every_s
        )
        self._learner.thread.start()

    def _publish(self, pool: str, fold: Fold) -> None:
        self._views[pool] = (fold.version, fold.policy_identity.payload(), pack(fold.publish()))
        if self._event_loop is not None:
            self._event_loop.call_soon_threadsafe(self._changed.set)

    async def poll(self, versions: dict[str, int]) -> dict[str, View]:
        """Return the newest view of each pool where it is newer than the caller's.

        Parameters
        ----------
        versions : dict of str to int
            The version that the caller has of each pool.

        Returns
        -------
        dict of str to View
            As soon as there is a newer view; empty when there was none for `POLL_S` seconds.
        """
        self._event_loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                while not (newer := self._newer(versions)):
                    self._changed.clear()
                    await self._changed.wait()
                return newer
        return {}

    def _newer(self, versions: dict[str, int]) -> dict[str, View]:
        views = list(self._views.items())  # the learner's thread may add a pool meanwhile
        return {pool: view for pool, view in views if view[0] > versions.get(pool, -1)}

    async def status(self, pool: str) -> dict[str, Any] | None:
        """See `LearnerLink.status`."""
        return await asyncio.to_thread(self._learner.status, pool)


class RayLearner:
    """The link of a replica to the `LearnerActor`; implements `LearnerLink`.

    Parameters
    ----------
    database : str
        URL of the database.
    every_s : float
        Least number of seconds between two snapshots of a pool.
    """

    def __init__(self, database: str, every_s: float) -> None:
        self._database, self._every_s = database, every_s
        self._actor: Any = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, deliver: Deliver) -> None:
        """See `LearnerLink.start`."""
        self._actor = learner_actor(self._database, self._every_s)
        self._task = asyncio.create_task(self._follow(deliver))

    async def _follow(self, deliver: Deliver) -> None:
        """Deliver every snapshot that the actor publishes; try again after any failure."""
        versions: dict[str, int] = {}
        while True:
            try:
                views: dict[str, View] = await self._actor.poll.remote(versions)
                for pool, (version, payload, arrays) in views.items():
                    identity = PolicyIdentity.from_payload(payload)
                    deliver(pool, install(identity, version, unpack(arrays)))
                    versions[pool] = version
            except Exception as error:
                logger.warning("the learner is away (%s); trying again", type(error).__name__)
                await asyncio.sleep(RETRY_S)

    def wake(self) -> None:
        """See `LearnerLink.wake`. Does nothing: the actor reads the log at short intervals."""

    async def status(self, pool: str) -> dict[str, Any] | None:
        """See `LearnerLink.status`."""
        state: dict[str, Any] | None = await self._actor.status.remote(pool)
        return state

    def alive(self) -> bool:
        """See `LearnerLink.alive`."""
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        """See `LearnerLink.stop`. The actor goes on: it outlives its replicas."""
        if self._task is not None:
            self._task.cancel()


def learner_name(database: str, every_s: float) -> str:
    """Return the actor's name, one for each log, setting and version of the code.

    An actor outlives a deployment. Under the same name a new version would find the old learner.
    """
    identity = f"{database} {every_s} {__version__}"
    return f"learner-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def learner_actor(database: str, every_s: float) -> Any:
    """Return the handle of the learner's actor, which is started if it does not run."""
    import ray

    return (
        ray.remote(LearnerActor)
        .options(
            name=learner_name(database, every_s),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=1000,
            num_cpus=0,
        )
        .remote(database, every_s)
    )


def build_app(args: dict[str, Any]) -> Any:
    """Return the Serve application.

    Parameters
    ----------
    args : dict
        Settings by name, or ``{"config": FILE}``, or both. Without any the pool is that of the
        demo.

    Returns
    -------
    ray.serve.Application
        The application, for ``serve run`` and ``serve deploy``.

    Raises
    ------
    ValueError
        For a setting that is wrong, or for more than one replica on SQLite.
    """
    config = args.get("config")
    settings = {name: value for name, value in args.items() if name != "config"}
    return application(load_settings(Path(config) if config else None, **settings))


def application(settings: Settings) -> Any:
    """Return the Serve application of loaded settings; see `build_app`."""
    from ray import serve

    check_replicas(settings)
    every_s = settings.publish_ms / 1e3

    def make_app() -> Starlette:
        return create_app(
            lambda: make_service(settings, lambda *_: RayLearner(settings.database, every_s))
        )

    @serve.deployment(
        name="Ingress",
        num_replicas=settings.replicas,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0.1},
        logging_config=QUIET,
    )
    @serve.ingress(make_app)
    class Ingress:
        """One replica: the app, with a service and a writer."""

    return Ingress.bind()  # type: ignore[attr-defined]

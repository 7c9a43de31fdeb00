"""The thread that runs the learner, and the link that a service has to it.

The thread is in the daemon's own process or in an actor of Ray; a service sees no difference.
While the learner does not run, decisions go on from the last snapshot, and feedback is stored.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from banditroute.decide.columns import Snapshot
from banditroute.learn.fold import Fold
from banditroute.learn.learner import Checkpoint, EventLog, Learner

logger = logging.getLogger("banditroute")

RETRY_S = 1.0
"""Seconds between a failure of the learner and its next start."""

RENEW_S = 5.0
"""Seconds between two renewals of the lease on checkpoints."""

Deliver = Callable[[str, Snapshot], None]


class CheckpointKeeper(Protocol):
    """Stores checkpoints; of several learners only the lease holder's writes succeed.

    `banditroute.store.checkpoint_lease` implements it.
    """

    def renew(self) -> bool:
        """Take the lease or extend it; return whether this learner holds it."""

    def keep(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint if this learner holds the lease."""

    def release(self) -> None:
        """End the lease, so that another learner can take it at once."""


class LearnerLink(Protocol):
    """What a service needs of the learner, in whichever process that runs."""

    async def start(self, deliver: Deliver) -> None:
        """Call `deliver` in this event loop with each pool's snapshot, now and when it changes."""

    def wake(self) -> None:
        """Announce that events were committed; any thread may call it."""

    async def status(self, pool: str) -> dict[str, Any] | None:
        """Return version, learned outcomes and state digest; None before the policy starts."""

    def alive(self) -> bool:
        """Return whether the learner runs and does not fail."""

    async def stop(self) -> None:
        """Stop using the learner."""


class LearnerLoop:
    """Runs a `Learner` in a thread; after a failure it starts again from the log.

    Parameters
    ----------
    log : EventLog
        The log.
    keeper : CheckpointKeeper
        Stores checkpoints.
    publish : callable
        Called in the thread with each pool and fold that changed.
    interval_s : float
        Seconds between two publications, at least.

    Attributes
    ----------
    thread : threading.Thread
        The thread, for the caller to start.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        keeper: CheckpointKeeper,
        publish: Callable[[str, Fold], None],
        interval_s: float,
    ) -> None:
        self._log, self._keeper, self._publish, self._interval_s = log, keeper, publish, interval_s
        self._lock = threading.Lock()
        self._awake = threading.Event()
        self._stopping = threading.Event()
        self._learner: Learner | None = None
        self._failing = False
        self.thread = threading.Thread(target=self._run, name="learner", daemon=True)

    def wake(self) -> None:
        """Read the log soon."""
        self._awake.set()

    @property
    def healthy(self) -> bool:
        """Whether the thread runs, and did not fail the last time that it read the log."""
        return self.thread.is_alive() and not self._failing

    def stop(self) -> None:
        """Stop after the current step."""
        self._stopping.set()
        self._awake.set()
        if self.thread.ident is not None:
            self.thread.join()

    def status(self, pool: str) -> dict[str, Any] | None:
        """Return version, learned outcomes and digest of a pool's fold, taken between steps."""
        with self._lock:
            return self._learner.status(pool) if self._learner else None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._learn()
            except Exception:
                self._failing = True
                logger.exception("the learner failed and starts over from the log")
                self._stopping.wait(RETRY_S)
        with suppress(Exception):  # the lease then ends by its time
            self._keeper.release()

    def _learn(self) -> None:
        holds, renewed_s = self._renew(), time.monotonic()
        with self._lock:
            learner = self._learner = Learner(self._log, keep=self._keeper.keep)
            changed = set(learner.pools)
        while not self._stopping.is_set():
            for pool in changed:
                fold = learner.fold(pool)
                if fold is not None:
                    self._publish(pool, fold)
            if changed:
                time.sleep(self._interval_s)
            self._awake.wait(self._interval_s)
            self._awake.clear()
            with self._lock:
                changed = learner.catch_up()
            self._failing = False
            if time.monotonic() - renewed_s >= RENEW_S:
                held, holds, renewed_s = holds, self._renew(), time.monotonic()
                if holds and not held:
                    with self._lock:
                        learner.keep_first()

    def _renew(self) -> bool:
        try:
            return self._keeper.renew()
        except Exception as error:  # folding does not depend on the lease
            logger.warning("the lease on checkpoints could not be renewed: %s", error)
            return False

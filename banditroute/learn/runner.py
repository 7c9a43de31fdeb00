"""Run the learner in a thread, and the link that a service has to it, wherever it runs.

The thread is in the daemon's own process or in an actor of Ray; a service sees no difference.
While the learner is away decisions go on from the last snapshot and feedback is still stored.
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
RENEW_S = 5.0

Deliver = Callable[[str, Snapshot], None]


class Keeper(Protocol):
    """Where a learner keeps its checkpoints, among others that may do so; see `store.lease`."""

    def renew(self) -> bool:
        """Ask, every few seconds, to be the one that does; return whether it is."""

    def keep(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint, or leave that to the one that does."""

    def release(self) -> None:
        """Leave it to another."""


class LearnerLink(Protocol):
    """What a service needs of the learner, wherever it lives."""

    async def start(self, deliver: Deliver) -> None:
        """Deliver, in this event loop, the snapshot of every pool now and after each change."""

    def wake(self) -> None:
        """Say that events were committed; may be called from any thread."""

    async def status(self, pool: str) -> dict[str, Any] | None:
        """Return version, learned outcomes and state digest; None before the policy starts."""

    def alive(self) -> bool:
        """Whether the learner is there and learns."""

    async def stop(self) -> None:
        """Let go of the learner."""


class LearnerLoop:
    """Runs a `Learner` until told to stop; a failure starts over from the log.

    Parameters
    ----------
    log : the store.
    keeper : stores checkpoints.
    published : called in this loop's thread with each pool and fold that changed.
    every : seconds between two publications, at least.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        keeper: Keeper,
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
        """Look at the log soon."""
        self._awake.set()

    @property
    def healthy(self) -> bool:
        """Whether it runs, and did not fail the last time that it looked at the log."""
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
        with suppress(Exception):  # it then ends by itself
            self._keeper.release()

    def _learn(self) -> None:
        held, renewed = self._renew(), time.monotonic()
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
            if time.monotonic() - renewed >= RENEW_S:
                had, held, renewed = held, self._renew(), time.monotonic()
                if held and not had:
                    with self._lock:
                        learner.keep_first()

    def _renew(self) -> bool:
        try:
            return self._keeper.renew()
        except Exception as error:  # folding does not depend on it
            logger.warning("the lease on checkpoints could not be renewed: %s", error)
            return False

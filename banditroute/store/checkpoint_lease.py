"""The lease on checkpoints: of all learners on one database, one at a time stores them.

While one cluster takes over from another, both run, each with a learner of its own, and perhaps of
another version. Every learner folds for its own replicas, but only the lease holder's checkpoints
are stored. The transaction that stores a checkpoint also checks the lease, so a holder that slept
past the end of its lease stores nothing, whatever its clock says.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, insert, select, update

from banditroute.core.clock import now_us
from banditroute.learn.learner import Checkpoint
from banditroute.store.log import keep_checkpoint
from banditroute.store.tables import learner_leases

logger = logging.getLogger("banditroute")
T = TypeVar("T")

LEASE_US = 15_000_000
_NAME = "checkpoints"
_OURS = learner_leases.c.name == _NAME


class Write(Protocol):
    """A function that writes in a transaction, such as `Writer.write_now`."""

    def __call__(self, work: Callable[[Connection], T], *, durable: bool) -> T:
        """Run `work` in a transaction and return its result."""


class CheckpointLease:
    """Stores checkpoints; of several learners only the lease holder's writes succeed.

    It is used by one thread, and implements `banditroute.learn.runner.CheckpointKeeper`.

    Parameters
    ----------
    write : Write
        Runs a write in a transaction.
    clock : callable
        Returns microseconds since the epoch.

    Attributes
    ----------
    holder : str
        Name of this learner, which no other one has.
    epoch : int
        Number of the lease that it took last, 0 before.
    """

    def __init__(self, write: Write, *, clock: Callable[[], int] = now_us) -> None:
        self._write, self._clock = write, clock
        self._warned = False
        self.holder = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(6)}"
        self.epoch = 0

    def renew(self) -> bool:
        """Take the lease if it is free, or extend it; return whether this learner holds it."""
        holds = self._write(self._hold, durable=False)
        self._warned = self._warned and not holds
        return holds

    def keep(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint if this learner holds the lease."""

        def work(connection: Connection) -> bool:
            holds = self._hold(connection)
            if holds:
                keep_checkpoint(connection, checkpoint, now_us=self._clock())
            return holds

        if not self._write(work, durable=True) and not self._warned:
            self._warned = True
            logger.warning("another learner has the lease: checkpoints are left to that one")

    def release(self) -> None:
        """End the lease, so that another learner can take it at once."""

        def work(connection: Connection) -> None:
            mine = _OURS & (learner_leases.c.holder == self.holder)
            connection.execute(update(learner_leases).where(mine).values(expires_at=0))

        self._write(work, durable=False)

    def _hold(self, connection: Connection) -> bool:
        """Take or extend the lease; return whether this learner holds it."""
        time_us = self._clock()
        row = connection.execute(select(learner_leases).where(_OURS)).first()
        mine = row is not None and (row.holder, row.epoch) == (self.holder, self.epoch)
        if row is not None and not mine and row.expires_at > time_us:
            return False
        if not mine:
            self.epoch = (row.epoch if row is not None else 0) + 1
        values: dict[str, Any] = {
            "holder": self.holder,
            "epoch": self.epoch,
            "expires_at": time_us + LEASE_US,
        }
        if row is None:
            connection.execute(insert(learner_leases), values | {"name": _NAME})
        else:
            connection.execute(update(learner_leases).where(_OURS).values(**values))
        return True

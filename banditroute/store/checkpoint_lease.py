"""The lease on checkpoints: of all learners on one database, one at a time keeps them.

Two clusters run at once while one takes over from the other, each with a learner of its own, and
they need not be of one version. Every learner folds for its own replicas; only the holder of the
current epoch leaves checkpoints. Whether it is that is asked in the transaction that writes, so a
holder that slept through the end of its lease can do no harm, whatever its clock says.
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
    """Runs work in one writing transaction and returns its result."""

    def __call__(self, work: Callable[[Connection], T], *, durable: bool) -> T: ...


class CheckpointLease:
    """A learner's claim to keep checkpoints; used by one thread.

    Parameters
    ----------
    write : where it writes.
    clock : microseconds since the epoch.
    """

    def __init__(self, write: Write, *, clock: Callable[[], int] = now_us) -> None:
        self._write, self._clock = write, clock
        self._told = False
        self.holder = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(6)}"
        self.epoch = 0
        """Of the lease that it took last, 0 before."""

    def renew(self) -> bool:
        """Take the lease if it is free, or hold on to it; return whether it is this one's."""
        held = self._write(self._hold, durable=False)
        self._told = self._told and not held
        return held

    def keep(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint, or leave that to the learner that has the lease."""

        def work(connection: Connection) -> bool:
            if held := self._hold(connection):
                keep_checkpoint(connection, checkpoint, now_us=self._clock())
            return held

        if not self._write(work, durable=True) and not self._told:
            self._told = True
            logger.warning("another learner has the lease: checkpoints are left to that one")

    def release(self) -> None:
        """Let the next one have it at once."""

        def work(connection: Connection) -> None:
            mine = _OURS & (learner_leases.c.holder == self.holder)
            connection.execute(update(learner_leases).where(mine).values(expires_at=0))

        self._write(work, durable=False)

    def _hold(self, connection: Connection) -> bool:
        now = self._clock()
        row = connection.execute(select(learner_leases).where(_OURS)).first()
        mine = row is not None and (row.holder, row.epoch) == (self.holder, self.epoch)
        if row is not None and not mine and row.expires_at > now:
            return False
        if not mine:
            self.epoch = (row.epoch if row is not None else 0) + 1
        values: dict[str, Any] = {
            "holder": self.holder,
            "epoch": self.epoch,
            "expires_at": now + LEASE_US,
        }
        if row is None:
            connection.execute(insert(learner_leases), values | {"name": _NAME})
        else:
            connection.execute(update(learner_leases).where(_OURS).values(**values))
        return True

"""The learner: it follows the log, keeps a fold for each pool, and takes checkpoints.

It can be killed at any moment: another learner reaches the same state, to the byte. It never writes
an event, and no request waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.learn.fold import Event, Fold

CHECKPOINT_EVERY = 5_000
"""Number of learned outcomes between two checkpoints of a pool."""


class EventLog(Protocol):
    """The reads that a learner needs of the log."""

    def end(self) -> int:
        """Return the position of the newest event, 0 for an empty log."""

    def started_pools(self) -> list[str]:
        """Return the pools that have a policy_started event."""

    def events(
        self, *, after: int, until: int | None = None, pool: str | None = None
    ) -> Iterator[Event]:
        """Yield events with after < seq <= until, in order."""

    def policy_identity(
        self, pool: str, *, until: int | None = None
    ) -> tuple[int, PolicyIdentity] | None:
        """Return position and identity of the newest policy_started at or before `until`."""

    def rollbacks(self, pool: str, *, until: int) -> list[tuple[int, int]]:
        """Return (seq, version) of every rollback at or before `until`."""

    def models_added(self, pool: str, *, until: int) -> list[str]:
        """Return the names of all models added at or before `until`, in order."""

    def checkpoint(
        self, pool: str, *, policy_seq: int, until: int | None
    ) -> tuple[int, bytes] | None:
        """Return (seq, state bytes) of the newest checkpoint at or before `until`, or None."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of a fold at a log position, to be stored in one transaction.

    Attributes
    ----------
    pool : str
        The pool.
    policy_seq : int
        Position of its ``policy_started`` event.
    seq : int
        Position of the newest event in the state.
    identity : str
        Identity of the policy.
    digest : str
        Digest of the state.
    state : bytes
        What `Fold.dump` returned.
    """

    pool: str
    policy_seq: int
    seq: int
    identity: str
    digest: str
    state: bytes


def rebuild(
    log: EventLog, pool: str, *, until: int | None = None, checkpoints: bool = True
) -> tuple[int, Fold] | None:
    """Build the fold of a pool at a log position.

    Parameters
    ----------
    log : EventLog
        The log.
    pool : str
        Name of the pool.
    until : int or None
        The log position; None for the end.
    checkpoints : bool
        Whether to start from the newest checkpoint; False folds from the first event on.

    Returns
    -------
    tuple of (int, Fold) or None
        Position of the pool's ``policy_started`` event and the fold; None before there is one.
    """
    if until is None:
        until = log.end()
    started = log.policy_identity(pool, until=until)
    if started is None:
        return None
    policy_seq, policy_identity = started
    fold = Fold(policy_identity)
    segments: list[tuple[int, int]] = []
    for after, end in _segments(log.rollbacks(pool, until=until), until):
        stored = log.checkpoint(pool, policy_seq=policy_seq, until=end) if checkpoints else None
        if stored is not None and stored[0] >= after:
            fold = Fold.restore(policy_identity, *stored)
            segments.append((fold.version, end))
            break
        segments.append((after, end))
    for after, end in reversed(segments):
        # A rollback undoes what was learned, but no model that was added. It may have undone the
        # reset of an alarm, so alarms are withdrawn.
        for name in log.models_added(pool, until=after):
            fold.add_model(name)
        if after > fold.version:
            fold.drift.withdraw()
        fold.version = after
        for event in log.events(after=after, until=end, pool=pool):
            fold.apply(event)
    return policy_seq, fold


def effective_events(log: EventLog, pool: str) -> Iterator[Event]:
    """Yield the events of a pool that no rollback has undone, in order."""
    until = log.end()
    for after, end in reversed(list(_segments(log.rollbacks(pool, until=until), until))):
        yield from log.events(after=after, until=end, pool=pool)


def _segments(rollbacks: Sequence[tuple[int, int]], until: int) -> Iterator[tuple[int, int]]:
    """Yield the segments (after, end] of the log that no rollback has undone, the newest first.

    The events between a rollback and the version that it goes to are skipped, other rollbacks
    included, so a fold is one pass over the log at most.

    Parameters
    ----------
    rollbacks : sequence of (int, int)
        Position of each rollback and the version that it goes to.
    until : int
        End of the newest segment.
    """
    for seq, version in sorted(rollbacks, reverse=True):
        if seq <= until:
            if version >= seq:
                raise ValueError(f"rollback: event {seq} goes to {version}, which is not behind it")
            yield seq, until
            until = version
    yield 0, until


class Learner:
    """Follows the log and keeps a fold for each pool.

    Parameters
    ----------
    log : EventLog
        The log.
    keep : callable
        Called with each checkpoint. It stores the checkpoint, leaves it to another learner, or
        raises.

    Attributes
    ----------
    cursor : int
        Log position up to which all events are folded.
    """

    def __init__(self, log: EventLog, *, keep: Callable[[Checkpoint], None]) -> None:
        self._log = log
        self._keep = keep
        self._folds: dict[str, tuple[int, Fold]] = {}
        self._built_in_s: dict[str, float] = {}
        self.cursor = log.end()
        for pool in log.started_pools():
            self._rebuild(pool, until=self.cursor)

    @property
    def pools(self) -> list[str]:
        """The pools whose policy has started."""
        return list(self._folds)

    def fold(self, pool: str) -> Fold | None:
        """Return the fold of a pool, None before its policy starts."""
        current = self._folds.get(pool)
        return current[1] if current else None

    def status(self, pool: str) -> dict[str, Any] | None:
        """Return what describes a pool's fold, None before its policy starts.

        ``skipped`` is the number of outcomes whose features another embedder made, ``built_in_s``
        the seconds that the newest rebuild from the log took.
        """
        fold = self.fold(pool)
        if fold is None:
            return None
        return {
            "policy": fold.policy_identity.id,
            "version": fold.version,
            "learned": fold.learned,
            "skipped": fold.skipped,
            "digest": fold.digest(),
            "built_in_s": round(self._built_in_s[pool], 4),
        }

    def catch_up(self) -> set[str]:
        """Fold all new events of the log and return the pools that changed."""
        changed: set[str] = set()
        for event in self._log.events(after=self.cursor):
            current = self._folds.get(event.pool)
            if current is None or event.kind in ("policy_started", "rollback"):
                self._rebuild(event.pool, until=event.seq)
            else:
                fold = current[1]
                before = fold.learned
                fold.apply(event)
                if fold.learned > before and fold.learned % CHECKPOINT_EVERY == 0:
                    self._checkpoint(event.pool)
            self.cursor = event.seq
            if event.pool in self._folds:
                changed.add(event.pool)
        return changed

    def _rebuild(self, pool: str, *, until: int) -> None:
        began_s = time.perf_counter()
        built = rebuild(self._log, pool, until=until)
        if built is not None:
            self._folds[pool] = built
            self._built_in_s[pool] = time.perf_counter() - began_s
            self._keep_first(pool)

    def keep_first(self) -> None:
        """Take a checkpoint of every pool that has learned a long log and has no checkpoint."""
        for pool in self._folds:
            self._keep_first(pool)

    def _keep_first(self, pool: str) -> None:
        policy_seq, fold = self._folds[pool]
        newest = self._log.checkpoint(pool, policy_seq=policy_seq, until=fold.version)
        if newest is None and fold.learned + fold.skipped >= CHECKPOINT_EVERY:
            # A policy that has just learned a long log should not have to learn it once more.
            self._checkpoint(pool)

    def _checkpoint(self, pool: str) -> None:
        policy_seq, fold = self._folds[pool]
        self._keep(
            Checkpoint(
                pool=pool,
                policy_seq=policy_seq,
                seq=fold.version,
                identity=fold.policy_identity.id,
                digest=fold.digest(),
                state=fold.dump(),
            )
        )

"""The learner: it tails the log, keeps a fold for each pool, and leaves checkpoints behind.

It is disposable: kill it at any moment and another one reaches the same state, to the byte. It
never writes an event and is never asked while a request waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.learn.fold import Event, Fold

CHECKPOINT_EVERY = 5_000


class EventLog(Protocol):
    """What a learner needs of the store; reads only."""

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
    """State and position, to be stored in one transaction."""

    pool: str
    policy_seq: int
    seq: int
    identity: str
    digest: str
    state: bytes


def rebuild(
    log: EventLog, pool: str, *, until: int | None = None, checkpoints: bool = True
) -> tuple[int, Fold] | None:
    """Return (position of its policy_started, fold) of `pool` at log position `until`.

    Parameters
    ----------
    log : the store.
    pool : name of the pool; one whose policy never started has no fold, and gives None.
    until : log position; None means the end.
    checkpoints : False folds from the very first event, for an audit.
    """
    if until is None:
        until = log.end()
    started = log.policy_identity(pool, until=until)
    if started is None:
        return None
    policy_seq, policy_identity = started
    fold = Fold(policy_identity)
    pieces: list[tuple[int, int]] = []
    for after, end in _pieces(log.rollbacks(pool, until=until), until):
        stored = log.checkpoint(pool, policy_seq=policy_seq, until=end) if checkpoints else None
        if stored is not None and stored[0] >= after:
            fold = Fold.restore(policy_identity, *stored)
            pieces.append((fold.version, end))
            break
        pieces.append((after, end))
    for after, end in reversed(pieces):
        # A rollback forgets what was learned, not which models there are; the reset of an alarm
        # that still stood may lie in what it has undone.
        for name in log.models_added(pool, until=after):
            fold.add_model(name)
        if after > fold.version:
            fold.drift.withdraw()
        fold.version = after
        for event in log.events(after=after, until=end, pool=pool):
            fold.apply(event)
    return policy_seq, fold


def effective_events(log: EventLog, pool: str) -> Iterator[Event]:
    """Yield the events of `pool` that no rollback has undone, in order."""
    until = log.end()
    for after, end in reversed(list(_pieces(log.rollbacks(pool, until=until), until))):
        yield from log.events(after=after, until=end, pool=pool)


def _pieces(rollbacks: Sequence[tuple[int, int]], until: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches (after, end] of the log that still count, the newest first.

    What lies between a rollback and its version is skipped, other rollbacks included, so a fold
    costs no more than one pass however often the log was rolled back.
    """
    for seq, version in sorted(rollbacks, reverse=True):
        if seq <= until:
            if version >= seq:
                raise ValueError(f"rollback: event {seq} goes to {version}, which is not behind it")
            yield seq, until
            until = version
    yield 0, until


class Learner:
    """Tails the log of all pools and keeps one fold for each.

    Parameters
    ----------
    log : the store, for reading.
    keep : called with every checkpoint; it stores it, leaves that to another learner, or raises.
    """

    def __init__(self, log: EventLog, *, keep: Callable[[Checkpoint], None]) -> None:
        self._log = log
        self._keep = keep
        self._folds: dict[str, tuple[int, Fold]] = {}
        self._seconds: dict[str, float] = {}
        self.cursor = log.end()
        for pool in log.started_pools():
            self._rebuild(pool, until=self.cursor)

    @property
    def pools(self) -> list[str]:
        """The pools whose policy has started."""
        return list(self._folds)

    def fold(self, pool: str) -> Fold | None:
        """Return the fold of `pool`, None before its policy starts."""
        known = self._folds.get(pool)
        return known[1] if known else None

    def status(self, pool: str) -> dict[str, Any] | None:
        """Return what there is to say of a pool's fold, None before its policy starts.

        ``skipped`` counts outcomes whose features come from another embedder, ``built_in_s`` the
        seconds that the newest rebuild from the log took.
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
            "built_in_s": round(self._seconds[pool], 4),
        }

    def catch_up(self) -> set[str]:
        """Fold all events that the log holds by now and return the pools that changed."""
        changed: set[str] = set()
        for event in self._log.events(after=self.cursor):
            known = self._folds.get(event.pool)
            if known is None or event.kind in ("policy_started", "rollback"):
                self._rebuild(event.pool, until=event.seq)
            else:
                before = known[1].learned
                known[1].apply(event)
                if known[1].learned > before and known[1].learned % CHECKPOINT_EVERY == 0:
                    self._checkpoint(event.pool)
            self.cursor = event.seq
            if event.pool in self._folds:
                changed.add(event.pool)
        return changed

    def _rebuild(self, pool: str, *, until: int) -> None:
        began = time.perf_counter()
        built = rebuild(self._log, pool, until=until)
        if built is not None:
            self._folds[pool] = built
            self._seconds[pool] = time.perf_counter() - began
            self._keep_first(pool)

    def keep_first(self) -> None:
        """Keep a checkpoint of every pool that has learned a long log and has none."""
        for pool in self._folds:
            self._keep_first(pool)

    def _keep_first(self, pool: str) -> None:
        policy_seq, fold = self._folds[pool]
        known = self._log.checkpoint(pool, policy_seq=policy_seq, until=fold.version)
        if known is None and fold.learned + fold.skipped >= CHECKPOINT_EVERY:
            # A policy that has just learned a long log again need not do so twice.
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

"""The fold: everything learned is a function of the event log, applied strictly in order.

A fold reads no clock, no setting and no table but the events. The learner that tails the log is
disposable: kill it at any moment and another one reaches the same state, to the byte. It never
writes an event and is never asked while a request waits.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from banditroute.pool import Charter
from banditroute.prior import pack, parsed, unpack
from banditroute.router import Snapshot
from policies import Comparison, Outcome, Policy, make_policy
from policies.base import Arrays, Sums, sums_of
from policies.cost import CostModel, LatencyModel
from policies.drift import Drift

CHECKPOINT_EVERY = 5_000
HOPES = 2.0
"""Imaginary rewards that an optimistic prior is worth."""


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the log: an outcome, a comparison, or a change of the pool in `payload`."""

    seq: int
    pool: str
    kind: str
    outcome: Outcome | None = None
    embedder: str = ""
    payload: dict[str, Any] = field(default_factory=dict)
    comparison: Comparison | None = None


class Fold:
    """The state of one pool's policy and of the models beside it at a log position."""

    def __init__(self, charter: Charter) -> None:
        self.charter = charter
        self.version = 0
        self.learned = 0
        self.skipped = 0
        self.rewards = 0.0
        self.policy = _policy(charter)
        self.cost = CostModel(dim=charter.dim)
        if charter.prior:
            self.cost.adopt(parsed(charter.prior).arrays)
        self.latency = LatencyModel()
        self.drift = Drift(dim=charter.dim)

    def apply(self, event: Event) -> None:
        """Fold one event; a kind that this version does not know is a ValueError."""
        if event.outcome is not None or event.comparison is not None:
            # Features of another embedder mean nothing to these coefficients.
            if event.embedder != self.charter.embedder:
                self.skipped += 1
            elif event.outcome is not None:
                if event.kind != "default" and event.outcome.field == "quality":
                    # A reward that never came says nothing of the answer.
                    self.drift.learn(event.outcome)
                self._learn(event.outcome)
            elif event.comparison is not None:
                self.learned += 1
                self.policy.compare(event.comparison)
        elif event.kind == "model_added":
            self.add_model(event.payload["name"])
        elif event.kind == "prior":
            self._teach(**event.payload)
        elif event.kind == "reset":
            self._reset(**event.payload)
        elif event.kind not in ("policy_started", "model_drained"):
            raise ValueError(f"kind: event {event.seq} is of unknown kind {event.kind!r}")
        self.version = event.seq

    def add_model(self, name: str) -> None:
        """Know a model from now on; one that is known keeps what it has taught."""
        for part in self._parts().values():
            part.add_arm(name)

    def _teach(self, arm: str, prior: str = "", optimism: float | None = None) -> None:
        """Teach an arm from a fitted prior, or hope that it is better than the mean by so much."""
        if optimism is not None:
            if self.policy.clock:
                level = min(self.rewards / self.policy.clock + optimism, 1.0)
                self.policy.teach(arm, _rewards(HOPES, level, dim=self.charter.dim))
            return
        fitted = parsed(prior)
        if fitted.embedder != self.charter.embedder:
            self.skipped += 1
            return
        for part, prefix in ((self.policy, ""), (self.cost, "cost_")):
            if arm in (known := sums_of(fitted.arrays, prefix=prefix)):
                part.teach(arm, known[arm])

    def _reset(self, arm: str, trigger_seq: int = 0) -> None:
        shift, worth = self.drift.reset(arm, trigger_seq)
        self.policy.reset_arm(arm, shift=shift, worth=worth)

    def _learn(self, outcome: Outcome) -> None:
        self.learned += 1
        if outcome.field == "quality":
            if outcome.cost is None and self.policy.reads_preference:
                outcome = replace(outcome, cost=self.cost.expect(outcome))
            self.policy.learn((outcome,))
            self.rewards += outcome.value
        elif outcome.field == "cost":
            self.cost.learn(outcome)
        else:
            self.latency.learn(outcome)

    def _parts(self) -> dict[str, Policy | CostModel | LatencyModel | Drift]:
        return {
            "policy": self.policy,
            "cost": self.cost,
            "latency": self.latency,
            "drift": self.drift,
        }

    def state(self) -> Arrays:
        """Return everything learned, as plain arrays."""
        names = ("learned", "skipped", "rewards")
        own: Arrays = {name: np.array(getattr(self, name)) for name in names}
        return own | {
            f"{part}/{name}": array
            for part, owner in self._parts().items()
            for name, array in owner.state().items()
        }

    def digest(self) -> str:
        """Return the SHA-256 of `state`: equal digests, equal bits."""
        sha = hashlib.sha256()
        for name, array in sorted(self.state().items()):
            sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()

    def dump(self) -> bytes:
        """Return `state` as the bytes of an .npz file; never a pickle."""
        return pack(self.state())

    @classmethod
    def restore(cls, charter: Charter, version: int, dumped: bytes) -> Fold:
        """Return the fold that `dump` was taken from."""
        fold = cls(charter)
        state = unpack(dumped)
        fold.version = version
        fold.learned, fold.skipped = int(state["learned"]), int(state["skipped"])
        fold.rewards = float(state["rewards"])
        for part, owner in fold._parts().items():
            owner.load(_below(part, state))
        return fold

    def publish(self) -> Arrays:
        """Return the arrays that scoring reads."""
        return {
            f"{part}/{name}": array
            for part, owner in self._parts().items()
            for name, array in owner.publish().items()
        }

    def snapshot(self) -> Snapshot:
        """Publish, as a snapshot for a router."""
        return install(self.charter, self.version, self.publish())


def install(charter: Charter, version: int, view: Arrays) -> Snapshot:
    """Return the snapshot that scores from a published `view`."""
    policy = _policy(charter)
    cost, latency = CostModel(dim=charter.dim), LatencyModel()
    policy.install(_below("policy", view))
    cost.install(_below("cost", view))
    latency.install(_below("latency", view))
    return Snapshot(
        version=version,
        charter=charter,
        policy=policy,
        cost=cost,
        latency=latency,
        drift=_below("drift", view),
    )


def _policy(charter: Charter) -> Policy:
    policy = make_policy(charter.policy, dim=charter.dim, params=charter.params)
    policy.tau_cost = charter.tau_cost
    if charter.prior:
        policy.adopt(parsed(charter.prior).arrays)
    return policy


def _rewards(count: float, level: float, *, dim: int) -> Sums:
    """Return what `count` rewards of `level` teach of the intercept, and of nothing else."""
    gram, moment = np.zeros((dim, dim)), np.zeros(dim)
    gram[-1, -1], moment[-1] = count, count * level
    return Sums(gram, moment, count * level**2, count)


def _below(part: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    return {
        name.removeprefix(f"{part}/"): array
        for name, array in arrays.items()
        if name.startswith(f"{part}/")
    }


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

    def charter(self, pool: str, *, until: int | None = None) -> tuple[int, Charter] | None:
        """Return position and charter of the newest policy_started at or before `until`."""

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
    started = log.charter(pool, until=until)
    if started is None:
        return None
    policy_seq, charter = started
    return policy_seq, _fold(log, pool, policy_seq, charter, until, checkpoints)


def _fold(
    log: EventLog, pool: str, policy_seq: int, charter: Charter, until: int, fast: bool
) -> Fold:
    kept: tuple[int, bytes] | None = None
    pieces: list[tuple[int, int]] = []
    for after, end in _pieces(log.rollbacks(pool, until=until), until):
        pieces.append((after, end))
        found = log.checkpoint(pool, policy_seq=policy_seq, until=end) if fast else None
        if found is not None and found[0] >= after:
            kept, pieces[-1] = found, (found[0], end)
            break
    fold = Fold(charter) if kept is None else Fold.restore(charter, *kept)
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
    return fold


def counting(log: EventLog, pool: str) -> Iterator[Event]:
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
    keep : called with every checkpoint; it must store it or raise.
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
            "policy": fold.charter.identity,
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
            policy_seq, fold = built
            known = self._log.checkpoint(pool, policy_seq=policy_seq, until=until)
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
                identity=fold.charter.identity,
                digest=fold.digest(),
                state=fold.dump(),
            )
        )

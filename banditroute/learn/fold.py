"""The fold: everything learned is a function of the event log, applied strictly in order.

A fold reads no clock, no setting and no table but the events, so any two folds of the same events
hold the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.decide.columns import Snapshot
from banditroute.learn.prior import pack, parse_prior, unpack
from policies import Comparison, Outcome, Policy, make_policy
from policies.base import Arrays, Sums, sums_of
from policies.models.cost import CostModel, LatencyModel
from policies.models.drift import Drift

PARTS = ("policy", "cost", "latency", "drift")
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

    def __init__(self, policy_identity: PolicyIdentity) -> None:
        self.policy_identity = policy_identity
        self.version = 0
        self.learned = 0
        self.skipped = 0
        self.rewards = 0.0
        self.policy = _policy(policy_identity)
        self.cost = CostModel(dim=policy_identity.dim)
        if policy_identity.prior:
            self.cost.adopt(parse_prior(policy_identity.prior).arrays)
        self.latency = LatencyModel()
        self.drift = Drift(dim=policy_identity.dim)

    def apply(self, event: Event) -> None:
        """Fold one event; a kind that this version does not know is a ValueError."""
        if event.outcome is not None or event.comparison is not None:
            # Features of another embedder mean nothing to these coefficients.
            if event.embedder != self.policy_identity.embedder:
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
                self.policy.teach(arm, _rewards(HOPES, level, dim=self.policy_identity.dim))
            return
        fitted = parse_prior(prior)
        if fitted.embedder != self.policy_identity.embedder:
            self.skipped += 1
            return
        for part, prefix in ((self.policy, ""), (self.cost, "cost_")):
            if arm in (known := sums_of(fitted.arrays, prefix=prefix)):
                part.teach(arm, known[arm])

    def _reset(self, arm: str, trigger_seq: int = 0) -> None:
        answer = self.drift.reset(arm, trigger_seq)
        if answer is not None:
            self.policy.reset_arm(arm, shift=answer[0], worth=answer[1])

    def _learn(self, outcome: Outcome) -> None:
        self.learned += 1
        if outcome.field == "quality":
            if outcome.cost_usd is None and self.policy.reads_preference:
                outcome = replace(outcome, cost_usd=self.cost.expect(outcome))
            self.policy.learn((outcome,))
            self.rewards += outcome.value
        elif outcome.field == "cost":
            self.cost.learn(outcome)
        else:
            self.latency.learn(outcome)

    def _parts(self) -> dict[str, Policy | CostModel | LatencyModel | Drift]:
        return {part: getattr(self, part) for part in PARTS}

    def state(self) -> Arrays:
        """Return everything learned, as plain arrays."""
        own = {name: np.array(getattr(self, name)) for name in ("learned", "skipped", "rewards")}
        return own | _join({part: owner.state() for part, owner in self._parts().items()})

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
    def restore(cls, policy_identity: PolicyIdentity, version: int, dumped: bytes) -> Fold:
        """Return the fold that `dump` was taken from."""
        fold = cls(policy_identity)
        state = unpack(dumped)
        fold.version = version
        fold.learned, fold.skipped = int(state["learned"]), int(state["skipped"])
        fold.rewards = float(state["rewards"])
        for part, owner in fold._parts().items():
            owner.load(_below(part, state))
        return fold

    def publish(self) -> Arrays:
        """Return the arrays that scoring reads."""
        return _join(self._views())

    def snapshot(self) -> Snapshot:
        """Publish, as a snapshot for a router."""
        # Scoring reads nothing but the view that is installed: a shallow copy is a fresh scorer.
        scorers = copy(self.policy), copy(self.cost), copy(self.latency)
        return _snapshot(self.policy_identity, self.version, scorers, self._views())

    def _views(self) -> dict[str, Arrays]:
        return {part: owner.publish() for part, owner in self._parts().items()}


def install(policy_identity: PolicyIdentity, version: int, view: Arrays) -> Snapshot:
    """Return the snapshot that scores from a published `view`."""
    scorers = _policy(policy_identity), CostModel(dim=policy_identity.dim), LatencyModel()
    views = {part: _below(part, view) for part in PARTS}
    return _snapshot(policy_identity, version, scorers, views)


def _snapshot(
    policy_identity: PolicyIdentity,
    version: int,
    scorers: tuple[Policy, CostModel, LatencyModel],
    views: Mapping[str, Arrays],
) -> Snapshot:
    policy, cost, latency = scorers
    policy.install(views["policy"])
    cost.install(views["cost"])
    latency.install(views["latency"])
    return Snapshot(version, policy_identity, policy, cost, latency, views["drift"])


def _policy(policy_identity: PolicyIdentity) -> Policy:
    policy = make_policy(
        policy_identity.policy, dim=policy_identity.dim, params=policy_identity.params
    )
    policy.tau_cost_usd = policy_identity.tau_cost_usd
    if policy_identity.prior:
        policy.adopt(parse_prior(policy_identity.prior).arrays)
    return policy


def _rewards(count: float, level: float, *, dim: int) -> Sums:
    """Return what `count` rewards of `level` teach of the intercept, and of nothing else."""
    gram, moment = np.zeros((dim, dim)), np.zeros(dim)
    gram[-1, -1], moment[-1] = count, count * level
    return Sums(gram, moment, count * level**2, count)


def _join(arrays: Mapping[str, Arrays]) -> Arrays:
    """Return the arrays of all parts by one name each; `_below` takes those of one part out."""
    return {f"{part}/{name}": array for part in arrays for name, array in arrays[part].items()}


def _below(part: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    return {
        name.removeprefix(f"{part}/"): array
        for name, array in arrays.items()
        if name.startswith(f"{part}/")
    }

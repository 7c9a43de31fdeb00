"""The fold: all that is learned, as a function of the events of the log in their order.

A fold reads no clock, no setting and no other table, so two folds of the same events hold the same
bytes.
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
from policies.base import Arrays, ByArm, Sums, copies, sums_of, take_over
from policies.models.cost import CostModel, LatencyModel
from policies.models.drift import Drift

PARTS = ("policy", "cost", "latency", "drift")
"""The attributes of a fold that learn."""

_COUNTS = ("learned", "skipped", "rewards")

OPTIMISTIC_REWARDS = 2.0
"""Number of imaginary rewards that an optimistic prior is worth."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the log.

    Attributes
    ----------
    seq : int
        Its position.
    pool : str
        The pool that it belongs to.
    kind : str
        ``feedback`` or ``default`` for an outcome, ``comparison``, ``model_added``,
        ``model_drained``, ``prior``, ``reset``, ``policy_started`` or ``rollback``.
    outcome : Outcome or None
        What a decision has taught.
    embedder : str
        Identity of the embedder of the features, for outcomes and comparisons.
    payload : dict
        What the other kinds hold.
    comparison : Comparison or None
        What a comparison has taught.
    """

    seq: int
    pool: str
    kind: str
    outcome: Outcome | None = None
    embedder: str = ""
    payload: dict[str, Any] = field(default_factory=dict)
    comparison: Comparison | None = None


class Fold:
    """State of a pool's policy, and of its cost, latency and drift models, at a log position.

    Parameters
    ----------
    policy_identity : PolicyIdentity
        The policy, from its ``policy_started`` event.

    Attributes
    ----------
    version : int
        The log position.
    learned : int
        Number of outcomes and comparisons that were learned.
    skipped : int
        Number of those that were not, because another embedder made their features.
    rewards : float
        Sum of the qualities that were learned.
    policy : Policy
        The policy.
    cost : CostModel
        Predicts cost.
    latency : LatencyModel
        Predicts latency.
    drift : Drift
        Detects changes of a model's quality.
    """

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
        """Apply one event.

        Parameters
        ----------
        event : Event
            The event after `version`.

        Raises
        ------
        ValueError
            For a kind that this version of the code does not know.
        """
        if event.outcome is not None or event.comparison is not None:
            # The coefficients do not fit features of another embedder.
            if event.embedder != self.policy_identity.embedder:
                self.skipped += 1
            elif event.outcome is not None:
                if event.kind != "default" and event.outcome.field == "quality":
                    # A default is no evidence about the answer.
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
        """Add a model; one that is there already keeps what was learned of it."""
        for part in self._parts().values():
            part.add_arm(name)

    def _teach(self, arm: str, prior: str = "", optimism: float | None = None) -> None:
        """Teach an arm a prior: a fitted one, or an optimistic one.

        Parameters
        ----------
        arm : str
            Name of the model.
        prior : str
            Text of a `Prior`.
        optimism : float or None
            Quality above the mean of all rewards so far; None for a fitted prior.
        """
        if optimism is not None:
            if self.policy.clock:
                level = min(self.rewards / self.policy.clock + optimism, 1.0)
                self.policy.teach(arm, _optimistic(level, self.policy_identity.dim))
            return
        fitted = parse_prior(prior)
        if fitted.embedder != self.policy_identity.embedder:
            self.skipped += 1
            return
        for part, prefix in ((self.policy, ""), (self.cost, "cost_")):
            sums = sums_of(fitted.arrays, prefix=prefix)
            if arm in sums:
                part.teach(arm, sums[arm])

    def _reset(self, arm: str, trigger_seq: int = 0) -> None:
        """Reset an arm whose drift alarm still stands."""
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

    def _parts(self) -> dict[str, ByArm]:
        return {part: getattr(self, part) for part in PARTS}

    def state(self) -> Arrays:
        """Return all that was learned, as plain arrays."""
        states = {part: owner.state() for part, owner in self._parts().items()}
        return copies(self, _COUNTS) | _join(states)

    def digest(self) -> str:
        """Return the SHA-256 of `state`; equal digests mean equal bits."""
        sha = hashlib.sha256()
        for name, array in sorted(self.state().items()):
            sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()

    def dump(self) -> bytes:
        """Return `state` as the bytes of an .npz file, never as a pickle."""
        return pack(self.state())

    @classmethod
    def restore(cls, policy_identity: PolicyIdentity, version: int, dumped: bytes) -> Fold:
        """Return the fold that `dump` was taken from.

        Parameters
        ----------
        policy_identity : PolicyIdentity
            Its policy.
        version : int
            Its log position.
        dumped : bytes
            What `dump` returned.
        """
        fold = cls(policy_identity)
        state = unpack(dumped)
        fold.version = version
        take_over(fold, _COUNTS, state)
        for part, owner in fold._parts().items():
            owner.load(_below(part, state))
        return fold

    def publish(self) -> Arrays:
        """Return the arrays that scoring reads."""
        return _join(self._views())

    def snapshot(self) -> Snapshot:
        """Publish, and return a snapshot for a router."""
        # Scoring reads only the view that is installed, so a shallow copy is a new scorer.
        scorers = copy(self.policy), copy(self.cost), copy(self.latency)
        return _snapshot(self.policy_identity, self.version, scorers, self._views())

    def _views(self) -> dict[str, Arrays]:
        return {part: owner.publish() for part, owner in self._parts().items()}


def install(policy_identity: PolicyIdentity, version: int, view: Arrays) -> Snapshot:
    """Return the snapshot that scores from published arrays.

    Parameters
    ----------
    policy_identity : PolicyIdentity
        The policy.
    version : int
        Log position of the fold.
    view : dict of arrays
        What `Fold.publish` returned.
    """
    scorers = _policy(policy_identity), CostModel(dim=policy_identity.dim), LatencyModel()
    views = {part: _below(part, view) for part in PARTS}
    return _snapshot(policy_identity, version, scorers, views)


def _snapshot(
    policy_identity: PolicyIdentity,
    version: int,
    scorers: tuple[Policy, CostModel, LatencyModel],
    views: Mapping[str, Arrays],
) -> Snapshot:
    for part, scorer in zip(("policy", "cost", "latency"), scorers, strict=True):
        scorer.install(views[part])
    return Snapshot(version, policy_identity, *scorers, views["drift"])


def _policy(policy_identity: PolicyIdentity) -> Policy:
    policy = make_policy(
        policy_identity.policy, dim=policy_identity.dim, params=policy_identity.params
    )
    policy.tau_cost_usd = policy_identity.tau_cost_usd
    if policy_identity.prior:
        policy.adopt(parse_prior(policy_identity.prior).arrays)
    return policy


def _optimistic(level: float, dim: int) -> Sums:
    """Return the sums of imaginary rewards of `level`, of a context with an intercept alone."""
    count = OPTIMISTIC_REWARDS
    gram, moment = np.zeros((dim, dim)), np.zeros(dim)
    gram[-1, -1], moment[-1] = count, count * level
    return Sums(gram, moment, count * level**2, count)


def _join(arrays: Mapping[str, Arrays]) -> Arrays:
    """Return the arrays of all parts by names that begin with the part; `_below` undoes it."""
    return {f"{part}/{name}": array for part in arrays for name, array in arrays[part].items()}


def _below(part: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return the arrays of one part, without the part in their names."""
    return {
        name.removeprefix(f"{part}/"): array
        for name, array in arrays.items()
        if name.startswith(f"{part}/")
    }

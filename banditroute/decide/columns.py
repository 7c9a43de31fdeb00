"""What a decision is made of: the snapshot, what was asked, the models, and what came out.

Columns throughout; a single request is a batch of one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import Model
from policies import Policy
from policies.base import Arrays, Bools, Float32, Float64
from policies.models.cost import CostModel, LatencyModel
from policies.pacing.price import Price


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a fold published: enough to score, never enough to learn. Immutable once built.

    `version` is the log position that it covers; `drift` is what
    `policies.models.drift.Drift` published.
    """

    version: int
    policy_identity: PolicyIdentity
    policy: Policy
    cost: CostModel
    latency: LatencyModel
    drift: Arrays

    def alarms(self) -> dict[str, int]:
        """Return the models whose drift alarm stands, and the log position that raised it."""
        pairs = zip(self.policy.arms, self.drift["trigger"].tolist(), strict=True)
        return {name: trigger for name, trigger in pairs if trigger}


@dataclass(frozen=True, slots=True)
class RequestBatch:
    """A batch of n requests, as columns; a limit that no row sets is None.

    Attributes
    ----------
    features : float32[n, d].
    preference : float64[n, 3], weights of (quality, cost, latency).
    input_tokens : float64[n], for the prediction of cost.
    input_bound : float64[n], for the reservation; at least `input_tokens`.
    max_output_tokens : float64[n], inf where the request sets none.
    max_cost_usd, max_latency_ms : float64[n], inf where the request sets none.
    models : per row the allowed names, or None for all.
    requires : per row the capabilities that a model must have.
    worst : float64[n, K], US dollars to reserve, where they are known otherwise than by tokens.
    """

    features: Float32
    preference: Float64
    input_tokens: Float64
    input_bound: Float64
    max_output_tokens: Float64 | None = None
    max_cost_usd: Float64 | None = None
    max_latency_ms: Float64 | None = None
    models: Sequence[frozenset[str] | None] | None = None
    requires: Sequence[frozenset[str]] | None = None
    worst: Float64 | None = None

    def row(self, i: int) -> RequestBatch:
        """Return one of the requests."""
        at = slice(i, i + 1)
        parts: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        cut: dict[str, Any] = {
            name: None if part is None else part[at] for name, part in parts.items()
        }
        return RequestBatch(**cut)

    @classmethod
    def join(cls, several: Sequence[RequestBatch]) -> RequestBatch:
        """Return the rows of all of `several`, at least one, in order; no row loses a limit.

        Raises
        ------
        ValueError
            When some know what to reserve otherwise than by tokens, and others do not.
        """
        sizes = [len(one.features) for one in several]

        def limits(parts: Sequence[Float64 | None]) -> Float64 | None:
            if all(part is None for part in parts):
                return None
            filled = [
                np.full(n, np.inf) if part is None else part
                for n, part in zip(sizes, parts, strict=True)
            ]
            return np.concatenate(filled)

        worst = [one.worst for one in several if one.worst is not None]
        if 0 < len(worst) < len(several):
            raise ValueError("worst: known of some requests only")
        models: list[frozenset[str] | None] = []
        requires: list[frozenset[str]] = []
        for n, one in zip(sizes, several, strict=True):
            models += [None] * n if one.models is None else one.models
            requires += [frozenset()] * n if one.requires is None else one.requires
        return cls(
            features=np.concatenate([one.features for one in several]),
            preference=np.concatenate([one.preference for one in several]),
            input_tokens=np.concatenate([one.input_tokens for one in several]),
            input_bound=np.concatenate([one.input_bound for one in several]),
            max_output_tokens=limits([one.max_output_tokens for one in several]),
            max_cost_usd=limits([one.max_cost_usd for one in several]),
            max_latency_ms=limits([one.max_latency_ms for one in several]),
            models=models if any(allow is not None for allow in models) else None,
            requires=requires if any(requires) else None,
            worst=np.concatenate(worst) if worst else None,
        )


@dataclass(frozen=True, slots=True)
class ModelColumns:
    """The columns of a decision: the pool's models that the snapshot knows, and their prices."""

    snapshot: Snapshot
    models: tuple[Model, ...]
    columns: NDArray[np.intp] | None
    input_price: Float64
    output_price: Float64
    output_prior: Float64
    output_limit: Float64
    context_length: Float64
    draining: Bools
    names_json: str
    prices_json: str

    @classmethod
    def of(cls, snapshot: Snapshot, models: Sequence[Model]) -> ModelColumns:
        """Align `models` with the arms of `snapshot`; a model that it does not know waits."""
        position = {name: k for k, name in enumerate(snapshot.policy.arms)}
        known = sorted((m for m in models if m.name in position), key=lambda m: position[m.name])
        columns = np.array([position[m.name] for m in known], dtype=np.intp)
        whole = len(known) == len(position)
        return cls(
            snapshot=snapshot,
            models=tuple(known),
            columns=None if whole else columns,
            input_price=np.array([m.input_price for m in known]) / 1e6,
            output_price=np.array([m.output_price for m in known]) / 1e6,
            output_prior=np.array([m.prior_output_tokens * m.output_price / 1e6 for m in known]),
            output_limit=np.array([float(m.output_limit) for m in known]),
            context_length=np.array([float(m.context_length or np.inf) for m in known]),
            draining=np.array([m.draining for m in known], dtype=np.bool_),
            names_json=json.dumps([m.name for m in known]),
            prices_json=json.dumps([m.price_id for m in known]),
        )


@dataclass(frozen=True, slots=True)
class Decisions:
    """n decisions over the K models of a frame, with every input of their pmf.

    Attributes
    ----------
    verdict : uint8[n, K], index into `REASONS`.
    scores : named float32[n, K], what the policy's law reads.
    mean, std : float32[n, K], estimated quality.
    cost, latency, penalty : float64[n, K]: US dollars, milliseconds, quality units.
    explore : float64[n, K], absolute exploration shares; zeros when there are none.
    pmf : float64[n, K], the exact law of the draw.
    u : float64[n], the uniform that was drawn.
    chosen : int[n], column of the chosen model, -1 where none is eligible.
    reserved_nano : int64[n, K], worst cost in nano-dollars.
    max_output : float64[n, K], output tokens that the reservation covers.
    price : the price of money, not yet in `penalty`.
    spend_rate : float64[n], US dollars per request that exploration's budget is a share of.
    exploration_usd : what exploration is expected to cost, all rows together.
    """

    frame: ModelColumns
    asks: RequestBatch
    verdict: NDArray[np.uint8]
    scores: dict[str, Float32]
    mean: Float32
    std: Float32
    cost: Float64
    latency: Float64
    penalty: Float64
    explore: Float64
    pmf: Float64
    u: Float64
    chosen: NDArray[np.intp]
    input_cost: Float64
    reserved_nano: NDArray[np.int64]
    max_output: Float64
    price: Price
    spend_rate: Float64
    exploration_usd: float

    def fallbacks(self) -> list[list[str]]:
        """Return, per row, the eligible models that were not chosen, best utility first.

        What a policy that reads the preference makes of it shows in its law alone.
        """
        names = [model.name for model in self.frame.models]
        own = self.frame.snapshot.policy.reads_preference
        utility = self.mean - self.penalty - self.price.high * self.cost
        worst_last = -self.pmf if own else -utility
        order = np.argsort(worst_last, axis=1, kind="stable").tolist()
        rows = zip(order, self.verdict.tolist(), self.chosen.tolist(), strict=True)
        return [
            [names[k] for k in ranked if verdict[k] == 0 and k != chosen]
            for ranked, verdict, chosen in rows
        ]

"""What a decision is made of: the snapshot, the requests, the models, their scores, the outcome.

Columns throughout: n requests by K models. A single request is a batch of one.
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
from policies.pacing.base import Window
from policies.pacing.price import Price


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a fold published: enough to score, never enough to learn. Immutable once built.

    Attributes
    ----------
    version : int
        Log position that it covers.
    policy_identity : PolicyIdentity
        What shapes the policy, and its scales.
    policy : Policy
        The model of quality.
    cost, latency : CostModel, LatencyModel
        The models of cost and latency.
    drift : dict[str, ndarray]
        What `policies.models.drift.Drift` published.
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
    features : float32[n, d]
        The contexts.
    preference : float64[n, 3]
        Weights of quality, cost and latency.
    input_tokens : float64[n]
        For the prediction of cost.
    input_bound : float64[n]
        Input tokens for the reservation; at least `input_tokens`.
    max_output_tokens, max_cost_usd, max_latency_ms : float64[n] or None
        The request's limits; inf where it sets none.
    models : sequence of (frozenset[str] or None), or None
        Per row the allowed names, or None for all.
    requires : sequence of frozenset[str], or None
        Per row the capabilities that a model must have.
    reservation_usd : float64[n, K] or None
        What to reserve, where it is known otherwise than by tokens.
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
    reservation_usd: Float64 | None = None

    def row(self, i: int) -> RequestBatch:
        """Return one of the requests."""
        row: dict[str, Any] = {}
        for name in self.__slots__:
            column = getattr(self, name)
            row[name] = None if column is None else column[i : i + 1]
        return RequestBatch(**row)

    @classmethod
    def join(cls, batches: Sequence[RequestBatch]) -> RequestBatch:
        """Return the rows of all of `batches`, at least one, in order; no row loses a limit.

        Raises
        ------
        ValueError
            When some have a `reservation_usd`, and others do not.
        """
        sizes = [len(batch.features) for batch in batches]

        def limits(parts: Sequence[Float64 | None]) -> Float64 | None:
            if all(part is None for part in parts):
                return None
            filled = [
                np.full(n, np.inf) if part is None else part
                for n, part in zip(sizes, parts, strict=True)
            ]
            return np.concatenate(filled)

        reservations = [b.reservation_usd for b in batches if b.reservation_usd is not None]
        if 0 < len(reservations) < len(batches):
            raise ValueError("reservation_usd: known of some requests only")
        models: list[frozenset[str] | None] = []
        requires: list[frozenset[str]] = []
        for n, batch in zip(sizes, batches, strict=True):
            models += [None] * n if batch.models is None else batch.models
            requires += [frozenset()] * n if batch.requires is None else batch.requires
        return cls(
            features=np.concatenate([batch.features for batch in batches]),
            preference=np.concatenate([batch.preference for batch in batches]),
            input_tokens=np.concatenate([batch.input_tokens for batch in batches]),
            input_bound=np.concatenate([batch.input_bound for batch in batches]),
            max_output_tokens=limits([batch.max_output_tokens for batch in batches]),
            max_cost_usd=limits([batch.max_cost_usd for batch in batches]),
            max_latency_ms=limits([batch.max_latency_ms for batch in batches]),
            models=models if any(allowed is not None for allowed in models) else None,
            requires=requires if any(requires) else None,
            reservation_usd=np.concatenate(reservations) if reservations else None,
        )


@dataclass(frozen=True, slots=True)
class ModelColumns:
    """The K columns of a decision: the pool's models that the snapshot knows, and their prices.

    Attributes
    ----------
    snapshot : Snapshot
        What the columns are scored from.
    models : tuple[Model, ...]
        In the order of the snapshot's arms.
    arm_index : int[K] or None
        Position of each model among the snapshot's arms; None where they are all of them.
    input_token_usd, output_token_usd : float64[K]
        US dollars of a token.
    output_prior_usd : float64[K]
        US dollars of an answer's tokens before any answer was seen.
    output_limit_tokens : float64[K]
        Output tokens that a reservation covers when the request sets no limit.
    context_length : float64[K]
        Tokens, inf where there is no limit.
    draining : bool[K]
        Whether a model is chosen no more.
    names_json, prices_json : str
        Names and price rows as a decision row holds them.
    """

    snapshot: Snapshot
    models: tuple[Model, ...]
    arm_index: NDArray[np.intp] | None
    input_token_usd: Float64
    output_token_usd: Float64
    output_prior_usd: Float64
    output_limit_tokens: Float64
    context_length: Float64
    draining: Bools
    names_json: str
    prices_json: str

    @classmethod
    def of(cls, snapshot: Snapshot, models: Sequence[Model]) -> ModelColumns:
        """Align `models` with the arms of `snapshot`; a model that it does not know waits."""
        position = {name: k for k, name in enumerate(snapshot.policy.arms)}
        ordered = sorted((m for m in models if m.name in position), key=lambda m: position[m.name])
        arm_index = np.array([position[m.name] for m in ordered], dtype=np.intp)
        return cls(
            snapshot=snapshot,
            models=tuple(ordered),
            arm_index=None if len(ordered) == len(position) else arm_index,
            input_token_usd=np.array([m.input_price for m in ordered]) / 1e6,
            output_token_usd=np.array([m.output_price for m in ordered]) / 1e6,
            output_prior_usd=np.array(
                [m.prior_output_tokens * m.output_price / 1e6 for m in ordered]
            ),
            output_limit_tokens=np.array([float(m.output_limit) for m in ordered]),
            context_length=np.array([float(m.context_length or np.inf) for m in ordered]),
            draining=np.array([m.draining for m in ordered], dtype=np.bool_),
            names_json=json.dumps([m.name for m in ordered]),
            prices_json=json.dumps([m.price_id for m in ordered]),
        )


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """n requests as a snapshot and the price rows see them: all that choosing needs.

    Attributes
    ----------
    columns : ModelColumns
        The models, and the snapshot that scored them.
    requests : RequestBatch
        What was asked.
    trials : list of (bool[K], float)
        Groups of models on trial, and the share of probability of each group.
    reasons : uint8[n, K]
        Index into `REASONS`, 0 where a model is eligible; no budget has been asked yet.
    scores : dict of float32[n, K]
        What the policy's law reads.
    mean, std : float32[n, K]
        Estimated quality.
    cost_usd, latency_ms, penalty : float64[n, K]
        Predicted cost and latency, and both in quality units under the preference.
    input_cost_usd : float64[n, K]
        The input's part of the cost.
    reservation_usd, reservation_nano : float64[n, K], int64[n, K]
        The worst case of the cost, which a reservation covers.
    max_output_tokens : float64[n, K]
        Output tokens that the reservation covers.
    """

    columns: ModelColumns
    requests: RequestBatch
    trials: Sequence[tuple[Bools, float]]
    reasons: NDArray[np.uint8]
    scores: dict[str, Float32]
    mean: Float32
    std: Float32
    cost_usd: Float64
    latency_ms: Float64
    penalty: Float64
    input_cost_usd: Float64
    reservation_usd: Float64
    reservation_nano: NDArray[np.int64]
    max_output_tokens: Float64

    def window(self) -> Window:
        """Return these requests as what a price of money is solved on."""
        return Window(
            kind=type(self.columns.snapshot.policy),
            scores=self.scores,
            eligible=self.reasons == 0,
            penalty=self.penalty,
            mean=self.mean,
            cost_usd=self.cost_usd,
            reservation_usd=self.reservation_usd,
        )


@dataclass(frozen=True, slots=True)
class Decisions:
    """n decisions over K models, with every input of their pmf.

    Attributes
    ----------
    scored : ScoredBatch
        What was chosen from.
    reasons : uint8[n, K]
        Index into `REASONS` after budget, exploration and the price of money.
    explore : float64[n, K]
        Absolute exploration shares; zeros when there are none.
    pmf : float64[n, K]
        The exact law of the draw.
    u : float64[n]
        The uniform that was drawn.
    chosen : int[n]
        Column of the chosen model, -1 where none is eligible.
    price : Price
        The price of money, which is not in `scored.penalty`.
    spend_rate_usd : float64[n]
        US dollars per request that exploration's budget is a share of.
    exploration_usd : float
        What exploration is expected to cost, all rows together.
    """

    scored: ScoredBatch
    reasons: NDArray[np.uint8]
    explore: Float64
    pmf: Float64
    u: Float64
    chosen: NDArray[np.intp]
    price: Price
    spend_rate_usd: Float64
    exploration_usd: float

    def fallbacks(self) -> list[list[str]]:
        """Return, per row, the eligible models that were not chosen, best utility first.

        A policy that reads the preference has no utility but its law, so its order is the pmf's.
        """
        scored, columns = self.scored, self.scored.columns
        names = [model.name for model in columns.models]
        utility = scored.mean - scored.penalty - self.price.high * scored.cost_usd
        best_first = -self.pmf if columns.snapshot.policy.reads_preference else -utility
        order = np.argsort(best_first, axis=1, kind="stable").tolist()
        rows = zip(order, self.reasons.tolist(), self.chosen.tolist(), strict=True)
        return [
            [names[k] for k in ranked if reasons[k] == 0 and k != chosen]
            for ranked, reasons, chosen in rows
        ]

"""A decision as a row and back, exactly: what the log holds is what the router computed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.decide.columns import Decisions
from banditroute.decide.reasons import REASONS
from banditroute.store.bulk import columns
from banditroute.store.tables import decisions as decisions_table
from policies import POLICIES, Policy
from policies.base import Float32, Float64
from policies.laws import draw
from policies.pacing.price import Price, priced

DECISION_COLUMNS = columns(decisions_table)
"""The order of the values that `encode` returns."""

TERMS = ("cost", "latency", "penalty", "explore", "pmf")
"""Rows of the float64[5, K] column ``terms``: US dollars, ms, quality units (money's price left
out: it has columns of its own), shares, law."""


@dataclass(frozen=True, slots=True)
class Note:
    """What a decision row holds beside the arithmetic: who asked, and what for."""

    id: str
    prompt_hash: str | None = None
    session_id: str | None = None
    task: str | None = None
    tags: str | None = None
    request_id: str | None = None


def encode(
    decisions: Decisions,
    notes: Sequence[Note],
    *,
    pool: str,
    created_at: int,
    expires_at: int,
) -> list[tuple[Any, ...]]:
    """Return a row, in the order of `DECISION_COLUMNS`, for each decision that chose a model."""
    frame, asks, policy_identity = (
        decisions.scored.columns,
        decisions.scored.requests,
        decisions.scored.columns.snapshot.policy_identity,
    )
    at = np.arange(len(notes)), decisions.chosen
    input_cost = decisions.scored.input_cost_usd[at]
    prior = input_cost + frame.output_prior_usd[decisions.chosen]
    names = [model.name for model in frame.models]
    score_names = ",".join(decisions.scored.scores)
    identity_columns = policy_identity.id, frame.snapshot.version, policy_identity.embedder
    price = decisions.price
    money = np.hstack([price.low, price.high, price.share, price.gain])
    by_row = zip(
        notes,
        decisions.chosen.tolist(),
        decisions.pmf[at].tolist(),
        decisions.u.tolist(),
        asks.preference.tolist(),
        decisions.scored.reservation_nano[at].tolist(),
        decisions.scored.max_output_tokens[at].astype(np.int64).tolist(),
        money.tolist(),
        decisions.spend_rate_usd.tolist(),
        asks.input_tokens.tolist(),
        prior.tolist(),
        input_cost.tolist(),
        _slices(decisions.reasons),
        _slices(asks.features.astype("<f4", copy=False)),
        _slices(_stack([v.astype("<f4", copy=False) for v in decisions.scored.scores.values()])),
        _slices(_stack([decisions.scored.mean, decisions.scored.std])),
        _slices(
            _stack(
                [
                    decisions.scored.cost_usd,
                    decisions.scored.latency_ms,
                    decisions.scored.penalty,
                    decisions.explore,
                    decisions.pmf,
                ]
            )
        ),
        strict=True,
    )
    return [
        (
            note.id,
            pool,
            created_at,
            expires_at,
            *identity_columns,
            names[chosen],
            propensity,
            u,
            *weights,
            policy_identity.tau_cost,
            *money,
            rate,
            reserved,
            limit,
            tokens,
            cost_prior,
            input_usd,
            frame.names_json,
            frame.prices_json,
            verdict,
            features,
            score_names,
            scores,
            estimates,
            terms,
            note.prompt_hash,
            note.session_id,
            note.task,
            note.tags,
            note.request_id,
            None,
            None,
        )
        for (
            note,
            chosen,
            propensity,
            u,
            weights,
            reserved,
            limit,
            money,
            rate,
            tokens,
            cost_prior,
            input_usd,
            verdict,
            features,
            scores,
            estimates,
            terms,
        ) in by_row
        if chosen >= 0
    ]


def _stack(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(arrays, axis=1)


def _slices(array: NDArray[Any]) -> list[bytes]:
    """Return the bytes of each row of a [n, m] array."""
    whole = np.ascontiguousarray(array).tobytes()
    width = len(whole) // max(len(array), 1)
    return [whole[at : at + width] for at in range(0, len(whole), width)] if width else []


@dataclass(frozen=True, slots=True)
class Logged:
    """A decision row, decoded; see `Decisions` for shapes and units, here without the n."""

    arms: list[str]
    prices: list[int]
    verdict: NDArray[np.uint8]
    features: Float32
    scores: dict[str, Float32]
    mean: Float32
    std: Float32
    cost: Float64
    latency: Float64
    penalty: Float64
    explore: Float64
    pmf: Float64
    u: float
    policy: str
    price: Price

    def recompute(self) -> tuple[Float64, str]:
        """Return the pmf[K] and the chosen arm, computed from this row and nothing else."""
        kind = POLICIES[self.policy.rsplit("-", 1)[0]]
        pmf = self.law(kind, {name: value[None] for name, value in self.scores.items()})
        return pmf, self.arms[int(draw(pmf[None], np.array([self.u]))[0])]

    def law(self, kind: type[Policy], scores: Mapping[str, Float32]) -> Float64:
        """Return the pmf[K] of these scores, float32[1, K] each, in all that this row says."""
        explore = self.explore[None] if self.explore.any() else None
        open_to = (self.verdict == 0)[None]
        fine, cost = self.penalty[None], self.cost[None]
        pmf: Float64 = priced(kind, scores, open_to, fine, cost, self.price, explore)[0]
        return pmf

    def explain(self) -> list[dict[str, Any]]:
        """Return, per model, what spoke for it and against it."""
        return [
            {
                "model": name,
                "price_row": self.prices[k],
                "mean": float(self.mean[k]),
                "std": float(self.std[k]),
                "cost_usd": float(self.cost[k]),
                "latency_ms": float(self.latency[k]),
                "penalty": float(self.penalty[k]),
                "scores": {key: float(value[k]) for key, value in self.scores.items()},
                "probability": float(self.pmf[k]),
                "exploration": float(self.explore[k]),
                "rejected": REASONS[self.verdict[k]] if self.verdict[k] else None,
            }
            for k, name in enumerate(self.arms)
        ]


def decode(row: Mapping[str, Any]) -> Logged:
    """Return what `encode` was given for this row, bit for bit."""
    arms = json.loads(row["arms"])
    k = len(arms)
    scores = np.frombuffer(row["scores"], dtype="<f4").reshape(-1, k)
    mean, std = np.frombuffer(row["estimates"], dtype="<f4").reshape(2, k)
    terms = np.frombuffer(row["terms"], dtype="<f8").reshape(len(TERMS), k)
    return Logged(
        arms=arms,
        prices=json.loads(row["prices"]),
        verdict=np.frombuffer(row["verdict"], dtype=np.uint8),
        features=np.frombuffer(row["features"], dtype="<f4"),
        scores=dict(zip(row["score_names"].split(","), scores, strict=True)),
        mean=mean,
        std=std,
        **dict(zip(TERMS, terms, strict=True)),
        u=row["u"],
        policy=row["policy"],
        price=Price.flat(
            1,
            row["lambda_low"],
            row["lambda_high"],
            share=row["lambda_mix"],
            gain=row["lambda_gain"],
        ),
    )

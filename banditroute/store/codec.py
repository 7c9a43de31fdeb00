"""A decision as a row and back, exactly: what the log holds is what the router computed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.router import REASONS, Decisions
from policies import POLICIES
from policies.base import Float32, Float64, draw

TERMS = ("cost", "latency", "penalty", "explore", "pmf")
"""Rows of the float64[5, K] column ``terms``: US dollars, ms, quality units, shares, law."""


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
) -> list[dict[str, Any]]:
    """Return a row for each decision that chose a model, as parameters of an insert."""
    frame, asks, charter = decisions.frame, decisions.asks, decisions.frame.snapshot.charter
    features = _slices(asks.features.astype("<f4", copy=False))
    names = ",".join(decisions.scores)
    scores = _slices(_stack([v.astype("<f4", copy=False) for v in decisions.scores.values()]))
    estimates = _slices(_stack([decisions.mean, decisions.std]))
    terms = _slices(_stack([getattr(decisions, name) for name in TERMS]))
    verdicts = _slices(decisions.verdict)
    n = len(notes)
    at = np.arange(n), decisions.chosen
    propensity = decisions.pmf[at].tolist()
    reserved = decisions.reserved_nano[at].tolist()
    limit = decisions.max_output[at].tolist()
    input_cost = decisions.input_cost[at]
    prior = (input_cost + (frame.prior_output * frame.output_price)[decisions.chosen]).tolist()
    columns = zip(
        notes,
        decisions.chosen.tolist(),
        decisions.u.tolist(),
        asks.preference.tolist(),
        asks.input_tokens.tolist(),
        input_cost.tolist(),
        strict=True,
    )
    shared = {
        "pool": pool,
        "created_at": created_at,
        "expires_at": expires_at,
        "policy": charter.identity,
        "version": frame.snapshot.version,
        "embedder": charter.embedder,
        "tau_cost": charter.tau_cost,
        "lambda_low": decisions.price_of_money,
        "lambda_high": decisions.price_of_money,
        "lambda_mix": 0.0,
        "spend_rate": decisions.spend_rate,
        "arms": frame.names_json,
        "prices": frame.prices_json,
        "score_names": names,
    }
    return [
        shared
        | {
            "id": note.id,
            "model": frame.models[chosen].name,
            "propensity": propensity[i],
            "u": u,
            "w_quality": weights[0],
            "w_cost": weights[1],
            "w_latency": weights[2],
            "reserved_nano": reserved[i],
            "max_output_tokens": int(limit[i]),
            "input_tokens": tokens,
            "cost_prior": prior[i],
            "input_cost": input_usd,
            "verdict": verdicts[i],
            "features": features[i],
            "scores": scores[i],
            "estimates": estimates[i],
            "terms": terms[i],
            "prompt_hash": note.prompt_hash,
            "session_id": note.session_id,
            "task": note.task,
            "tags": note.tags,
            "request_id": note.request_id,
        }
        for i, (note, chosen, u, weights, tokens, input_usd) in enumerate(columns)
        if chosen >= 0
    ]


def _stack(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.stack(arrays, axis=1)


def _slices(array: NDArray[Any]) -> list[bytes]:
    """Return the bytes of each row of a [n, ...] array."""
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

    def recompute(self) -> tuple[Float64, str]:
        """Return the pmf[K] and the chosen arm, computed from this row and nothing else."""
        kind = POLICIES[self.policy.rsplit("-", 1)[0]]
        scores = {name: value[None] for name, value in self.scores.items()}
        explore = self.explore[None] if self.explore.any() else None
        pmf = kind.pmf(scores, (self.verdict == 0)[None], self.penalty[None], explore)
        return pmf[0], self.arms[int(draw(pmf, np.array([self.u]))[0])]

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
    )

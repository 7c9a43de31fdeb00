"""Decisions as rows of the log and back, bit for bit: a row holds what the router computed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditroute.decide.columns import Decisions
from banditroute.decide.reasons import REASONS
from banditroute.store.bulk import columns
from banditroute.store.tables import decisions as decisions_table
from policies import POLICIES, Policy
from policies.base import Float32, Float64
from policies.laws import draw
from policies.pacing.price import Price, PriceTerms, priced

DECISION_COLUMNS = columns(decisions_table)
"""The columns that `encode` fills, in the order of the values of a row."""

_FLOAT32 = np.dtype("<f4")
_in_order = itemgetter(*DECISION_COLUMNS)

TERMS = ("cost", "latency", "penalty", "explore", "pmf")
"""Rows of the float64[5, K] column ``terms``: US dollars, ms, quality units without the price of
money (which has columns of its own), exploration shares, probabilities."""


class Note(NamedTuple):
    """What a decision row holds beside the arithmetic.

    Attributes
    ----------
    id : str
        Id of the decision.
    prompt_hash : str or None
        Keyed hash of the prompt.
    session_id, task, request_id : str or None
        As the request had them.
    tags : str or None
        The request's tags as a JSON object.
    """

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
    created_at_us: int,
    expires_at_us: int,
) -> dict[str, Sequence[Any]]:
    """Return the columns of the decisions that chose a model, by the names of the table.

    Parameters
    ----------
    decisions : Decisions
        n decisions, at least one.
    notes : sequence of Note
        One for each decision.
    pool : str
        The pool that they were made in.
    created_at_us, expires_at_us : int
        Time of the decisions, and until when feedback on them is learned.

    Returns
    -------
    dict of sequences
        A sequence for each of `DECISION_COLUMNS`, with a value for each decision that chose a
        model, in order.
    """
    scored, price, n = decisions.scored, decisions.price, len(notes)
    models, requests = scored.columns, scored.requests
    snapshot, identity = models.snapshot, models.snapshot.policy_identity
    names = [model.name for model in models.models]
    chosen = decisions.chosen.tolist()
    own = np.arange(n), decisions.chosen
    input_cost_usd = scored.input_cost_usd[own]
    terms = scored.cost_usd, scored.latency_ms, scored.penalty, decisions.explore, decisions.pmf
    ids, hashes, sessions, tasks, tags, request_ids = zip(*notes, strict=True)
    w_quality, w_cost, w_latency = requests.preference.T.tolist()
    encoded: dict[str, Sequence[Any]] = {
        "id": ids,
        "pool": (pool,) * n,
        "created_at": (created_at_us,) * n,
        "expires_at": (expires_at_us,) * n,
        "policy": (identity.id,) * n,
        "version": (snapshot.version,) * n,
        "embedder": (identity.embedder,) * n,
        "model": [names[k] for k in chosen],
        "propensity": decisions.pmf[own].tolist(),
        "u": decisions.u.tolist(),
        "w_quality": w_quality,
        "w_cost": w_cost,
        "w_latency": w_latency,
        "tau_cost": (identity.tau_cost_usd,) * n,
        "lambda_low": price.low.ravel().tolist(),
        "lambda_high": price.high.ravel().tolist(),
        "lambda_mix": price.share.ravel().tolist(),
        "lambda_gain": price.gain.ravel().tolist(),
        "spend_rate": decisions.spend_rate_usd.tolist(),
        "reserved_nano": scored.reservation_nano[own].tolist(),
        "max_output_tokens": list(map(int, scored.max_output_tokens[own].tolist())),
        "input_tokens": requests.input_tokens.tolist(),
        "cost_prior": (input_cost_usd + models.output_prior_usd[decisions.chosen]).tolist(),
        "input_cost": input_cost_usd.tolist(),
        "arms": (models.names_json,) * n,
        "prices": (models.prices_json,) * n,
        "verdict": _slices(decisions.reasons),
        "features": _slices(requests.features.astype(_FLOAT32, copy=False)),
        "score_names": (",".join(scored.scores),) * n,
        "scores": _slices(_stack([v.astype(_FLOAT32, copy=False) for v in scored.scores.values()])),
        "estimates": _slices(_stack([scored.mean, scored.std])),
        "terms": _slices(_stack(terms)),
        "prompt_hash": hashes,
        "session_id": sessions,
        "task": tasks,
        "tags": tags,
        "request_id": request_ids,
        "overridden_by": (None,) * n,
        "cancelled_at": (None,) * n,
    }
    if min(chosen) >= 0:
        return encoded
    chose = [k >= 0 for k in chosen]
    return {name: list(compress(values, chose)) for name, values in encoded.items()}


def as_rows(encoded: Mapping[str, Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Return the columns of `encode` as rows in the order of `DECISION_COLUMNS`."""
    return list(zip(*_in_order(encoded), strict=True))


def _stack(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(arrays, axis=1)


def _slices(array: NDArray[Any]) -> list[bytes]:
    """Return the bytes of each row of a [n, m] array."""
    whole = array.tobytes()
    if len(array) == 1:
        return [whole]
    width = len(whole) // max(len(array), 1)
    return [whole[start : start + width] for start in range(0, len(whole), width)] if width else []


@dataclass(frozen=True, slots=True)
class Logged:
    """A decision row, decoded.

    Attributes
    ----------
    arms : list of str
        Names of the K models; all arrays of shape [K] are in their order.
    prices : list of int
        Ids of their price rows.
    verdict : uint8[K]
        Index into `REASONS`, 0 where a model was eligible.
    features : float32[d]
        What the policy saw of the request.
    scores : dict of float32[K]
        What the policy's law reads, by name.
    mean, std : float32[K]
        Estimated quality.
    cost, latency, penalty : float64[K]
        Predicted US dollars and milliseconds, and both in quality units under the preference.
    explore : float64[K]
        Absolute exploration shares.
    pmf : float64[K]
        Probabilities of the draw.
    u : float
        The uniform that was drawn.
    policy : str
        Identity of the policy.
    price : Price
        The price of money, of one decision.
    """

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
        """Return the pmf, float64[K], and the chosen arm, computed from this row alone."""
        kind = POLICIES[self.policy.rsplit("-", 1)[0]]
        pmf = self.law(kind, {name: value[None] for name, value in self.scores.items()})
        return pmf, self.arms[int(draw(pmf[None], np.array([self.u]))[0])]

    def law(self, kind: type[Policy], scores: Mapping[str, Float32]) -> Float64:
        """Return the pmf that scores give under the constraints and prices of this row.

        Parameters
        ----------
        kind : type of Policy
            The class of the policy.
        scores : mapping of float32[1, K]
            What its law reads, by name.

        Returns
        -------
        float64[K]
            The probabilities.
        """
        explore = self.explore[None] if self.explore.any() else None
        eligible = (self.verdict == 0)[None]
        penalty, cost_usd = self.penalty[None], self.cost[None]
        pmf: Float64 = priced(kind, scores, eligible, penalty, cost_usd, self.price, explore)[0]
        return pmf

    def explain(self) -> list[dict[str, Any]]:
        """Return, per model, what the decision depended on, for a person."""
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
    """Return what `encode` was given for a row, bit for bit."""
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
        price=PriceTerms(
            low=row["lambda_low"],
            high=row["lambda_high"],
            share=row["lambda_mix"],
            gain=row["lambda_gain"],
        ).rows(1),
    )

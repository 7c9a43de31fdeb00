"""Routers over a fold with three models, for tests of the decision."""

from __future__ import annotations

from typing import Any

import numpy as np

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import Model, PoolOptions
from banditroute.decide.columns import Decisions, RequestBatch, Snapshot
from banditroute.decide.reasons import REASONS
from banditroute.decide.router import Router
from banditroute.learn.fold import Event, Fold
from policies import Outcome, full_params

DIM = 6
CHEAP = Model(name="cheap", input_price=0.1, output_price=0.4, price_id=1)
ABLE = Model(
    name="able",
    input_price=1.0,
    output_price=4.0,
    price_id=2,
    max_output_tokens=100,
    context_length=500,
    capabilities=frozenset({"tools"}),
)
BEST = Model(name="best", input_price=5.0, output_price=20.0, price_id=3)
MODELS = [CHEAP, ABLE, BEST]
NONE = np.zeros(5)


def fold_of(*arms: str, outcomes: int = 60, policy: str = "linucb", **params: object) -> Fold:
    policy_identity = PolicyIdentity(
        policy=policy,
        params=full_params(policy, params),
        embedder="words",
        dim=DIM,
        tau_cost_usd=0.01,
        tau_latency_ms=1_000.0,
    )
    fold, rng = Fold(policy_identity), np.random.default_rng(7)
    for seq, name in enumerate(arms, start=1):
        fold.apply(Event(seq, "p", "model_added", payload={"name": name}))
    for i in range(outcomes if arms else 0):
        x = features(rng, 1)[0]
        arm = arms[i % len(arms)]
        shared: dict[str, Any] = {
            "arm": arm,
            "x": x,
            "cost_prior_usd": 0.002,
            "input_cost_usd": 0.0,
        }
        for field, value in (
            ("quality", float(x[1] > 0) if arm == "able" else 0.6),
            ("cost", float(rng.uniform(0.001, 0.004))),
            ("latency", 100.0 * (1 + arms.index(arm))),
        ):
            seq = fold.version + 1
            outcome = Outcome(seq, f"d{seq}", field=field, value=value, **shared)
            fold.apply(Event(seq, "p", "feedback", outcome, embedder="words"))
    return fold


def features(rng: np.random.Generator, n: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    x = rng.normal(size=(n, DIM)).astype(np.float32)
    x[:, -1] = 1.0
    return x


def asks_of(n: int, seed: int = 1, **limits: Any) -> RequestBatch:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 400, size=n).astype(np.float64)
    columns: dict[str, Any] = {
        "features": features(rng, n),
        "preference": np.tile([0.6, 0.3, 0.1], (n, 1)),
        "input_tokens": tokens,
        "input_bound": tokens * 4,
    }
    return RequestBatch(**columns | limits)


def router_of(
    snapshot: Snapshot, models: list[Model] | None = None, *, seed: int = 3, **options: Any
) -> Router:
    return Router(
        options=PoolOptions(**options),
        snapshot=snapshot,
        models=MODELS if models is None else models,
        rng=np.random.default_rng(seed),
    )


def verdicts(decided: Decisions, row: int = 0) -> dict[str, str]:
    names = [model.name for model in decided.scored.columns.models]
    return {name: REASONS[code] for name, code in zip(names, decided.reasons[row], strict=True)}


def columns_of(asks: RequestBatch) -> dict[str, Any]:
    return {name: getattr(asks, name) for name in RequestBatch.__dataclass_fields__}


class Wallet:
    """A purse of one budget."""

    def __init__(self, nano: int, keep: int = 0) -> None:
        self.left, self.keep, self.taken = nano, keep, list[int]()

    def headroom(self, row: int) -> int:
        return self.left

    def spare(self, row: int) -> int:
        return self.left - self.keep

    def take(self, row: int, nano: int) -> None:
        assert nano <= self.left
        self.left -= nano
        self.taken.append(nano)

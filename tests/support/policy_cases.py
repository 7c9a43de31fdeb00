"""Data for the tests of every policy: cases, a log to learn from, and rows to decide on.

Nothing here may use more of a policy than its contract promises.

`test_conformance.py` checks each promise of the contract for each case. A policy joins by being in
`POLICIES`. It needs a line in `PARAMETERS` only where its defaults have no effect on a short log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from policies import POLICIES, Comparison, Outcome, Policy, make_policy
from policies.base import Arrays, Bools, Float32, Float64

DIM = 6
# Nine arms, since the last bits of sums of eight and more depend on the memory layout.
ARMS = ("tiny", "small", "plain", "fair", "large", "odd", "good", "huge", "best")

PARAMETERS: dict[str, tuple[dict[str, object], ...]] = {
    "linucb": ({}, {"alpha": 1.0, "gamma": 0.97}, {"alpha": 0.0}, {"width": "theoretical"}),
    "pilot": ({}, {"score": "cosine"}, {"score": "cosine", "alpha": 1.0, "gamma": 0.97}),
    "d-thompson": ({}, {"gamma": 0.9}),
    "d-linucb": ({}, {"gamma": 0.9, "alpha": 1.0}, {"half_life": 9.0, "width": "theoretical"}),
    "sw-linucb": ({}, {"window": 60, "alpha": 1.0}, {"window": 40, "width": "theoretical"}),
    "d-ucb": ({}, {"gamma": 0.98, "xi": 0.6}, {"gamma": 1.0}),
    "sw-ucb": ({}, {"window": 60, "xi": 0.6}, {"window": 30}),
    "fixed": ({"arm": "large"}, {"arm": "nobody"}),
    "epsilon-greedy": ({}, {"epsilon": 0.3}),
    "barp": ({}, {"beta": 0.05, "rate": 0.01, "batch": 8, "memory": 50}, {"steps": 0}),
    "knn": ({}, {"k": 3, "memory": 50}, {"k": 3, "memory": 50, "distance": "euclidean"}),
}

Case = tuple[str, dict[str, object]]
CASES: list[Case] = [(n, params) for n in POLICIES for params in PARAMETERS.get(n, ({},))]


def build(case: Case, arms: Sequence[str] = ARMS) -> Policy:
    """Return a fresh policy of a case, with `arms` added in that order."""
    policy = make_policy(case[0], dim=DIM, params=case[1])
    for arm in arms:
        policy.add_arm(arm)
    return policy


def contexts(n: int, *, seed: int = 0) -> Float32:
    """Return float32[n, DIM] with the intercept last."""
    x = np.random.default_rng([1, seed]).normal(size=(n, DIM)).astype(np.float32)
    x[:, -1] = 1.0
    return x


def outcomes(n: int, *, seed: int = 0, arms: Sequence[str] = ARMS) -> list[Outcome]:
    """Return a log of n quality outcomes; a later arm of `ARMS` is better, and context counts."""
    rng = np.random.default_rng([2, seed])
    log = []
    for seq, x in enumerate(contexts(n, seed=seed), start=1):
        arm = arms[rng.integers(len(arms))]
        level = 0.1 + 0.09 * ARMS.index(arm) + 0.1 * float(x[0]) + 0.1 * rng.normal()
        log.append(
            Outcome(
                seq=seq,
                decision_id=f"d{seq}",
                arm=arm,
                x=x,
                field="quality",
                value=float(np.clip(level, 0.0, 1.0)),
                cost_usd=float(rng.uniform(1e-5, 1e-2)),
                propensity=1.0 / len(arms),
                preference=(0.7, 0.3, 0.0),
                cost_prior_usd=1e-3,
                input_cost_usd=1e-4,
            )
        )
    return log


def comparisons(n: int, *, seed: int = 0) -> list[Comparison]:
    """Return n comparisons; a later arm of `ARMS` wins more often."""
    rng = np.random.default_rng([4, seed])
    log = []
    for seq, x in enumerate(contexts(n, seed=seed + 50), start=1):
        a, b = sorted(rng.choice(len(ARMS), size=2, replace=False).tolist())
        if rng.random() < 0.7:
            a, b = b, a
        names = f"won{seq}", f"lost{seq}", ARMS[a], ARMS[b]
        log.append(Comparison(seq, *names, x, 0.5, 0.25, (0.7, 0.3, 0.0)))
    return log


def trained(case: Case, *, arms: Sequence[str] = ARMS) -> Policy:
    """Return a policy that has learned 120 outcomes and scores from them."""
    policy = build(case, arms)
    policy.learn(outcomes(120))
    policy.refresh()
    return policy


@dataclass(frozen=True)
class Rows:
    """Requests to decide on: float32[n, DIM], float64[n, 3], bool[n, K], float64[n, K]."""

    x: Float32
    preference: Float64
    eligible: Bools
    penalty: Float64

    def scores(self, policy: Policy) -> dict[str, Float32]:
        """Return the policy's scores for these rows."""
        return policy.score(self.x, self.preference)


def rows(n: int = 64, *, seed: int = 0) -> Rows:
    """Return n rows: the first has no eligible arm, the next K have one, and 20 have all.

    Penalties are ordinary, all zero, or as large as a preference without quality makes them.
    """
    rng, k = np.random.default_rng([3, seed]), len(ARMS)
    preference = rng.dirichlet(np.ones(3), size=n)
    eligible = rng.random((n, k)) < 0.7
    eligible[0] = False
    eligible[1 : k + 1] = np.eye(k, dtype=np.bool_)
    eligible[k + 1 : k + 21] = True
    penalty = rng.uniform(0.0, 0.3, size=(n, k))
    penalty[k + 1 :: 4] = 0.0
    penalty[k + 2 :: 4] *= 1e9
    return Rows(contexts(n, seed=seed + 100), preference, eligible, penalty)


def permuted(arrays: Mapping[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """Return the arrays [n, K] with their columns in another order."""
    return {name: array[:, order] for name, array in arrays.items()}


def same_bits(a: Arrays, b: Arrays) -> bool:
    """Return whether two sets of named arrays agree in name, shape, type and every bit."""
    return a.keys() == b.keys() and all(
        a[name].shape == b[name].shape
        and a[name].dtype == b[name].dtype
        and np.ascontiguousarray(a[name]).tobytes() == np.ascontiguousarray(b[name]).tobytes()
        for name in a
    )

"""Logs in which each arm is drawn many times in a row, so that some arms rest for long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policies import Outcome
from policies.base import Policy

ARMS = ("a", "b", "c", "late")
DIM = 4


def log(n: int, seed: int, arms: Sequence[str] = ARMS[:3]) -> list[Outcome]:
    """Return n quality outcomes; every draw of an arm is repeated up to 29 times."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, DIM)).astype(np.float32)
    x[:, -1] = 1.0
    drawn = np.repeat(rng.integers(len(arms), size=n), rng.integers(1, 30, size=n))[:n]
    return [
        Outcome(s, f"d{s}", arms[drawn[s - 1]], x[s - 1], "quality", float(rng.random()))
        for s in range(1, n + 1)
    ]


def trained(policy: Policy, outcomes: Sequence[Outcome], arms: Sequence[str] = ARMS[:3]) -> Policy:
    """Return the policy after it has learned the outcomes and published."""
    for arm in arms:
        policy.add_arm(arm)
    policy.learn(outcomes)
    policy.refresh()
    return policy

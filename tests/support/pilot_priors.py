"""Priors for PILOT on the features of the conformance suite, and policies that start from one."""

from __future__ import annotations

import numpy as np

from policies.base import Arrays
from policies.pilot import Pilot
from support.policy_cases import ARMS, DIM

QUALITY_ONLY = np.array([[1.0, 0.0, 0.0]])
# Not the defaults: those may be tuned, and the formulas stay.
GIVEN = {"alpha": 0.3, "trust": 8.0, "slopes": 5.0, "gain": 0.2, "level": 2.0, "prior": 0.6}
SIZE = 4


def preferences(arms: tuple[str, ...] = ARMS, *, seed: int = 0, **changes: object) -> Arrays:
    """Return a prior of `SIZE` coordinates on the features of the conformance suite."""
    rng = np.random.default_rng([9, seed])
    v = rng.normal(size=(len(arms), SIZE))
    arrays: dict[str, object] = {
        "arms": np.array(arms),
        "projection": rng.normal(size=(SIZE, DIM)),
        "center": 0.2 * rng.normal(size=SIZE),
        "embeddings": v / np.linalg.norm(v, axis=1, keepdims=True),
        "temperature": np.array(0.5),
        "context": np.array(0.7),
        "support": np.array(0.8),
        "accuracy": rng.uniform(0.5, 1.0, size=len(arms)),
    }
    return {name: np.asarray(value) for name, value in (arrays | changes).items()}


def started(prior: Arrays, /, *, arms: tuple[str, ...] = ARMS, **params: object) -> Pilot:
    """Return a policy that starts from a prior, with `arms` added."""
    policy = Pilot(dim=DIM, **params)
    policy.adopt(prior)
    for arm in arms:
        policy.add_arm(arm)
    return policy

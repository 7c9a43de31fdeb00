"""The caller's task as features: one column for each task that a pool names, before the intercept.

Which tasks a pool names is part of its policy's identity, since coefficients are for columns. A
task that is not named, or none, is all zeros: the policy then sees the prompt alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from policies.base import Float32


def identity(embedder: str, names: Sequence[str]) -> str:
    """Return the identity of an embedder's features widened by the columns of `names`."""
    if not names:
        return embedder
    return f"{embedder}+tasks-{hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()[:12]}"


def widen(features: Float32, tasks: Sequence[str | None], names: Sequence[str]) -> Float32:
    """Return float32[n, d + len(names)]: features[n, d] with the tasks before the last column."""
    if not names:
        return features
    column = {name: k for k, name in enumerate(names)}
    flags = np.zeros((len(features), len(names)), dtype=np.float32)
    for row, task in enumerate(tasks):
        if task in column:
            flags[row, column[task]] = 1.0
    return np.concatenate([features[:, :-1], flags, features[:, -1:]], axis=1)

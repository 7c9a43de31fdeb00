"""The caller's task as features: one column for each task that a pool names, before the intercept.

The tasks that a pool names are part of its policy's identity, since a coefficient belongs to a
column. Another task, or none, is zero in all columns: the policy then sees the prompt alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from policies.base import Float32


def identity(embedder: str, names: Sequence[str]) -> str:
    """Return the identity of an embedder's features with columns for tasks.

    Parameters
    ----------
    embedder : str
        Identity of the embedder.
    names : sequence of str
        Tasks of the pool.

    Returns
    -------
    str
        That of the embedder where there are no tasks.
    """
    if not names:
        return embedder
    return f"{embedder}+tasks-{hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()[:12]}"


def widen(features: Float32, tasks: Sequence[str | None], names: Sequence[str]) -> Float32:
    """Return features with columns for tasks before the last column.

    Parameters
    ----------
    features : float32[n, d]
        Features of an embedder.
    tasks : sequence of str or None
        n tasks of requests.
    names : sequence of str
        K tasks of the pool.

    Returns
    -------
    float32[n, d + K]
        1 in the column of the request's task.
    """
    if not names:
        return features
    column = {name: k for k, name in enumerate(names)}
    flags = np.zeros((len(features), len(names)), dtype=np.float32)
    for row, task in enumerate(tasks):
        if task in column:
            flags[row, column[task]] = 1.0
    return np.concatenate([features[:, :-1], flags, features[:, -1:]], axis=1)

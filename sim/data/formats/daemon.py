"""The log of a running daemon: the decisions of a pool and what feedback said of them.

Only the chosen model has quality and cost; prompts are not stored. Decisions that another model
answered, or that were cancelled, say nothing of the policy and are left out, and a default quality
is no judgement. Nothing is ever written to the database.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np

from banditroute.learn.learner import counting
from banditroute.store.log import Log
from sim.data.database import opened
from sim.data.dataset import Dataset
from sim.errors import InputError


def read(url: str, pool: str | None = None) -> Dataset:
    """Return the decisions of a pool, in the order in which they were made.

    Parameters
    ----------
    url : any that SQLAlchemy knows.
    pool : None where there is only one.

    Raises
    ------
    InputError
        When the database cannot be read, or has no such pool or no decision of it.
    """
    with opened(url, "DATA") as log:
        pool = _pool(log, pool)
        return _dataset(log, pool)


def _pool(log: Log, pool: str | None) -> str:
    pools = log.started_pools()
    if pool is None and len(pools) == 1:
        return pools[0]
    if pool not in pools:
        known = ", ".join(pools) or "none"
        told = "there are several pools, one is expected" if pool is None else f"no pool {pool!r}"
        raise InputError(f"--pool: {told}; the log has {known}" if pools else "DATA: an empty log")
    return pool


def _dataset(log: Log, pool: str) -> Dataset:
    learned: dict[str, dict[str, float]] = defaultdict(dict)
    for event in counting(log, pool):
        if event.kind == "feedback" and event.outcome is not None:
            learned[event.outcome.decision_id][event.outcome.field] = event.outcome.value
    left_out: Counter[str] = Counter()
    models: dict[str, int] = {}
    kept: list[tuple[int, str, str, str]] = []
    for row in log.decisions(pool):
        models |= {row["model"]: models.setdefault(row["model"], len(models))}
        if row["overridden_by"] is not None:
            left_out["overridden"] += 1
        elif row["cancelled_at"] is not None:
            left_out["cancelled"] += 1
        else:
            kept.append((row["created_at"], row["id"], row["model"], row["task"] or ""))
    if not kept:
        raise InputError(f"DATA: the log of pool {pool!r} has no decision that was used")
    kept.sort()
    quality, cost = (np.full((len(kept), len(models)), np.nan) for _ in range(2))
    for i, (_, decision, model, _) in enumerate(kept):
        quality[i, models[model]] = learned[decision].get("quality", math.nan)
        cost[i, models[model]] = learned[decision].get("cost", math.nan)
    return Dataset(
        name=pool,
        prompts=("",) * len(kept),
        task=tuple(task for *_, task in kept),
        split=("",) * len(kept),
        models=tuple(models),
        quality=quality,
        cost_usd=cost,
        notes=(
            *(f"{count} {kind} decisions left out" for kind, count in left_out.items()),
            "a log does not store prompts, and knows the outcome of the chosen model only",
        ),
    )

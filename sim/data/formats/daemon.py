"""The log of a daemon: the decisions of a pool and the feedback on them.

Only the chosen model has quality and cost; prompts are not stored. Decisions that another model
answered and decisions that were cancelled are left out: they say nothing about the policy. A
default quality is not a judgement, so it stays NaN. This module must never write to the database.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np

from banditroute.learn.learner import effective_events
from banditroute.store.log import Log
from sim.data.database import open_log
from sim.data.dataset import Dataset
from sim.errors import InputError


def read(url: str, pool: str | None = None) -> Dataset:
    """Return the decisions of a pool, in the order in which they were made.

    Parameters
    ----------
    url : str
        Any that SQLAlchemy accepts.
    pool : str, optional
        Not needed where the log has only one.

    Returns
    -------
    Dataset
        A row for each decision.

    Raises
    ------
    InputError
        When the database cannot be read, or has no such pool or no decision of it.
    """
    with open_log(url, "DATA") as log:
        return _dataset(log, _pool_of(log, pool))


def _pool_of(log: Log, pool: str | None) -> str:
    pools = log.started_pools()
    if pool is None and len(pools) == 1:
        return pools[0]
    if pool not in pools:
        if not pools:
            raise InputError("DATA: an empty log")
        fault = "there are several pools, one is expected" if pool is None else f"no pool {pool!r}"
        raise InputError(f"--pool: {fault}; the log has {', '.join(pools)}")
    return pool


def _dataset(log: Log, pool: str) -> Dataset:
    learned: dict[str, dict[str, float]] = defaultdict(dict)
    for event in effective_events(log, pool):
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
    quality, cost_usd = (np.full((len(kept), len(models)), np.nan) for _ in range(2))
    for i, (_, decision, model, _) in enumerate(kept):
        quality[i, models[model]] = learned[decision].get("quality", math.nan)
        cost_usd[i, models[model]] = learned[decision].get("cost", math.nan)
    return Dataset(
        name=pool,
        prompts=("",) * len(kept),
        task=tuple(task for *_, task in kept),
        split=("",) * len(kept),
        models=tuple(models),
        quality=quality,
        cost_usd=cost_usd,
        notes=(
            *(f"{count} {kind} decisions left out" for kind, count in left_out.items()),
            "a log does not store prompts, and has the outcome of the chosen model only",
        ),
    )

"""What a new model's scored prompts teach before anybody is routed to it.

A few hundred answers that were judged elsewhere become one `prior` event in the transaction that
adds the model, so it is used at once where it is good and left alone where it is not. Prompts and
embeddings leave nothing in the log but sums.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from banditroute.contract.schemas import NewModel, ScoredPrompt
from banditroute.core.errors import InvalidValue
from banditroute.features.embedding import FEATURES
from banditroute.fitting.warm_start import clusters, default_clusters, fit
from banditroute.learn.prior import Prior
from banditroute.service.pool import Pool
from banditroute.service.pools import Pools
from banditroute.service.refusals import exists
from banditroute.service.request_columns import check_features, features_of
from policies import make_policy
from policies.base import Float32


async def add_model(pools: Pools, new: NewModel) -> dict[str, Any]:
    """Add a model, with the prior that its scored prompts make, and describe both."""
    if new.scored is None:
        return await pools.add_model(new) | {"prior": None}
    pool = await pools.find_or_preview(new.pool)
    if any(model.name == new.name and not model.draining for model in pool.models):
        raise exists(new)  # before a thousand prompts are embedded for nothing
    _check(pool, new.scored)
    x = await features_of(pool, new.scored)
    prior, told = await asyncio.to_thread(_fit, pool, new, new.scored, x)
    return await pools.add_model(new, prior=prior.text()) | {"prior": told}


def _check(pool: Pool, scored: list[ScoredPrompt]) -> None:
    spec = pool.options.policy
    policy = make_policy(spec.name, dim=FEATURES + len(pool.options.tasks), params=spec.params)
    if pool.prior is not None:
        policy.adopt(pool.prior.arrays)
    if not policy.teachable():
        raise InvalidValue(f"policy {spec.name} has no use for scored prompts", param="scored")
    for i, row in enumerate(scored):
        check_features(pool, row, f"scored[{i}].")


def _fit(
    pool: Pool, new: NewModel, scored: list[ScoredPrompt], x: Float32
) -> tuple[Prior, dict[str, Any]]:
    cluster = clusters(x, default_clusters(len(x)))
    quality = np.array([row.quality for row in scored])
    arrays = fit(x, {new.name: quality}, n_effective=new.n_effective, cluster=cluster)
    told = {
        "outcomes": len(scored),
        "clusters": int(cluster.max()) + 1,
        "n_effective": float(arrays["count"][0]),
    }
    return Prior("sums", pool.features, arrays), told

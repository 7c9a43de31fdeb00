"""Add a model with scored prompts: what they teach is known before the first request.

A few hundred answers of the model that were judged elsewhere become one `prior` event, in the
transaction that adds the model. So the model is used at once where it is good, and hardly where it
is not. Neither prompts nor their embeddings may reach the log, only sums over them.
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
    """Add a model with the prior of its scored prompts.

    Parameters
    ----------
    pools : Pools
        The pools; a missing one is made.
    new : NewModel
        The model, and its scored prompts if any.

    Returns
    -------
    dict
        The model as the HTTP API shows it, and its prior, None without scored prompts.

    Raises
    ------
    Exists
        If the pool has the model already.
    InvalidValue
        If the pool's policy or embedder cannot use the scored prompts.
    """
    if new.scored is None:
        return await pools.add_model(new) | {"prior": None}
    pool = await pools.find_or_preview(new.pool)
    if any(model.name == new.name and not model.draining for model in pool.models):
        raise exists(new)  # here, because to embed a thousand prompts takes time
    _check(pool, new.scored)
    features = await features_of(pool, new.scored)
    prior, prior_view = await asyncio.to_thread(_fit, pool, new, new.scored, features)
    return await pools.add_model(new, prior=prior.text()) | {"prior": prior_view}


def _check(pool: Pool, scored: list[ScoredPrompt]) -> None:
    """Refuse scored prompts that the pool's policy or embedder cannot use."""
    spec = pool.options.policy
    policy = make_policy(spec.name, dim=FEATURES + len(pool.options.tasks), params=spec.params)
    if pool.prior is not None:
        policy.adopt(pool.prior.arrays)
    if not policy.teachable():
        raise InvalidValue(f"policy {spec.name} has no use for scored prompts", param="scored")
    for i, row in enumerate(scored):
        check_features(pool, row, f"scored[{i}].")


def _fit(
    pool: Pool, new: NewModel, scored: list[ScoredPrompt], features: Float32
) -> tuple[Prior, dict[str, Any]]:
    """Return the prior of features[n, d] and their scores, and the prior's view."""
    cluster = clusters(features, default_clusters(len(features)))
    quality = np.array([row.quality for row in scored])
    arrays = fit(features, {new.name: quality}, n_effective=new.n_effective, cluster=cluster)
    view = {
        "outcomes": len(scored),
        "clusters": int(cluster.max()) + 1,
        "n_effective": float(arrays["count"][0]),
    }
    return Prior("sums", pool.features, arrays), view

"""Priors from outcomes that are known beforehand: of a data set, of a log, of a few scored prompts.

Everything here turns labelled prompts into `policies.base.Sums`, what imaginary outcomes have
taught a model, and never makes them worth more outcomes than there are labels. It is arithmetic:
it reads no file and has no say in who uses the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import PRIOR_OUTPUT_TOKENS, ModelSpec
from banditroute.learn.learner import EventLog, effective_events
from banditroute.learn.prior import arrays_of, parse_prior
from policies.base import Arrays, Float32, Float64, Sums
from policies.models.cost import log_ratio, log_ratio_of

SEED = 0
ROUNDS = 100
MOST_CLUSTERS = 32


def regression(x: Float32, values: Float64, *, n_effective: float) -> Sums:
    """Return what the labelled rows teach, scaled to `n_effective` outcomes or to all of them.

    Parameters
    ----------
    x : float32[n, d].
    values : float64[n]; NaN is a row without a label.
    n_effective : how many outcomes the sums are worth, where there are that many labels.
    """
    known = ~np.isnan(values)
    wide, labels = x[known].astype(np.float64), values[known]
    sums = Sums(wide.T @ wide, labels @ wide, float(labels @ labels), float(len(labels)))
    return sums.scaled(min(1.0, n_effective / max(sums.count, 1.0)))


def clustered(
    x: Float32, values: Float64, cluster: NDArray[np.intp], *, n_effective: float
) -> Sums:
    """Return what mean labels of clusters teach, as pseudo-outcomes at the clusters' centroids.

    Parameters
    ----------
    x : float32[n, d], all prompts, labelled or not.
    values : float64[n]; NaN is a row without a label.
    cluster : int[n], see `clusters`.
    n_effective : how many outcomes the sums are worth, at most as many as there are labels; split
        over the clusters by their sizes.

    Notes
    -----
    A cluster without a label has the mean over all labels. The squares are those of the labels,
    not of their means, so that a model's noise is not taken for smaller than it is.

    References
    ----------
    .. [1] Jitkrittum et al. (2026). Universal model routing for efficient LLM inference. ICLR.
    """
    labelled = ~np.isnan(values)
    total = int(labelled.sum())
    if total == 0:
        return regression(x, values, n_effective=n_effective)
    count = int(cluster.max()) + 1
    sizes = np.bincount(cluster, minlength=count).astype(np.float64)
    weights = sizes * (min(n_effective, total) / sizes.sum())
    centroids = np.zeros((count, x.shape[1]))
    np.add.at(centroids, cluster, x)
    centroids /= np.maximum(sizes, 1.0)[:, None]
    labels, own = values[labelled], cluster[labelled]
    seen = np.bincount(own, minlength=count)
    mean, square = (
        np.where(
            seen > 0,
            np.bincount(own, weights=power, minlength=count) / np.maximum(seen, 1),
            power.mean(),
        )
        for power in (labels, labels**2)
    )
    weighted = weights[:, None] * centroids
    gram = centroids.T @ weighted
    return Sums(gram, mean @ weighted, float(weights @ square), float(weights.sum()))


def clusters(x: Float32, count: int) -> NDArray[np.intp]:
    """Return the cluster[n] of each row of x[n, d], by k-means from a fixed seed.

    Parameters
    ----------
    x : float32[n, d], n at least 1.
    count : how many clusters; fewer where rows repeat.
    """
    rows, rng = x.astype(np.float64), np.random.default_rng(SEED)
    centres = rows[rng.integers(len(rows))][None]
    nearest = _distances(rows, centres)[:, 0]
    # Each further one is drawn in proportion to its squared distance from those before.
    while len(centres) < count and nearest.sum() > 0.0:
        drawn = rows[rng.choice(len(rows), p=nearest / nearest.sum())]
        centres = np.concatenate([centres, drawn[None]])
        nearest = np.minimum(nearest, _distances(rows, drawn[None])[:, 0])
    cluster: NDArray[np.intp] = _distances(rows, centres).argmin(axis=1)
    for _ in range(ROUNDS):
        for k in range(len(centres)):
            if (own := cluster == k).any():
                centres[k] = rows[own].mean(axis=0)
        before, cluster = cluster, _distances(rows, centres).argmin(axis=1)
        if np.array_equal(before, cluster):
            break
    return cluster


def _distances(rows: Float64, centres: Float64) -> Float64:
    return np.column_stack([((rows - centre) ** 2).sum(axis=1) for centre in centres])


def default_clusters(rows: int) -> int:
    """Return how many clusters `rows` prompts are worth."""
    return max(1, min(MOST_CLUSTERS, round(math.sqrt(rows / 2.0))))


def log_ratios(cost: Float64, *, spec: ModelSpec, tokens: Float64) -> Float64:
    """Return what the cost model learns from costs[n]; NaN where there is nothing to learn.

    Parameters
    ----------
    cost : float64[n], US dollars; NaN is unknown.
    spec : the price of the model.
    tokens : float64[n], input tokens.
    """
    output = PRIOR_OUTPUT_TOKENS * spec.output_price / 1e6
    if output <= 0.0:
        return np.full(len(cost), np.nan)
    ratio = (cost - tokens * spec.input_price / 1e6) / output
    return np.array([np.nan if np.isnan(one) else log_ratio(one) for one in ratio.tolist()])


def fit(
    x: Float32,
    quality: Mapping[str, Float64],
    *,
    n_effective: float,
    ratios: Mapping[str, Float64] | None = None,
    cluster: NDArray[np.intp] | None = None,
) -> Arrays:
    """Return the arrays of a prior of all models that have a label of quality or cost.

    Parameters
    ----------
    x : float32[n, d].
    quality : per model float64[n]; NaN is a row without a label.
    n_effective : how many outcomes the sums of a model are worth, at most.
    ratios : per model float64[n], see `log_ratios`; None fits no prior of costs.
    cluster : int[n], see `clusters`; None takes the rows as they are.
    """
    known = ratios or {}
    labelled = [
        name
        for name, values in quality.items()
        if not (np.isnan(values).all() and np.isnan(known.get(name, np.nan)).all())
    ]

    def sums(values: Float64) -> Sums:
        if cluster is None:
            return regression(x, values, n_effective=n_effective)
        return clustered(x, values, cluster, n_effective=n_effective)

    costs = None
    if ratios is not None:
        costs = {
            name: regression(x, ratios[name], n_effective=n_effective)
            for name in labelled
            if name in ratios
        }
    return arrays_of({name: sums(quality[name]) for name in labelled}, costs)


def logged(
    log: EventLog, pool: str
) -> tuple[PolicyIdentity, Float32, dict[str, Float64], dict[str, Float64]]:
    """Return (policy_identity, x[n, d], quality[n] by model, ratios[n] by model) of a pool's log.

    Each row is one outcome, so it has one label; outcomes of another embedder are left out.

    Raises
    ------
    ValueError
        If the policy of the pool never started, or nothing was learned.
    """
    found = log.policy_identity(pool)
    if found is None:
        raise ValueError(f"pool: the policy of {pool!r} never started")
    policy_identity = found[1]
    rows: list[Float32] = []
    labels: list[tuple[str, str, float]] = []
    for event in effective_events(log, pool):
        one = event.outcome
        if one is None or event.embedder != policy_identity.embedder or one.field == "latency":
            continue
        value = log_ratio_of(one) if one.field == "cost" else one.value
        if value is not None:
            rows.append(one.x)
            labels.append((one.field, one.arm, value))
    if not rows:
        raise ValueError(f"pool: the log of {pool!r} has no outcome to learn from")
    return policy_identity, np.stack(rows), _columns(labels, "quality"), _columns(labels, "cost")


def _columns(labels: Sequence[tuple[str, str, float]], field: str) -> dict[str, Float64]:
    columns: dict[str, Float64] = {}
    for i, (own, arm, value) in enumerate(labels):
        if own == field:
            if arm not in columns:
                columns[arm] = np.full(len(labels), np.nan)
            columns[arm][i] = value
    return columns


def basis_arrays(policy_identity: PolicyIdentity) -> dict[str, NDArray[Any]]:
    """Return the arrays of the fitted basis that a policy's embedder has, if it has one."""
    if not policy_identity.prior:
        return {}
    known = parse_prior(policy_identity.prior).arrays
    return {name: array for name, array in known.items() if name.startswith("basis_")}

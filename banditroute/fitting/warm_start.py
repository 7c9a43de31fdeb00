"""Priors from labelled prompts: of a dataset, of a log, or of a few scored prompts.

Everything here turns labels into sufficient statistics, `policies.base.Sums`, and never makes them
worth more outcomes than there are labels. Nothing here reads a file.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import PRIOR_OUTPUT_TOKENS, ModelSpec
from banditroute.fitting.logged_outcomes import logged_outcomes
from banditroute.learn.learner import EventLog
from banditroute.learn.prior import arrays_of, parse_prior
from policies.base import Arrays, Float32, Float64, Sums
from policies.models.cost import log_ratio, log_ratio_of

_SEED = 0
_MAX_ROUNDS = 100
_MAX_CLUSTERS = 32


def regression(x: Float32, values: Float64, *, n_effective: float) -> Sums:
    """Return the sums of the labelled rows, scaled to a number of outcomes.

    Parameters
    ----------
    x : float32[n, d]
        Features of prompts.
    values : float64[n]
        Labels; NaN for a row without one.
    n_effective : float
        How many outcomes the sums are worth; at most as many as there are labels.

    Returns
    -------
    Sums
        Sufficient statistics of a regression of the labels.
    """
    labelled = ~np.isnan(values)
    features, labels = x[labelled].astype(np.float64), values[labelled]
    sums = Sums(
        features.T @ features, labels @ features, float(labels @ labels), float(len(labels))
    )
    return sums.scaled(min(1.0, n_effective / max(sums.count, 1.0)))


def clustered(
    x: Float32, values: Float64, cluster: NDArray[np.intp] | None, *, n_effective: float
) -> Sums:
    """Return the sums of pseudo-outcomes: the mean label of each cluster, at its centroid.

    Parameters
    ----------
    x : float32[n, d]
        Features of all prompts, labelled or not.
    values : float64[n]
        Labels; NaN for a row without one.
    cluster : int[n] or None
        See `clusters`; None takes each labelled row as its own outcome, see `regression`.
    n_effective : float
        How many outcomes the sums are worth, at most as many as there are labels; split over the
        clusters by their sizes.

    Returns
    -------
    Sums
        Sufficient statistics of a regression of the pseudo-outcomes.

    Notes
    -----
    A cluster without a label has the mean over all labels. The sum of squares is that of the
    labels, not of their means: else a model's noise would be underestimated.

    References
    ----------
    .. [1] Jitkrittum et al. (2026). Universal model routing for efficient LLM inference. ICLR.
    """
    labelled = ~np.isnan(values)
    total = int(labelled.sum())
    if cluster is None or total == 0:
        return regression(x, values, n_effective=n_effective)
    count = int(cluster.max()) + 1
    sizes = np.bincount(cluster, minlength=count).astype(np.float64)
    weights = sizes * (min(n_effective, total) / sizes.sum())
    centroids = np.zeros((count, x.shape[1]))
    np.add.at(centroids, cluster, x)
    centroids /= np.maximum(sizes, 1.0)[:, None]
    labels, cluster_of_label = values[labelled], cluster[labelled]
    label_count = np.bincount(cluster_of_label, minlength=count)
    mean, square = (
        np.where(
            label_count > 0,
            np.bincount(cluster_of_label, weights=power, minlength=count)
            / np.maximum(label_count, 1),
            power.mean(),
        )
        for power in (labels, labels**2)
    )
    weighted = weights[:, None] * centroids
    gram = centroids.T @ weighted
    return Sums(gram, mean @ weighted, float(weights @ square), float(weights.sum()))


def clusters(x: Float32, count: int) -> NDArray[np.intp]:
    """Return a cluster for each row, by k-means++ from a fixed seed.

    Parameters
    ----------
    x : float32[n, d]
        At least one row.
    count : int
        How many clusters; fewer where rows repeat.

    Returns
    -------
    int[n]
        Clusters from 0.
    """
    rows, rng = x.astype(np.float64), np.random.default_rng(_SEED)
    centres = rows[rng.integers(len(rows))][None]
    nearest = _squared_distances(rows, centres)[:, 0]
    # Each further centre is drawn in proportion to its squared distance from those before.
    while len(centres) < count and nearest.sum() > 0.0:
        centre = rows[rng.choice(len(rows), p=nearest / nearest.sum())]
        centres = np.concatenate([centres, centre[None]])
        nearest = np.minimum(nearest, _squared_distances(rows, centre[None])[:, 0])
    cluster: NDArray[np.intp] = _squared_distances(rows, centres).argmin(axis=1)
    for _ in range(_MAX_ROUNDS):
        for k in range(len(centres)):
            if (members := cluster == k).any():
                centres[k] = rows[members].mean(axis=0)
        before, cluster = cluster, _squared_distances(rows, centres).argmin(axis=1)
        if np.array_equal(before, cluster):
            break
    return cluster


def _squared_distances(rows: Float64, centres: Float64) -> Float64:
    return np.column_stack([((rows - centre) ** 2).sum(axis=1) for centre in centres])


def default_clusters(rows: int) -> int:
    """Return how many clusters to make of `rows` prompts: sqrt(rows / 2), from 1 to 32."""
    return max(1, min(_MAX_CLUSTERS, round(math.sqrt(rows / 2.0))))


def log_ratios(cost_usd: Float64, *, spec: ModelSpec, tokens: Float64) -> Float64:
    """Return the labels that the cost model learns from: log of output cost over its prior.

    Parameters
    ----------
    cost_usd : float64[n]
        US dollars; NaN where the cost is unknown.
    spec : ModelSpec
        The model, with its price.
    tokens : float64[n]
        Input tokens.

    Returns
    -------
    float64[n]
        NaN where the cost is unknown, and everywhere if output is free.
    """
    output_usd = PRIOR_OUTPUT_TOKENS * spec.output_price / 1e6
    if output_usd <= 0.0:
        return np.full(len(cost_usd), np.nan)
    ratios = (cost_usd - tokens * spec.input_price / 1e6) / output_usd
    return np.array([np.nan if np.isnan(ratio) else log_ratio(ratio) for ratio in ratios.tolist()])


def fit(
    x: Float32,
    quality: Mapping[str, Float64],
    *,
    n_effective: float,
    ratios: Mapping[str, Float64] | None = None,
    cluster: NDArray[np.intp] | None = None,
) -> Arrays:
    """Fit a prior of all models that have a label of quality or cost.

    Parameters
    ----------
    x : float32[n, d]
        Features of prompts.
    quality : mapping of str to float64[n]
        Labels by model; NaN for a row without one.
    n_effective : float
        How many outcomes the sums of a model are worth, at most.
    ratios : mapping of str to float64[n], optional
        By model, see `log_ratios`; without it there is no prior of costs.
    cluster : int[n], optional
        See `clusters`; without it the prior of quality is fitted to the rows themselves.

    Returns
    -------
    Arrays
        The arrays of a prior of kind "sums".
    """
    cost_labels = ratios or {}
    labelled = [
        name
        for name, values in quality.items()
        if not (np.isnan(values).all() and np.isnan(cost_labels.get(name, np.nan)).all())
    ]
    sums = {
        name: clustered(x, quality[name], cluster, n_effective=n_effective) for name in labelled
    }
    costs = {
        name: regression(x, cost_labels[name], n_effective=n_effective)
        for name in labelled
        if name in cost_labels
    }
    return arrays_of(sums, None if ratios is None else costs)


def labels_of_log(
    log: EventLog, pool: str
) -> tuple[PolicyIdentity, Float32, dict[str, Float64], dict[str, Float64]]:
    """Return what a prior can be fitted to in a pool's log.

    Parameters
    ----------
    log : EventLog
        The store.
    pool : str
        Name of the pool.

    Returns
    -------
    policy_identity : PolicyIdentity
        What the policy of the pool is.
    x : float32[n, d]
        A row for each outcome, so each row has one label.
    quality : dict of str to float64[n]
        Labels by model.
    ratios : dict of str to float64[n]
        See `log_ratios`.

    Raises
    ------
    ValueError
        If the policy of the pool never started, or nothing was learned.
    """
    policy_identity, outcomes = logged_outcomes(log, pool)
    rows: list[Float32] = []
    labels: list[tuple[str, str, float]] = []
    for outcome in outcomes:
        if outcome.field == "latency":
            continue
        value = log_ratio_of(outcome) if outcome.field == "cost" else outcome.value
        if value is not None:
            rows.append(outcome.x)
            labels.append((outcome.field, outcome.arm, value))
    if not rows:
        raise ValueError(f"pool: the log of {pool!r} has no outcome to learn from")
    return policy_identity, np.stack(rows), _columns(labels, "quality"), _columns(labels, "cost")


def _columns(labels: Sequence[tuple[str, str, float]], field: str) -> dict[str, Float64]:
    columns = defaultdict[str, Float64](lambda: np.full(len(labels), np.nan))
    for i, (label_field, arm, value) in enumerate(labels):
        if label_field == field:
            columns[arm][i] = value
    return dict(columns)


def basis_arrays(policy_identity: PolicyIdentity) -> dict[str, NDArray[Any]]:
    """Return the fitted basis of a policy's embedder.

    Parameters
    ----------
    policy_identity : PolicyIdentity
        Its prior holds the basis, if there is one.

    Returns
    -------
    dict of str to array
        The arrays of a prior that begin with ``basis_``; empty for a shipped basis.
    """
    if not policy_identity.prior:
        return {}
    arrays = parse_prior(policy_identity.prior).arrays
    return {name: array for name, array in arrays.items() if name.startswith("basis_")}

"""Means and their uncertainty: over seeds, or over the requests of a single seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from policies.base import Float64
from sim.results import Band, Measure

RESAMPLES = 200


def mean_with_error(values: Sequence[float] | Float64) -> Measure:
    """Return mean and standard error of the values that are not NaN."""
    array = np.asarray(values, dtype=np.float64)
    numbers = array[~np.isnan(array)]
    if len(numbers) == 0:
        return Measure(mean=None)
    return Measure(mean=float(numbers.mean()), se=standard_error(numbers))


def standard_error(values: Float64) -> float | None:
    """Return the standard error of the mean of values[n], None for n below 2."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def band(curves: Float64) -> Band:
    """Return mean and 95 % t interval at each point of curves[seeds, m]."""
    seeds, mean = len(curves), curves.mean(axis=0)
    width = np.zeros(len(mean))
    if seeds > 1:
        width = t.ppf(0.975, seeds - 1) * curves.std(axis=0, ddof=1) / math.sqrt(seeds)
    return Band(mean=mean.tolist(), low=(mean - width).tolist(), high=(mean + width).tolist())


def bootstrap(
    requests: NDArray[np.intp], metrics: Callable[[NDArray[np.intp]], Mapping[str, float]]
) -> dict[str, float | None]:
    """Return standard errors of metrics of some requests, resampled `RESAMPLES` times.

    The same arguments give the same numbers.

    Parameters
    ----------
    requests : int[n]
        The requests.
    metrics : callable
        Returns metrics by name of requests int[n], NaN for one that is not defined.

    Returns
    -------
    dict of str to (float or None)
        By name; None where at least half of the values are NaN.
    """
    rng = np.random.default_rng(0)
    n = len(requests)
    resampled = [metrics(requests[rng.integers(n, size=n)]) for _ in range(RESAMPLES)]
    errors: dict[str, float | None] = {}
    for name in resampled[0]:
        values = np.array([metric[name] for metric in resampled])
        numbers = values[~np.isnan(values)]
        errors[name] = float(numbers.std(ddof=1)) if 2 * len(numbers) > RESAMPLES else None
    return errors

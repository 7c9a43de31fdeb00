"""From one value per row to an estimate and its interval, whatever the estimator.

Rows of one session depend on each other, so their values are summed first: only sessions count as
independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from policies.base import Float64

LEVEL = 0.95
RESAMPLES = 2_000
MAX_GROUPS = 4_000
_CELLS = 4_000_000
"""Resamples are drawn in blocks of so many counts, which bounds the memory."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, and an interval that holds the truth with probability `LEVEL`.

    Attributes
    ----------
    mean : float
        The estimate, in units of the measure.
    low : float
        Lower end of the interval.
    high : float
        Upper end of the interval.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def around(cls, mean: float, half_width: float) -> Interval:
        """Return the interval ``mean +- half_width``.

        Parameters
        ----------
        mean : float
            In units of the measure.
        half_width : float
            In units of the measure.
        """
        return cls(mean, mean - half_width, mean + half_width)

    @property
    def half_width(self) -> float:
        """Half of the interval's length."""
        return 0.5 * (self.high - self.low)

    @property
    def error(self) -> float:
        """The standard error with which a normal interval is as wide as this one."""
        return self.half_width / float(norm.ppf(0.5 + LEVEL / 2.0))

    def covers(self, truth: float) -> bool:
        """Return whether a value is in the interval.

        Parameters
        ----------
        truth : float
            In units of the measure.
        """
        return self.low <= truth <= self.high


def normal(values: Float64, session: NDArray[np.intp]) -> Interval:
    """Return ``mean +- t s``: s is the standard error over G sessions, t Student's with G - 1.

    Parameters
    ----------
    values : float64[n]
        One value per row, n at least 1; see `sim.ope.estimators`.
    session : int[n]
        The session of each row, numbered from 0 without gaps.
    """
    mean, residual = _by_session(values, session)
    groups = len(residual)
    if groups < 2:
        return Interval.around(mean, math.inf)
    error = math.sqrt(float(residual @ residual) * groups / (groups - 1)) / len(values)
    return Interval.around(mean, float(t.ppf(0.5 + LEVEL / 2.0, groups - 1)) * error)


def bootstrap(
    values: Float64, session: NDArray[np.intp], rng: np.random.Generator
) -> list[Interval]:
    """Return for each column the percentiles of its mean, over sessions drawn with replacement.

    Parameters
    ----------
    values : float64[n, m]
        A column for each of m estimators; all are resampled alike.
    session : int[n]
        As in `normal`.
    rng : numpy.random.Generator
        Draws `RESAMPLES` resamples.

    Notes
    -----
    If there are more than `MAX_GROUPS` sessions, then those with the same number modulo
    `MAX_GROUPS` are drawn together. Such groups are as independent as sessions are, and the cost of
    a resample does not grow with the log.
    """
    group = session % MAX_GROUPS
    groups = int(group.max()) + 1
    totals = np.zeros((groups, values.shape[1] + 1))
    np.add.at(totals, group, np.hstack([values, np.ones((len(values), 1))]))
    probability = np.full(groups, 1.0 / groups)
    means: list[Float64] = []
    block = max(1, _CELLS // groups)
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        drawn = rng.multinomial(groups, probability, size=size).astype(np.float64) @ totals
        means.append(drawn[:, :-1] / drawn[:, -1:])
    tail = 50.0 * (1.0 - LEVEL)
    low, high = np.percentile(np.concatenate(means), [tail, 100.0 - tail], axis=0)
    return [
        Interval(float(mean), float(a), float(b))
        for mean, a, b in zip(values.mean(axis=0), low, high, strict=True)
    ]


def empirical_bernstein(values: Float64, session: NDArray[np.intp], value_range: float) -> Interval:
    """Return the empirical Bernstein interval, which holds for any n [1]_.

    Parameters
    ----------
    values : float64[n]
        As in `normal`.
    session : int[n]
        As in `normal`.
    value_range : float
        Upper bound of the largest value minus the smallest. It follows from the largest weight that
        is possible, not from the values that were seen.

    Notes
    -----
    ``mean +- sqrt(2 Var L / n) + 3 M L / n`` with ``L = log(3 / (1 - level))`` and M the range. Of
    G sessions, one with m rows counts as one draw of m G / n times their mean value.

    References
    ----------
    .. [1] Audibert, Munos, Szepesvari (2009). Exploration-exploitation tradeoff using variance
       estimates in multi-armed bandits.
    """
    mean, residual = _by_session(values, session)
    groups, n = len(residual), len(values)
    scale = groups / n
    variance = float((residual * scale) @ (residual * scale)) / groups
    log = math.log(3.0 / (1.0 - LEVEL))
    draw_range = value_range * float(np.bincount(session).max()) * scale
    half_width = math.sqrt(2.0 * variance * log / groups) + 3.0 * draw_range * log / groups
    return Interval.around(mean, half_width)


def _by_session(values: Float64, session: NDArray[np.intp]) -> tuple[float, Float64]:
    """Return the mean over rows, and each session's sum of deviations from it."""
    mean = float(values.mean())
    residual = np.bincount(session, weights=values - mean).astype(np.float64)
    return mean, residual

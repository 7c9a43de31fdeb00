"""From one value per row to an estimate and its interval, whatever the estimator.

Rows of one session are summed first: they are not independent, sessions are.
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
BAGS = 4_000
_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and where the truth lies with probability `LEVEL`."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of its length."""
        return 0.5 * (self.high - self.low)

    @property
    def error(self) -> float:
        """The standard error of a normal interval as wide as this one."""
        return self.half_width / float(norm.ppf(0.5 + LEVEL / 2.0))

    def covers(self, truth: float) -> bool:
        """Tell whether the truth is inside."""
        return self.low <= truth <= self.high


def normal(values: Float64, session: NDArray[np.intp]) -> Interval:
    """Return ``mean +- t s.e.``, the standard error over sessions, t of as many less one.

    Parameters
    ----------
    values : float64[n], n at least 1; see `sim.ope.estimators`.
    session : int[n], from 0.
    """
    mean, residual = _by_session(values, session)
    groups = len(residual)
    if groups < 2:
        return Interval(mean, -math.inf, math.inf)
    error = math.sqrt(float(residual @ residual) * groups / (groups - 1)) / len(values)
    wide = float(t.ppf(0.5 + LEVEL / 2.0, groups - 1)) * error
    return Interval(mean, mean - wide, mean + wide)


def bootstrap(
    values: Float64, session: NDArray[np.intp], rng: np.random.Generator
) -> list[Interval]:
    """Return the percentiles of means over sessions drawn with replacement, one for each column.

    Parameters
    ----------
    values : float64[n, m], the columns of several estimators; all get the same resamples.
    session : see `normal`.
    rng : source of `RESAMPLES` resamples.

    Notes
    -----
    Above `BAGS` sessions, several that lie apart are drawn together: their sums are independent
    of each other all the same, and a resample costs no more however long the log.
    """
    session = session % BAGS
    groups = int(session.max()) + 1
    totals = np.zeros((groups, values.shape[1] + 1))
    np.add.at(totals, session, np.hstack([values, np.ones((len(values), 1))]))
    chance = np.full(groups, 1.0 / groups)
    means: list[Float64] = []
    left, at_once = RESAMPLES, max(1, _CELLS // groups)
    while left:
        counts = rng.multinomial(groups, chance, size=min(left, at_once)).astype(np.float64)
        drawn = counts @ totals
        means.append(drawn[:, :-1] / drawn[:, -1:])
        left -= len(counts)
    tail = 50.0 * (1.0 - LEVEL)
    low, high = np.percentile(np.concatenate(means), [tail, 100.0 - tail], axis=0)
    return [
        Interval(float(mean), float(a), float(b))
        for mean, a, b in zip(values.mean(axis=0), low, high, strict=True)
    ]


def empirical_bernstein(values: Float64, session: NDArray[np.intp], span: float) -> Interval:
    """Return the interval of Audibert, Munos and Szepesvari, which needs no large n.

    Parameters
    ----------
    values, session : see `normal`.
    span : upper bound of the range of a value: what the largest possible weight allows, not what
        was seen.

    Notes
    -----
    ``mean +- sqrt(2 Var L / n) + 3 M L / n`` with ``L = log(3 / (1 - level))``. A session of m rows
    counts as one draw that is m times n / G as large.
    """
    mean, residual = _by_session(values, session)
    groups, n = len(residual), len(values)
    scale = groups / n
    variance = float((residual * scale) @ (residual * scale)) / groups
    log = math.log(3.0 / (1.0 - LEVEL))
    most = span * float(np.bincount(session).max()) * scale
    wide = math.sqrt(2.0 * variance * log / groups) + 3.0 * most * log / groups
    return Interval(mean, mean - wide, mean + wide)


def _by_session(values: Float64, session: NDArray[np.intp]) -> tuple[float, Float64]:
    """Return the mean over rows, and each session's sum of deviations from it."""
    mean = float(values.mean())
    residual = np.bincount(session, weights=values - mean).astype(np.float64)
    return mean, residual

"""Keyword parameters: those that policies share, and checks.

Each error begins with the name of the parameter that is wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.base import Float64

LARGEST = 1e9
"""Largest value of a parameter, and inverse of the smallest positive one.

Beyond it float32 arithmetic on the published arrays would overflow.
"""

_SMALLEST_GAMMA = 1e-3
"""Smallest forgetting factor: its powers must not vanish within a few outcomes."""


def positive(**values: float) -> None:
    """Check that values are above 0 and within the bounds of `LARGEST`.

    Parameters
    ----------
    **values : float
        Values by the name of the parameter.

    Raises
    ------
    ValueError
        For a value that is not.
    """
    for name, value in values.items():
        if not value > 0.0:
            raise ValueError(f"{name}: positive, not {value}")
    between(1.0 / LARGEST, LARGEST, **values)


def not_negative(**values: float) -> None:
    """Check that values are at least 0 and at most `LARGEST`.

    Parameters
    ----------
    **values : float
        Values by the name of the parameter.

    Raises
    ------
    ValueError
        For a value that is not.
    """
    for name, value in values.items():
        if not value >= 0.0:
            raise ValueError(f"{name}: at least 0, not {value}")
    between(0.0, LARGEST, **values)


def between(low: float, high: float, **values: float) -> None:
    """Check that values are in [low, high].

    Parameters
    ----------
    low : float
        Smallest valid value.
    high : float
        Largest valid value.
    **values : float
        Values by the name of the parameter.

    Raises
    ------
    ValueError
        For a value that is not.
    """
    for name, value in values.items():
        if not low <= value <= high:
            raise ValueError(f"{name}: in [{low:g}, {high:g}], not {value}")


def share(**values: float) -> None:
    """Check that values are in [0, 1].

    Parameters
    ----------
    **values : float
        Values by the name of the parameter.

    Raises
    ------
    ValueError
        For a value that is not.
    """
    between(0.0, 1.0, **values)


def one_of(*valid: str, **values: str) -> None:
    """Check that values are among the valid ones.

    Parameters
    ----------
    *valid : str
        The valid values.
    **values : str
        Values by the name of the parameter.

    Raises
    ------
    ValueError
        For a value that is not.
    """
    for name, value in values.items():
        if value not in valid:
            raise ValueError(f"{name}: {' or '.join(valid)}, not {value!r}")


def forgetting(default: float, *, gamma: float, half_life: float) -> float:
    """Return the forgetting factor per learned outcome.

    Parameters
    ----------
    default : float
        Default of `gamma`.
    gamma : float
        Forgetting factor, in (0, 1]; 1 forgets nothing.
    half_life : float
        Number of learned outcomes after which an outcome counts half. Above 0 it replaces `gamma`,
        which must then be left at its default.

    Returns
    -------
    float
        The factor, in (0, 1].

    Raises
    ------
    ValueError
        For a value out of its bounds, or for both beside each other.
    """
    not_negative(half_life=half_life)
    if half_life <= 0.0:
        if not 0.0 < gamma <= 1.0:
            raise ValueError(f"gamma: in (0, 1], not {gamma}")
        between(_SMALLEST_GAMMA, 1.0, gamma=gamma)
        return gamma
    if gamma != default:
        raise ValueError("half_life: in place of gamma, not beside it")
    between(0.1, LARGEST, half_life=half_life)
    return float(0.5 ** (1.0 / half_life))


def checked_array(prior: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> Float64:
    """Return an array of a fitted prior after a check of its shape and numbers.

    Parameters
    ----------
    prior : mapping from str to array
        The prior.
    name : str
        Name of the array.
    shape : tuple of int
        Shape that it must have.

    Returns
    -------
    float64 array
        A copy.

    Raises
    ------
    ValueError
        For an array that is missing, of another shape, or not finite.
    """
    if name not in prior or prior[name].shape != shape:
        actual = list(prior[name].shape) if name in prior else "nothing"
        raise ValueError(f"prior: {name}: must have shape {list(shape)}, has {actual}")
    if prior[name].dtype.kind not in "fiu" or not np.isfinite(prior[name]).all():
        raise ValueError(f"prior: {name}: every number must be finite")
    return prior[name].astype(np.float64)


def arm_prior(dim: int, *, ridge: float, level: float, prior: float) -> tuple[Float64, Float64]:
    """Return the prior of a new arm's coefficients.

    Parameters
    ----------
    dim : int
        Number of features d; the last one is the intercept.
    ridge : float
        Precision of the slopes, whose mean is 0.
    level : float
        Precision of the intercept.
    prior : float
        Mean of the intercept.

    Returns
    -------
    precision : float64[d]
        Diagonal of the prior precision.
    mean : float64[d]
        Prior mean.
    """
    precision, mean = np.full(dim, ridge), np.zeros(dim)
    precision[-1], mean[-1] = level, prior
    return precision, mean


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the end of an error message about a name that is not valid.

    Parameters
    ----------
    name : str
        The name that is not valid.
    valid : iterable of str
        The valid names.

    Returns
    -------
    str
        ``; did you mean 'x'?`` for the valid name that is most alike, or ``; valid: x, y`` with
        all of them where none is alike.

    Examples
    --------
    >>> nearest("linucbb", ["linucb", "pilot"])
    "; did you mean 'linucb'?"
    >>> nearest("zzz", ["linucb", "pilot"])
    '; valid: linucb, pilot'
    """
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; valid: {', '.join(names)}"


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """Parameters of policies that may forget.

    A policy's own class adds to them, or sets another default of `gamma`. Names and defaults are
    part of the identity of a policy: a change starts it anew.

    Parameters
    ----------
    gamma : float, default 1.0
        Forgetting factor per learned outcome of any arm, in (0, 1]; 1 forgets nothing.
    half_life : float, default 0.0
        Number of learned outcomes after which an outcome counts half, in place of `gamma`; 0 for
        `gamma`.

    Raises
    ------
    ValueError
        For a parameter out of its bounds.
    """

    gamma: float = 1.0
    half_life: float = 0.0

    def __post_init__(self) -> None:
        """Check all parameters."""
        self.forgetting()

    def forgetting(self) -> float:
        """Return the forgetting factor per learned outcome, in (0, 1]; see `params.forgetting`."""
        return forgetting(type(self).gamma, gamma=self.gamma, half_life=self.half_life)


@dataclass(frozen=True, kw_only=True)
class LinearParams(Forgetting):
    """Parameters of policies that play the largest upper bound of a linear model per arm.

    Parameters
    ----------
    alpha : float, default 0.2
        Width of the confidence bound, in standard deviations of unit noise, at least 0; 0 is
        greedy.
    ridge : float, default 50.0
        Prior precision of the slopes, above 0.
    level : float, default 1.0
        Prior precision of the intercept, above 0.
    prior : float, default 0.7
        Prior mean quality of an arm, in [0, 1].
    gamma, half_life : float
        See `Forgetting`.
    """

    alpha: float = 0.2
    ridge: float = 50.0
    level: float = 1.0
    prior: float = 0.7

    def __post_init__(self) -> None:
        """Check all parameters."""
        not_negative(alpha=self.alpha)
        positive(ridge=self.ridge, level=self.level)
        share(prior=self.prior)
        super().__post_init__()

    def arm_prior(self, dim: int) -> tuple[Float64, Float64]:
        """Return the prior of a new arm's coefficients, see `params.arm_prior`.

        Parameters
        ----------
        dim : int
            Number of features d; the last one is the intercept.

        Returns
        -------
        precision : float64[d]
            Diagonal of the prior precision.
        mean : float64[d]
            Prior mean.
        """
        return arm_prior(dim, ridge=self.ridge, level=self.level, prior=self.prior)

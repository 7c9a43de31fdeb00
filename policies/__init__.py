"""Choosing models for requests, as pure numerics: policies and the price of money.

Nothing here may do I/O, read a clock, draw from a global random generator, or import `banditroute`
or `sim`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from policies.barp import Barp
from policies.base import Comparison, Outcome, Policy
from policies.baselines import EpsilonGreedy, Fixed, KNearest, Random
from policies.discounted import DUCB, DLinUCB, DThompson
from policies.linucb import LinUCB
from policies.pacing.base import Pacing
from policies.pacing.history import History
from policies.pacing.mirror_descent import Pacer
from policies.pacing.zcl import Zcl
from policies.params import nearest
from policies.pilot import Pilot
from policies.thompson import Thompson
from policies.windowed import SWUCB, SWLinUCB

__all__ = [
    "PACINGS",
    "POLICIES",
    "Comparison",
    "Outcome",
    "Pacing",
    "Policy",
    "full_params",
    "make_pacing",
    "make_policy",
]

_KINDS: tuple[type[Policy], ...] = (
    *(Thompson, LinUCB, Pilot, Barp),
    *(DThompson, DLinUCB, SWLinUCB, DUCB, SWUCB),
    *(Random, Fixed, EpsilonGreedy, KNearest),
)
POLICIES: dict[str, type[Policy]] = {kind.name: kind for kind in _KINDS}
PACINGS: dict[str, type[Pacing]] = {kind.mode: kind for kind in (History, Zcl, Pacer)}


def make_policy(name: str, *, dim: int, params: Mapping[str, object] | None = None) -> Policy:
    """Build a policy by name.

    Parameters
    ----------
    name : str
        A key of `POLICIES`.
    dim : int
        Number of features.
    params : mapping from str to object, optional
        Keyword parameters of that policy.

    Returns
    -------
    Policy
        A policy without arms.

    Raises
    ------
    ValueError
        For a wrong name, parameter or value. The message begins with the field, and proposes the
        valid name that is most alike.
    """
    if name not in POLICIES:
        raise ValueError(f"name: unknown policy {name!r}{nearest(name, POLICIES)}")
    kind = POLICIES[name]
    _check(name, kind, params or {})
    return kind(dim=dim, **(params or {}))


def make_pacing(name: str, **params: Any) -> Pacing:
    """Build a mode of pacing by name.

    Parameters
    ----------
    name : str
        A key of `PACINGS`.
    **params
        Keyword parameters of that mode.

    Returns
    -------
    Pacing
        The mode, before any request.

    Raises
    ------
    ValueError
        For a wrong name, parameter or value. The message begins with the field, and proposes the
        valid name that is most alike.
    """
    if name not in PACINGS:
        raise ValueError(f"pacing: unknown mode {name!r}{nearest(name, PACINGS)}")
    _check(name, PACINGS[name], params)
    return PACINGS[name](**params)


def _check(name: str, kind: type, params: Mapping[str, object]) -> None:
    """Raise ValueError for a parameter that a policy or mode lacks, or a value of a wrong type."""
    defaults = _defaults(kind)
    for key, value in params.items():
        if key not in defaults:
            raise ValueError(f"{key}: unknown parameter of {name}{nearest(key, defaults)}")
        if not _fits(value, defaults[key]):
            raise ValueError(f"{key}: not a valid value: {value!r}")


def full_params(name: str, params: Mapping[str, object]) -> dict[str, object]:
    """Return all parameters of a policy, as its identity keeps them.

    Parameters
    ----------
    name : str
        A key of `POLICIES`.
    params : mapping from str to object
        Keyword parameters of that policy.

    Returns
    -------
    dict from str to object
        `params` over the policy's defaults.
    """
    return _defaults(POLICIES[name]) | dict(params)


_NOT_KEPT = {"self", "dim"}
"""Arguments of a constructor that are no parameters of the policy."""


@cache
def _defaults(kind: type) -> dict[str, object]:
    """Return the keyword parameters of a policy or mode, with their defaults."""
    # Every snapshot builds a policy, and reading a signature takes longer than the rest of that.
    parameters = inspect.signature(getattr(kind, "Params", None) or kind).parameters
    return {key: parameter.default for key, parameter in parameters.items() if key not in _NOT_KEPT}


def _fits(value: object, default: object) -> bool:
    if isinstance(default, float) and isinstance(value, int | float):
        return math.isfinite(value) and not isinstance(value, bool)
    return type(value) is type(default)

"""Choosing, as pure numerics: policies, their statistics and laws, and the price of money."""

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
    name : a key of `POLICIES`.
    dim : number of features.
    params : keyword parameters of that policy.

    Raises
    ------
    ValueError
        With the offending field first, and the nearest valid name where there is one.
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
    name : a key of `PACINGS`.
    params : keyword parameters of that mode.

    Raises
    ------
    ValueError
        With the offending field first, and the nearest valid name where there is one.
    """
    if name not in PACINGS:
        raise ValueError(f"pacing: unknown mode {name!r}{nearest(name, PACINGS)}")
    _check(name, PACINGS[name], params)
    return PACINGS[name](**params)


def _check(name: str, kind: type, given: Mapping[str, object]) -> None:
    """Raise ValueError for a parameter that a policy or mode does not have or take."""
    known = _defaults(kind)
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"{key}: unknown parameter of {name}{nearest(key, known)}")
        if not _fits(value, known[key]):
            raise ValueError(f"{key}: not a valid value: {value!r}")


def full_params(name: str, params: Mapping[str, object]) -> dict[str, object]:
    """Return `params` with the policy's defaults filled in, so that they can be kept."""
    return _defaults(POLICIES[name]) | dict(params)


_OWN = {"self", "dim"}


@cache
def _defaults(kind: type) -> dict[str, object]:
    """Return the keyword parameters of a policy or mode, with their defaults."""
    # Every snapshot makes a policy anew; a signature takes longer than all the rest of that.
    parameters = inspect.signature(getattr(kind, "Params", None) or kind).parameters
    return {key: one.default for key, one in parameters.items() if key not in _OWN}


def _fits(value: object, default: object) -> bool:
    if isinstance(default, float) and isinstance(value, int | float):
        return math.isfinite(value) and not isinstance(value, bool)
    return type(value) is type(default)

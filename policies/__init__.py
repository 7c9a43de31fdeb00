"""Choosing, as pure numerics: policies, their shared statistics and the laws around them."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Mapping

from policies.barp import Barp
from policies.base import Comparison, Outcome, Policy
from policies.baselines import EpsilonGreedy, Fixed, KNearest, Random
from policies.discounted import DUCB, DLinUCB, DThompson
from policies.linucb import LinUCB
from policies.pilot import Pilot
from policies.thompson import Thompson
from policies.windowed import SWUCB, SWLinUCB

__all__ = ["POLICIES", "Comparison", "Outcome", "Policy", "full_params", "make_policy"]

_KINDS: tuple[type[Policy], ...] = (
    *(Thompson, LinUCB, Pilot, Barp),
    *(DThompson, DLinUCB, SWLinUCB, DUCB, SWUCB),
    *(Random, Fixed, EpsilonGreedy, KNearest),
)
POLICIES: dict[str, type[Policy]] = {kind.name: kind for kind in _KINDS}


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
        raise ValueError(f"name: unknown policy {name!r}{_nearest(name, POLICIES)}")
    kind = POLICIES[name]
    known = {key for key in inspect.signature(kind.__init__).parameters if key not in _OWN}
    for key, value in (params or {}).items():
        if key not in known:
            raise ValueError(f"{key}: unknown parameter of {name}{_nearest(key, known)}")
        if not _fits(value, _default(kind, key)):
            raise ValueError(f"{key}: not a valid value: {value!r}")
    return kind(dim=dim, **(params or {}))


def full_params(name: str, params: Mapping[str, object]) -> dict[str, object]:
    """Return `params` with the policy's defaults filled in, so that they can be kept."""
    defaults = inspect.signature(POLICIES[name].__init__).parameters
    filled = {key: value.default for key, value in defaults.items() if key not in _OWN}
    return filled | dict(params)


_OWN = {"self", "dim"}


def _default(kind: type[Policy], key: str) -> object:
    return inspect.signature(kind.__init__).parameters[key].default


def _fits(value: object, default: object) -> bool:
    if isinstance(default, float) and isinstance(value, int | float):
        return math.isfinite(value) and not isinstance(value, bool)
    return type(value) is type(default)


def _nearest(name: str, valid: Mapping[str, object] | set[str]) -> str:
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; valid: {', '.join(sorted(valid))}"

"""Windowed policies for a world that changes: only the newest outcomes count, all equally.

The window holds the newest outcomes of all arms together and is the whole state. Sums are
computed from it at each publish and never updated, so rounding errors do not add up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policies import params
from policies.base import Arrays, Float64, Outcome, Policy
from policies.discounted import DUCB
from policies.linucb import LinUCB, LinUCBParams
from policies.ridge import invert

_EMPTY = -1
"""Stands for the arm in a slot of the window that holds no outcome."""


class _Windowed(Policy):
    """Keeps the newest outcomes of all arms: owner and value of each, and x where `kept` has it."""

    def _open(self, size: int) -> None:
        self.kept = {"owner": np.full(size, _EMPTY, dtype=np.int64), "value": np.zeros(size)}

    def _learn(self, arm: int, outcome: Outcome) -> None:
        slot = (self.clock - 1) % len(self.kept["owner"])
        self.kept["owner"][slot], self.kept["value"][slot] = arm, outcome.value
        if "x" in self.kept:
            self.kept["x"][slot] = outcome.x

    def _reset(self, arm: int, shift: float, worth: float) -> None:
        """Free the slots of all outcomes of an arm, except for its newest ``ceil(worth)``."""
        owner = self.kept["owner"]
        slots = np.flatnonzero(owner == arm)
        age = (self.clock - 1 - slots) % len(owner)
        owner[slots[np.argsort(age)][int(np.ceil(worth)) :]] = _EMPTY

    def _grow(self) -> None: ...

    # The window is the whole state, and it holds single outcomes, no sums.
    _teach, _state, _load = Policy._teach, Policy._state, Policy._load
    learn_rows = Policy.learn_rows


class SWUCB(_Windowed, DUCB):
    """Play argmax mean_a + B sqrt(xi log(min(t, window)) / N_a) - penalty_a over a window.

    Parameters
    ----------
    dim : int
        Number of features; the policy reads none of them.
    window : int, default 200
        Number of newest outcomes, of all arms together, that count.
    xi : float, default 0.01
        See `DUCB`.
    bound : float, default 1.0
        See `DUCB`.
    prior : float, default 0.6
        See `DUCB`.

    Notes
    -----
    N_a is the number of the arm's outcomes among the newest `window`, and mean_a is their mean. t
    is the number of all outcomes so far. The logarithm takes the smaller of t and `window`.

    References
    ----------
    .. [1] Garivier, Moulines (2011). On upper-confidence bound policies for switching bandit
       problems. ALT.

    Examples
    --------
    >>> policy, x = SWUCB(dim=1, window=2, xi=1.0), np.ones(1, dtype=np.float32)
    >>> policy.add_arm("small"); policy.add_arm("large")
    >>> rewards = (("small", 0.5), ("large", 1.0), ("large", 0.0))
    >>> policy.learn([Outcome(s, "d", a, x, "quality", r) for s, (a, r) in enumerate(rewards)])
    >>> policy.refresh()
    >>> [f"{policy.view[key][1]:.3f}" for key in ("index", "bonus")]
    ['0.500', '0.589']
    """

    name = "sw-ucb"

    def __init__(
        self,
        *,
        dim: int,
        window: int = 200,
        xi: float = 0.01,
        bound: float = 1.0,
        prior: float = 0.6,
    ) -> None:
        super().__init__(dim=dim, gamma=1.0, xi=xi, bound=bound, prior=prior)
        params.between(1, 1_000_000, window=window)
        self._open(window)

    def _publish(self) -> Arrays:
        owner = self.kept["owner"]
        filled, arms = owner != _EMPTY, len(self.arms)
        count = np.bincount(owner[filled], minlength=arms).astype(np.float64)
        values = self.kept["value"][filled]
        total = np.bincount(owner[filled], weights=values, minlength=arms).astype(np.float64)
        return self._indices(total, count, self.bound, float(min(self.clock, len(owner))))


@dataclass(frozen=True, kw_only=True)
class SWLinUCBParams(LinUCBParams):
    """Parameters of `SWLinUCB`: a window replaces the forgetting of `LinUCBParams`.

    Parameters
    ----------
    window : int, default 500
        Number of newest outcomes, of all arms together, that count.
    width : str
        See `LinUCBParams`.
    alpha, delta, noise, bound, ridge, level, prior : float
        See `LinUCBParams`.
    """

    window: int = 500
    gamma: float = field(default=1.0, init=False)
    half_life: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Check all parameters."""
        super().__post_init__()
        params.between(1, 1_000_000, window=self.window)


class SWLinUCB(_Windowed, LinUCB):
    """LinUCB on the newest `window` outcomes of all arms together.

    Parameters
    ----------
    dim : int
        Number of features; the last one is the intercept.
    **params
        Parameters of `SWLinUCBParams`.

    Notes
    -----
    ``A_a = P + sum x x'`` over the arm's outcomes in the window. An arm without outcomes in the
    window is as uncertain as a new arm. The policy cannot start from a fitted prior: a prior
    consists of sums, and a window holds single outcomes.

    References
    ----------
    .. [1] Cheung, Simchi-Levi, Zhu (2019). Learning to optimize under non-stationarity. AISTATS.
    """

    name = "sw-linucb"
    Params = SWLinUCBParams
    params: SWLinUCBParams

    def __init__(self, *, dim: int, **params: Any) -> None:
        super().__init__(dim=dim, **params)
        self._open(self.params.window)
        self.kept["x"] = np.zeros((self.params.window, dim), dtype=np.float32)

    def _solve(self) -> tuple[Float64, Float64]:
        (precision, mean), arms = self.ridge.fresh, len(self.arms)
        theta, inverse = np.zeros((arms, self.dim)), np.zeros((arms, self.dim, self.dim))
        for arm in range(arms):
            own = self.kept["owner"] == arm
            x = self.kept["x"][own].astype(np.float64)
            inverse[arm], _ = invert(x.T @ x, precision)
            theta[arm] = inverse[arm] @ (x.T @ self.kept["value"][own] + precision * mean)
        return theta, inverse

"""Policies for a world that moves, the other way: only the newest outcomes count, all alike.

The window holds the last outcomes of all arms together and is the whole state: sums are taken of
it anew when they are published, so nothing drifts that is added and taken away ever so often.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies import params
from policies.base import Arrays, Float64, Outcome, Policy, Sums
from policies.discounted import DUCB
from policies.linucb import LinUCB, LinUCBParams
from policies.ridge import invert

_NOBODY = -1


def _empty(size: int, dim: int) -> Arrays:
    return {
        "owner": np.full(size, _NOBODY, dtype=np.int64),
        "value": np.zeros(size),
        "x": np.zeros((size, dim), dtype=np.float32),
    }


def _drop_all_but_newest(owner: NDArray[np.int64], arm: int, worth: float, clock: int) -> None:
    """Free the places of an arm's outcomes, but for the newest `worth`, rounded up."""
    mine = np.flatnonzero(owner == arm)
    age = (clock - 1 - mine) % len(owner)
    owner[mine[np.argsort(age)][int(np.ceil(worth)) :]] = _NOBODY


class SWUCB(DUCB):
    """Play argmax mean_a + B sqrt(xi log(min(t, window)) / N_a) - penalty_a over a window.

    Parameters
    ----------
    dim : number of features, none of which it reads.
    window : how many outcomes, of all arms together, count.
    xi, bound, prior : as of `DUCB`.

    Notes
    -----
    N_a and the mean are of the arm's outcomes among the last `window`, t is all outcomes so far.
    The logarithm is of the smaller of t and the window, not of the larger.

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
        self.kept = {name: a for name, a in _empty(window, 0).items() if name != "x"}

    def _learn(self, arm: int, outcome: Outcome) -> None:
        place = (self.clock - 1) % len(self.kept["owner"])
        self.kept["owner"][place], self.kept["value"][place] = arm, outcome.value

    def _reset(self, arm: int, shift: float, worth: float) -> None:
        _drop_all_but_newest(self.kept["owner"], arm, worth, self.clock)

    def _grow(self) -> None: ...

    def _publish(self) -> Arrays:
        owner = self.kept["owner"]
        held, arms = owner != _NOBODY, len(self.arms)
        count = np.bincount(owner[held], minlength=arms).astype(np.float64)
        values = self.kept["value"][held]
        total = np.bincount(owner[held], weights=values, minlength=arms).astype(np.float64)
        return self._indices(total, count, self.bound, float(min(self.clock, len(owner))))


@dataclass(frozen=True, kw_only=True)
class SWLinUCBParams(LinUCBParams):
    """Parameters of `SWLinUCB`: a window in place of the forgetting of `LinUCBParams`.

    Parameters
    ----------
    window : int, default 500
        How many of the newest outcomes, of all arms together, count.
    width, alpha, delta, noise, bound, ridge, level, prior
        See `LinUCBParams`.
    """

    window: int = 500
    gamma: float = field(default=1.0, init=False)
    half_life: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        params.between(1, 1_000_000, window=self.window)


class SWLinUCB(LinUCB):
    """LinUCB that knows the last `window` outcomes of all arms together, and no others.

    Parameters
    ----------
    dim : int
        Number of features; the last one is the intercept.
    **params
        Parameters of `SWLinUCBParams`.

    Notes
    -----
    ``A_a = P + sum x x'`` over the arm's outcomes in the window; an arm that has none left is as
    unknown as a new one. It cannot be taught by sums, which have no place in a window.

    References
    ----------
    .. [1] Cheung, Simchi-Levi, Zhu (2019). Learning to optimize under non-stationarity. AISTATS.
    """

    name = "sw-linucb"
    Params = SWLinUCBParams
    params: SWLinUCBParams

    def __init__(self, *, dim: int, **params: Any) -> None:
        super().__init__(dim=dim, **params)
        self.kept = _empty(self.params.window, dim)

    def _learn(self, arm: int, outcome: Outcome) -> None:
        place = (self.clock - 1) % len(self.kept["owner"])
        self.kept["owner"][place], self.kept["value"][place] = arm, outcome.value
        self.kept["x"][place] = outcome.x

    learn_rows = Policy.learn_rows  # a window has no sums to add to

    def teachable(self) -> bool:
        return False

    def _teach(self, arm: int, sums: Sums) -> None: ...

    def _reset(self, arm: int, shift: float, worth: float) -> None:
        _drop_all_but_newest(self.kept["owner"], arm, worth, self.clock)

    def _grow(self) -> None: ...

    _state, _load = Policy._state, Policy._load  # the window is the whole state

    def _solve(self) -> tuple[Float64, Float64]:
        (precision, mean), arms = self.ridge.fresh, len(self.arms)
        theta, inverse = np.zeros((arms, self.dim)), np.zeros((arms, self.dim, self.dim))
        for arm in range(arms):
            mine = self.kept["owner"] == arm
            x = self.kept["x"][mine].astype(np.float64)
            inverse[arm], _ = invert(x.T @ x, precision)
            theta[arm] = inverse[arm] @ (x.T @ self.kept["value"][mine] + precision * mean)
        return theta, inverse

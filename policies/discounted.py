"""Discounting policies for a world that changes: an outcome counts less with every later one.

All arms age by the fold position, the count of outcomes that any arm has learned. So an arm that
is not played is forgotten too, and a replay forgets as the daemon did. Sums are aged only when
they are read, so no result depends on when that happens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from policies import params
from policies.base import Arrays, Assessment, Float32, Float64, Outcome, Policy
from policies.baselines import Shrinking
from policies.laws import optimistic
from policies.linucb import LinUCB, LinUCBParams
from policies.ridge import RidgeArms
from policies.thompson import Thompson, ThompsonParams

UNTRIED = 1e3
"""Bonus of an arm without outcomes, and the largest bonus; in theory it is infinite."""

GAMMA = 0.998
"""Default forgetting factor: an outcome counts half after 346 others.

Of the factors from .99 to .999 it loses least on stationary streams of 3 and 9 models, and a fall
of one model still shows. With 9 models, .99 cost 0.025 to 0.067 of utility.
"""


class DUCB(Shrinking):
    """Play argmax S_a / N_a + 2 B sqrt(xi log(n) / N_a) - penalty_a: discounted UCB, no context.

    Parameters
    ----------
    dim : int
        Number of features, none of which it reads.
    gamma : float, default 0.998
        Forgetting factor per learned outcome of any arm, in (0, 1]; at 1 this is UCB.
    half_life : float, default 0.0
        Number of learned outcomes after which an outcome counts half, in place of `gamma`.
    xi : float, default 0.01
        Width of the index, at least 0. The guarantee needs more than 1/2, but models differ so
        little that on real streams this costs ten times the regret.
    bound : float, default 1.0
        The largest reward B, above 0.
    prior : float, default 0.6
        Mean quality of an arm without outcomes, in [0, 1]; in `estimate` it is worth 2 outcomes.

    Notes
    -----
    ``N_a = sum gamma^(t-i)`` over the outcomes i of arm a, where t counts all outcomes so far.
    ``S_a`` is the same sum of rewards, ``n = sum_a N_a``, and log(n) is at least 0. The published
    factor of 0.6 remembers 2.5 outcomes in all; it suits one outcome per period of time, not one
    per request.

    References
    ----------
    .. [1] Garivier, Moulines (2011). On upper-confidence bound policies for switching bandit
       problems. ALT.
    .. [2] Chaudhary, Rai, Gupta (2023). Maximizing success rate of payment routing using
       non-stationary bandits. AIMLSystems.

    Examples
    --------
    >>> policy, x = DUCB(dim=1, gamma=0.5), np.ones((1, 1), dtype=np.float32)
    >>> policy.add_arm("small"); policy.add_arm("large")
    >>> policy.learn([Outcome(s, "d", "large", x[0], "quality", r) for s, r in ((1, 1), (2, 0))])
    >>> policy.refresh()
    >>> [f"{policy.view[key][1]:.3f}" for key in ("index", "bonus")]
    ['0.333', '0.104']
    """

    name = "d-ucb"

    def __init__(
        self,
        *,
        dim: int,
        gamma: float = GAMMA,
        half_life: float = 0.0,
        xi: float = 0.01,
        bound: float = 1.0,
        prior: float = 0.6,
    ) -> None:
        super().__init__(dim=dim, prior=prior)
        params.not_negative(xi=xi)
        params.positive(bound=bound)
        self.gamma = params.forgetting(GAMMA, gamma=gamma, half_life=half_life)
        self.xi, self.bound = xi, bound
        self.kept["last"] = np.zeros(0)

    def _assess(self, x: Float32, preference: Float64) -> Assessment:
        index, bonus = (np.tile(self.view[key], (len(x), 1)) for key in ("index", "bonus"))
        return {"mean": index, "bonus": bonus}, *self._estimate(x)

    law = staticmethod(optimistic)

    def _learn(self, arm: int, outcome: Outcome) -> None:
        self._age(arm)
        super()._learn(arm, outcome)

    def _reset(self, arm: int, shift: float, worth: float) -> None:
        self._age(arm)
        super()._reset(arm, shift, worth)

    def _age(self, arm: int) -> None:
        decay = self.gamma ** (self.clock - self.kept["last"][arm])
        self.kept["total"][arm] *= decay
        self.kept["count"][arm] *= decay
        self.kept["last"][arm] = self.clock

    def _publish(self) -> Arrays:
        decay = self.gamma ** (self.clock - self.kept["last"])
        total, count = decay * self.kept["total"], decay * self.kept["count"]
        return self._indices(total, count, 2.0 * self.bound, float(count.sum()))

    def _indices(self, total: Float64, count: Float64, width: float, n: float) -> Arrays:
        mean, std = self._posterior(total, count)
        tried = np.maximum(count, 1e-300)
        bonus = width * np.sqrt(self.xi * max(np.log(max(n, 1e-300)), 0.0) / tried)
        index = np.where(count > 0.0, total / tried, self.prior)
        bonus = np.where(count > 0.0, np.minimum(bonus, UNTRIED), UNTRIED)
        return {"mean": mean, "std": std, "index": index, "bonus": bonus}


@dataclass(frozen=True, kw_only=True)
class DLinUCBParams(LinUCBParams):
    """Parameters of `DLinUCB`: those of `LinUCBParams`, but it forgets by default.

    Parameters
    ----------
    gamma : float, default 0.998
        Forgetting factor per learned outcome of any arm, in (0, 1].
    width : str
        See `LinUCBParams`.
    alpha, delta, noise, bound, ridge, level, prior, half_life : float
        See `LinUCBParams`.
    """

    gamma: float = GAMMA


class DLinUCB(LinUCB):
    """Play argmax theta_a.x + width_a sqrt(x' V_a^-1 W_a V_a^-1 x) - penalty_a.

    Parameters
    ----------
    dim : int
        Number of features; the last one is the intercept.
    **params
        Parameters of `DLinUCBParams`.

    Notes
    -----
    ``V_a = sum g^(t-i) x x' + P`` and ``W_a = sum g^(2(t-i)) x x' + P`` with g = gamma. The
    regulariser P never decays; this equals adding (1 - g) P and (1 - g^2) P at each outcome. The
    theoretical width is ``noise sqrt(2 log(1/delta) + log det W - log det P) + bound``. The width
    of [1]_ replaces the determinant by the largest one of the same trace, and is never below this
    one. The regret bound of [1]_ had a flaw, see [2]_.

    References
    ----------
    .. [1] Russac, Vernade, Cappe (2019). Weighted linear bandits for non-stationary environments.
       NeurIPS.
    .. [2] Faury, Russac, Abeille, Calauzenes (2021). Regret bounds for generalized linear bandits
       under parameter drift. arXiv:2103.05750.

    Examples
    --------
    >>> policy, x = DLinUCB(dim=1, gamma=0.5), np.ones((1, 1), dtype=np.float32)
    >>> policy.add_arm("large")
    >>> policy.learn([Outcome(s, "d", "large", x[0], "quality", 1.0) for s in (1, 2)])
    >>> policy.refresh()  # V = 1.5 + 1, W = 1.25 + 1
    >>> bool(policy.estimate(x)[1][0, 0] == np.float32(2.25**0.5 / 2.5))
    True
    """

    name = "d-linucb"
    Params = DLinUCBParams

    def __init__(self, *, dim: int, **params: Any) -> None:
        super().__init__(dim=dim, **params)
        (precision, mean), gamma = self.ridge.fresh, self.ridge.gamma
        self.squared = RidgeArms(precision=precision, mean=mean, gamma=gamma * gamma)
        self.ridges["squared_"] = self.squared

    learn_rows = Policy.learn_rows  # an outcome updates two sums, one by one

    def _solve(self) -> tuple[Float64, Float64]:
        theta, inverse = self.ridge.solve(self.clock)
        return theta, inverse @ self.squared.matrices(self.clock) @ inverse

    def _log_det(self, inverse: Float64) -> Float64:
        log_det: Float64 = np.linalg.slogdet(self.squared.matrices(self.clock))[1]
        return log_det


@dataclass(frozen=True, kw_only=True)
class DThompsonParams(ThompsonParams):
    """Parameters of `DThompson`: those of `ThompsonParams`, but it forgets by default.

    Parameters
    ----------
    gamma : float, default 0.998
        Forgetting factor per learned outcome of any arm, in (0, 1].
    alpha, context, tau, prior, half_life : float
        See `ThompsonParams`.
    """

    gamma: float = GAMMA


class DThompson(Thompson):
    """Thompson sampling that forgets by default.

    Parameters
    ----------
    dim : int
        Number of features; the last one is the intercept.
    **params
        Parameters of `DThompsonParams`.
    """

    name = "d-thompson"
    Params = DThompsonParams

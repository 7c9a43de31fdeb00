"""LinUCB with disjoint linear models: a bonus in proportion to the uncertainty of an estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from policies import params
from policies.base import Arrays, Assessment, Float32, Float64, Outcome, Policy, Sums
from policies.laws import optimistic
from policies.params import LinearParams
from policies.ridge import RidgeArms, widths


@dataclass(frozen=True, kw_only=True)
class LinUCBParams(LinearParams):
    """Parameters of `LinUCB`, over those of `LinearParams`.

    Parameters
    ----------
    width : str, default "practical"
        ``practical``, the constant `alpha`; or ``theoretical``, the radius of an arm's confidence
        ellipsoid, ``noise sqrt(2 log(1/delta) + log det A_a - log det P) + bound``.
    delta : float, default 0.05
        Probability, in (0, 1), with which an arm's ellipsoid may fail, at any time.
    noise : float, default 0.5
        Sub-Gaussian scale of a reward, at least 0; 0.5 holds for all rewards in [0, 1].
    bound : float, default 1.0
        Largest ``|theta_a - m|`` in the norm of P, an arm's distance from the prior mean m.
    alpha, ridge, level, prior, gamma, half_life : float
        See `LinearParams`; P is the diagonal of `ridge` and `level`.
    """

    width: str = "practical"
    delta: float = 0.05
    noise: float = 0.5
    bound: float = 1.0

    def __post_init__(self) -> None:
        """Check all parameters."""
        params.one_of("practical", "theoretical", width=self.width)
        params.not_negative(noise=self.noise, bound=self.bound)
        if not 0.0 < self.delta < 1.0:
            raise ValueError(f"delta: in (0, 1), not {self.delta}")
        super().__post_init__()


class LinUCB(Policy):
    """Play argmax theta_a.x + width_a sqrt(x' A_a^-1 x) - penalty_a.

    Parameters
    ----------
    dim : int
        Number of features; the last one is the intercept.
    **params
        Parameters of `LinUCBParams`.

    Notes
    -----
    Under forgetting the sums of an arm that is not played decay at the pace of all outcomes, so
    its width grows back to the prior's, which bounds it. The ellipsoid's guarantee is for gamma 1.

    References
    ----------
    .. [1] Li, Chu, Langford, Schapire (2010). A contextual-bandit approach to personalized
       news article recommendation. WWW.
    .. [2] Abbasi-Yadkori, Pal, Szepesvari (2011). Improved algorithms for linear stochastic
       bandits. NeurIPS. Theorem 2.

    Examples
    --------
    >>> import numpy as np
    >>> policy = LinUCB(dim=2)
    >>> policy.add_arm("small"); policy.add_arm("large")
    >>> x = np.array([[0.5, 1.0]], dtype=np.float32)
    >>> policy.learn([Outcome(1, "d1", "large", x[0], "quality", 1.0)])
    >>> policy.refresh()
    >>> scores = policy.score(x, np.array([[1.0, 0.0, 0.0]]))
    >>> policy.pmf(scores, np.array([[True, True]]), np.zeros((1, 2))).tolist()
    [[0.0, 1.0]]
    """

    name = "linucb"
    Params: ClassVar[type[LinUCBParams]] = LinUCBParams

    def __init__(self, *, dim: int, **params: Any) -> None:
        super().__init__(dim=dim)
        self.params = self.Params(**params)
        precision, mean = self.params.arm_prior(dim)
        self.ridge = RidgeArms(precision=precision, mean=mean, gamma=self.params.forgetting())
        # All regressions that the outcomes go into, by the prefix of their arrays in a state.
        self.ridges = {"": self.ridge}

    def _assess(self, x: Float32, preference: Float64) -> Assessment:
        mean, std = self._estimate(x)
        return {"mean": mean, "bonus": self.view["width"] * std}, mean, std

    law = staticmethod(optimistic)

    def _estimate(self, x: Float32) -> tuple[Float32, Float32]:
        mean: Float32 = x.dot(self.view["theta"].T)
        return mean, widths(x, self.view["inverse"])

    def _learn(self, arm: int, outcome: Outcome) -> None:
        for ridge in self.ridges.values():
            ridge.update(arm, outcome.x, outcome.value, self.clock)

    def learn_rows(self, arms: NDArray[np.intp], x: Float32, values: Float64) -> None:
        """See `Policy.learn_rows`."""
        if not all(map(math.isfinite, values.tolist())):
            raise ValueError("values: every value finite")
        self.ridge.update_rows(arms, self._checked(x), values, self.clock)
        self.clock += len(arms)
        np.add.at(self.pulls, arms, 1)

    def _teach(self, arm: int, sums: Sums) -> None:
        for ridge in self.ridges.values():
            ridge.add(arm, sums, self.clock)

    def _reset(self, arm: int, shift: float, worth: float) -> None:
        for ridge in self.ridges.values():
            ridge.forget_level(arm, shift=shift, worth=worth, clock=self.clock)

    def _grow(self) -> None:
        for ridge in self.ridges.values():
            ridge.grow()

    def _state(self) -> Arrays:
        own: Arrays = {}
        for prefix, ridge in self.ridges.items():
            own |= ridge.state(prefix=prefix)
        return own

    def _load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        for prefix, ridge in self.ridges.items():
            ridge.load(state, prefix=prefix)

    def _publish(self) -> Arrays:
        theta, inverse = self._solve()
        own = self.params
        width: NDArray[Any] = np.full(len(self.arms), own.alpha, dtype=np.float32)
        if own.width == "theoretical":
            gain = self._log_det(inverse) - np.log(self.ridge.fresh[0]).sum()
            radius = np.sqrt(2.0 * np.log(1.0 / own.delta) + np.maximum(gain, 0.0))
            width = own.noise * radius + own.bound
        return {"theta": theta, "inverse": inverse, "width": width}

    def _solve(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return theta[K, d] and the M[K, d, d] of the bonus ``width sqrt(x' M x)``.

        They are float64 where `_log_det` reads M, else float32 or float64.
        """
        exact = self.params.width == "theoretical"
        return self.ridge.solve(self.clock) if exact else self.ridge.solve_float32(self.clock)

    def _log_det(self, inverse: Float64) -> Float64:
        """Return the log det A[K] of the theoretical width, from the M that `_solve` returned."""
        log_det: Float64 = -np.linalg.slogdet(inverse)[1]
        return log_det

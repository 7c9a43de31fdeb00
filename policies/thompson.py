"""Thompson sampling on each arm's level, over hierarchical ridge regression: the default policy.

Arms borrow strength from one another: each arm's coefficients are shrunk to a vector that all
share, as strongly as the data says (empirical Bayes). What is sampled at random is the overall
quality of an arm, and a little of its quality on prompts unlike those that it has seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from policies import params
from policies.base import Arrays, Assessment, Bools, Float32, Float64, Outcome, Policy, Sums
from policies.params import Forgetting, arm_prior
from policies.ridge import RidgeArms, invert, next_position, widths
from policies.thompson_law import best_of

PRECISIONS = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Candidates for the prior precision of the slopes, in units of the noise's."""

_NOISE, _WEIGHT = 0.09, 4.0  # prior variance of residuals, and the residuals that it is worth
_SHARED_WEIGHT = 16.0  # residuals that the variance over all arms is worth for one arm
_SHARED = 0.3  # prior precision of the shared slopes, as a part of K lam


@dataclass(frozen=True, kw_only=True)
class ThompsonParams(Forgetting):
    """Parameters of `Thompson`, over those of `Forgetting`.

    Parameters
    ----------
    alpha : float, default 1.0
        Scale of the draw of an arm's level, in its posterior deviations, above 0.
    context : float, default 0.5
        Scale of what the draw adds for a prompt unlike those that an arm has seen, at least 0.
        Without it an arm that is bad on most prompts may never be tried where it is the best.
    tau : float, default 0.2
        Prior standard deviation of an arm's level around the level that arms share, above 0.
    prior : float, default 0.6
        Mean quality of arms before any reward, in [0, 1]; it is worth 2 rewards.
    gamma, half_life : float
        See `Forgetting`.
    """

    alpha: float = 1.0
    context: float = 0.5
    tau: float = 0.2
    prior: float = 0.6

    def __post_init__(self) -> None:
        """Check all parameters."""
        params.positive(alpha=self.alpha, tau=self.tau)
        params.not_negative(context=self.context)
        params.between(1e-6, 1e3, alpha=self.alpha, tau=self.tau)
        params.share(prior=self.prior)
        super().__post_init__()


class Thompson(Policy):
    """Play the arm of the largest min(1, theta_a.x + xi_a s_a) - penalty_a, xi_a ~ N(0, 1).

    Parameters
    ----------
    dim : int
        Number of features d; the last one is the intercept.
    **params
        Parameters of `ThompsonParams`.

    Notes
    -----
    ``theta_a = A_a^-1 (b_a + P theta_S)`` with ``A_a = S_a + P`` and
    ``P = diag(lam, .., lam, v/tau^2)``. The scale of the draw is
    ``s_a^2 = alpha^2 v_a / (n_a + v/tau^2) + context^2 v_a x' A_a^-1 x``. Here v is the variance of
    residuals over all arms (with 4 pseudo-residuals of .09) and v_a that of an arm (with 16 of v).
    The shared vector solves
    ``(sum_a (P - P A_a^-1 P) + L) theta_S = sum_a P A_a^-1 b_a + L m``
    where L is ``.3 K lam`` on the slopes and P on the level, and m is the mean of all rewards on
    the level and 0 on the slopes.

    At fixed fold positions v_a, lam and theta_S are estimated again from the sums, lam by the
    marginal likelihood: at 4, 8, 16 and 32, then every 32 outcomes or every thirty-second part of
    the log, whichever is longer. In between only the arm changes that learns.

    References
    ----------
    .. [1] Thompson (1933). On the likelihood that one unknown probability exceeds another.
       Biometrika.
    .. [2] Lindley, Smith (1972). Bayes estimates for the linear model. JRSS B.

    Examples
    --------
    >>> policy = Thompson(dim=2)
    >>> policy.add_arm("small"); policy.add_arm("large")
    >>> x = np.array([[0.5, 1.0]], dtype=np.float32)
    >>> policy.learn([Outcome(1, "d1", "large", x[0], "quality", 1.0)])
    >>> policy.refresh()
    >>> scores = policy.score(x, np.array([[1.0, 0.0, 0.0]]))
    >>> policy.pmf(scores, np.array([[True, True]]), np.zeros((1, 2))).round(3).tolist()
    [[0.336, 0.664]]
    """

    name = "thompson"
    SAVED = (*Policy.SAVED, "slopes", "level", "due", "noise", "shared")
    Params: ClassVar[type[ThompsonParams]] = ThompsonParams

    def __init__(self, *, dim: int, **params: Any) -> None:
        super().__init__(dim=dim)
        own = self.params = self.Params(**params)
        self.slopes, self.level, self.due = 100.0, _NOISE / own.tau**2, next_position(0)
        self.noise = np.zeros(0)
        precision, self.shared = arm_prior(
            dim, ridge=self.slopes, level=self.level, prior=own.prior
        )
        self.ridge = RidgeArms(precision=precision, mean=self.shared, gamma=own.forgetting())

    def _assess(self, x: Float32, preference: Float64) -> Assessment:
        mean, std = self._estimate(x)
        scale = np.hypot(self.view["scale"], np.float32(self.params.context) * std)
        return {"mean": mean, "scale": scale}, mean, std

    @staticmethod
    def law(scores: Mapping[str, Float32], eligible: Bools, penalty: Float64) -> Float64:
        """See `Policy.law`."""
        mean, scale = scores["mean"].astype(np.float64), scores["scale"].astype(np.float64)
        return best_of(mean, scale, penalty, eligible)

    def _estimate(self, x: Float32) -> tuple[Float32, Float32]:
        mean: Float32 = x @ self.view["theta"].T
        return mean, widths(x, self.view["covariance"])

    def _learn(self, arm: int, outcome: Outcome) -> None:
        self.ridge.update(arm, outcome.x, outcome.value, self.clock)
        if self.clock >= self.due:
            self._estimate_shared()
            self.due = next_position(self.clock, forgets=self.ridge.gamma < 1.0)

    def _teach(self, arm: int, sums: Sums) -> None:
        self.ridge.add(arm, sums, self.clock)
        self._estimate_shared()

    def _reset(self, arm: int, shift: float, worth: float) -> None:
        self.ridge.forget_level(arm, shift=shift, worth=worth, clock=self.clock)

    def _estimate_shared(self) -> None:
        """Estimate the noise, lam and the shared vector from the sums alone."""
        ridge, arms = self.ridge, range(len(self.arms))
        ridge.age(self.clock)
        gram, b, theta = ridge.symmetric(), ridge.moment, self.shared
        solved, inverse = ridge.solve(self.clock)
        error, freedom = ridge.residuals(solved, inverse)
        # A few equal rewards do not make an arm free of noise: shrink to the pooled variance.
        pooled = (error.sum() + _NOISE * _WEIGHT) / (freedom.sum() + _WEIGHT)
        self.noise = (error + pooled * _SHARED_WEIGHT) / (freedom + _SHARED_WEIGHT)
        rest = b - gram @ theta
        errors = ridge.square - 2.0 * (b @ theta) + theta @ gram @ theta

        def evidence(slopes: float) -> float:
            p, total = self._precision(slopes), 0.0
            for a in arms:
                a_inverse, log_det = invert(ridge.gram[a], p)
                explained = rest[a] @ a_inverse @ rest[a]
                total -= log_det - np.log(p).sum() + (errors[a] - explained) / self.noise[a]
            return float(total)

        self.level = float(pooled) / self.params.tau**2
        self.slopes = max(PRECISIONS, key=evidence)
        self.shared = self._shared_vector()
        ridge.anchor(precision=self._precision(self.slopes), mean=self.shared)

    def _shared_vector(self) -> Float64:
        """Return theta_S[d]."""
        p, arms = self._precision(self.slopes), len(self.arms)
        pull = _SHARED * arms * p
        pull[-1] = p[-1]
        rewards, n = self.ridge.moment[:, -1].sum(), self.ridge.level_counts(self.clock).sum()
        left, right = np.diag(arms * p + pull), np.zeros(self.dim)
        right[-1] = pull[-1] * (rewards + 2.0 * self.params.prior) / (n + 2.0)
        for a in range(arms):
            inverse, _ = invert(self.ridge.gram[a], p)
            left -= p[:, None] * inverse * p
            right += p * (inverse @ self.ridge.moment[a])
        return np.linalg.solve(left, right).astype(np.float64)

    def _precision(self, slopes: float) -> Float64:
        return arm_prior(self.dim, ridge=slopes, level=self.level, prior=0.0)[0]

    def _grow(self) -> None:
        self.noise = np.append(self.noise, self.level * self.params.tau**2)
        self.ridge.grow()

    def _state(self) -> Arrays:
        return self.ridge.state()

    def _load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self.ridge.load(state)
        self.ridge.anchor(precision=self._precision(self.slopes), mean=self.shared)

    def _publish(self) -> Arrays:
        theta, inverse = self.ridge.solve(self.clock)
        level = self.noise / (self.ridge.level_counts(self.clock) + self.level)
        covariance = inverse * self.noise[:, None, None]
        scale = self.params.alpha * np.sqrt(level)
        return {"theta": theta, "scale": scale, "covariance": covariance}

"""PILOT: LinUCB that starts from human preferences.

``banditroute prior fit`` learns from pairs of answers, of which one was preferred: a map of
prompts onto a sphere, and a direction on it for every model. Here both give the prior means of
ridge regressions, and rewards correct them. Without such a prior the policy is LinUCB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies import params
from policies.base import (
    Arrays,
    Assessment,
    Comparison,
    Float32,
    Float64,
    Outcome,
    Policy,
    Sums,
)
from policies.laws import optimistic
from policies.params import LinearParams
from policies.pilot_comparisons import Duels
from policies.ridge import RidgeArms, widths

SCORES = ("inner", "cosine")

_SHAPES = {
    "projection": ("m", "d"),
    "center": ("m",),
    "embeddings": ("M", "m"),
    "accuracy": ("M",),
    "temperature": (),
    "context": (),
    "support": (),
}


@dataclass(frozen=True, kw_only=True)
class PilotParams(LinearParams):
    """Parameters of `Pilot`, over those of `LinearParams`.

    Parameters
    ----------
    score : str, default "inner"
        ``inner`` (in units of reward) or ``cosine`` (as published).
    trust : float, default 20.0
        Worth, in rewards, of the level that preferences give a model, above 0.
    slopes : float, default 30.0
        Prior precision of the other coordinates in inner mode, above 0.
    gain : float, default 0.2
        Reward per unit of log-odds of being preferred, at least 0.
    level : float, default 1.0
        Prior precision of the intercept, above 0. It is also the worth, in rewards, of the level
        of a model that preferences leave out, and of the level that models share.
    alpha, ridge, prior, gamma, half_life : float
        See `LinearParams`.
    """

    score: str = "inner"
    trust: float = 20.0
    slopes: float = 30.0
    gain: float = 0.2

    def __post_init__(self) -> None:
        """Check all parameters."""
        params.one_of(*SCORES, score=self.score)
        params.not_negative(gain=self.gain)
        params.positive(trust=self.trust, slopes=self.slopes)
        super().__post_init__()


class Pilot(Policy):
    """Play argmax theta_a.z + alpha sqrt(z' A_a^-1 z) - penalty_a, with a prior from preferences.

    Parameters
    ----------
    dim : int
        Number of features; the last one is the intercept.
    **params
        Parameters of `PilotParams`.

    Notes
    -----
    The prior: ``psi = W x / |W x|``; model a beats b with log-odds ``psi.(v_a - v_b) / T``, where
    |v_a| = 1.

    Inner mode: ``z = (psi - mu, 1)``, mu the mean of psi, ``e_a = (gain / T) (v_a - mean of v)``,
    ``theta_a ~ N((c e_a, l + mu.e_a + s), P^-1)``, ``l = min(prior, 1 - max mu.e_a)``. Preferences
    are differences, so all rewards together estimate ``s ~ N(0, u / level)``, which is the same for
    all models, by least squares. Comparisons that are learned later (`Duels`, from the same prior)
    are differences too. They enter A_a and b_a as outcomes to which s is added; s is free where the
    prior does not come from preferences. The fit sets c and u, both in [0, 1], by prompts that it
    left out: how far to trust the context, and the levels. The level of a model is worth
    ``level + u (trust - level)`` rewards.

    Cosine mode: ``z = psi``, ``theta_a ~ N(v_a, accuracy_a I)``, accuracy_a that of the log-odds
    in the fit. It plays argmax ``cos(z, theta_a) + bonus - penalty``, though a cosine is no reward.

    A model that preferences leave out has no slopes. So that it is tried soon, it starts from the
    level of the best model; in cosine mode it starts from the mean of v.

    About `gain`: where rewards are 0 or 1 and ties count half, a difference of rewards is half a
    difference of log-odds near even odds. For graded rewards, multiply by their mean distance.

    References
    ----------
    .. [1] Panda, Magazine, Devaguptapu, Takemori, Sharma (2025). Adaptive LLM routing under
       budget constraints. Findings of EMNLP.
    .. [2] Li, Chu, Langford, Schapire (2010). A contextual-bandit approach to personalized
       news article recommendation. WWW.

    Examples
    --------
    >>> policy = Pilot(dim=2, gain=0.1)
    >>> policy.adopt({
    ...     "arms": np.array(["small", "large"]), "accuracy": np.array([0.7, 0.7]),
    ...     "projection": np.eye(2), "center": np.array([0.7, 0.7]),
    ...     "embeddings": np.array([[0.6, 0.8], [0.8, 0.6]]),
    ...     "temperature": np.array(0.1), "context": np.array(1.0), "support": np.array(1.0),
    ... })
    >>> policy.add_arm("small"); policy.add_arm("large")
    >>> policy.refresh()
    >>> x = np.array([[2.0, 1.0], [0.0, 1.0]], dtype=np.float32)
    >>> policy.estimate(x)[0].astype(float).round(2).tolist()
    [[0.66, 0.74], [0.8, 0.6]]
    """

    name = "pilot"
    Params = PilotParams

    def __init__(self, *, dim: int, **params: Any) -> None:
        super().__init__(dim=dim)
        own = self.params = PilotParams(**params)
        self.cosine = own.score == "cosine"
        self.projection: Float64 | None = None
        self.center = np.zeros(0)
        self.anchors: dict[str, tuple[Float64, Float64]] = {}
        self.support = 0.0
        precision, mean = own.arm_prior(dim)
        mean[-1] = 0.0 if self.cosine else own.prior
        self._begin(precision, mean, own.forgetting())

    def _begin(self, precision: Float64, mean: Float64, gamma: float) -> None:
        self.ridge = RidgeArms(precision=precision, mean=mean, gamma=gamma)
        self.duels = Duels(precision=precision, mean=mean, gamma=gamma)

    def adopt(self, prior: Mapping[str, NDArray[Any]]) -> None:
        """Start from preferences or, in inner mode, from the sums that `Policy.adopt` takes.

        Parameters
        ----------
        prior : mapping from str to array
            Arrays of a fit, or those of `Policy.adopt`. Of M models, d features and m coordinates,
            a fit has ``arms`` str[M], ``projection`` [m, d], ``center`` [m], ``embeddings`` [M, m],
            ``accuracy`` [M], and the numbers ``temperature``, ``context`` and ``support``.

        Raises
        ------
        ValueError
            For an array that is missing, of another shape, or not finite, and in cosine mode for
            the sums of `Policy.adopt`.
        """
        if "projection" not in prior:
            if self.cosine:
                raise ValueError("prior: a cosine has no use for this kind of prior")
            super().adopt(prior)
            return
        fit, own = _checked(prior, self.dim), self.params
        self.projection, self.center = fit["projection"], fit["center"]
        v, arms = fit["embeddings"], [str(name) for name in prior["arms"]]
        if self.cosine:
            means, fresh = v, (np.full(v.shape[1], own.level), v.mean(axis=0))
            precisions = np.repeat(1.0 / fit["accuracy"][:, None], v.shape[1], axis=1)
        else:
            e = own.gain / float(fit["temperature"]) * (v - v.mean(axis=0))
            levels = e @ self.center
            levels += min(own.prior, 1.0 - levels.max())
            means = np.column_stack([float(fit["context"]) * e, levels])
            precisions = np.full(means.shape, own.slopes)
            self.support = float(fit["support"])
            precisions[:, -1] = own.level + self.support * (own.trust - own.level)
            fresh = np.full(means.shape[1], own.slopes), np.zeros(means.shape[1])
            fresh[0][-1], fresh[1][-1] = own.level, levels.max()
        self.anchors = dict(zip(arms, zip(precisions, means, strict=True), strict=True))
        self._begin(*fresh, self.ridge.gamma)

    def _place(self, x: Float32) -> Float32:
        """Return the coordinates z[n, .] of x[n, d] in which arms are regressed."""
        if self.projection is None and not self.cosine:
            return x
        psi = x.astype(np.float64) if self.projection is None else x @ self.projection.T
        psi /= np.maximum(np.linalg.norm(psi, axis=1, keepdims=True), _TINY)
        if not self.cosine:
            psi = np.column_stack([psi - self.center, np.ones(len(psi))])
        return psi.astype(np.float32)

    def _assess(self, x: Float32, preference: Float64) -> Assessment:
        z = self._place(x)
        mean, std = self._regress(z)
        played = z @ self.view["direction"].T if self.cosine else mean
        return {"mean": played, "bonus": np.float32(self.params.alpha) * std}, mean, std

    law = staticmethod(optimistic)

    def _estimate(self, x: Float32) -> tuple[Float32, Float32]:
        return self._regress(self._place(x))

    def _regress(self, z: Float32) -> tuple[Float32, Float32]:
        mean: Float32 = z @ self.view["theta"].T
        return mean, widths(z, self.view["inverse"])

    def _learn(self, arm: int, outcome: Outcome) -> None:
        z = self._place(outcome.x[None].astype(np.float32))
        self.ridge.update(arm, z[0], outcome.value, self.clock)

    def _compare(self, winner: int, loser: int, comparison: Comparison) -> None:
        # Without a gain nothing is learned from comparisons. No gain turns a cosine into odds.
        if not self.cosine and self.params.gain > 0.0:
            z = self._place(comparison.x[None].astype(np.float32))
            self.duels.add_comparison(winner, loser, z[0], self.params.gain, self.clock)

    def teachable(self) -> bool:
        """See `Policy.teachable`."""
        # Sums of x cannot be turned into sums of z where z is a projection or has a norm of 1.
        return self.projection is None and not self.cosine

    def _teach(self, arm: int, sums: Sums) -> None:
        if self.teachable():
            self.ridge.add(arm, sums, self.clock)

    def _reset(self, arm: int, shift: float, worth: float) -> None:
        if not self.cosine:
            for sums in (self.ridge, self.duels):
                sums.forget_level(arm, shift=shift, worth=worth, clock=self.clock)

    def _grow(self) -> None:
        for sums in (self.ridge, self.duels):
            sums.grow()
        self._anchor(len(self.arms) - 1)

    def _anchor(self, arm: int) -> None:
        if self.arms[arm] in self.anchors:
            precision, mean = self.anchors[self.arms[arm]]
            for sums in (self.ridge, self.duels):
                sums.anchor_arm(arm, precision=precision, mean=mean)

    def _state(self) -> Arrays:
        own = self.ridge.state()
        if self.duels.count.any():  # most logs have no comparison and need no arrays
            own |= self.duels.state(prefix="duels/")
        return own

    def _load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self.ridge.load(state)
        none = {f"duels/{name}": np.zeros_like(a) for name, a in self.ridge.state().items()}
        self.duels.load(none | dict(state), prefix="duels/")
        for arm in range(len(self.arms)):
            self._anchor(arm)

    def _publish(self) -> Arrays:
        compared = self.duels.count.any()
        ridge = self.ridge.combined(self.duels, self.clock) if compared else self.ridge
        theta, inverse = ridge.solve(self.clock)
        if compared or self.support > 0.0:
            theta, inverse = self._with_shared_level(theta, inverse)
        view = {"theta": theta, "inverse": inverse}
        if self.cosine:
            norm = np.linalg.norm(theta, axis=1, keepdims=True)
            view["direction"] = theta / np.maximum(norm, _TINY)
        return view

    def _with_shared_level(self, theta: Float64, inverse: Float64) -> tuple[Float64, Float64]:
        """Return theta[K, d] and A^-1[K, d, d] after s was estimated from all rewards."""
        compared, moment = self.duels.level_sums(self.clock)
        pull, precision = compared.copy(), 0.0
        total = float((compared * theta).sum() - moment.sum())
        if self.support > 0.0:
            prior = self.ridge.precision[:, -1]
            pull[:, -1] += prior
            total += float((prior * (theta[:, -1] - self.ridge.mean[:, -1])).sum())
            precision = self.params.level / self.support
        step = np.matmul(inverse, pull[:, :, None])[:, :, 0]
        precision += float((pull[:, -1] - (pull * step).sum(axis=1)).sum())
        # Uncertainty about s is uncertainty about the arms, in proportion to their comparisons.
        share = np.matmul(inverse, compared[:, :, None])
        inverse = inverse + share @ share.transpose(0, 2, 1) / precision
        return theta + total / precision * step, inverse


_TINY, _LEAST = 1e-12, 1e-6


def _checked(prior: Mapping[str, NDArray[Any]], dim: int) -> dict[str, Float64]:
    """Return the numbers of a fit as float64, or raise a ValueError that says what is wrong."""
    sizes = {"M": prior["arms"].size, "d": dim, "m": len(np.atleast_1d(prior["projection"]))}
    fit = {}
    for name, axes in _SHAPES.items():
        fit[name] = params.checked_array(prior, name, tuple(sizes[axis] for axis in axes))
    for name in ("temperature", "accuracy"):
        if not (fit[name] >= _LEAST).all():
            raise ValueError(f"prior: {name}: at least {_LEAST:g}")
    if len(set(prior["arms"].tolist())) < prior["arms"].size:
        raise ValueError("prior: a model is there twice")
    for name in ("context", "support"):
        if not 0.0 <= fit[name] <= 1.0:
            raise ValueError(f"prior: {name}: in [0, 1]")
    return fit

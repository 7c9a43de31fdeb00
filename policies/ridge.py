"""Sufficient statistics of per-arm ridge regression, shared by all linear policies.

Sums are kept in float64 and moved by BLAS rank-1 updates, one outcome at a time, so they do not
depend on how a log is cut into batches. The regulariser is never decayed and inverses are never
updated in place: Sherman-Morrison under forgetting is unstable (errors of 1e29 after 100,000
float64 steps), so inverses are solved anew from the sums when they are published.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dsyr
from scipy.linalg.lapack import dpotrf, dpotri

from policies.base import Arrays, Float32, Float64


class RidgeArms:
    """S = sum g^(t-i) x x', b = sum g^(t-i) r x per arm; A = S + P, theta = A^-1 (b + P m).

    Parameters
    ----------
    precision : float64[d], diagonal P of the prior precision, all positive.
    mean : float64[d], prior mean m of the coefficients.
    gamma : forgetting factor per learned outcome of any arm, in (0, 1].

    Notes
    -----
    Decay is applied to an arm when it next learns, and to a copy of its sums when they are
    solved, so publishing changes nothing.
    """

    def __init__(self, *, precision: Float64, mean: Float64, gamma: float = 1.0) -> None:
        if not 0.0 < gamma <= 1.0:
            raise ValueError(f"gamma: in (0, 1], not {gamma}")
        if not (precision > 0).all():
            raise ValueError("precision: every entry positive")
        d = len(precision)
        self.precision, self.mean, self.gamma = precision, mean, gamma
        self.gram = np.zeros((0, d, d))
        self.moment = np.zeros((0, d))
        self.count = np.zeros(0)
        self.last = np.zeros(0, dtype=np.int64)
        self._solved: list[tuple[Float64, Float64] | None] = []

    def grow(self) -> None:
        """Add an arm that has learned nothing."""
        d = len(self.precision)
        self.gram = np.concatenate([self.gram, np.zeros((1, d, d))])
        self.moment = np.concatenate([self.moment, np.zeros((1, d))])
        self.count = np.append(self.count, 0.0)
        self.last = np.append(self.last, 0)
        self._solved.append(None)

    def update(self, arm: int, x: Float32, value: float, clock: int) -> None:
        """Add one outcome of `arm` at fold position `clock` (a count of outcomes)."""
        if self.gamma < 1.0:
            decay = self.gamma ** (clock - int(self.last[arm]))
            self.gram[arm] *= decay
            self.moment[arm] *= decay
            self.count[arm] *= decay
        wide = x.astype(np.float64)
        dsyr(1.0, wide, a=self.gram[arm].T, overwrite_a=1)
        self.moment[arm] += value * wide
        self.count[arm] += 1.0
        self.last[arm] = clock
        self._solved[arm] = None

    def solve(self, clock: int) -> tuple[Float64, Float64]:
        """Return theta[K, d] and A^-1[K, d, d] at fold position `clock`, float64."""
        for arm, known in enumerate(self._solved):
            if known is None or self.gamma < 1.0:
                self._solved[arm] = self._solve(arm, clock)
        if not self._solved:
            d = len(self.precision)
            return np.zeros((0, d)), np.zeros((0, d, d))
        thetas, inverses = zip(*(s for s in self._solved if s is not None), strict=True)
        return np.stack(thetas), np.stack(inverses)

    def _solve(self, arm: int, clock: int) -> tuple[Float64, Float64]:
        decay = self.gamma ** (clock - int(self.last[arm]))
        a = self.gram[arm] * decay
        a[np.diag_indices_from(a)] += self.precision
        factor, _ = dpotrf(a.T, lower=0)
        upper, _ = dpotri(factor, lower=0)
        inverse = np.triu(upper) + np.triu(upper, 1).T
        return inverse @ (self.moment[arm] * decay + self.precision * self.mean), inverse

    def state(self) -> Arrays:
        """Return the sums; symmetric matrices hold their lower triangle."""
        return {
            "gram": self.gram.copy(),
            "moment": self.moment.copy(),
            "count": self.count.copy(),
            "last": self.last.copy(),
        }

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over a `state`."""
        self.gram = np.array(state["gram"], dtype=np.float64, order="C")
        self.moment = np.array(state["moment"], dtype=np.float64, order="C")
        self.count = np.array(state["count"], dtype=np.float64)
        self.last = np.array(state["last"], dtype=np.int64)
        self._solved = [None] * len(self.count)


def widths(x: Float32, inverse: Float32) -> Float32:
    """Return sqrt(x' A^-1 x) as float32[n, K] for x[n, d] and A^-1[K, d, d], by one GEMM."""
    k, d, _ = inverse.shape
    projected = (x @ inverse.reshape(k * d, d).T).reshape(len(x), k, d)
    squares: Float32 = np.matmul(projected, x[:, :, None])[:, :, 0]
    return np.sqrt(np.maximum(squares, 0.0))

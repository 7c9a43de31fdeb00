"""Sufficient statistics of per-arm ridge regression, shared by all linear policies.

Sums are kept in float64 and moved by BLAS rank-1 updates, one outcome at a time, so they do not
depend on how a log is cut into batches. The regulariser is never decayed and inverses are never
updated in place: Sherman-Morrison under forgetting is unstable (errors of 1e29 after 100,000
float64 steps), so inverses are solved anew from the sums when they are published. Only
simulators may ask for steps in between, see `RidgeArms.steps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dger, dsyr, dsyrk
from scipy.linalg.lapack import dpotrf, dpotri

from policies.base import Arrays, Bools, Float32, Float64, Sums

_ALL = slice(None)


class RidgeArms:
    """S = sum g^(t-i) x x', b = sum g^(t-i) r x per arm; A = S + P_a, theta = A^-1 (b + P_a m_a).

    Parameters
    ----------
    precision : float64[d], diagonal P of the prior precision of a new arm, all positive.
    mean : float64[d], prior mean m of a new arm's coefficients.
    gamma : forgetting factor per learned outcome of any arm, in (0, 1].

    Notes
    -----
    Decay is applied to an arm when it next learns, and to a copy of its sums when they are
    solved, so publishing changes nothing. Only the sums decay: the variance x' A^-1 x of an arm
    that is not played grows back to that of its prior, and never above.

    `steps` is for simulators of streams that nobody folds again, and 0 for all others: without
    forgetting, the outcomes of a batch are then added as one product, and a single one moves the
    solution by Sherman-Morrison, until it is solved anew at every so many outcomes of its arm.
    The last bits then depend on how the stream was cut, and what was published moves as well.
    """

    steps = 0

    def __init__(self, *, precision: Float64, mean: Float64, gamma: float = 1.0) -> None:
        if not 0.0 < gamma <= 1.0:
            raise ValueError(f"gamma: in (0, 1], not {gamma}")
        if not (precision > 0).all():
            raise ValueError("precision: every entry positive")
        d = len(precision)
        self.fresh = precision, mean
        self.gamma = gamma
        self.precision, self.mean = np.zeros((2, 0, d))
        self.gram = np.zeros((0, d, d))
        self.moment = np.zeros((0, d))
        self.square = np.zeros(0)
        self.count = np.zeros(0)
        self.last = np.zeros(0, dtype=np.int64)
        self._solved: list[tuple[Float64, Float64] | None] = []
        self._shown: list[tuple[Float64, Float64]] = []
        self._narrow = np.zeros((0, d), np.float32), np.zeros((0, d, d), np.float32)
        self._left: dict[int, tuple[tuple[Float64, Float64], Float64, Float64]] = {}

    def grow(self) -> None:
        """Add an arm that has learned nothing."""
        d = self.moment.shape[1]
        precision, mean = self.fresh
        self.precision = np.concatenate([self.precision, precision[None]])
        self.mean = np.concatenate([self.mean, mean[None]])
        self.gram = np.concatenate([self.gram, np.zeros((1, d, d))])
        self.moment = np.concatenate([self.moment, np.zeros((1, d))])
        self.square = np.append(self.square, 0.0)
        self.count = np.append(self.count, 0.0)
        self.last = np.append(self.last, 0)
        self._solved.append(None)

    def anchor(self, *, precision: Float64, mean: Float64) -> None:
        """Set the priors of all arms, and of those to come: precision[d] and mean[d]."""
        self.fresh = precision, mean
        self.precision[:], self.mean[:] = precision, mean
        self._solved = [None] * len(self._solved)

    def anchor_arm(self, arm: int, *, precision: Float64, mean: Float64) -> None:
        """Set the prior of one arm: precision[d] and mean[d]."""
        self.precision[arm], self.mean[arm] = precision, mean
        self._solved[arm] = None

    def update(self, arm: int, x: Float32, value: float, clock: int) -> None:
        """Add one outcome of `arm` at fold position `clock` (a count of outcomes)."""
        known = self._solved[arm]
        self._age(arm, clock)
        wide = x.astype(np.float64)
        dsyr(1.0, wide, a=self.gram[arm].T, overwrite_a=1)
        self.moment[arm] += value * wide
        self.square[arm] += value * value
        self.count[arm] += 1.0
        if self.steps and known is not None and self.gamma == 1.0 and self.count[arm] % self.steps:
            self._solved[arm] = _stepped(*known, wide, value)

    def update_rows(self, arms: NDArray[np.intp], x: Float32, values: Float64, clock: int) -> None:
        """Add outcomes[n] of arms[n] as `update` would from `clock` + 1 on.

        Without `steps` it is the same to the bit.
        """
        if len(arms) == 1:
            self.update(arms.item(), x[0], values.item(), clock + 1)
            return
        if self.gamma < 1.0:
            rows = zip(arms.tolist(), x, values.tolist(), strict=True)
            for position, (arm, row, value) in enumerate(rows, clock + 1):
                self.update(arm, row, value, position)
            return
        wide, changed = x.astype(np.float64), set(arms.tolist())
        if self.steps:
            for arm in changed:
                mine = np.flatnonzero(arms == arm)
                own = wide[mine]
                dsyrk(1.0, own.T, beta=1.0, c=self.gram[arm].T, overwrite_c=1)
                self.moment[arm] += values[mine] @ own
        else:
            grams, moments = [gram.T for gram in self.gram], list(self.moment)
            for arm, row, pull in zip(arms.tolist(), wide, values[:, None] * wide, strict=True):
                dsyr(1.0, row, a=grams[arm], overwrite_a=1)
                moments[arm] += pull
        np.add.at(self.square, arms, values * values)
        np.add.at(self.count, arms, 1.0)
        self.last[arms] = np.arange(clock + 1, clock + 1 + len(arms))
        for arm in changed:
            self._solved[arm] = None

    def pace(self, steps: int) -> None:
        """Set `steps`, and solve all arms anew when next asked."""
        self.steps, self._solved = steps, [None] * len(self._solved)
        self._narrow = self._narrow[0][:0], self._narrow[1][:0]

    def add(self, arm: int, sums: Sums, clock: int) -> None:
        """Add at once what `sums.count` imaginary outcomes of `arm` have taught."""
        self._age(arm, clock)
        self.gram[arm] += np.tril(sums.gram)
        self.moment[arm] += sums.moment
        self.square[arm] += sums.square
        self.count[arm] += sums.count

    def loosen(self, arm: int, *, shift: float, worth: float, clock: int) -> None:
        """Forget the level of an arm but for `worth` outcomes of it, moved by `shift`.

        What its outcomes say of the slopes, and of the noise, stays: with m their mean features
        and r their mean value, ``S - n m m' + w m m'`` and ``b - n r m + w (r + shift) m``.
        """
        if self.gram[arm, -1, -1] <= 0.0:
            return
        self._age(arm, clock)
        known = self.gram[arm, -1, -1]
        kept, features = min(worth, known), self.gram[arm, -1] / known
        value = self.moment[arm, -1] / known
        self.gram[arm] += np.tril(np.outer(features, features)) * (kept - known)
        self.moment[arm] += (kept * (value + shift) - known * value) * features
        self.square[arm] += kept * (value + shift) ** 2 - known * value**2

    def levels(self, clock: int) -> Float64:
        """Return how many outcomes each arm's level rests on at fold position `clock`."""
        levels: Float64 = self.gram[:, -1, -1] * self.gamma ** (clock - self.last)
        return levels

    def age(self, clock: int) -> None:
        """Bring all arms to fold position `clock`; without forgetting they are there."""
        if self.gamma < 1.0:
            for arm in range(len(self.count)):
                self._age(arm, clock)

    def matrices(self, clock: int) -> Float64:
        """Return A[K, d, d] at fold position `clock`."""
        d = self.moment.shape[1]
        decay = self.gamma ** (clock - self.last)
        whole: Float64 = self.symmetric() * decay[:, None, None]
        whole[:, np.arange(d), np.arange(d)] += self.precision
        return whole

    def _age(self, arm: int, clock: int) -> None:
        if self.gamma < 1.0:
            decay = self.gamma ** (clock - int(self.last[arm]))
            for sums in (self.gram, self.moment, self.square, self.count):
                sums[arm] *= decay
        self.last[arm] = clock
        self._solved[arm] = None

    def solve(self, clock: int) -> tuple[Float64, Float64]:
        """Return theta[K, d] and A^-1[K, d, d] at fold position `clock`, float64."""
        if not self._solved:
            d = self.moment.shape[1]
            return np.zeros((0, d)), np.zeros((0, d, d))
        thetas, inverses = zip(*self._all(clock), strict=True)
        return np.stack(thetas), np.stack(inverses)

    def narrowed(self, clock: int) -> tuple[Float32, Float32]:
        """Return `solve` in float32; nobody may write to it, since it is given out again.

        Arms that are solved as they were last time are not converted anew.
        """
        solved = self._all(clock)
        theta, inverse = self._narrow
        if len(theta) != len(solved):
            k, d = len(solved), self.moment.shape[1]
            theta, inverse = np.empty((k, d), np.float32), np.empty((k, d, d), np.float32)
            changed = list(range(k))
        else:
            pairs = enumerate(zip(solved, self._shown, strict=True))
            changed = [arm for arm, (new, old) in pairs if new is not old]
            if changed and not self.steps:
                theta, inverse = theta.copy(), inverse.copy()
        for arm in changed:
            theta[arm], inverse[arm] = solved[arm]
        self._narrow, self._shown = (theta, inverse), solved
        return self._narrow

    def left(self, clock: int) -> tuple[Float64, Float64]:
        """Return the `residuals` around what is solved at `clock`, of changed arms anew."""
        error, freedom = np.zeros((2, len(self._solved)))
        for arm in range(len(self._solved)):
            solved, known = self.solve_one(arm, clock), self._left.get(arm)
            if known is None or known[0] is not solved:
                theta, inverse = solved
                at = slice(arm, arm + 1)
                known = solved, *self.residuals(theta[None], inverse[None], at)
                self._left[arm] = known
            error[arm], freedom[arm] = known[1][0], known[2][0]
        return error, freedom

    def belief(self, arm: int, x: Float64, clock: int) -> tuple[float, float]:
        """Return the mean x' theta and the variance x' A^-1 x of one arm at `clock`."""
        theta, inverse = self.solve_one(arm, clock)
        return float(x @ theta), float(x @ inverse @ x)

    def levels_told(self, clock: int) -> tuple[Float64, Float64]:
        """Return the intercept's row of S[K, d] and its entry of b[K] at `clock`."""
        return self._aged("gram", clock)[:, -1], self._aged("moment", clock)[:, -1]

    def joined(self, other: RidgeArms, clock: int) -> RidgeArms:
        """Return arms that learned what these and `other` did, with the priors of these."""
        both = RidgeArms(precision=self.fresh[0], mean=self.fresh[1], gamma=self.gamma)
        sums = {name: self._aged(name, clock) + other._aged(name, clock) for name in _SUMS[:-1]}
        both.load(sums | {"last": np.full(len(self.last), clock)})
        both.precision, both.mean = self.precision, self.mean
        return both

    def _aged(self, name: str, clock: int) -> Float64:
        sums: Float64 = getattr(self, name)
        decay = self.gamma ** (clock - self.last)
        return sums * decay.reshape(-1, *[1] * (sums.ndim - 1))

    def solve_one(self, arm: int, clock: int) -> tuple[Float64, Float64]:
        """Return theta[d] and A^-1[d, d] of one arm at fold position `clock`, float64."""
        known = self._solved[arm]
        if known is None or self.gamma < 1.0:
            known = self._solved[arm] = self._solve(arm, clock)
        return known

    def _all(self, clock: int) -> list[tuple[Float64, Float64]]:
        if self.gamma == 1.0:
            known = [solved for solved in self._solved if solved is not None]
            if len(known) == len(self._solved):
                return known
        return [self.solve_one(arm, clock) for arm in range(len(self._solved))]

    def _solve(self, arm: int, clock: int) -> tuple[Float64, Float64]:
        decay = self.gamma ** (clock - int(self.last[arm]))
        inverse = _whole(_factor(self.gram[arm] * decay, self.precision[arm]))
        prior = self.precision[arm] * self.mean[arm]
        return inverse @ (self.moment[arm] * decay + prior), inverse

    def residuals(
        self, theta: Float64, inverse: Float64, arms: slice = _ALL
    ) -> tuple[Float64, Float64]:
        """Return (sum of squared residuals[K], their degrees of freedom[K]) around theta[K, d].

        The degrees of freedom are what the fit leaves of the outcomes, n - tr(S A^-1). Of some
        `arms` alone, theta and A^-1 are theirs.
        """
        gram = self.symmetric(arms)
        fitted = (gram @ theta[:, :, None])[:, :, 0]
        error = self.square[arms] + (theta * (fitted - 2.0 * self.moment[arms])).sum(axis=1)
        freedom = self.count[arms] - (gram * inverse).sum(axis=(1, 2))
        return np.maximum(error, 0.0), np.maximum(freedom, 0.0)

    def symmetric(self, arms: slice = _ALL) -> Float64:
        """Return S[K, d, d] with both triangles, at each arm's last outcome."""
        gram = self.gram[arms]
        whole: Float64 = np.where(_lower(gram.shape[-1]), gram, gram.transpose(0, 2, 1))
        return whole

    def state(self) -> Arrays:
        """Return the sums; symmetric matrices hold their lower triangle."""
        return {name: getattr(self, name).copy() for name in _SUMS}

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over a `state`."""
        for name in _SUMS:
            setattr(self, name, np.array(state[name], dtype=getattr(self, name).dtype, order="C"))
        arms = len(self.count)
        precision, mean = self.fresh
        self.precision, self.mean = np.tile(precision, (arms, 1)), np.tile(mean, (arms, 1))
        self._solved = [None] * arms


_BLOCK = 32
_ZERO, _HALF = np.zeros((), np.float32), np.full((), 0.5, np.float32)
_SUMS = ("gram", "moment", "square", "count", "last")


def next_position(clock: int, *, forgets: bool = False) -> int:
    """Return the fold position at which to take stock after `clock`: 4, 8, 16, 32, 64, 96, ..

    From 1,024 on the distance is a thirty-second part of the log, so that long logs fold fast;
    but what is soon forgotten has to be estimated anew as soon, every 32 outcomes.
    """
    if clock < 32:
        return max(2 * clock, 4)
    return clock + (32 if forgets else max(32, clock // 32))


def invert(gram: Float64, precision: Float64) -> tuple[Float64, float]:
    """Return (S + P)^-1[d, d] and log det(S + P), of the lower triangle S and the diagonal P[d]."""
    factor = _factor(gram.copy(), precision)
    log_det = 2.0 * float(np.log(np.diagonal(factor)).sum())
    return _whole(factor), log_det


def _factor(a: Float64, precision: Float64) -> Float64:
    """Return the upper Cholesky factor of S + P, zeros below; `a`, S in C order, is overwritten."""
    diagonal = a.reshape(-1)[:: len(a) + 1]
    diagonal += precision
    factor: Float64
    factor, failed = dpotrf(a.T, lower=0)
    more = 1e-12
    while failed and more < 1.0:
        # Sums this large have rounded the prior away: a little more of their own keeps them whole.
        diagonal *= 1.0 + more
        factor, failed = dpotrf(a.T, lower=0)
        more *= 10.0
    if failed:
        raise FloatingPointError("gram: not a sum of squares")
    return factor


def _whole(factor: Float64) -> Float64:
    """Return the inverse[d, d], in C order, of a matrix by its upper Cholesky factor."""
    upper, _ = dpotri(factor, lower=0)
    whole = np.empty(upper.shape)
    np.add(upper, upper.T, out=whole)
    whole.reshape(-1)[:: len(whole) + 1] = upper.diagonal()
    return whole


def _stepped(theta: Float64, inverse: Float64, x: Float64, value: float) -> tuple[Float64, Float64]:
    """Return the solution after one more outcome, by Sherman-Morrison; the inverse moves itself."""
    moved = inverse.dot(x)
    gain = 1.0 / (1.0 + float(moved.dot(x)))
    dger(-gain, moved, moved, a=inverse.T, overwrite_a=1)
    return theta + gain * (value - float(theta.dot(x))) * moved, inverse


@cache
def _lower(d: int) -> Bools:
    """Return the mask[d, d] of the lower triangle with the diagonal."""
    return np.tri(d, dtype=np.bool_)


def widths(x: Float32, inverse: Float32) -> Float32:
    """Return sqrt(x' A^-1 x) as float32[n, K] for x[n, d] and symmetric A^-1[K, d, d]."""
    k, d, _ = inverse.shape
    n = len(x)
    squares: Float32
    if n == 1:
        row = x[0]
        squares = inverse.reshape(k * d, d).dot(row).reshape(k, d).dot(row)[None]
    elif d < 2 * _BLOCK or n < _BLOCK:
        projected = (x @ inverse.reshape(k * d, d).T).reshape(n, k, d)
        squares = np.matmul(projected, x[:, :, None])[:, :, 0]
    else:
        # Of a symmetric matrix the blocks on and below the diagonal are enough.
        sums = np.zeros((k, n), dtype=np.float32)
        for at in range(0, d, _BLOCK):
            left = x[:, at:].copy()
            left[:, :_BLOCK] *= _HALF
            part = np.matmul(left, inverse[:, at:, at : at + _BLOCK])
            sums += np.einsum("knb,nb->kn", part, x[:, at : at + _BLOCK])
        squares = np.ascontiguousarray((sums + sums).T)
    np.maximum(squares, _ZERO, out=squares)
    return np.sqrt(squares, out=squares)

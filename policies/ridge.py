"""Sufficient statistics of ridge regression for each arm, shared by all linear policies.

The regulariser must never decay, and inverses must never be updated in place under forgetting:
Sherman-Morrison is unstable there (errors of 1e29 after 100,000 float64 steps). So inverses are
solved from the sums when they are published. Only simulators without forgetting may ask for
updates in between, see `RidgeArms.steps`.

Sums are kept in float64 and updated by BLAS rank-1 operations, one outcome at a time, so they do
not depend on how a log is cut into batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dger, dsyr, dsyrk
from scipy.linalg.lapack import dpotrf, dpotri

from policies.base import Arrays, Bools, Float32, Float64, Sums, copies, grown, take_over

_ALL = slice(None)
Solution = tuple[Float64, Float64]
"""theta[d] and A^-1[d, d] of an arm."""


class RidgeArms:
    """S = sum g^(t-i) x x', b = sum g^(t-i) r x per arm; A = S + P_a, theta = A^-1 (b + P_a m_a).

    Parameters
    ----------
    precision : float64[d]
        Diagonal P of the prior precision of a new arm, all positive.
    mean : float64[d]
        Prior mean m of a new arm's coefficients.
    gamma : float, default 1.0
        Forgetting factor per learned outcome of any arm, in (0, 1].

    Attributes
    ----------
    steps : int
        0 everywhere but in simulators of streams that are never folded again, see the notes.
    gram : float64[K, d, d]
        S of each arm at its last outcome, the lower triangle.
    moment : float64[K, d]
        b of each arm at its last outcome.
    square : float64[K]
        The decayed sum of r^2.
    count : float64[K]
        The decayed number of outcomes.
    last : int64[K]
        Fold position of each arm's last outcome.

    Notes
    -----
    Decay is applied to an arm when it next learns, and to a copy of its sums when they are
    solved, so publishing changes nothing. Only the sums decay: the variance x' A^-1 x of an arm
    that is not played grows back to that of its prior, and never above.

    With `steps` above 0 and without forgetting, the outcomes of a batch are added as one product,
    and a single outcome updates the solution by Sherman-Morrison. The solution is solved from the
    sums after every `steps` outcomes of its arm. The last bits then depend on how the stream was
    cut into batches, and published arrays change in place.
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
        self._solved: list[Solution | None] = []
        self._converted: list[Solution] = []
        self._float32 = np.zeros((0, d), np.float32), np.zeros((0, d, d), np.float32)
        self._residuals: dict[int, tuple[Solution, Float64, Float64]] = {}

    def grow(self) -> None:
        """Add an arm without outcomes."""
        precision, mean = self.fresh
        self.precision = np.concatenate([self.precision, precision[None]])
        self.mean = np.concatenate([self.mean, mean[None]])
        for name in _SUMS:
            setattr(self, name, grown(getattr(self, name)))
        self._solved.append(None)

    def anchor(self, *, precision: Float64, mean: Float64) -> None:
        """Set the prior of all arms, and of arms that are added later.

        Parameters
        ----------
        precision : float64[d]
            Diagonal of the prior precision.
        mean : float64[d]
            Prior mean of the coefficients.
        """
        self.fresh = precision, mean
        self.precision[:], self.mean[:] = precision, mean
        self._solved = [None] * len(self._solved)

    def anchor_arm(self, arm: int, *, precision: Float64, mean: Float64) -> None:
        """Set the prior of one arm.

        Parameters
        ----------
        arm : int
            The arm.
        precision : float64[d]
            Diagonal of the prior precision.
        mean : float64[d]
            Prior mean of the coefficients.
        """
        self.precision[arm], self.mean[arm] = precision, mean
        self._solved[arm] = None

    def update(self, arm: int, x: Float32, value: float, clock: int) -> None:
        """Add one outcome.

        Parameters
        ----------
        arm : int
            Its arm.
        x : float32[d]
            Features.
        value : float
            The reward r.
        clock : int
            Fold position, a count of outcomes.
        """
        solved = self._solved[arm]
        self._age(arm, clock)
        wide = x.astype(np.float64)
        dsyr(1.0, wide, a=self.gram[arm].T, overwrite_a=1)
        self.moment[arm] += value * wide
        self.square[arm] += value * value
        self.count[arm] += 1.0
        if self.steps and solved is not None and self.gamma == 1.0 and self.count[arm] % self.steps:
            self._solved[arm] = _stepped(*solved, wide, value)

    def update_rows(self, arms: NDArray[np.intp], x: Float32, values: Float64, clock: int) -> None:
        """Add n outcomes in order; without `steps` the result is that of `update` to the bit.

        Parameters
        ----------
        arms : int[n]
            The arm of each outcome.
        x : float32[n, d]
            Features.
        values : float64[n]
            Rewards.
        clock : int
            Fold position before the first of them.
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
                rows_of_arm = np.flatnonzero(arms == arm)
                own = wide[rows_of_arm]
                dsyrk(1.0, own.T, beta=1.0, c=self.gram[arm].T, overwrite_c=1)
                self.moment[arm] += values[rows_of_arm] @ own
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

    def set_steps(self, steps: int) -> None:
        """Set `steps`, and forget all solutions.

        Parameters
        ----------
        steps : int
            Outcomes of an arm between two solutions from its sums; 0 to solve at each publish.
        """
        self.steps, self._solved = steps, [None] * len(self._solved)
        self._float32 = self._float32[0][:0], self._float32[1][:0]

    def add(self, arm: int, sums: Sums, clock: int) -> None:
        """Add prior knowledge, which counts as `sums.count` outcomes.

        Parameters
        ----------
        arm : int
            The arm.
        sums : Sums
            The knowledge.
        clock : int
            Fold position from which it decays.
        """
        self._age(arm, clock)
        self.gram[arm] += np.tril(sums.gram)
        self.moment[arm] += sums.moment
        self.square[arm] += sums.square
        self.count[arm] += sums.count

    def forget_level(self, arm: int, *, shift: float, worth: float, clock: int) -> None:
        """Forget the level of an arm but for a few outcomes, and change it.

        Parameters
        ----------
        arm : int
            The arm.
        shift : float
            Change of the level, in reward units.
        worth : float
            Number of outcomes that the changed level is worth, at most what it was.
        clock : int
            Fold position.

        Notes
        -----
        What the outcomes say about the slopes and the noise stays. With n outcomes of mean features
        m and mean reward r, the sums become ``S - n m m' + w m m'`` and
        ``b - n r m + w (r + shift) m``, where w is the smaller of `worth` and n.
        """
        if self.gram[arm, -1, -1] <= 0.0:
            return
        self._age(arm, clock)
        n = self.gram[arm, -1, -1]
        w, features = min(worth, n), self.gram[arm, -1] / n
        value = self.moment[arm, -1] / n
        self.gram[arm] += np.tril(np.outer(features, features)) * (w - n)
        self.moment[arm] += (w * (value + shift) - n * value) * features
        self.square[arm] += w * (value + shift) ** 2 - n * value**2

    def level_counts(self, clock: int) -> Float64:
        """Return how many outcomes each arm's level rests on.

        Parameters
        ----------
        clock : int
            Fold position.

        Returns
        -------
        float64[K]
            The decayed sums of the squared intercept.
        """
        counts: Float64 = self.gram[:, -1, -1] * self.gamma ** (clock - self.last)
        return counts

    def age(self, clock: int) -> None:
        """Apply the decay up to a fold position to all arms; without forgetting there is none.

        Parameters
        ----------
        clock : int
            Fold position.
        """
        if self.gamma < 1.0:
            for arm in range(len(self.count)):
                self._age(arm, clock)

    def matrices(self, clock: int) -> Float64:
        """Return the regularised sums A of all arms.

        Parameters
        ----------
        clock : int
            Fold position.

        Returns
        -------
        float64[K, d, d]
            With both triangles.
        """
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
        """Return the solutions of all arms.

        Parameters
        ----------
        clock : int
            Fold position.

        Returns
        -------
        theta : float64[K, d]
            Coefficients.
        inverse : float64[K, d, d]
            A^-1.
        """
        if not self._solved:
            d = self.moment.shape[1]
            return np.zeros((0, d)), np.zeros((0, d, d))
        thetas, inverses = zip(*self._all(clock), strict=True)
        return np.stack(thetas), np.stack(inverses)

    def solve_float32(self, clock: int) -> tuple[Float32, Float32]:
        """Return `solve` in float32; arms whose solution has not changed are not converted again.

        Parameters
        ----------
        clock : int
            Fold position.

        Returns
        -------
        theta : float32[K, d]
            Coefficients. They must not be written to, since later calls may return them again.
        inverse : float32[K, d, d]
            A^-1, likewise.
        """
        solved = self._all(clock)
        theta, inverse = self._float32
        if len(theta) != len(solved):
            k, d = len(solved), self.moment.shape[1]
            theta, inverse = np.empty((k, d), np.float32), np.empty((k, d, d), np.float32)
            changed = list(range(k))
        else:
            pairs = enumerate(zip(solved, self._converted, strict=True))
            changed = [arm for arm, (new, old) in pairs if new is not old]
            if changed and not self.steps:
                theta, inverse = theta.copy(), inverse.copy()
        for arm in changed:
            theta[arm], inverse[arm] = solved[arm]
        self._float32, self._converted = (theta, inverse), solved
        return self._float32

    def cached_residuals(self, clock: int) -> tuple[Float64, Float64]:
        """Return the `residuals` around the solutions, computed again for changed arms only.

        Parameters
        ----------
        clock : int
            Fold position.

        Returns
        -------
        error : float64[K]
            See `residuals`.
        freedom : float64[K]
            See `residuals`.
        """
        error, freedom = np.zeros((2, len(self._solved)))
        for arm in range(len(self._solved)):
            solution, cached = self.solve_one(arm, clock), self._residuals.get(arm)
            if cached is None or cached[0] is not solution:
                theta, inverse = solution
                own = slice(arm, arm + 1)
                cached = solution, *self.residuals(theta[None], inverse[None], own)
                self._residuals[arm] = cached
            error[arm], freedom[arm] = cached[1][0], cached[2][0]
        return error, freedom

    def predict(self, arm: int, x: Float64, clock: int) -> tuple[float, float]:
        """Return what one arm's regression predicts.

        Parameters
        ----------
        arm : int
            The arm.
        x : float64[d]
            Features.
        clock : int
            Fold position.

        Returns
        -------
        mean : float
            x' theta.
        variance : float
            x' A^-1 x.
        """
        theta, inverse = self.solve_one(arm, clock)
        return float(x @ theta), float(x @ inverse @ x)

    def level_sums(self, clock: int) -> tuple[Float64, Float64]:
        """Return the sums that concern the intercept.

        Parameters
        ----------
        clock : int
            Fold position.

        Returns
        -------
        gram : float64[K, d]
            The last row of S.
        moment : float64[K]
            The last entry of b.
        """
        return self._aged("gram", clock)[:, -1], self._aged("moment", clock)[:, -1]

    def combined(self, other: RidgeArms, clock: int) -> RidgeArms:
        """Return arms with the sums of two regressions together.

        Parameters
        ----------
        other : RidgeArms
            A regression of the same arms and features.
        clock : int
            Fold position.

        Returns
        -------
        RidgeArms
            It has the priors of this regression.
        """
        both = RidgeArms(precision=self.fresh[0], mean=self.fresh[1], gamma=self.gamma)
        sums = {name: self._aged(name, clock) + other._aged(name, clock) for name in _SUMS[:-1]}
        both.load(sums | {"last": np.full(len(self.last), clock)})
        both.precision, both.mean = self.precision, self.mean
        return both

    def _aged(self, name: str, clock: int) -> Float64:
        sums: Float64 = getattr(self, name)
        decay = self.gamma ** (clock - self.last)
        return sums * decay.reshape(-1, *[1] * (sums.ndim - 1))

    def solve_one(self, arm: int, clock: int) -> Solution:
        """Return the solution of one arm.

        Parameters
        ----------
        arm : int
            The arm.
        clock : int
            Fold position.

        Returns
        -------
        theta : float64[d]
            Coefficients.
        inverse : float64[d, d]
            A^-1.
        """
        solution = self._solved[arm]
        if solution is None or self.gamma < 1.0:
            solution = self._solved[arm] = self._solve(arm, clock)
        return solution

    def _all(self, clock: int) -> list[Solution]:
        if self.gamma == 1.0:
            solved = [solution for solution in self._solved if solution is not None]
            if len(solved) == len(self._solved):
                return solved
        return [self.solve_one(arm, clock) for arm in range(len(self._solved))]

    def _solve(self, arm: int, clock: int) -> Solution:
        decay = self.gamma ** (clock - int(self.last[arm]))
        inverse = _whole(_factor(self.gram[arm] * decay, self.precision[arm]))
        prior = self.precision[arm] * self.mean[arm]
        return inverse @ (self.moment[arm] * decay + prior), inverse

    def residuals(
        self, theta: Float64, inverse: Float64, arms: slice = _ALL
    ) -> tuple[Float64, Float64]:
        """Return how far the outcomes of K arms lie from a fit.

        Parameters
        ----------
        theta : float64[K, d]
            Coefficients of the fit.
        inverse : float64[K, d, d]
            A^-1.
        arms : slice, default all
            The arms that `theta` and `inverse` are of.

        Returns
        -------
        error : float64[K]
            Sum of squared residuals.
        freedom : float64[K]
            Their degrees of freedom, n - tr(S A^-1): what the fit leaves of the outcomes.
        """
        gram = self.symmetric(arms)
        fitted = (gram @ theta[:, :, None])[:, :, 0]
        error = self.square[arms] + (theta * (fitted - 2.0 * self.moment[arms])).sum(axis=1)
        freedom = self.count[arms] - (gram * inverse).sum(axis=(1, 2))
        return np.maximum(error, 0.0), np.maximum(freedom, 0.0)

    def symmetric(self, arms: slice = _ALL) -> Float64:
        """Return S with both triangles, at each arm's last outcome.

        Parameters
        ----------
        arms : slice, default all
            K arms.

        Returns
        -------
        float64[K, d, d]
            A copy.
        """
        gram = self.gram[arms]
        whole: Float64 = np.where(_lower(gram.shape[-1]), gram, gram.transpose(0, 2, 1))
        return whole

    def state(self, *, prefix: str = "") -> Arrays:
        """Return the sums as plain arrays; symmetric matrices hold their lower triangle.

        Parameters
        ----------
        prefix : str, default ""
            Stands before the names of the arrays.

        Returns
        -------
        dict from str to array
            Copies by name.
        """
        return copies(self, _SUMS, prefix)

    def load(self, state: Mapping[str, NDArray[np.generic]], *, prefix: str = "") -> None:
        """Take over a state.

        Parameters
        ----------
        state : mapping from str to array
            What `state` returned, perhaps among other arrays.
        prefix : str, default ""
            See `state`.
        """
        take_over(self, _SUMS, state, prefix)
        arms = len(self.count)
        precision, mean = self.fresh
        self.precision, self.mean = np.tile(precision, (arms, 1)), np.tile(mean, (arms, 1))
        self._solved = [None] * arms


_BLOCK = 32
_ZERO, _HALF = np.zeros((), np.float32), np.full((), 0.5, np.float32)
_SUMS = ("gram", "moment", "square", "count", "last")


def next_position(clock: int, *, forgets: bool = False) -> int:
    """Return the next fold position at which to estimate shared parameters: 4, 8, 16, 32, 64, ...

    Parameters
    ----------
    clock : int
        Fold position.
    forgets : bool, default False
        Whether outcomes are forgotten. If so, the distance stays 32 outcomes. Otherwise it is a
        thirty-second part of the log from 1,024 on, so that long logs fold fast.

    Returns
    -------
    int
        A position after `clock`.
    """
    if clock < 32:
        return max(2 * clock, 4)
    return clock + (32 if forgets else max(32, clock // 32))


def invert(gram: Float64, precision: Float64) -> tuple[Float64, float]:
    """Return the inverse and the log determinant of S + P.

    Parameters
    ----------
    gram : float64[d, d]
        The lower triangle of S.
    precision : float64[d]
        The diagonal P.

    Returns
    -------
    inverse : float64[d, d]
        (S + P)^-1.
    log_det : float
        log det(S + P).
    """
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
        # Sums this large have rounded the prior away; a slightly larger diagonal makes it definite.
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


def _stepped(theta: Float64, inverse: Float64, x: Float64, value: float) -> Solution:
    """Return the solution after one more outcome, by Sherman-Morrison; `inverse` is overwritten."""
    direction = inverse.dot(x)
    gain = 1.0 / (1.0 + float(direction.dot(x)))
    dger(-gain, direction, direction, a=inverse.T, overwrite_a=1)
    return theta + gain * (value - float(theta.dot(x))) * direction, inverse


@cache
def _lower(d: int) -> Bools:
    """Return the mask[d, d] of the lower triangle with the diagonal."""
    return np.tri(d, dtype=np.bool_)


def widths(x: Float32, inverse: Float32) -> Float32:
    """Return the posterior deviations ``sqrt(x' A^-1 x)``.

    Parameters
    ----------
    x : float32[n, d]
        Features of n requests.
    inverse : float32[K, d, d]
        A^-1 of each arm, symmetric.

    Returns
    -------
    float32[n, K]
        In units of the noise.
    """
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

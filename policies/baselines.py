"""Baselines: simple policies that every other policy must beat. None may fit coefficients.

Three keep a mean for each arm, one keeps the newest outcomes themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from policies import params
from policies.base import Arrays, Assessment, Bools, Float32, Float64, Outcome, Policy
from policies.laws import greedy, optimistic


class Shrinking(Policy):
    """Base of policies that estimate quality by a beta posterior of each arm.

    Parameters
    ----------
    dim : int
        Number of features; the estimates do not depend on them.
    prior : float, default 0.6
        Quality that is estimated before any reward, in [0, 1]; it is worth 2 rewards.
    """

    def __init__(self, *, dim: int, prior: float = 0.6) -> None:
        super().__init__(dim=dim)
        params.share(prior=prior)
        self.prior = prior
        self.kept: Arrays = {"total": np.zeros(0), "count": np.zeros(0)}

    def _posterior(self, total: Float64, count: Float64) -> tuple[Float32, Float32]:
        mean = (total + 2.0 * self.prior) / (count + 2.0)
        variance = np.maximum(mean * (1.0 - mean), 0.0) / (count + 3.0)
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)

    def _learn(self, arm: int, outcome: Outcome) -> None:
        self.kept["total"][arm] += outcome.value
        self.kept["count"][arm] += 1.0

    def _reset(self, arm: int, shift: float, worth: float) -> None:
        total, count = self.kept["total"], self.kept["count"]
        if count[arm] > 0.0:
            kept = min(worth, count[arm])
            total[arm] = kept * (total[arm] / count[arm] + shift)
            count[arm] = kept

    def _publish(self) -> Arrays:
        mean, std = self._posterior(self.kept["total"], self.kept["count"])
        return {"mean": mean, "std": std}


class Random(Shrinking):
    """Play any eligible arm with the same probability.

    Parameters
    ----------
    dim : int
        See `Shrinking`.
    prior : float, default 0.6
        See `Shrinking`.
    """

    name = "random"

    @staticmethod
    def law(scores: Mapping[str, Float32], eligible: Bools, penalty: Float64) -> Float64:
        """See `Policy.law`."""
        return greedy(np.zeros(eligible.shape), eligible)


class Fixed(Shrinking):
    """Play one arm; where it is not eligible, play the eligible arms of least penalty.

    Parameters
    ----------
    dim : int
        See `Shrinking`.
    arm : str, default ""
        Name of the arm; it may be added later.
    prior : float, default 0.6
        See `Shrinking`.

    Raises
    ------
    ValueError
        When an arm is added and `arm` is empty.
    """

    name = "fixed"

    def __init__(self, *, dim: int, arm: str = "", prior: float = 0.6) -> None:
        super().__init__(dim=dim, prior=prior)
        self.arm = arm

    def _assess(self, x: Float32, preference: Float64) -> Assessment:
        mean, std = self._estimate(x)
        chosen = np.array([name == self.arm for name in self.arms], dtype=np.float32)
        return {"mean": mean, "chosen": np.tile(chosen, (len(x), 1))}, mean, std

    @staticmethod
    def law(scores: Mapping[str, Float32], eligible: Bools, penalty: Float64) -> Float64:
        """See `Policy.law`."""
        return greedy(np.where(scores["chosen"] > 0.0, np.inf, -penalty), eligible)

    def add_arm(self, name: str) -> None:
        """See `Policy.add_arm`."""
        if not self.arm:
            raise ValueError("arm: required")
        super().add_arm(name)


class EpsilonGreedy(Shrinking):
    """Play argmax mean_a - penalty_a, and a uniformly drawn arm with probability `epsilon`.

    Parameters
    ----------
    dim : int
        See `Shrinking`.
    epsilon : float, default 0.05
        Probability of a uniform draw, in [0, 1].
    prior : float, default 0.6
        See `Shrinking`.

    Examples
    --------
    >>> scores = {"mean": np.float32([[0.4, 0.7]]), "epsilon": np.float32([[0.5, 0.5]])}
    >>> EpsilonGreedy.law(scores, np.array([[True, True]]), np.zeros((1, 2))).tolist()
    [[0.25, 0.75]]
    """

    name = "epsilon-greedy"

    def __init__(self, *, dim: int, epsilon: float = 0.05, prior: float = 0.6) -> None:
        super().__init__(dim=dim, prior=prior)
        params.share(epsilon=epsilon)
        self.epsilon = epsilon

    def _assess(self, x: Float32, preference: Float64) -> Assessment:
        mean, std = self._estimate(x)
        return {"mean": mean, "epsilon": np.full_like(mean, self.epsilon)}, mean, std

    @staticmethod
    def law(scores: Mapping[str, Float32], eligible: Bools, penalty: Float64) -> Float64:
        """See `Policy.law`."""
        epsilon = scores["epsilon"].astype(np.float64)
        best = greedy(scores["mean"].astype(np.float64) - penalty, eligible)
        return (1.0 - epsilon) * best + epsilon * Random.law(scores, eligible, penalty)


class KNearest(Shrinking):
    """Play argmax of the shrunk mean reward of an arm's k nearest outcomes plus a bonus.

    Parameters
    ----------
    dim : int
        Number of features.
    k : int, default 40
        Neighbours of an arm that count; of two at the same distance the newer one is nearer.
    memory : int, default 4096
        Number of newest outcomes, of all arms together, that are kept.
    distance : str, default "cosine"
        ``cosine`` or ``euclidean``.
    alpha : float, default 0.1
        Bonus of an arm without neighbours, at least 0; with n neighbours it is
        ``alpha / sqrt(1 + n)``.
    prior : float, default 0.6
        See `Shrinking`.
    """

    name = "knn"

    def __init__(
        self,
        *,
        dim: int,
        k: int = 40,
        memory: int = 4096,
        distance: str = "cosine",
        alpha: float = 0.1,
        prior: float = 0.6,
    ) -> None:
        super().__init__(dim=dim, prior=prior)
        params.not_negative(alpha=alpha)
        params.positive(k=k, memory=memory)
        params.one_of("cosine", "euclidean", distance=distance)
        self.k, self.cosine, self.alpha = k, distance == "cosine", alpha
        points = np.zeros((memory, dim), dtype=np.float32)
        self.kept = {"points": points, "owner": np.zeros(memory, int), "value": np.zeros(memory)}

    def _assess(self, x: Float32, preference: Float64) -> Assessment:
        total, count = self._neighbours(x)
        mean, std = self._posterior(total, count)
        bonus = (self.alpha / np.sqrt(1.0 + count)).astype(np.float32)
        return {"mean": mean, "bonus": bonus}, mean, std

    law = staticmethod(optimistic)

    def _estimate(self, x: Float32) -> tuple[Float32, Float32]:
        return self._posterior(*self._neighbours(x))

    def _neighbours(self, x: Float32) -> tuple[Float64, Float64]:
        points, owner, value = self.view["points"], self.view["owner"], self.view["value"]
        # BLAS sums a row by its place in the matrix; the k-th nearest would depend on the batch.
        far = -(np.einsum("md,nd->nm", points, x) + self.view["offset"])
        total, count = np.zeros((2, len(x), len(self.arms)))
        for arm in range(len(self.arms)):
            mine = owner == arm
            nearest = np.argsort(far[:, mine], axis=1, kind="stable")[:, : self.k]
            total[:, arm] = value[mine][nearest].sum(axis=1, dtype=np.float64)
            count[:, arm] = nearest.shape[1]
        return total, count

    def _learn(self, arm: int, outcome: Outcome) -> None:
        slot = (self.clock - 1) % len(self.kept["owner"])
        self.kept["points"][slot], self.kept["owner"][slot] = outcome.x, arm
        self.kept["value"][slot] = outcome.value

    def _reset(self, arm: int, shift: float, worth: float) -> None: ...

    def _grow(self) -> None: ...

    def _publish(self) -> Arrays:
        memory = len(self.kept["owner"])
        newest_first = (self.clock - 1 - np.arange(min(self.clock, memory))) % memory
        view = {name: array[newest_first] for name, array in self.kept.items()}
        points = view["points"].astype(np.float64)
        half = 0.5 * (points * points).sum(axis=1)
        # By either distance the nearest points have the largest p.x + offset: |x| is common to all.
        if self.cosine:
            points /= np.sqrt(np.where(half > 0.0, 2.0 * half, 1.0))[:, None]
            half[:] = 0.0
        return view | {"points": points, "offset": -half}

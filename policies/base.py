"""The policy contract: what every way of choosing has in common.

A policy is a fold over outcomes. `learn` moves its statistics, one outcome at a time and in log
order; `publish` turns them into the float32 arrays that `score` reads; `law` turns scores into
the exact probability of every arm. The probability is part of the interface, so no caller ever
has to guess it. Nothing in this package may do I/O, read a clock or draw from a global generator.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One learned field of one decision, with all that the fold may know of it.

    Attributes
    ----------
    seq : log position.
    decision_id : the decision that this is an outcome of.
    arm : name of the chosen model.
    x : float32[d], the features of the decision.
    field : ``quality``, ``cost`` or ``latency``.
    value : quality in [0, 1], cost in US dollars, or latency in milliseconds.
    cost : cost in US dollars known when the outcome was logged, or None.
    propensity : probability with which the arm was drawn.
    preference : weights of (quality, cost, latency).
    cost_prior : US dollars that the price row predicted before anything was learned.
    input_cost : the part of `cost_prior` that is input tokens.
    """

    seq: int
    decision_id: str
    arm: str
    x: Float32
    field: str
    value: float
    cost_usd: float | None = None
    propensity: float = 1.0
    preference: tuple[float, float, float] = (1.0, 0.0, 0.0)
    cost_prior_usd: float = 0.0
    input_cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """That one model's answer was preferred over another's to the same prompt.

    Attributes
    ----------
    seq : log position.
    decision_id, over : the decisions of the preferred answer and of the other one.
    winner, loser : names of their models.
    x : float32[d], the features of the prompt.
    propensity, loser_propensity : probabilities with which the two were drawn.
    preference : weights of (quality, cost, latency) of the preferred one's request.
    """

    seq: int
    decision_id: str
    over: str
    winner: str
    loser: str
    x: Float32
    propensity: float = 1.0
    loser_propensity: float = 1.0
    preference: tuple[float, float, float] = (1.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Sums:
    """What outcomes of one arm have taught, before any of them was seen: a prior in their terms.

    Attributes
    ----------
    gram : float64[d, d], sum of x x'; the lower triangle counts.
    moment : float64[d], sum of r x.
    square : sum of r^2.
    count : how many outcomes they are worth; need not be whole.
    """

    gram: Float64
    moment: Float64
    square: float
    count: float

    def check(self, dim: int) -> None:
        """Raise ValueError for sums of other than `dim` features, or that are not finite."""
        if self.gram.shape != (dim, dim) or self.moment.shape != (dim,):
            raise ValueError(f"prior: of {dim} features, not {len(self.moment)}")
        numbers = (self.gram, self.moment, self.square, self.count)
        if not all(np.isfinite(part).all() for part in numbers) or self.count < 0.0:
            raise ValueError("prior: every number finite, and a count of at least 0")

    def scaled(self, factor: float) -> Sums:
        """Return the same lesson, worth `factor` times as many outcomes."""
        return Sums(
            self.gram * factor, self.moment * factor, self.square * factor, self.count * factor
        )


def sums_of(arrays: Mapping[str, NDArray[Any]], *, prefix: str = "") -> dict[str, Sums]:
    """Return the sums of each arm, from ``arms`` and the prefixed names of `Sums`' attributes.

    Parameters
    ----------
    arrays : ``arms`` str[M], ``gram`` [M, d, d], ``moment`` [M, d], ``square`` [M], ``count`` [M].
    prefix : before all names but ``arms``; nothing is returned where these are absent.
    """
    if f"{prefix}gram" not in arrays:
        return {}
    parts = [arrays[f"{prefix}{name}"] for name in ("gram", "moment", "square", "count")]
    rows = zip(arrays["arms"].tolist(), *parts, strict=True)
    return {
        str(arm): Sums(
            np.asarray(gram, dtype=np.float64),
            np.asarray(moment, dtype=np.float64),
            float(square),
            float(count),
        )
        for arm, gram, moment, square, count in rows
    }


class Policy(ABC):
    """Base of all policies; arms are named, and their order is the order of `add_arm`.

    Parameters
    ----------
    dim : number of features of a context.

    Notes
    -----
    A policy must write `law`, `_learn` and `_publish`. The defaults of all else are those of a
    policy that reads no context: its statistics are the arrays of `kept`, with one entry per arm,
    and what it publishes has a ``mean`` and a ``std`` of each arm's quality.

    `score`, `estimate` and `law` read only what `install` was given, so a scorer needs no
    statistics. `law` is static: from a logged row alone the pmf can be computed again.

    Examples
    --------
    >>> from policies.laws import greedy
    >>> class BestMean(Policy):
    ...     name = "best-mean"
    ...
    ...     def __init__(self, *, dim):
    ...         super().__init__(dim=dim)
    ...         self.kept = {"total": np.zeros(0), "count": np.zeros(0)}
    ...
    ...     @staticmethod
    ...     def law(scores, eligible, penalty):
    ...         return greedy(scores["mean"] - penalty, eligible)
    ...
    ...     def _learn(self, arm, outcome):
    ...         self.kept["total"][arm] += outcome.value
    ...         self.kept["count"][arm] += 1.0
    ...
    ...     def _publish(self):
    ...         count = self.kept["count"] + 1.0  # a new arm starts from one reward of 1
    ...         mean = ((self.kept["total"] + 1.0) / count).astype(np.float32)
    ...         return {"mean": mean, "std": (0.5 / np.sqrt(count)).astype(np.float32)}
    >>> policy, x = BestMean(dim=1), np.ones((1, 1), dtype=np.float32)
    >>> policy.add_arm("small"); policy.add_arm("large")
    >>> policy.learn([Outcome(1, "d1", "small", x[0], "quality", 0.5)])
    >>> policy.refresh()
    >>> scores = policy.score(x, np.array([[1.0, 0.0, 0.0]]))
    >>> policy.pmf(scores, np.array([[True, True]]), np.zeros((1, 2))).tolist()
    [[0.0, 1.0]]
    """

    name: ClassVar[str]
    reads_preference: ClassVar[bool] = False
    """Whether `score` weighs quality against cost by itself: what is `weighed` comes off the
    penalty then, and each outcome that it learns carries a cost."""
    Params: ClassVar[type | None] = None
    """Dataclass of the keyword parameters besides `dim`; None where ``__init__`` lists them."""

    def __init__(self, *, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"dim: at least 1, not {dim}")
        self.dim = dim
        self.tau_cost_usd = 1.0  # US dollars that count as cost 1; whoever builds a policy sets it
        self.arms: list[str] = []
        self.clock = 0
        self.pulls = np.zeros(0, dtype=np.int64)
        self.born = np.zeros(0, dtype=np.int64)
        self.lessons: dict[str, Sums] = {}
        self.kept: Arrays = {}
        self.view: Arrays = {}

    @staticmethod
    @abstractmethod
    def law(scores: Mapping[str, Float32], eligible: Bools, penalty: Float64) -> Float64:
        """Return the exact pmf[n, K] of the draw before exploration, row by row."""

    @abstractmethod
    def _learn(self, arm: int, outcome: Outcome) -> None:
        """Fold one quality outcome of the arm at position `arm` of `arms`."""

    @abstractmethod
    def _publish(self) -> Arrays:
        """Return the float32 arrays that `_assess` and `_estimate` read from `view`."""

    def score(self, x: Float32, preference: Float64) -> dict[str, Float32]:
        """Return all that the law needs: named float32[n, K] arrays for x[n, d].

        Parameters
        ----------
        x : float32[n, d]; another shape, or a value that is not finite, is a ValueError.
        preference : float64[n, 3], weights of (quality, cost, latency).
        """
        return self._assess(self._checked(x), preference)[0]

    def estimate(self, x: Float32) -> tuple[Float32, Float32]:
        """Return mean[n, K] and deviation[n, K] of quality, in reward units; x as in `score`."""
        return self._estimate(self._checked(x))

    def weighed(self, x: Float32, preference: Float64) -> Float64:
        """Return the penalty[n, K], in quality units, that the scores have in them already."""
        return np.zeros((len(x), len(self.arms)))

    def assess(
        self, x: Float32, preference: Float64
    ) -> tuple[dict[str, Float32], Float32, Float32]:
        """Return (scores, mean, std): `score` and `estimate` in one step, equal bit for bit."""
        return self._assess(self._checked(x), preference)

    def _assess(
        self, x: Float32, preference: Float64
    ) -> tuple[dict[str, Float32], Float32, Float32]:
        """Return (scores, mean, std); by default the mean is all that the law needs."""
        mean, std = self._estimate(x)
        return {"mean": mean}, mean, std

    def _estimate(self, x: Float32) -> tuple[Float32, Float32]:
        """Return mean[n, K] and deviation[n, K]; by default what was published, for every x."""
        return np.tile(self.view["mean"], (len(x), 1)), np.tile(self.view["std"], (len(x), 1))

    def _checked(self, x: Float32) -> Float32:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x: shape [n, {self.dim}], not {list(x.shape)}")
        # A product sees a bad value in half the time; one that it overflows on is looked at again.
        if not math.isfinite(np.vdot(x, x)) and not np.isfinite(x).all():
            raise ValueError("x: every value finite")
        return np.ascontiguousarray(x, dtype=np.float32)

    @classmethod
    def pmf(
        cls,
        scores: Mapping[str, Float32],
        eligible: Bools,
        penalty: Float64,
        explore: Float64 | None = None,
    ) -> Float64:
        """Return the pmf[n, K] of the draw: the law, mixed with exploration.

        Parameters
        ----------
        scores : what `score` returned, float32[n, K] each.
        eligible : bool[n, K]; a row without an eligible arm has a pmf of zeros.
        penalty : float64[n, K], in quality units.
        explore : float64[n, K], absolute share of each arm (see `exploration.shares`).
        """
        p = cls.law(scores, eligible, penalty)
        if explore is None:
            return p
        # The last bits of a sum follow the memory layout; a logged row must give the same ones.
        spent = np.ascontiguousarray(explore).sum(axis=1, keepdims=True)
        mixed: Float64 = p * np.maximum(1.0 - spent, 0.0) + explore
        return mixed

    def learn(self, outcomes: Iterable[Outcome]) -> None:
        """Fold quality outcomes, one at a time and in order; all of them or, on an error, none.

        Raises
        ------
        KeyError
            For an arm that is not known.
        ValueError
            For features of another shape, or a feature or value that is not finite.

        Notes
        -----
        While an outcome is learned, `clock` counts it already: the first one has position 1.
        """
        index = {name: k for k, name in enumerate(self.arms)}
        batch = [(index[outcome.arm], outcome) for outcome in outcomes]
        for _, outcome in batch:
            self._checked(outcome.x[None])
            if not math.isfinite(outcome.value):
                raise ValueError(f"value: finite, not {outcome.value}")
        for arm, outcome in batch:
            self.clock += 1
            self.pulls[arm] += 1
            self._learn(arm, outcome)

    def learn_rows(self, arms: NDArray[np.intp], x: Float32, values: Float64) -> None:
        """Fold qualities[n] of arms[n] at x[n, d] as `learn` does, to the same bits."""
        rows = zip(arms.tolist(), x, values.tolist(), strict=True)
        self.learn(Outcome(0, "", self.arms[k], row, "quality", value) for k, row, value in rows)

    def compare(self, comparison: Comparison) -> None:
        """Fold which of two answers was preferred; not every policy has a use for it.

        Raises
        ------
        KeyError
            For an arm that is not known.
        ValueError
            For features of another shape, or a feature that is not finite.
        """
        for name in (comparison.winner, comparison.loser):
            if name not in self.arms:
                raise KeyError(name)
        self._checked(comparison.x[None])
        winner, loser = self.arms.index(comparison.winner), self.arms.index(comparison.loser)
        self._compare(winner, loser, comparison)

    def _compare(  # noqa: B027 - nothing to learn from is fine
        self, winner: int, loser: int, comparison: Comparison
    ) -> None: ...

    def adopt(self, prior: Mapping[str, NDArray[Any]]) -> None:
        """Start from a fitted prior, as plain arrays, before any arm is added.

        An arm that the prior knows is taught when it is added; see `sums_of` for the arrays.

        Raises
        ------
        ValueError
            When this kind of policy has no use for such a prior.
        """
        if "gram" not in prior or not self.teachable():
            raise ValueError(f"prior: {self.name} has no use for this kind of prior")
        self.lessons = sums_of(prior)

    def teachable(self) -> bool:
        """Return whether this policy listens to `teach`."""
        return type(self)._teach is not Policy._teach

    def teach(self, name: str, sums: Sums) -> None:
        """Add to an arm what imaginary outcomes have taught; not every policy listens.

        Raises
        ------
        KeyError
            For an arm that is not known.
        ValueError
            For sums of other features, or that are not finite.
        """
        if name not in self.arms:
            raise KeyError(name)
        sums.check(self.dim)
        self._teach(self.arms.index(name), sums)

    def _teach(self, arm: int, sums: Sums) -> None:  # noqa: B027 - nothing to learn from is fine
        ...

    def add_arm(self, name: str) -> None:
        """Add an arm; one that was here before keeps what it has learned."""
        if name not in self.arms:
            self.arms.append(name)
            self.pulls, self.born = np.append(self.pulls, 0), np.append(self.born, self.clock)
            self._grow()
            if name in self.lessons:
                self.teach(name, self.lessons[name])

    def _grow(self) -> None:
        """Make room for one more arm; by default an entry of 0 in every array of `kept`."""
        self.kept = {name: np.append(values, 0.0) for name, values in self.kept.items()}

    def reset_arm(self, name: str, *, shift: float = 0.0, worth: float = 2.0) -> None:
        """Be unsure again of how good an arm is on the whole; not every policy can be.

        Parameters
        ----------
        name : the arm; one that is not known is a KeyError.
        shift : what its level is believed to have moved by, in reward units.
        worth : how many outcomes the moved level is worth from now on, at most what it was.
        """
        if name not in self.arms:
            raise KeyError(name)
        self._reset(self.arms.index(name), shift, worth)

    def _reset(  # noqa: B027 - having no answer is fine
        self, arm: int, shift: float, worth: float
    ) -> None: ...

    def state(self) -> Arrays:
        """Return everything learned as plain arrays, without what can be derived from it."""
        own: Arrays = {"clock": np.array(self.clock)}
        return own | self._roster() | self._state()

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over a `state`; the inverse of that method, bit for bit."""
        self.arms = [str(name) for name in state["arms"]]
        self.clock = int(state["clock"])
        self.pulls = np.array(state["pulls"], dtype=np.int64)
        self.born = np.array(state["born"], dtype=np.int64)
        self._load(state)

    def _state(self) -> Arrays:
        """Return everything learned besides `clock` and the roster; by default `kept`."""
        return {name: values.copy() for name, values in self.kept.items()}

    def _load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `_state` returned; the roster is loaded already."""
        self.kept = {name: np.array(state[name], dtype=a.dtype) for name, a in self.kept.items()}

    def publish(self) -> Arrays:
        """Return the arrays that scoring reads, a pure function of `state`."""
        return self._roster() | self._publish()

    def _roster(self) -> Arrays:
        """Return the arms: names, outcomes learned of each, fold position at which each came."""
        names = np.array(self.arms, dtype=np.str_)
        return {"arms": names, "pulls": self.pulls.copy(), "born": self.born.copy()}

    def install(self, view: Arrays) -> None:
        """Score from `view`, published by a policy with the same parameters."""
        self.arms = [str(name) for name in view["arms"]]
        self.view = view

    def refresh(self) -> None:
        """Publish and install in one step, for a policy that learns and scores in one place."""
        self.view = self.publish()

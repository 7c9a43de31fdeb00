"""The policy contract: what all policies have in common.

Nothing in this package may do I/O, read a clock or draw from a global random generator.

A policy is a fold over outcomes. `learn` updates its statistics, one outcome at a time and in log
order. `publish` turns them into the float32 arrays that `score` reads. `law` turns scores into the
exact probability of every arm. The probability is part of the interface, so that no caller has to
estimate it.
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
Assessment = tuple[dict[str, Float32], Float32, Float32]
"""Scores by name, and the mean and the deviation of the estimated quality, all [n, K]."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One learned field of one decision, with all that the fold may read about it.

    Attributes
    ----------
    seq : int
        Log position.
    decision_id : str
        The decision that this is an outcome of.
    arm : str
        Name of the chosen model.
    x : float32[d]
        Features of the decision.
    field : str
        ``quality``, ``cost`` or ``latency``.
    value : float
        Quality in [0, 1], cost in US dollars, or latency in milliseconds.
    cost_usd : float or None
        Cost of the answer, as far as it was reported when the outcome was logged.
    propensity : float
        Probability with which the arm was drawn.
    preference : tuple of three floats
        Weights of (quality, cost, latency).
    cost_prior_usd : float
        Cost that the price row predicted before anything was learned.
    input_cost_usd : float
        The part of `cost_prior_usd` that pays for input tokens.
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
    """A comparison of two models' answers to the same prompt, of which one was preferred.

    Attributes
    ----------
    seq : int
        Log position.
    decision_id : str
        Decision of the preferred answer.
    over : str
        Decision of the other answer.
    winner : str
        Name of the model whose answer was preferred.
    loser : str
        Name of the other model.
    x : float32[d]
        Features of the prompt.
    propensity : float
        Probability with which the winner was drawn.
    loser_propensity : float
        Probability with which the loser was drawn.
    preference : tuple of three floats
        Weights of (quality, cost, latency) of the winner's request.
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
    """Prior knowledge of one arm, written as the sums that imaginary outcomes would have left.

    The outcomes have features x and values r.

    Attributes
    ----------
    gram : float64[d, d]
        Sum of x x'; the lower triangle counts.
    moment : float64[d]
        Sum of r x.
    square : float
        Sum of r^2.
    count : float
        Number of outcomes that the sums are worth; it need not be whole.
    """

    gram: Float64
    moment: Float64
    square: float
    count: float

    def check(self, dim: int) -> None:
        """Check the shapes and the numbers.

        Parameters
        ----------
        dim : int
            Number of features d that is expected.

        Raises
        ------
        ValueError
            For another number of features, for a number that is not finite, or for a negative
            count.
        """
        if self.gram.shape != (dim, dim) or self.moment.shape != (dim,):
            raise ValueError(f"prior: of {dim} features, not {len(self.moment)}")
        numbers = (self.gram, self.moment, self.square, self.count)
        if not all(np.isfinite(part).all() for part in numbers) or self.count < 0.0:
            raise ValueError("prior: every number finite, and a count of at least 0")

    def scaled(self, factor: float) -> Sums:
        """Return the same knowledge, worth `factor` times as many outcomes.

        Parameters
        ----------
        factor : float
            Factor of every sum.
        """
        return Sums(
            self.gram * factor, self.moment * factor, self.square * factor, self.count * factor
        )


def sums_of(arrays: Mapping[str, NDArray[Any]], *, prefix: str = "") -> dict[str, Sums]:
    """Return the sums of each arm, read from the arrays of a prior.

    Parameters
    ----------
    arrays : mapping from str to array
        ``arms`` str[M], ``gram`` [M, d, d], ``moment`` [M, d], ``square`` [M] and ``count`` [M].
    prefix : str, default ""
        Stands before all these names but ``arms``.

    Returns
    -------
    dict from str to Sums
        The sums by the name of the arm; empty where the prior has no array ``{prefix}gram``.
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


def copies(owner: object, names: Iterable[str], prefix: str = "") -> Arrays:
    """Return attributes of an object, numbers or arrays, as arrays of their own.

    Parameters
    ----------
    owner : object
        The object.
    names : iterable of str
        Names of its attributes.
    prefix : str, default ""
        Stands before the names in the result.

    Returns
    -------
    dict from str to array
        Copies by name, for `take_over`.
    """
    return {prefix + name: np.array(getattr(owner, name)) for name in names}


def take_over(
    owner: object, names: Iterable[str], state: Mapping[str, NDArray[np.generic]], prefix: str = ""
) -> None:
    """Set attributes of an object from copies of what `copies` returned; each keeps its type.

    Parameters
    ----------
    owner : object
        The object.
    names : iterable of str
        Names of its attributes.
    state : mapping from str to array
        What `copies` returned, perhaps among other arrays.
    prefix : str, default ""
        See `copies`.
    """
    for name in names:
        present = getattr(owner, name)
        array = np.array(state[prefix + name], dtype=np.asarray(present).dtype, order="C")
        setattr(owner, name, array if isinstance(present, np.ndarray) else array.item())


def grown(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array with a row of zeros for one more arm.

    Parameters
    ----------
    array : array [K, ...]
        A row for each arm.
    """
    return np.concatenate([array, np.zeros((1, *array.shape[1:]), dtype=array.dtype)])


class ByArm(ABC):
    """Base of policies and of the models beside them: folds that learn of arms by name.

    Parameters
    ----------
    dim : int
        Number of features d of a context; 0 where none is read.

    Attributes
    ----------
    arms : list of str
        The K arms, in the order of `add_arm`.
    prior_sums : dict from str to Sums
        Prior knowledge of arms by name, which an arm is taught when it is added.
    kept : dict from str to array
        State that is plain arrays; by default they have one entry per arm.
    view : dict from str to array
        The published arrays that scoring reads.
    """

    SAVED: ClassVar[tuple[str, ...]] = ()
    """Attributes that `state` holds under their own names."""

    def __init__(self, *, dim: int) -> None:
        self.dim = dim
        self.arms: list[str] = []
        self.prior_sums: dict[str, Sums] = {}
        self.kept: Arrays = {}
        self.view: Arrays = {}

    def add_arm(self, name: str) -> None:
        """Add an arm; an arm that was added before keeps what it has learned.

        Parameters
        ----------
        name : str
            The arm.
        """
        if name not in self.arms:
            self.arms.append(name)
            self._grow()
            if name in self.prior_sums:
                self.teach(name, self.prior_sums[name])

    def _grow(self) -> None:
        """Make room for one more arm; by default an entry of 0 in every array of `kept`."""
        self.kept = {name: grown(values) for name, values in self.kept.items()}

    def _position(self, name: str) -> int:
        """Return the position of an arm in `arms`, or raise KeyError."""
        if name not in self.arms:
            raise KeyError(name)
        return self.arms.index(name)

    def teach(self, name: str, sums: Sums) -> None:
        """Add prior knowledge to an arm; some policies and models ignore it.

        Parameters
        ----------
        name : str
            The arm.
        sums : Sums
            The knowledge.

        Raises
        ------
        KeyError
            For an arm that was not added.
        ValueError
            For sums of another number of features, or that are not finite.
        """
        arm = self._position(name)
        sums.check(self.dim)
        self._teach(arm, sums)

    def _teach(self, arm: int, sums: Sums) -> None:  # noqa: B027 - not all learn this
        ...

    def state(self) -> Arrays:
        """Return everything learned, without what can be derived from it, as plain arrays."""
        names: Arrays = {"arms": np.array(self.arms, dtype=np.str_)}
        return names | copies(self, self.SAVED) | self._state()

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over a state, bit for bit.

        Parameters
        ----------
        state : mapping from str to array
            What `state` returned.
        """
        self.arms = state["arms"].tolist()
        take_over(self, self.SAVED, state)
        self._load(state)

    def _state(self) -> Arrays:
        """Return everything learned besides `arms` and `SAVED`; by default `kept`."""
        return {name: values.copy() for name, values in self.kept.items()}

    def _load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `_state` returned; all else is loaded already."""
        self.kept = {name: np.array(state[name], dtype=a.dtype) for name, a in self.kept.items()}

    @abstractmethod
    def publish(self) -> Arrays:
        """Return the arrays that scoring reads, a pure function of `state`."""

    def install(self, view: Arrays) -> None:
        """Score from published arrays.

        Parameters
        ----------
        view : dict from str to array
            What `publish` of an object with the same parameters returned.
        """
        self.view = view

    def refresh(self) -> None:
        """Publish and install in one step, for one that learns and scores in one place."""
        self.install(self.publish())


class Policy(ByArm):
    """Base class of all policies.

    Parameters
    ----------
    dim : int
        Number of features d of a context.

    Attributes
    ----------
    name : str
        Name of the policy in `POLICIES`.
    tau_cost_usd : float
        US dollars that count as cost 1; the caller that builds a policy sets it.
    clock : int
        Fold position: how many quality outcomes this policy has learned, over all arms.
    pulls : int64[K]
        Learned outcomes of each arm.
    born : int64[K]
        Fold position at which each arm was added.
    arms, prior_sums, kept, view
        See `ByArm`.

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
    ...         return {"mean": (self.kept["total"] + 1.0) / count, "std": 0.5 / np.sqrt(count)}
    >>> policy, x = BestMean(dim=1), np.ones((1, 1), dtype=np.float32)
    >>> policy.add_arm("small"); policy.add_arm("large")
    >>> policy.learn([Outcome(1, "d1", "small", x[0], "quality", 0.5)])
    >>> policy.refresh()
    >>> scores = policy.score(x, np.array([[1.0, 0.0, 0.0]]))
    >>> policy.pmf(scores, np.array([[True, True]]), np.zeros((1, 2))).tolist()
    [[0.0, 1.0]]
    """

    name: ClassVar[str]
    SAVED: ClassVar[tuple[str, ...]] = ("clock", "pulls", "born")
    reads_preference: ClassVar[bool] = False
    """Whether `score` weighs quality against cost by itself.

    If so, a router subtracts `weighed` from the penalty, and `learn` needs `Outcome.cost_usd`.
    """
    Params: ClassVar[type | None] = None
    """Dataclass of the keyword parameters besides `dim`; None where ``__init__`` lists them."""

    def __init__(self, *, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"dim: at least 1, not {dim}")
        super().__init__(dim=dim)
        self.tau_cost_usd = 1.0
        self.clock = 0
        self.pulls, self.born = np.zeros((2, 0), dtype=np.int64)

    @staticmethod
    @abstractmethod
    def law(scores: Mapping[str, Float32], eligible: Bools, penalty: Float64) -> Float64:
        """Return the exact law of the draw before exploration, row by row.

        Parameters
        ----------
        scores : mapping from str to float32[n, K]
            What `score` returned.
        eligible : bool[n, K]
            Arms that may be drawn; a row without one has a pmf of zeros.
        penalty : float64[n, K]
            Cost and latency in quality units.

        Returns
        -------
        float64[n, K]
            Probability of every arm.
        """

    @abstractmethod
    def _learn(self, arm: int, outcome: Outcome) -> None:
        """Fold one quality outcome of the arm at position `arm` of `arms`."""

    @abstractmethod
    def _publish(self) -> Arrays:
        """Return the arrays that `_assess` and `_estimate` read from `view`, there as float32."""

    def score(self, x: Float32, preference: Float64) -> dict[str, Float32]:
        """Return all that the law needs.

        Parameters
        ----------
        x : float32[n, d]
            Features of n requests.
        preference : float64[n, 3]
            Weights of (quality, cost, latency).

        Returns
        -------
        dict from str to float32[n, K]
            The scores by name; a log keeps them.

        Raises
        ------
        ValueError
            For x of another shape, or with a value that is not finite.
        """
        return self._assess(self._checked(x), preference)[0]

    def estimate(self, x: Float32) -> tuple[Float32, Float32]:
        """Return what quality is expected of every arm.

        Parameters
        ----------
        x : float32[n, d]
            Features of n requests.

        Returns
        -------
        mean : float32[n, K]
            Expected quality, in reward units.
        std : float32[n, K]
            Standard deviation of that estimate.

        Raises
        ------
        ValueError
            As in `score`.
        """
        return self._estimate(self._checked(x))

    def weighed(self, x: Float32, preference: Float64) -> Float64:
        """Return the penalty that the scores already contain.

        Parameters
        ----------
        x : float32[n, d]
            Features of n requests.
        preference : float64[n, 3]
            Weights of (quality, cost, latency).

        Returns
        -------
        float64[n, K]
            In quality units; zeros where the policy does not read the preference.
        """
        return np.zeros((len(x), len(self.arms)))

    def assess(self, x: Float32, preference: Float64) -> Assessment:
        """Return `score` and `estimate` in one step, equal to both bit for bit.

        Parameters
        ----------
        x : float32[n, d]
            Features of n requests.
        preference : float64[n, 3]
            Weights of (quality, cost, latency).

        Returns
        -------
        scores : dict from str to float32[n, K]
            See `score`.
        mean : float32[n, K]
            See `estimate`.
        std : float32[n, K]
            See `estimate`.
        """
        return self._assess(self._checked(x), preference)

    def _assess(self, x: Float32, preference: Float64) -> Assessment:
        """Return (scores, mean, std); by default the mean is all that the law needs."""
        mean, std = self._estimate(x)
        return {"mean": mean}, mean, std

    def _estimate(self, x: Float32) -> tuple[Float32, Float32]:
        """Return mean[n, K] and deviation[n, K]; by default what was published, for every x."""
        return np.tile(self.view["mean"], (len(x), 1)), np.tile(self.view["std"], (len(x), 1))

    def _checked(self, x: Float32) -> Float32:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x: shape [n, {self.dim}], not {list(x.shape)}")
        # A product finds a bad value in half the time; it may overflow on good ones, so look again.
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
        """Return the law of the draw, mixed with exploration.

        Parameters
        ----------
        scores : mapping from str to float32[n, K]
            What `score` returned.
        eligible : bool[n, K]
            Arms that may be drawn; a row without one has a pmf of zeros.
        penalty : float64[n, K]
            Cost and latency in quality units.
        explore : float64[n, K] or None
            Absolute share of each arm, see `exploration.shares`; None for no exploration.

        Returns
        -------
        float64[n, K]
            Probability of every arm.
        """
        p = cls.law(scores, eligible, penalty)
        if explore is None:
            return p
        # The last bits of a sum depend on the memory layout; a logged row must give the same bits.
        spent = np.ascontiguousarray(explore).sum(axis=1, keepdims=True)
        mixed: Float64 = p * np.maximum(1.0 - spent, 0.0) + explore
        return mixed

    def learn(self, outcomes: Iterable[Outcome]) -> None:
        """Fold quality outcomes, one at a time and in order; on an error, none of them.

        Parameters
        ----------
        outcomes : iterable of Outcome
            Outcomes in log order.

        Raises
        ------
        KeyError
            For an arm that was not added.
        ValueError
            For features of another shape, or a feature or value that is not finite.

        Notes
        -----
        While an outcome is learned, `clock` already counts it: the first one has position 1.
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
        """Fold n quality outcomes in order, to the same bits as `learn`.

        Parameters
        ----------
        arms : int[n]
            Position of each outcome's arm in `arms`.
        x : float32[n, d]
            Features.
        values : float64[n]
            Qualities.
        """
        rows = zip(arms.tolist(), x, values.tolist(), strict=True)
        self.learn(Outcome(0, "", self.arms[k], row, "quality", value) for k, row, value in rows)

    def compare(self, comparison: Comparison) -> None:
        """Fold which of two answers was preferred; most policies learn nothing from it.

        Parameters
        ----------
        comparison : Comparison
            The winner and the loser.

        Raises
        ------
        KeyError
            For an arm that was not added.
        ValueError
            For features of another shape, or a feature that is not finite.
        """
        winner, loser = self._position(comparison.winner), self._position(comparison.loser)
        self._checked(comparison.x[None])
        self._compare(winner, loser, comparison)

    def _compare(self, winner: int, loser: int, comparison: Comparison) -> None: ...

    def adopt(self, prior: Mapping[str, NDArray[Any]]) -> None:
        """Start from a fitted prior, before any arm is added.

        An arm that is in the prior is taught when it is added.

        Parameters
        ----------
        prior : mapping from str to array
            The arrays of `sums_of`.

        Raises
        ------
        ValueError
            When this policy cannot start from such a prior.
        """
        if "gram" not in prior or not self.teachable():
            raise ValueError(f"prior: {self.name} has no use for this kind of prior")
        self.prior_sums = sums_of(prior)

    def teachable(self) -> bool:
        """Return whether `teach` has an effect on this policy."""
        return type(self)._teach is not ByArm._teach

    def add_arm(self, name: str) -> None:
        """See `ByArm.add_arm`."""
        if name not in self.arms:
            self.pulls, self.born = np.append(self.pulls, 0), np.append(self.born, self.clock)
        super().add_arm(name)

    def reset_arm(self, name: str, *, shift: float = 0.0, worth: float = 2.0) -> None:
        """Forget most of an arm's overall level of quality; some policies ignore this.

        Parameters
        ----------
        name : str
            The arm.
        shift : float, default 0.0
            Estimated change of its level, in reward units.
        worth : float, default 2.0
            Number of outcomes that the changed level is worth from now on, at most what it was.

        Raises
        ------
        KeyError
            For an arm that was not added.
        """
        self._reset(self._position(name), shift, worth)

    def _reset(self, arm: int, shift: float, worth: float) -> None: ...

    def publish(self) -> Arrays:
        """See `ByArm.publish`."""
        # The arms, how much was learned of each, and the fold position at which each was added.
        roster = {"arms": np.array(self.arms, dtype=np.str_), **copies(self, ("pulls", "born"))}
        return roster | {
            name: array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array
            for name, array in self._publish().items()
        }

    def install(self, view: Arrays) -> None:
        """See `ByArm.install`; the arms come from the view too."""
        super().install(view)
        self.arms = view["arms"].tolist()

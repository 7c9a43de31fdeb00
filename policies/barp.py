"""BaRP: one policy for all trade-offs, that reads the caller's preference and never stops learning.

As published it is trained once and then frozen. Here the same policy gradient goes on in the fold,
so the log is its training set and a checkpoint holds everything that it needs to go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies import barp_net as net
from policies import params
from policies.base import (
    Arrays,
    Bools,
    Comparison,
    Float32,
    Float64,
    Outcome,
    Policy,
    Sums,
    sums_of,
)
from policies.preference import QUALITY_WEIGHT_FLOOR
from policies.ridge import RidgeArms, widths

_SEED = 2_510
_PLAIN = {"x": np.float32, "arms": np.int64, "propensity": np.float64, "told": np.float64}


class Barp(Policy):
    """Draw from softmax_a(phi(w).(U_a x) / beta - penalty_a w_q / beta), w = (w_q, w_c).

    Parameters
    ----------
    dim : number of features; the last one is the intercept.
    beta : weight of entropy, in units of reward: how readily a model that seems worse is drawn.
    rate : step size of Adam.
    anchor : share, in [0, 1], of its distance from the shared ridge's means that the head gives
        up at every step; 0 is the plain policy gradient, which learns little of the other models
        once a model that it had come to prefer is drained.
    clip : largest importance weight of an outcome.
    batch : rows of a minibatch, and lessons after which the net is moved.
    steps : minibatches each time; 0 freezes the net, as published.
    memory : newest lessons that minibatches are drawn from.
    gain : reward per unit of log-odds to be preferred.
    ridge, level, prior : of the shared ridge regressions, as in LinUCB; that of cost starts at 0.

    Notes
    -----
    ``phi(w) = w + V tanh(W w + b)`` is the preference's MLP on the simplex, V = 0 at first; the
    bilinear head (the published ablation finds heads alike) then holds the optimum of linear
    rewards exactly, with ``U_a x = (quality, -cost)``. A row of memory is judged under a w drawn
    anew, uniformly on the simplex, by ``r = w_q q - w_c min(c / tau, 1)`` and the weight
    ``rho = min(pi(a | x, w) / p, clip)``; `net.gradient` has the estimator. Its baseline, and what
    the head is drawn to (as weight decay draws to 0), are ridge regressions of quality and cost.
    Without the anchor, passes over a few hundred outcomes fit their noise.

    Of a pair that a won over b, with the odds ``P = sigma((q_a - q_b) / gain)`` of the ridge, the
    gradient of log P in (q_a, q_b) is ``(1 - P) / gain (1, -1)``. Times gain^2, to be in units of
    reward, it is by how much a did better than believed, and b worse: ``+-w_q gain (1 - P)`` stands
    where an outcome has its r minus the baseline. The ridge learns nothing from pairs.

    The net knows what answers were billed, and a router what they cost at today's prices: the
    penalty of the difference comes off the logits, so that a new price moves the next decision.

    Lessons are counted, outcomes and pairs alike, and the minibatches after the n-th are drawn from
    a generator seeded by n. A new arm starts with the mean of the others' rows.

    References
    ----------
    .. [1] Wei et al. (2025). Learning to route LLMs from bandit feedback: one policy, many
       trade-offs. arXiv:2510.07429.
    .. [2] Williams (1992). Simple statistical gradient-following algorithms for connectionist
       reinforcement learning. Machine Learning 8.
    .. [3] Dudik, Langford, Li (2011). Doubly robust policy evaluation and learning. ICML.

    Examples
    --------
    >>> policy = Barp(dim=2, batch=4)
    >>> policy.add_arm("small"); policy.add_arm("large")
    >>> rng, p = np.random.default_rng(0), 0.5
    >>> for i in range(400):
    ...     x, large = np.array([rng.normal(), 1.0], dtype=np.float32), i % 2
    ...     name, cost = ("small", "large")[large], (0.1, 0.9)[large]
    ...     policy.learn([Outcome(i, "", name, x, "quality", 0.6 + 0.3 * large, cost, p)])
    >>> policy.refresh()
    >>> w = np.array([[1.0, 0.0, 0.0], [0.8, 0.2, 0.0], [0.5, 0.5, 0.0]])
    >>> scores = policy.score(np.float32([[0.0, 1.0]] * 3), w)
    >>> policy.pmf(scores, np.ones((3, 2), dtype=bool), np.zeros((3, 2))).round(2).tolist()
    [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
    """

    name = "barp"
    reads_preference = True

    def __init__(
        self,
        *,
        dim: int,
        beta: float = 0.005,
        rate: float = 0.0003,
        anchor: float = 0.1,
        clip: float = 2.0,
        batch: int = 32,
        steps: int = 4,
        memory: int = 4096,
        gain: float = 0.2,
        ridge: float = 50.0,
        level: float = 1.0,
        prior: float = 0.7,
    ) -> None:
        super().__init__(dim=dim)
        params.positive(rate=rate, clip=clip, gain=gain, ridge=ridge, level=level)
        params.between(1e-6, 1e3, beta=beta)
        params.between(1, 1_000_000, batch=batch, memory=memory)
        params.between(0, 1_000, steps=steps)
        params.share(anchor=anchor, prior=prior)
        self.beta, self.rate, self.anchor, self.clip = beta, rate, anchor, clip
        self.batch, self.steps, self.memory, self.gain = batch, steps, memory, gain
        precision, mean = np.full(dim, ridge), np.zeros(dim)
        precision[-1], mean[-1] = level, prior
        self.ridge = RidgeArms(precision=precision, mean=mean)
        self.spend = RidgeArms(precision=precision, mean=np.zeros(dim))
        self.net = net.fresh(dim)
        self.adam = net.Adam.of(self.net)
        self.heard = 0
        shapes = {"x": dim, "arms": 2, "propensity": 2, "told": 2}
        self.kept = {name: np.zeros((memory, n), _PLAIN[name]) for name, n in shapes.items()}
        self.known: dict[str, tuple[Float64, Sums]] = {}

    def adopt(self, prior: Mapping[str, NDArray[Any]]) -> None:
        """Start from a pre-trained net, or from the sums that `Policy.adopt` takes."""
        if "head" not in prior:
            return super().adopt(prior)
        trained, tau = net.checked(prior, self.dim)
        lessons, spend = sums_of(prior), sums_of(prior, prefix="spend_")
        if not lessons.keys() == spend.keys() == {str(arm) for arm in prior["arms"]}:
            raise ValueError("prior: sums of quality and cost for every model")
        for sums in (*lessons.values(), *spend.values()):
            sums.check(self.dim)
        # Where nothing is capped, cost counts in inverse proportion to what counts as 1.
        times = tau / self.tau_cost_usd
        trained["head"][:, 1] *= times
        rows = zip(spend.items(), trained.pop("head"), strict=True)
        self.known = {
            arm: (row, Sums(one.gram, one.moment * times, one.square * times**2, one.count))
            for (arm, one), row in rows
        }
        self.net |= trained
        self.prior_sums = lessons

    def _assess(
        self, x: Float32, preference: Float64
    ) -> tuple[dict[str, Float32], Float32, Float32]:
        w, total = net.simplex(preference)
        view = {name: self.view[name].astype(np.float64) for name in self.net}
        logit = net.logits(view, x.astype(np.float64), w, beta=self.beta).astype(np.float32)
        # Penalties are in units of quality, of which one is w_q rewards.
        temperature = np.empty_like(logit)
        temperature[:] = (self.beta / np.maximum(w[:, 0], QUALITY_WEIGHT_FLOOR / total))[:, None]
        return {"logit": logit, "temperature": temperature}, *self._estimate(x)

    def weighed(self, x: Float32, preference: Float64) -> Float64:
        """Return what the net's own weighing of cost comes to as a penalty; see `Policy`."""
        w_quality = np.maximum(preference[:, :1], QUALITY_WEIGHT_FLOOR)
        believed = np.clip(x @ self.view["spend"].T, 0.0, 1.0)
        found: Float64 = preference[:, 1:2] / w_quality * believed
        return found

    @staticmethod
    def law(scores: Mapping[str, Float32], eligible: Bools, penalty: Float64) -> Float64:
        """See `Policy.law`."""
        if 0 in eligible.shape:
            return np.zeros(eligible.shape)
        z = scores["logit"] - penalty / scores["temperature"].astype(np.float64)
        # The last bits of a sum depend on the memory layout; a logged row must give the same bits.
        z = np.ascontiguousarray(np.where(eligible, z, -np.inf))
        p = np.exp(z - np.maximum(z.max(axis=1, keepdims=True), -1e300))
        total = p.sum(axis=1, keepdims=True)
        pmf: Float64 = p / np.where(total > 0.0, total, 1.0)
        return pmf

    def _estimate(self, x: Float32) -> tuple[Float32, Float32]:
        mean: Float32 = x @ self.view["theta"].T
        return mean, widths(x, self.view["inverse"])

    def _learn(self, arm: int, outcome: Outcome) -> None:
        self.ridge.update(arm, outcome.x, outcome.value, self.clock)
        fine = np.nan
        if outcome.cost_usd is not None:
            fine = min(outcome.cost_usd / self.tau_cost_usd, 1.0)
            self.spend.update(arm, outcome.x, fine, self.clock)
        self._keep(outcome.x, (arm, -1), (outcome.propensity, 1.0), (outcome.value, fine))

    def _compare(self, winner: int, loser: int, comparison: Comparison) -> None:
        drawn = comparison.propensity, comparison.loser_propensity
        self._keep(comparison.x, (winner, loser), drawn, (0.0, 0.0))

    def _keep(self, x: Float32, *lesson: tuple[float, float]) -> None:
        slot = self.heard % self.memory
        for array, value in zip(self.kept.values(), (x, *lesson), strict=True):
            array[slot] = value
        self.heard += 1
        if self.heard % self.batch == 0 and self.steps:
            self._move()

    def _move(self) -> None:
        """Take `steps` steps on minibatches that the count of lessons determines."""
        rng = np.random.default_rng([_SEED, self.heard])
        at = rng.integers(min(self.heard, self.memory), size=(self.steps, self.batch))
        weights = rng.random(at.shape)
        theta, spend = (_believed(one, self.clock) for one in (self.ridge, self.spend))
        means = np.stack([theta, -spend], axis=1)
        for rows, w in zip(at, weights, strict=True):
            self.net["head"] += self.anchor * (means - self.net["head"])
            seen = self._judged(rows, np.column_stack([1.0 - w, w]), theta, spend)
            found = net.gradient(self.net, seen, beta=self.beta, clip=self.clip)
            self.adam.climb(self.net, found, rate=self.rate)

    def _judged(
        self, rows: NDArray[np.intp], w: Float64, theta: Float64, spend: Float64
    ) -> net.Lessons:
        x, arms, propensity, told = (array[rows] for array in self.kept.values())
        x, every = x.astype(np.float64), np.arange(len(rows))
        quality, fine = x @ theta.T, x @ spend.T
        q, rival = quality[every, arms[:, 0]], quality[every, arms[:, 1]]
        lost = 1.0 / (1.0 + np.exp(np.minimum((q - rival) / self.gain, 700.0)))
        won = np.where(arms[:, 1] >= 0, self.gain * lost, told[:, 0] - q)
        # A cost that is not known is as it was believed to be.
        dearer = np.where(arms[:, 1] >= 0, 0.0, np.nan_to_num(told[:, 1] - fine[every, arms[:, 0]]))
        surprise = w[:, 0] * won - w[:, 1] * dearer
        reward = w[:, :1] * quality - w[:, 1:] * fine
        return net.Lessons(x, w, reward, arms, propensity, np.column_stack([surprise, -surprise]))

    def _teach(self, arm: int, sums: Sums) -> None:
        self.ridge.add(arm, sums, self.clock)
        if self.arms[arm] not in self.known:
            self.net["head"][arm, 0] = self.ridge.solve(self.clock)[0][arm]

    def _reset(self, arm: int, shift: float, worth: float) -> None:
        self.ridge.forget_level(arm, shift=shift, worth=worth, clock=self.clock)
        head = self.net["head"]
        head[arm, 0, -1] += shift
        head[arm] = 0.5 * (head[arm] + head.mean(axis=0))
        self.kept["arms"][(self.kept["arms"] == arm).any(axis=1)] = -1

    def _grow(self) -> None:
        self.ridge.grow()
        self.spend.grow()
        others, arm = self.net["head"], len(self.arms) - 1
        row = others.mean(axis=0) if len(others) else np.zeros((2, self.dim))
        if self.arms[arm] in self.known:
            row, sums = self.known[self.arms[arm]]
            self.spend.add(arm, sums, self.clock)
        self.net["head"] = np.concatenate([others, row[None]])
        self.adam.grow()

    def _state(self) -> Arrays:
        parts = {"": self.ridge.state(), "spend_": self.spend.state(), "kept_": self.kept}
        parts |= {"net_": self.net, "first_": self.adam.first, "second_": self.adam.second}
        own: Arrays = {"heard": np.array(self.heard), "taken": np.array(self.adam.taken)}
        return own | {
            prefix + name: np.array(array)
            for prefix, arrays in parts.items()
            for name, array in arrays.items()
        }

    def _load(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.heard, self.adam.taken = int(state["heard"]), int(state["taken"])
        self.ridge.load(state)
        self.spend.load({k.removeprefix("spend_"): v for k, v in state.items() if "spend_" in k})
        for prefix, arrays in (
            ("kept_", self.kept),
            ("net_", self.net),
            ("first_", self.adam.first),
            ("second_", self.adam.second),
        ):
            for name in arrays:
                arrays[name] = np.array(state[prefix + name], arrays[name].dtype, order="C")

    def _publish(self) -> Arrays:
        theta, inverse = self.ridge.solve(self.clock)
        view = {"theta": theta, "inverse": inverse, "spend": _believed(self.spend, self.clock)}
        view |= self.net
        return {name: array.astype(np.float32) for name, array in view.items()}


def _believed(ridge: RidgeArms, clock: int) -> Float64:
    """Return theta[K, d]; of an arm that nothing is known of, the mean of the others."""
    theta, known = ridge.solve(clock)[0], ridge.count > 0.0
    if known.any():
        theta[~known] = theta[known].mean(axis=0)
    return theta

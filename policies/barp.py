"""BaRP: one policy for all trade-offs of quality and cost, which reads the caller's preference.

As published it is trained once and then frozen. Here the same policy gradient continues in the
fold: the log is the training set, and a checkpoint holds everything that is needed to continue.
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
    Assessment,
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
"""Arrays of the memory, under the names that they have in a saved state.

``told`` holds the quality and the scaled cost of an outcome.
"""


class Barp(Policy):
    """Draw from softmax_a(phi(w).(U_a x) / beta - penalty_a w_q / beta), w = (w_q, w_c).

    Parameters
    ----------
    dim : int
        Number of features d; the last one is the intercept.
    beta : float, default 0.005
        Weight of entropy, in units of reward: how readily a model that seems worse is drawn.
    rate : float, default 0.0003
        Step size of Adam, above 0.
    anchor : float, default 0.1
        Weight decay of the head towards the means of the ridge regressions, per step, in [0, 1].
        At 0 it is the plain policy gradient, which learns little about the other models after a
        model that it prefers is drained.
    clip : float, default 2.0
        Largest importance weight of an outcome, above 0.
    batch : int, default 32
        Rows of a minibatch, and number of examples after which the net is trained.
    steps : int, default 4
        Minibatches each time; 0 freezes the net, as published.
    memory : int, default 4096
        Number of newest examples that minibatches are drawn from.
    gain : float, default 0.2
        Reward per unit of log-odds of being preferred, above 0.
    ridge : float, default 50.0
        Prior precision of the slopes of the ridge regressions, above 0.
    level : float, default 1.0
        Prior precision of their intercept, above 0.
    prior : float, default 0.7
        Prior mean quality of an arm, in [0, 1]; the prior mean of cost is 0.

    Notes
    -----
    ``phi(w) = w + V tanh(W w + b)`` is the MLP of the preference on the simplex, with V = 0 at
    first. The bilinear head then contains the optimum of linear rewards, ``U_a x = (quality,
    -cost)``; the published ablation finds that heads differ little. Each drawn row of memory gets a
    new w, uniform on the simplex, the reward ``r = w_q q - w_c min(c / tau, 1)`` and the weight
    ``rho = min(pi(a | x, w) / p, clip)``; the estimator is `barp_net.gradient`. Ridge regressions
    of quality and cost give its baseline and the target of the anchor. Without the anchor, passes
    over a few hundred outcomes fit their noise.

    For a pair in which a was preferred over b, with the probability
    ``P = sigma((q_a - q_b) / gain)`` of the ridge, the gradient of log P in (q_a, q_b) is
    ``(1 - P) / gain (1, -1)``. Multiplied by gain^2 it is in units of reward. So
    ``+-w_q gain (1 - P)`` takes the place that r minus the baseline has for an outcome. The ridge
    learns nothing from pairs.

    The net has learned what answers were billed, and a router knows what they cost at today's
    prices. The penalty of the difference is subtracted from the logits, so that a new price moves
    the next decision.

    An example is an outcome or a pair. The minibatches after the n-th example are drawn by a
    generator that is seeded by n. A new arm starts with the mean of the others' rows.

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
        precision, mean = params.arm_prior(dim, ridge=ridge, level=level, prior=prior)
        self.ridge = RidgeArms(precision=precision, mean=mean)
        self.spend = RidgeArms(precision=precision, mean=np.zeros(dim))
        self.net = net.fresh(dim)
        self.adam = net.Adam.of(self.net)
        self.examples = 0
        shapes = {"x": dim, "arms": 2, "propensity": 2, "told": 2}
        self.kept = {name: np.zeros((memory, n), _PLAIN[name]) for name, n in shapes.items()}
        self.pretrained: dict[str, tuple[Float64, Sums]] = {}

    def adopt(self, prior: Mapping[str, NDArray[Any]]) -> None:
        """Start from a pre-trained net, or from the sums that `Policy.adopt` takes.

        Parameters
        ----------
        prior : mapping from str to array
            The arrays of `Policy.adopt`. A net has beside them the same sums of cost under the
            prefix ``spend_``, and the arrays of `barp_net.checked`.

        Raises
        ------
        ValueError
            For an array that is missing, of another shape, or not finite.
        """
        if "head" not in prior:
            super().adopt(prior)
            return
        trained, tau_cost_usd = net.checked(prior, self.dim)
        quality, spend = sums_of(prior), sums_of(prior, prefix="spend_")
        if not quality.keys() == spend.keys() == {str(arm) for arm in prior["arms"]}:
            raise ValueError("prior: sums of quality and cost for every model")
        for sums in (*quality.values(), *spend.values()):
            sums.check(self.dim)
        # Costs below the cap scale in inverse proportion to the cost that counts as 1.
        scale = tau_cost_usd / self.tau_cost_usd
        trained["head"][:, 1] *= scale
        rows = zip(spend.items(), trained.pop("head"), strict=True)
        self.pretrained = {
            arm: (row, Sums(sums.gram, sums.moment * scale, sums.square * scale**2, sums.count))
            for (arm, sums), row in rows
        }
        self.net |= trained
        self.prior_sums = quality

    def _assess(self, x: Float32, preference: Float64) -> Assessment:
        w, total = net.simplex(preference)
        view = {name: self.view[name].astype(np.float64) for name in self.net}
        logit = net.logits(view, x.astype(np.float64), w, beta=self.beta).astype(np.float32)
        # Penalties are in units of quality, and a unit of quality is w_q units of reward.
        temperature = np.empty_like(logit)
        temperature[:] = (self.beta / np.maximum(w[:, 0], QUALITY_WEIGHT_FLOOR / total))[:, None]
        return {"logit": logit, "temperature": temperature}, *self._estimate(x)

    def weighed(self, x: Float32, preference: Float64) -> Float64:
        """See `Policy.weighed`."""
        w_quality = np.maximum(preference[:, :1], QUALITY_WEIGHT_FLOOR)
        expected_cost = np.clip(x @ self.view["spend"].T, 0.0, 1.0)
        penalty: Float64 = preference[:, 1:2] / w_quality * expected_cost
        return penalty

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
        scaled_cost = np.nan
        if outcome.cost_usd is not None:
            scaled_cost = min(outcome.cost_usd / self.tau_cost_usd, 1.0)
            self.spend.update(arm, outcome.x, scaled_cost, self.clock)
        self._keep(outcome.x, (arm, -1), (outcome.propensity, 1.0), (outcome.value, scaled_cost))

    def _compare(self, winner: int, loser: int, comparison: Comparison) -> None:
        drawn = comparison.propensity, comparison.loser_propensity
        self._keep(comparison.x, (winner, loser), drawn, (0.0, 0.0))

    def _keep(self, x: Float32, *example: tuple[float, float]) -> None:
        """Put an example in memory, in the order of `_PLAIN`, and train the net when it is due."""
        slot = self.examples % self.memory
        for array, value in zip(self.kept.values(), (x, *example), strict=True):
            array[slot] = value
        self.examples += 1
        if self.examples % self.batch == 0 and self.steps:
            self._train()

    def _train(self) -> None:
        """Take `steps` steps on minibatches that the number of examples determines."""
        rng = np.random.default_rng([_SEED, self.examples])
        drawn = rng.integers(min(self.examples, self.memory), size=(self.steps, self.batch))
        weights = rng.random(drawn.shape)
        theta, spend = (_means(ridge, self.clock) for ridge in (self.ridge, self.spend))
        means = np.stack([theta, -spend], axis=1)
        for rows, w in zip(drawn, weights, strict=True):
            self.net["head"] += self.anchor * (means - self.net["head"])
            minibatch = self._minibatch(rows, np.column_stack([1.0 - w, w]), theta, spend)
            gradient = net.gradient(self.net, minibatch, beta=self.beta, clip=self.clip)
            self.adam.climb(self.net, gradient, rate=self.rate)

    def _minibatch(
        self, rows: NDArray[np.intp], w: Float64, theta: Float64, spend: Float64
    ) -> net.Minibatch:
        """Return rows[n] of memory under the preferences w[n, 2], with the ridge as baseline."""
        x, arms, propensity, outcome = (array[rows] for array in self.kept.values())
        x, every = x.astype(np.float64), np.arange(len(rows))
        quality, cost = x @ theta.T, x @ spend.T
        own, rival = quality[every, arms[:, 0]], quality[every, arms[:, 1]]
        lost = 1.0 / (1.0 + np.exp(np.minimum((own - rival) / self.gain, 700.0)))
        is_pair = arms[:, 1] >= 0
        better = np.where(is_pair, self.gain * lost, outcome[:, 0] - own)
        # A cost that was not reported is taken to be the expected one.
        extra = np.nan_to_num(outcome[:, 1] - cost[every, arms[:, 0]])
        surprise = w[:, 0] * better - w[:, 1] * np.where(is_pair, 0.0, extra)
        reward = w[:, :1] * quality - w[:, 1:] * cost
        return net.Minibatch(x, w, reward, arms, propensity, np.column_stack([surprise, -surprise]))

    def _teach(self, arm: int, sums: Sums) -> None:
        self.ridge.add(arm, sums, self.clock)
        if self.arms[arm] not in self.pretrained:
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
        if self.arms[arm] in self.pretrained:
            row, sums = self.pretrained[self.arms[arm]]
            self.spend.add(arm, sums, self.clock)
        self.net["head"] = np.concatenate([others, row[None]])
        self.adam.grow()

    def _parts(self) -> dict[str, Arrays]:
        """Return the arrays that change in place, by the prefix of their names in a state."""
        moments = {"first_": self.adam.first, "second_": self.adam.second}
        return {"kept_": self.kept, "net_": self.net, **moments}

    def _state(self) -> Arrays:
        own: Arrays = {"heard": np.array(self.examples), "taken": np.array(self.adam.taken)}
        for prefix, arrays in self._parts().items():
            own |= {prefix + name: array.copy() for name, array in arrays.items()}
        return own | self.ridge.state() | self.spend.state(prefix="spend_")

    def _load(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.examples, self.adam.taken = int(state["heard"]), int(state["taken"])
        self.ridge.load(state)
        self.spend.load(state, prefix="spend_")
        for prefix, arrays in self._parts().items():
            for name in arrays:
                arrays[name] = np.array(state[prefix + name], arrays[name].dtype, order="C")

    def _publish(self) -> Arrays:
        theta, inverse = self.ridge.solve(self.clock)
        spend = _means(self.spend, self.clock)
        return {"theta": theta, "inverse": inverse, "spend": spend, **self.net}


def _means(ridge: RidgeArms, clock: int) -> Float64:
    """Return theta[K, d]; an arm without outcomes has the mean of the others."""
    theta, learned = ridge.solve(clock)[0], ridge.count > 0.0
    if learned.any():
        theta[~learned] = theta[learned].mean(axis=0)
    return theta

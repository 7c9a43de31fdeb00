"""Train BaRP's net before it serves, on labelled data under bandit masking or on a log.

On labelled data each step reveals only the answer of one model, which the net itself draws. On a
log each step has the logged answer, weighted by its inverse propensity. The objective is the one
that the fold goes on climbing (`policies.barp_net.gradient`); here torch derives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.fitting.autograd import one_thread
from banditroute.fitting.logged_outcomes import logged_outcomes
from banditroute.learn.learner import EventLog
from banditroute.learn.prior import arrays_of
from policies import Outcome
from policies.barp import Barp
from policies.barp_net import Minibatch
from policies.base import Arrays, Float32, Float64, Sums
from policies.params import between
from policies.ridge import RidgeArms

Integers = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class PretrainingOptions:
    """How to train; the shape of the net is given by parameters of the policy.

    Attributes
    ----------
    epochs : int
        Passes over the rows.
    rate : float
        Step size of Adam.
    batch : int
        Rows of a minibatch.
    seed : int
        Of preferences, draws and the order of rows.
    """

    epochs: int = 20
    rate: float = 1e-4
    batch: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise a ValueError that begins with the name of an option out of range."""
        between(1, 100_000, epochs=self.epochs)
        between(1e-6, 1.0, rate=self.rate)
        between(1, 65_536, batch=self.batch)
        between(0, 2**32 - 1, seed=self.seed)


@dataclass(frozen=True, slots=True)
class Answers:
    """n prompts, and the answers of K models to them, or in a log of one model each.

    Attributes
    ----------
    models : sequence of str
        K names.
    x : float32[n, d]
        Features of the prompts; the last one is the intercept.
    quality : float64[n, K]
        In [0, 1].
    cost_usd : float64[n, K]
        US dollars; in a log NaN where the cost is unknown.
    logged_arm : int[n], optional
        Of a log, the model that answered; None where all models did.
    propensity : float64[n], optional
        Of a log, the probability with which that model was drawn.
    """

    models: Sequence[str]
    x: Float32
    quality: Float64
    cost_usd: Float64
    logged_arm: Integers | None = None
    propensity: Float64 | None = None


def fit(
    answers: Answers,
    options: PretrainingOptions,
    *,
    tau_cost_usd: float,
    policy: Barp | None = None,
    tick: Callable[[], None] = lambda: None,
) -> tuple[Arrays, int]:
    """Train the net and its ridge regressions.

    Parameters
    ----------
    answers : Answers
        At least one row.
    options : PretrainingOptions
        How to train.
    tau_cost_usd : float
        US dollars that count as cost 1.
    policy : Barp, optional
        A fresh policy whose parameters shape the net; without it the defaults do.
    tick : callable
        Called after each epoch.

    Returns
    -------
    arrays : Arrays
        The arrays of a prior of kind "barp", see `Barp.adopt`.
    revealed : int
        How many answers were revealed.

    Raises
    ------
    ImportError
        Without torch; the message says what to install.
    """
    policy = policy or Barp(dim=answers.x.shape[1])
    for name in answers.models:
        policy.add_arm(name)
    with one_thread() as torch:
        revealed = _RevealedAnswers(torch, answers, policy, tau_cost_usd)
        net = {name: torch.tensor(a, requires_grad=True) for name, a in policy.net.items()}
        adam = torch.optim.Adam(net.values(), lr=options.rate)
        rng = np.random.default_rng([options.seed, len(answers.x)])
        for _ in range(options.epochs):
            revealed.update_means()
            order = rng.permutation(len(answers.x))
            for start in range(0, len(order), options.batch):
                rows = order[start : start + options.batch]
                with torch.no_grad():
                    net["head"] += policy.anchor * (torch.from_numpy(revealed.means) - net["head"])
                minibatch = revealed.minibatch(net, rows, rng)
                adam.zero_grad()
                loss(torch, net, minibatch, beta=policy.beta, clip=policy.clip).backward()
                adam.step()
            tick()
    arrays = arrays_of(_sums(answers.models, policy.ridge))
    spend = arrays_of(_sums(answers.models, policy.spend))
    arrays |= {f"spend_{name}": array for name, array in spend.items() if name != "arms"}
    arrays |= {name: tensor.detach().numpy() for name, tensor in net.items()}
    return arrays | {"tau_cost": np.array(tau_cost_usd)}, revealed.count


class _RevealedAnswers:
    """The answers that have been revealed, and ridge regressions of their quality and cost.

    Costs are capped: ``min(cost / tau, 1)``.
    """

    def __init__(self, torch: Any, answers: Answers, policy: Barp, tau_cost_usd: float) -> None:
        self.torch, self.answers, self.policy = torch, answers, policy
        self.capped_cost = np.minimum(answers.cost_usd / tau_cost_usd, 1.0)
        self.is_revealed = np.zeros(answers.quality.shape, dtype=np.bool_)
        self.count = 0
        if answers.logged_arm is not None:
            for row, arm in enumerate(answers.logged_arm.tolist()):
                self._reveal(row, arm)
        self.update_means()

    def _reveal(self, row: int, arm: int) -> None:
        if self.is_revealed[row, arm]:
            return
        self.is_revealed[row, arm] = True
        self.count += 1
        x, capped_cost = self.answers.x[row], float(self.capped_cost[row, arm])
        self.policy.ridge.update(arm, x, float(self.answers.quality[row, arm]), self.count)
        if not np.isnan(capped_cost):
            self.policy.spend.update(arm, x, capped_cost, self.count)

    def update_means(self) -> None:
        """Solve the regressions of all answers that have been revealed so far."""
        theta, spend = (
            regression.solve(self.count)[0] for regression in (self.policy.ridge, self.policy.spend)
        )
        self.means = np.stack([theta, -spend], axis=1)

    def minibatch(self, net: dict[str, Any], rows: Integers, rng: np.random.Generator) -> Minibatch:
        """Return a minibatch, each row under a preference of its own; reveal what the net draws."""
        share = rng.random(len(rows))
        w, x = np.column_stack([1.0 - share, share]), self.answers.x[rows].astype(np.float64)
        every, propensity = np.arange(len(rows)), np.ones(len(rows))
        if self.answers.logged_arm is None:
            tensors = self.torch.from_numpy(x), self.torch.from_numpy(w)
            with self.torch.no_grad():
                pi = log_law(self.torch, net, *tensors, beta=self.policy.beta).exp().numpy()
            below = pi.cumsum(axis=1) <= (rng.random(len(rows)) * pi.sum(axis=1))[:, None]
            arm = np.minimum(below.sum(axis=1), pi.shape[1] - 1)
            propensity = pi[every, arm]
            for row, drawn_arm in zip(rows.tolist(), arm.tolist(), strict=True):
                self._reveal(row, drawn_arm)
        else:
            arm = self.answers.logged_arm[rows]
            if self.answers.propensity is not None:
                propensity = self.answers.propensity[rows]
        quality, capped_cost = x @ self.means[:, 0].T, -x @ self.means[:, 1].T
        cost_residual = np.nan_to_num(self.capped_cost[rows, arm] - capped_cost[every, arm])
        quality_residual = self.answers.quality[rows, arm] - quality[every, arm]
        surprise = w[:, 0] * quality_residual - w[:, 1] * cost_residual
        reward = w[:, :1] * quality - w[:, 1:] * capped_cost
        return Minibatch(x, w, reward, arm[:, None], propensity[:, None], surprise[:, None])


def log_law(torch: Any, net: dict[str, Any], x: Any, w: Any, *, beta: float) -> Any:
    """Return the log probabilities of `policies.barp_net.logits`, log pi(a | x, w).

    Parameters
    ----------
    torch : module
        See `one_thread`.
    net : dict of str to Tensor
        See `policies.barp_net.Net`.
    x : Tensor[n, d]
        Features of prompts.
    w : Tensor[n, 2]
        Weights of quality and cost.
    beta : float
        Temperature.

    Returns
    -------
    Tensor[n, K]
        Rows whose exponentials sum to 1.
    """
    phi = w + torch.tanh(w @ net["inner"].T + net["shift"]) @ net["outer"].T
    value = torch.einsum("nd,kjd->nkj", x, net["head"])
    return torch.log_softmax((phi[:, None, :] * value).sum(dim=2) / beta, dim=1)


def loss(torch: Any, net: dict[str, Any], minibatch: Minibatch, *, beta: float, clip: float) -> Any:
    """Return minus the mean of ``sum_k pi_k r_k + sum_m rho_m e_m log pi(a_m) + beta H(pi)``.

    Parameters
    ----------
    torch : module
        See `one_thread`.
    net : dict of str to Tensor
        See `policies.barp_net.Net`.
    minibatch : Minibatch
        Rows with their predicted rewards r and residuals e.
    beta : float
        Temperature.
    clip : float
        Largest importance weight rho. The weights are held fixed, see `policies.barp_net.gradient`.

    Returns
    -------
    Tensor
        A scalar.
    """
    x, w = torch.from_numpy(minibatch.x), torch.from_numpy(minibatch.w)
    log_pi = log_law(torch, net, x, w, beta=beta)
    pi, arms = log_pi.exp(), torch.from_numpy(minibatch.arms)
    present, index = arms >= 0, arms.clamp(min=0)
    propensity, surprise = (
        torch.from_numpy(values) for values in (minibatch.propensity, minibatch.surprise)
    )
    rho = (pi.detach().gather(1, index) / propensity).clamp(max=clip)
    observed = torch.where(present, rho * surprise, 0.0) * log_pi.gather(1, index)
    predicted = pi * (torch.from_numpy(minibatch.reward) - beta * log_pi)
    return -(predicted.sum(dim=1) + observed.sum(dim=1)).mean()


def _sums(models: Sequence[str], ridge: RidgeArms) -> dict[str, Sums]:
    parts = ridge.symmetric(), ridge.moment, ridge.square.tolist(), ridge.count.tolist()
    return {name: Sums(*row) for name, *row in zip(models, *parts, strict=True)}


def answers_of_log(log: EventLog, pool: str) -> tuple[PolicyIdentity, Answers]:
    """Return the answers with a quality in a pool's log.

    Parameters
    ----------
    log : EventLog
        The store.
    pool : str
        Name of the pool.

    Returns
    -------
    policy_identity : PolicyIdentity
        What the policy of the pool is.
    answers : Answers
        Of one model each, with features of the policy's embedder.

    Raises
    ------
    ValueError
        If the policy of the pool never started, or no quality or no cost was learned.
    """
    policy_identity, outcomes = logged_outcomes(log, pool)
    judged: list[Outcome] = []
    cost_usd: dict[str, float] = {}
    for outcome in outcomes:
        if outcome.field == "quality":
            judged.append(outcome)
        if outcome.field == "cost":
            cost_usd[outcome.decision_id] = outcome.value
        elif outcome.cost_usd is not None:
            cost_usd[outcome.decision_id] = outcome.cost_usd
    if not judged:
        raise ValueError(f"pool: the log of {pool!r} has no outcome to learn from")
    if not any(outcome.decision_id in cost_usd for outcome in judged):
        raise ValueError(f"pool: the log of {pool!r} has no cost to learn from")
    models = list(dict.fromkeys(outcome.arm for outcome in judged))
    arms = np.array([models.index(outcome.arm) for outcome in judged])
    quality, costs_usd = np.full((2, len(judged), len(models)), np.nan)
    for row, (arm, outcome) in enumerate(zip(arms.tolist(), judged, strict=True)):
        quality[row, arm] = outcome.value
        costs_usd[row, arm] = cost_usd.get(outcome.decision_id, np.nan)
    x = np.stack([outcome.x for outcome in judged])
    propensity = np.array([outcome.propensity for outcome in judged])
    return policy_identity, Answers(models, x, quality, costs_usd, arms, propensity)

"""Train BaRP's net before it serves, on labelled data under bandit masking or on a log.

Of labelled data each step reveals the answer of one model that the net itself draws, and never the
row; of a log it has the answer that was given, weighted by how probable that was. The loss is the
one whose gradient the fold goes on climbing (`policies.barp_net.gradient`), here left to torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.fitting.autograd import check_limits, one_thread
from banditroute.learn.learner import EventLog, effective_events
from banditroute.learn.prior import arrays_of
from policies import Outcome
from policies.barp import Barp
from policies.barp_net import Minibatch
from policies.base import Arrays, Float32, Float64, Sums
from policies.ridge import RidgeArms

Integers = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class PretrainingOptions:
    """How to train; what shapes the net itself are parameters of the policy.

    Attributes
    ----------
    epochs : passes over the rows.
    rate : step size of Adam.
    batch : rows of a minibatch.
    seed : of preferences, draws and the order of rows.
    """

    epochs: int = 20
    rate: float = 1e-4
    batch: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, _LIMITS)


_LIMITS = {
    "epochs": (1, 100_000),
    "rate": (1e-6, 1.0),
    "batch": (1, 65_536),
    "seed": (0, 2**32 - 1),
}


@dataclass(frozen=True, slots=True)
class Answers:
    """n prompts, and what is known of the answers of K models to them.

    Attributes
    ----------
    models : K names.
    x : float32[n, d]; the last feature is the intercept.
    quality : float64[n, K] in [0, 1].
    cost_usd : float64[n, K], US dollars; in a log NaN is not known.
    given : int[n], of a log the model that answered; None where all are known.
    propensity : float64[n], with which that one was drawn.
    """

    models: Sequence[str]
    x: Float32
    quality: Float64
    cost_usd: Float64
    given: Integers | None = None
    propensity: Float64 | None = None


def fit(
    answers: Answers,
    options: PretrainingOptions,
    *,
    tau_cost_usd: float,
    policy: Barp | None = None,
    tick: Callable[[], None] = lambda: None,
) -> tuple[Arrays, int]:
    """Return what `Barp.adopt` takes, and how many answers were revealed.

    Parameters
    ----------
    answers : at least one row.
    options : how to train.
    tau_cost_usd : US dollars that count as cost 1.
    policy : a fresh policy whose parameters shape the net; None takes the defaults.
    tick : called after each epoch.

    Raises
    ------
    ImportError
        Without torch; the message says what to install.
    """
    policy = policy or Barp(dim=answers.x.shape[1])
    for name in answers.models:
        policy.add_arm(name)
    with one_thread() as torch:
        school = _School(torch, answers, policy, tau_cost_usd)
        net = {name: torch.tensor(a, requires_grad=True) for name, a in policy.net.items()}
        adam = torch.optim.Adam(net.values(), lr=options.rate)
        rng = np.random.default_rng([options.seed, len(answers.x)])
        for _ in range(options.epochs):
            school.reconsider()
            order = rng.permutation(len(answers.x))
            for at in range(0, len(order), options.batch):
                rows = order[at : at + options.batch]
                with torch.no_grad():
                    net["head"] += policy.anchor * (torch.from_numpy(school.means) - net["head"])
                seen = school.lessons(net, rows, rng)
                adam.zero_grad()
                loss(torch, net, seen, beta=policy.beta, clip=policy.clip).backward()
                adam.step()
            tick()
    arrays = arrays_of(_sums(answers.models, policy.ridge))
    spend = arrays_of(_sums(answers.models, policy.spend))
    arrays |= {f"spend_{name}": array for name, array in spend.items() if name != "arms"}
    arrays |= {name: tensor.detach().numpy() for name, tensor in net.items()}
    return arrays | {"tau_cost": np.array(tau_cost_usd)}, school.count


class _School:
    """Which answers have been revealed, and what they taught the ridge regressions."""

    def __init__(self, torch: Any, answers: Answers, policy: Barp, tau_cost_usd: float) -> None:
        self.torch, self.answers, self.policy = torch, answers, policy
        self.fine = np.minimum(answers.cost_usd / tau_cost_usd, 1.0)
        self.known = np.zeros(answers.quality.shape, dtype=np.bool_)
        self.count = 0
        if answers.given is not None:
            for row, arm in enumerate(answers.given.tolist()):
                self._reveal(row, arm)
        self.reconsider()

    def _reveal(self, row: int, arm: int) -> None:
        if self.known[row, arm]:
            return
        self.known[row, arm] = True
        self.count += 1
        x, fine = self.answers.x[row], float(self.fine[row, arm])
        self.policy.ridge.update(arm, x, float(self.answers.quality[row, arm]), self.count)
        if not np.isnan(fine):
            self.policy.spend.update(arm, x, fine, self.count)

    def reconsider(self) -> None:
        """Believe what the answers revealed by now say."""
        theta, spend = (one.solve(self.count)[0] for one in (self.policy.ridge, self.policy.spend))
        self.means = np.stack([theta, -spend], axis=1)

    def lessons(self, net: dict[str, Any], rows: Integers, rng: np.random.Generator) -> Minibatch:
        """Return a minibatch, each row under a preference of its own."""
        share = rng.random(len(rows))
        w, x = np.column_stack([1.0 - share, share]), self.answers.x[rows].astype(np.float64)
        every, propensity = np.arange(len(rows)), np.ones(len(rows))
        if self.answers.given is None:
            tensors = self.torch.from_numpy(x), self.torch.from_numpy(w)
            with self.torch.no_grad():
                pi = log_law(self.torch, net, *tensors, beta=self.policy.beta).exp().numpy()
            below = pi.cumsum(axis=1) <= (rng.random(len(rows)) * pi.sum(axis=1))[:, None]
            arm = np.minimum(below.sum(axis=1), pi.shape[1] - 1)
            propensity = pi[every, arm]
            for row, one in zip(rows.tolist(), arm.tolist(), strict=True):
                self._reveal(row, one)
        else:
            arm = self.answers.given[rows]
            if self.answers.propensity is not None:
                propensity = self.answers.propensity[rows]
        quality, fine = x @ self.means[:, 0].T, -x @ self.means[:, 1].T
        dearer = np.nan_to_num(self.fine[rows, arm] - fine[every, arm])
        better = self.answers.quality[rows, arm] - quality[every, arm]
        surprise = w[:, 0] * better - w[:, 1] * dearer
        reward = w[:, :1] * quality - w[:, 1:] * fine
        return Minibatch(x, w, reward, arm[:, None], propensity[:, None], surprise[:, None])


def log_law(torch: Any, net: dict[str, Any], x: Any, w: Any, *, beta: float) -> Any:
    """Return log pi(a | x, w), [n, K], of `policies.barp_net.logits`."""
    phi = w + torch.tanh(w @ net["inner"].T + net["shift"]) @ net["outer"].T
    value = torch.einsum("nd,kjd->nkj", x, net["head"])
    return torch.log_softmax((phi[:, None, :] * value).sum(dim=2) / beta, dim=1)


def loss(torch: Any, net: dict[str, Any], seen: Minibatch, *, beta: float, clip: float) -> Any:
    """Return minus the mean of ``sum_k pi_k r_k + sum_m rho_m e_m log pi(a_m) + beta H(pi)``.

    The importance weights rho are held fixed; see `policies.barp_net.gradient`.
    """
    log_pi = log_law(torch, net, *(torch.from_numpy(one) for one in (seen.x, seen.w)), beta=beta)
    pi, arms = log_pi.exp(), torch.from_numpy(seen.arms)
    some, at = arms >= 0, arms.clamp(min=0)
    rho = (pi.detach().gather(1, at) / torch.from_numpy(seen.propensity)).clamp(max=clip)
    told = torch.where(some, rho * torch.from_numpy(seen.surprise), 0.0) * log_pi.gather(1, at)
    believed = pi * (torch.from_numpy(seen.reward) - beta * log_pi)
    return -(believed.sum(dim=1) + told.sum(dim=1)).mean()


def _sums(models: Sequence[str], ridge: RidgeArms) -> dict[str, Sums]:
    parts = ridge.symmetric(), ridge.moment, ridge.square.tolist(), ridge.count.tolist()
    return {name: Sums(*row) for name, *row in zip(models, *parts, strict=True)}


def logged(log: EventLog, pool: str) -> tuple[PolicyIdentity, Answers]:
    """Return a pool's policy_identity, and the answers that its log holds of the policy's features.

    Raises
    ------
    ValueError
        If the policy of the pool never started, or no quality or no cost was learned.
    """
    found = log.policy_identity(pool)
    if found is None:
        raise ValueError(f"pool: the policy of {pool!r} never started")
    policy_identity = found[1]
    told: list[Outcome] = []
    cost: dict[str, float] = {}
    for event in effective_events(log, pool):
        one = event.outcome
        if one is None or event.embedder != policy_identity.embedder:
            continue
        if one.field == "quality":
            told.append(one)
        if one.field == "cost" or one.cost_usd is not None:
            cost[one.decision_id] = one.value if one.field == "cost" else float(one.cost_usd or 0.0)
    if not told:
        raise ValueError(f"pool: the log of {pool!r} has no outcome to learn from")
    if not any(one.decision_id in cost for one in told):
        raise ValueError(f"pool: the log of {pool!r} has no cost to learn from")
    models = list(dict.fromkeys(one.arm for one in told))
    given = np.array([models.index(one.arm) for one in told])
    quality, costs = np.full((2, len(told), len(models)), np.nan)
    for row, (arm, one) in enumerate(zip(given.tolist(), told, strict=True)):
        quality[row, arm], costs[row, arm] = one.value, cost.get(one.decision_id, np.nan)
    x, p = np.stack([one.x for one in told]), np.array([one.propensity for one in told])
    return policy_identity, Answers(models, x, quality, costs, given, p)

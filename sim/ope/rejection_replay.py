"""Rejection replay: the value of a policy that goes on learning, or spends a budget.

What such a policy chooses depends on what it chose before. So a logged row says something about it
only if all earlier rows led the policy there. Rows are accepted in such a way that the accepted
ones are distributed as if the policy itself had chosen; only accepted rows teach it and cost it
money.

References
----------
.. [1] Li, Chu, Langford, Wang (2011). Unbiased offline evaluation of contextual-bandit-based news
   article recommendation algorithms.
.. [2] Dudik, Erhan, Langford, Li (2012). Sample-efficient nonstationary policy evaluation for
   contextual bandits.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from banditroute.core.pool import NANO, Model
from banditroute.decide.columns import Decisions
from banditroute.decide.router import Router
from banditroute.learn.fold import Event
from policies import make_pacing
from policies.pacing.price import PriceTerms
from sim.ope.bandit_log import BanditLog
from sim.ope.estimators import snips
from sim.ope.inputs import EstimatorInputs
from sim.ope.intervals import Interval, normal
from sim.ope.logged_requests import DecisionHistory
from sim.ope.overlap import MOST_OUTSIDE, SUSPICIOUS
from sim.ope.reward_model import observed_rewards
from sim.ope.target_policy import train
from sim.play.budget import ReplayBudget
from sim.play.candidate import Candidate

LEAST_ACCEPTED = 50
"""An estimate needs so many accepted rows."""
_ACCEPTS, _DRAWS = 0, 1


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a rejection replay.

    Attributes
    ----------
    label : str
        Of the policy.
    rows : int[m]
        The accepted rows.
    evaluated : int
        How many rows could have been accepted.
    outside : float or None
        Mean probability of choices that could not be accepted as often as needed, because the log
        gave them less than the smallest logged propensity, or nothing. None if only the
        propensities of the chosen models were logged.
    estimates : dict
        By measure, over the accepted rows. A measure that was observed in too few is left out.
    refusal : str or None
        Why there is no estimate; None if there is one.
    """

    label: str
    rows: NDArray[np.intp]
    evaluated: int
    outside: float | None
    estimates: dict[str, Interval]
    refusal: str | None


def replay(
    history: DecisionHistory,
    candidate: Candidate,
    *,
    first: int,
    learning: bool = True,
    budget_rate_usd: float | None = None,
    seed: int = 0,
) -> Replayed:
    """Replay the rows from `first` on with a policy that has learned from the rows before.

    Parameters
    ----------
    history : DecisionHistory
        The log.
    candidate : Candidate
        The policy.
    first : int
        The first row that may be accepted.
    learning : bool
        Whether the policy learns from accepted rows.
    budget_rate_usd : float, optional
        US dollars that each accepted request may cost on average, with an advance of one
        reservation. Without it there is no budget.
    seed : int
        Of the acceptance and of the policy's draws.

    Notes
    -----
    A row of propensity p is accepted if the policy draws the logged model, and then with
    probability c / p, where c is the smallest logged propensity. On a uniform log that is 1.
    Accepted rows without an observed outcome are made up for as in `EstimatorInputs`.
    """
    log = history.log
    rng = np.random.default_rng([seed, _ACCEPTS])
    policy = _ReplayedPolicy(history, candidate, first, budget_rate_usd, seed)
    least = float(log.propensity[first:].min())
    accepted: list[int] = []
    outside = 0.0
    for i in range(first, len(log)):
        decision = policy.decide(i)
        columns = [log.models.index(model.name) for model in decision.scored.columns.models]
        if log.action_dist is not None:
            # Choices of a propensity below c are accepted too rarely.
            enough = np.minimum(log.action_dist[i][columns] / least, 1.0)
            outside += float(decision.pmf[0] @ (1.0 - enough))
        arm = int(decision.chosen[0])
        if arm < 0 or columns[arm] != log.chosen[i]:
            continue
        if rng.random() < least / log.propensity[i]:
            accepted.append(i)
            policy.accept(i, decision, learning=learning)
    rows, evaluated = np.array(accepted, dtype=np.intp), len(log) - first
    outside_share = None if log.action_dist is None else outside / evaluated
    refusal = _refusal(len(rows), evaluated, least, outside_share)
    return Replayed(
        label=candidate.label,
        rows=rows,
        evaluated=evaluated,
        outside=outside_share,
        estimates={} if refusal else _estimates(log, rows, first),
        refusal=refusal,
    )


class _ReplayedPolicy:
    """A policy in a replay. A row that is not accepted costs it nothing and teaches it nothing."""

    def __init__(
        self,
        history: DecisionHistory,
        candidate: Candidate,
        first: int,
        budget_rate_usd: float | None,
        seed: int,
    ) -> None:
        self.history = history
        self.fold = train(history, candidate, until=first)
        self.router = Router(
            options=candidate.options,
            snapshot=self.fold.snapshot(),
            models=(),
            rng=np.random.default_rng([seed, _DRAWS]),
        )
        self.pacing, self.budget_rate_usd = candidate.pacing, budget_rate_usd
        self.budget: ReplayBudget | None = None
        # The budget after the last decision: it counts only if that row is accepted.
        self.trial: ReplayBudget | None = None
        self.offered: tuple[Model, ...] = ()
        self.changed = False
        self.offers = {
            i: models for rows, models in history.requests.model_sets for i in rows.tolist()
        }
        self.outcomes: dict[str, list[Event]] = defaultdict(list)
        for event in history.events:
            if event.outcome is not None:
                self.outcomes[event.outcome.decision_id].append(event)

    def decide(self, i: int) -> Decisions:
        """Decide one logged request again; nothing is spent until it is accepted."""
        requests = self.history.requests
        if self.offers[i] is not self.offered:
            self.offered, self.changed = self.offers[i], True
            self.router.swap(models=self.offered)
        request = requests.batch.row(i)
        if self.budget_rate_usd is None:
            price = PriceTerms(rate_usd=float(requests.spend_rate_usd[i])).rows(1)
            return self.router.decide(request, price=price)
        if self.budget is None:
            advance_usd = float(self.router.score(request).reservation_nano.max()) / NANO
            self.budget = ReplayBudget(
                make_pacing(self.pacing), self.budget_rate_usd, None, advance_usd=advance_usd
            )
        self.trial = self.budget.fork()
        return self.trial.decide(self.router, request, changed=self.changed)

    def accept(self, i: int, decision: Decisions, *, learning: bool) -> None:
        """Pay for the row that was decided last and, if `learning`, learn its outcome."""
        # Until a row is accepted, the budget has not seen a change of models and prices.
        self.changed = False
        if self.trial is not None:
            self.budget = self.trial
            cost_usd = float(self.history.log.cost_usd[i])
            if math.isnan(cost_usd):
                reservation_nano = decision.scored.reservation_nano[0, decision.chosen[0]]
                cost_usd = float(reservation_nano) / NANO
            self.budget.settle(decision, cost_usd)
        if learning:
            for event in self.outcomes[self.history.ids[i]]:
                self.fold.apply(event)
            self.router.swap(snapshot=self.fold.snapshot())


def _estimates(log: BanditLog, rows: NDArray[np.intp], first: int) -> dict[str, Interval]:
    """Return the mean outcome of the accepted rows, by measure."""
    estimates = {}
    evaluated, zeros = log.rows(slice(first, None)), np.zeros(len(rows))
    for name in log.measures:
        reward, weight = (column[rows - first] for column in observed_rewards(evaluated, name))
        if np.count_nonzero(weight) >= LEAST_ACCEPTED:
            inputs = EstimatorInputs(reward, np.ones(len(rows)), weight, q_hat=zeros, v_hat=zeros)
            estimates[name] = normal(snips(inputs), log.rows(rows).session)
    return estimates


def _refusal(accepted: int, evaluated: int, least: float, outside: float | None) -> str | None:
    remedy = "a larger exploration_share lets more rows be accepted"
    if outside is not None and outside > MOST_OUTSIDE:
        return (
            f"{outside:.1%} of the policy's choices are of models that the log gave probability 0 "
            f"or hardly any (at most {MOST_OUTSIDE:.0%}): {remedy}"
        )
    if accepted < LEAST_ACCEPTED:
        return (
            f"{accepted} of {evaluated} rows are what the policy would have chosen, at least "
            f"{LEAST_ACCEPTED} are needed; the least propensity of the log is {least:.2g}: "
            f"{remedy}, or wait for more rows"
        )
    # Without the logged pmf, a model that the log never chose shows in too few accepted rows.
    expected = least * evaluated
    margin = SUSPICIOUS * math.sqrt(expected * (1.0 - least))
    if outside is None and accepted < (1.0 - MOST_OUTSIDE) * expected - margin:
        return (
            f"{accepted} rows were accepted, {expected:.0f} are expected: the policy chooses what "
            f"the log never chose; {remedy}"
        )
    return None

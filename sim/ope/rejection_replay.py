"""Sequence replay: the value of a policy that learns while it is judged, or spends a budget.

What such a policy does depends on what it did before, so a row says something of it only if all
rows before led it there. Rows are accepted so that the accepted ones are distributed as if the
policy had chosen itself, and only they teach it and cost it money.

References
----------
.. [1] Li, Chu, Langford, Wang (2011). Unbiased offline evaluation of contextual-bandit-based news
   article recommendation algorithms.
.. [2] Dudik, Erhan, Langford, Li (2012). Sample-efficient nonstationary policy evaluation
   for contextual bandits.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from banditroute.core.pool import NANO
from banditroute.decide.columns import Decisions
from banditroute.decide.router import Router
from banditroute.learn.fold import Event
from policies import make_pacing
from policies.base import Float64
from policies.pacing.price import Price
from sim.ope.bandit_log import BanditLog
from sim.ope.estimators import snips
from sim.ope.inputs import EstimatorInputs
from sim.ope.intervals import Interval, normal
from sim.ope.logged_requests import DecisionHistory
from sim.ope.overlap import MOST_OUTSIDE, SUSPICIOUS
from sim.ope.reward_model import observed
from sim.ope.target_policy import train
from sim.play.budget import ReplayBudget
from sim.play.candidate import Candidate

LEAST_ACCEPTED = 50
_ACCEPTS, _DRAWS = 0, 1


@dataclass(frozen=True, slots=True)
class Replayed:
    """What sequence replay says of a policy.

    Attributes
    ----------
    rows : int[m], the accepted rows.
    judged : how many were there to accept.
    outside : share of what the policy chose that could not be accepted as often as it should have
        been, since the log gave it less than the least propensity, or nothing; None where the log
        has propensities of the chosen models alone.
    estimates : by measure, over the accepted rows, where it is known of enough.
    refusal : why there is no estimate, None where there is.
    """

    label: str
    rows: NDArray[np.intp]
    judged: int
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
    """Replay the rows from `first` on, after training on those before.

    Parameters
    ----------
    learning : whether the policy learns from the accepted rows.
    budget_rate_usd : US dollars that each accepted request may cost on average, beside an
        advance of one reservation; None for no budget.
    seed : of the acceptance.

    Notes
    -----
    A row of propensity p is accepted if the policy draws its model, and then with probability
    ``c / p``, c the least logged propensity: always, on a uniform log. Missing outcomes among the
    accepted are weighted for as `sim.ope.reward_model.observed` has it.
    """
    log, requests = history.log, history.requests
    rng = np.random.default_rng([seed, _ACCEPTS])
    fold = train(history, candidate, until=first)
    router = Router(
        options=candidate.options,
        snapshot=fold.snapshot(),
        models=(),
        rng=np.random.default_rng([seed, _DRAWS]),
    )
    taught: dict[str, list[Event]] = defaultdict(list)
    for event in history.events:
        if event.outcome is not None:
            taught[event.outcome.decision_id].append(event)
    models = {i: frame for rows, frame in requests.frames for i in rows.tolist()}
    budget: ReplayBudget | None = None
    least = float(log.propensity[first:].min())
    accepted: list[int] = []
    before: object = None
    changed, outside = False, 0.0
    for i in range(first, len(log)):
        if models[i] is not before:
            changed, before = True, models[i]
            router.swap(models=models[i])
        asks = requests.asks.row(i)
        if budget_rate_usd is None:
            price = Price.flat(1, rate_usd=float(requests.spend_rate_usd[i]))
            decided = router.decide(asks, price=price)
        else:
            if budget is None:
                advance = float(router.score(asks).reservation_nano.max()) / NANO
                budget = ReplayBudget(
                    make_pacing(candidate.pacing), budget_rate_usd, None, advance=advance
                )
            # A row that is not accepted has not happened, so it may not have cost anything.
            trial = budget.fork()
            decided = trial.decide(router, asks, changed=changed)
        if log.action_dist is not None:
            outside += _outside(decided, log.models, log.action_dist[i], least)
        arm = int(decided.chosen[0])
        drawn = decided.scored.columns.models[arm].name if arm >= 0 else ""
        if drawn != log.models[log.chosen[i]] or rng.random() >= least / log.propensity[i]:
            continue
        accepted.append(i)
        # A budget that has not seen the change yet still has to.
        changed = False
        if budget is not None:
            budget = trial
            reserved = float(decided.scored.reservation_nano[0, arm]) / NANO
            budget.settle(
                decided, reserved if np.isnan(log.cost_usd[i]) else float(log.cost_usd[i])
            )
        if learning:
            for event in taught[history.ids[i]]:
                fold.apply(event)
            router.swap(snapshot=fold.snapshot())
    rows, judged = np.array(accepted, dtype=np.intp), len(log) - first
    share = None if log.action_dist is None else outside / judged
    refusal = _refusal(len(rows), judged, least, share)
    return Replayed(
        label=candidate.label,
        rows=rows,
        judged=judged,
        outside=share,
        estimates={} if refusal else _estimates(log, rows, first),
        refusal=refusal,
    )


def _outside(
    decided: Decisions, models: Sequence[str], action_dist: Float64, least: float
) -> float:
    """Return the mass that rows are accepted too rarely for, where c is above the propensity."""
    at = [models.index(model.name) for model in decided.scored.columns.models]
    return float(decided.pmf[0] @ (1.0 - np.minimum(action_dist[at] / least, 1.0)))


def _estimates(log: BanditLog, rows: NDArray[np.intp], first: int) -> dict[str, Interval]:
    found = {}
    session = np.unique(log.session[rows], return_inverse=True)[1]
    judged, none = slice(first, None), np.zeros(len(rows))
    for name in log.measures:
        reward = log.measure(name)
        known = ~np.isnan(reward)
        if known[rows].sum() < LEAST_ACCEPTED:
            continue
        arms = len(log.models)
        chance = observed(log.features[judged], log.chosen[judged], known[judged], arms)
        inputs = EstimatorInputs(
            reward=np.where(known, reward, 0.0)[rows],
            weight=np.ones(len(rows)),
            seen=np.where(known[judged], 1.0 / chance, 0.0)[rows - first],
            guess=none,
            value=none,
        )
        found[name] = normal(snips(inputs), session)
    return found


def _refusal(accepted: int, judged: int, least: float, outside: float | None) -> str | None:
    remedy = "a larger exploration_share lets more be accepted"
    if outside is not None and outside > MOST_OUTSIDE:
        return (
            f"{outside:.1%} of the policy's choices are of models that the log gave probability 0 "
            f"or hardly any (at most {MOST_OUTSIDE:.0%}): {remedy}"
        )
    if accepted < LEAST_ACCEPTED:
        return (
            f"{accepted} of {judged} rows are what the policy would have chosen, at least "
            f"{LEAST_ACCEPTED} are needed; the least propensity of the log is {least:.2g}: "
            f"{remedy}, or wait for more rows"
        )
    # Without the logged pmf, a model that the log never chose shows in too few accepted rows.
    wanted = least * judged
    chance = SUSPICIOUS * math.sqrt(wanted * (1.0 - least))
    if outside is None and accepted < (1.0 - MOST_OUTSIDE) * wanted - chance:
        return (
            f"{accepted} rows were accepted where {wanted:.0f} should have been: the policy "
            f"chooses what the log never chose; {remedy}"
        )
    return None

"""Sequence replay: the value of a policy that learns while it is judged, or spends a budget.

What such a policy does depends on what it did before, so a row says something of it only if all
rows before led it there. Rows are accepted so that the accepted ones are distributed as if the
policy had chosen itself, and only they teach it and cost it money.

References
----------
.. [1] Li, Chu, Langford, Wang (2011). Unbiased offline evaluation of contextual-bandit-based news
   article recommendation algorithms.
.. [2] Dudik, Erhan, Langford, Li (2012). Sample-efficient nonstationary policy evaluation for
   contextual bandits.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from banditroute.fold import Event
from banditroute.pool import NANO
from banditroute.router import Router
from policies import make_pacing
from policies.price import Price
from sim.contenders import Contender
from sim.ope.intervals import Interval, normal
from sim.ope.log import BanditLog
from sim.ope.targets import trained
from sim.ope.trail import Trail
from sim.pacing import Budget

LEAST_ACCEPTED = 50
_ACCEPTS, _DRAWS = 0, 1


@dataclass(frozen=True, slots=True)
class Replayed:
    """What sequence replay says of a policy.

    Attributes
    ----------
    rows : int[m], the accepted rows.
    judged : how many were there to accept.
    estimates : by measure, over the accepted rows whose outcome is known.
    refusal : why there is no estimate, None where there is.
    """

    label: str
    rows: NDArray[np.intp]
    judged: int
    estimates: dict[str, Interval]
    refusal: str | None


def replay(
    trail: Trail,
    contender: Contender,
    *,
    first: int,
    learning: bool = True,
    budget_rate: float | None = None,
    seed: int = 0,
) -> Replayed:
    """Replay the rows from `first` on, after training on those before.

    Parameters
    ----------
    learning : whether the policy learns from the accepted rows.
    budget_rate : US dollars that each accepted request may cost on the average, beside an advance
        of one reservation; None for no budget.
    seed : of the acceptance.

    Notes
    -----
    A row of propensity p is accepted if the policy draws its model, and then with probability
    ``c / p``, c the least logged propensity: always, on a uniform log. What is missing among the
    accepted outcomes is taken to be missing at random.
    """
    log, requests = trail.log, trail.requests
    rng = np.random.default_rng([seed, _ACCEPTS])
    fold = trained(trail, contender, until=first)
    router = Router(
        options=contender.options,
        snapshot=fold.snapshot(),
        models=(),
        rng=np.random.default_rng([seed, _DRAWS]),
    )
    taught: dict[str, list[Event]] = defaultdict(list)
    for event in trail.events:
        if event.outcome is not None:
            taught[event.outcome.decision_id].append(event)
    models = {i: frame for rows, frame in requests.frames for i in rows.tolist()}
    budget: Budget | None = None
    least = float(log.propensity[first:].min())
    accepted: list[int] = []
    before: object = None
    for i in range(first, len(log)):
        changed = models[i] is not before
        if changed:
            before = models[i]
            router.swap(models=models[i])
        asks = requests.asks.row(i)
        if budget_rate is None:
            price = Price.flat(1, rate=float(requests.spend_rate[i]))
            decided = router.decide(asks, price=price)
        else:
            if budget is None:
                advance = float(router.worst(asks).max()) / NANO
                budget = Budget(make_pacing(contender.pacing), budget_rate, None, advance=advance)
            # A row that is not accepted has not happened, so it may not have cost anything.
            trial = budget.fork()
            decided = trial.decide(router, asks, changed=changed)
        arm = int(decided.chosen[0])
        drawn = decided.frame.models[arm].name if arm >= 0 else ""
        if drawn != log.models[log.chosen[i]] or rng.random() >= least / log.propensity[i]:
            continue
        accepted.append(i)
        if budget is not None:
            budget = trial
            reserved = float(decided.reserved_nano[0, arm]) / NANO
            budget.settle(decided, reserved if np.isnan(log.cost[i]) else float(log.cost[i]))
        if learning:
            for event in taught[trail.ids[i]]:
                fold.apply(event)
            router.swap(snapshot=fold.snapshot())
    rows = np.array(accepted, dtype=np.intp)
    return Replayed(
        label=contender.label,
        rows=rows,
        judged=len(log) - first,
        estimates=_estimates(log, rows),
        refusal=_refusal(len(rows), len(log) - first, least),
    )


def _estimates(log: BanditLog, rows: NDArray[np.intp]) -> dict[str, Interval]:
    found = {}
    for name in log.measures if len(rows) >= LEAST_ACCEPTED else ():
        reward = log.measure(name)[rows]
        known = ~np.isnan(reward)
        if known.any():
            session = np.unique(log.session[rows][known], return_inverse=True)[1]
            found[name] = normal(reward[known], session)
    return found


def _refusal(accepted: int, judged: int, least: float) -> str | None:
    if accepted >= LEAST_ACCEPTED:
        return None
    return (
        f"{accepted} of {judged} rows are what the policy would have chosen, at least "
        f"{LEAST_ACCEPTED} are needed; the least propensity of the log is {least:.2g}: a larger "
        "exploration_share lets more be accepted, or wait for more rows"
    )

"""What a policy would have done: trained on the first part of a log, frozen, scored on the rest.

The policy learns by the daemon's own fold, and decides by its own router; only the models that
were open to the logged decision, at the prices of that moment, are open to it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from banditroute.fold import Fold
from banditroute.frame import Asks
from banditroute.pool import Charter, PoolOptions
from banditroute.router import Router
from policies.base import Float64
from policies.price import Price
from sim.ope.daemon import DaemonLog, Requests

_TAUGHT = ("model_added", "prior")
_LEARNED = ("feedback", "default", "comparison")


def charter_of(options: PoolOptions, prior: str, given: Charter) -> Charter:
    """Return the charter of a policy that learns from the log of another."""
    return Charter(
        policy=options.policy.name,
        params=options.policy.params,
        embedder=given.embedder,
        dim=given.dim,
        tau_cost=given.tau_cost,
        tau_latency_ms=given.tau_latency_ms,
        prior=prior,
    )


def trained(daemon: DaemonLog, charter: Charter, decisions: Collection[str]) -> Fold:
    """Return the fold of a policy that has learned what came of some decisions.

    Parameters
    ----------
    decisions : ids; of no other decision anything is learned.
    """
    fold = Fold(charter)
    for event in daemon.events:
        about = event.outcome or event.comparison
        if event.kind in _TAUGHT or (
            event.kind in _LEARNED and about is not None and about.decision_id in decisions
        ):
            fold.apply(event)
    return fold


def law(
    daemon: DaemonLog, options: PoolOptions, fold: Fold, *, first: int, rng: np.random.Generator
) -> Float64:
    """Return the pmf of a frozen policy in the rows from `first` on, float64[n, K].

    Parameters
    ----------
    options : what the router adds to the policy: exploration, trials.
    rng : of the draws, which are not used.
    """
    log, requests = daemon.log, daemon.requests
    column = {name: k for k, name in enumerate(log.models)}
    pmf = np.zeros((len(log), len(log.models)))
    snapshot = fold.snapshot()
    for rows, models in requests.frames:
        judged = rows[rows >= first]
        if not len(judged):
            continue
        router = Router(options=options, snapshot=snapshot, models=models, rng=rng)
        price = Price.flat(len(judged))
        price.rate[:, 0] = requests.spend_rate[judged]
        decided = router.decide(_asked(requests, judged), price=price)
        at = np.array([column[model.name] for model in decided.frame.models])
        pmf[np.ix_(judged, at)] = decided.pmf
    return pmf[first:]


def _asked(requests: Requests, rows: np.ndarray) -> Asks:
    asks = requests.asks
    assert asks.models is not None and asks.max_output_tokens is not None
    return Asks(
        features=asks.features[rows],
        preference=asks.preference[rows],
        input_tokens=asks.input_tokens[rows],
        input_bound=asks.input_bound[rows],
        max_output_tokens=asks.max_output_tokens[rows],
        models=[asks.models[i] for i in rows.tolist()],
    )

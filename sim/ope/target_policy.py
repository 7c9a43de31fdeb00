"""What a policy would have done: trained on the first part of a log, frozen, scored on the rest.

The policy learns by the daemon's own fold, and decides by its own router; only the models that
were open to the logged decision, at the prices of that moment, are open to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import PoolOptions
from banditroute.decide.columns import RequestBatch
from banditroute.decide.router import Router
from banditroute.learn.fold import Fold
from policies.base import Float64
from policies.pacing.price import Price
from sim.ope.logged_requests import DecisionHistory, LoggedRequests
from sim.play.candidate import Candidate

_TAUGHT = ("model_added", "prior")


def identity_of(candidate: Candidate, given: PolicyIdentity) -> PolicyIdentity:
    """Return the policy_identity of a policy that learns from the log of another."""
    options = candidate.options
    own = "tau_latency_ms" in options.model_fields_set
    return PolicyIdentity(
        policy=candidate.name,
        params=candidate.params,
        embedder=given.embedder,
        dim=given.dim,
        tau_cost_usd=options.tau_cost or given.tau_cost_usd,
        tau_latency_ms=options.tau_latency_ms if own else given.tau_latency_ms,
        prior=candidate.prior,
    )


def train(history: DecisionHistory, candidate: Candidate, *, until: int) -> Fold:
    """Return the fold of a policy that has learned what came of the first `until` decisions."""
    fold = Fold(identity_of(candidate, history.policy_identity))
    decisions = set(history.ids[:until])
    for event in history.events:
        about = event.outcome or event.comparison
        if event.kind in _TAUGHT or (about is not None and about.decision_id in decisions):
            fold.apply(event)
    return fold


def compute_action_dist(
    requests: LoggedRequests,
    models: Sequence[str],
    options: PoolOptions,
    fold: Fold,
    *,
    rows: NDArray[np.intp],
) -> Float64:
    """Return the pmf of a frozen policy in some rows of a log, float64[m, K].

    Parameters
    ----------
    models : K names, the columns of the result.
    options : what the router adds to the policy: exploration, trials.
    rows : int[m], of the requests.
    """
    column = {name: k for k, name in enumerate(models)}
    pmf = np.zeros((len(requests.spend_rate_usd), len(models)))
    snapshot = fold.snapshot()
    asked = np.zeros(len(pmf), dtype=np.bool_)
    asked[rows] = True
    for stretch, offered in requests.frames:
        judged = stretch[asked[stretch]]
        if not len(judged):
            continue
        # What is drawn is of no interest, only the action_dist of the draw.
        router = Router(
            options=options, snapshot=snapshot, models=offered, rng=np.random.default_rng(0)
        )
        decided = router.decide(_asked(requests.asks, judged), price=_price(requests, judged))
        at = np.array([column[model.name] for model in decided.scored.columns.models])
        pmf[np.ix_(judged, at)] = decided.pmf
    return pmf[rows]


def _price(requests: LoggedRequests, rows: NDArray[np.intp]) -> Price:
    price = Price.flat(len(rows))
    price.rate_usd[:, 0] = requests.spend_rate_usd[rows]
    return price


def _asked(asks: RequestBatch, rows: NDArray[np.intp]) -> RequestBatch:
    limit, allowed = asks.max_output_tokens, asks.models
    return RequestBatch(
        features=asks.features[rows],
        preference=asks.preference[rows],
        input_tokens=asks.input_tokens[rows],
        input_bound=asks.input_bound[rows],
        max_output_tokens=None if limit is None else limit[rows],
        models=None if allowed is None else [allowed[i] for i in rows.tolist()],
    )

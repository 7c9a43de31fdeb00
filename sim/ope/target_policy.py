"""What a policy would have done: it learns from the first part of a log and is then frozen.

It learns by the daemon's own fold and decides by the daemon's own router. In each row it may choose
only the models that were open to the logged decision, at the prices of that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import PoolOptions
from banditroute.decide.columns import RequestBatch
from banditroute.decide.router import Router
from banditroute.learn.fold import Fold
from policies.base import Float64
from policies.pacing.price import PriceTerms
from sim.ope.logged_requests import DecisionHistory, LoggedRequests
from sim.play.candidate import Candidate

_LEARNED_IN_ANY_CASE = ("model_added", "prior")


def identity_of(candidate: Candidate, logging: PolicyIdentity) -> PolicyIdentity:
    """Return the identity of a policy that learns from the log of another.

    Parameters
    ----------
    candidate : Candidate
        The policy that learns.
    logging : PolicyIdentity
        Of the logging policy; its features are taken over, and its scales unless the candidate has
        some of its own.
    """
    options = candidate.options
    has_tau_latency = "tau_latency_ms" in options.model_fields_set
    return replace(
        logging,
        policy=candidate.name,
        params=candidate.params,
        tau_cost_usd=options.tau_cost or logging.tau_cost_usd,
        tau_latency_ms=options.tau_latency_ms if has_tau_latency else logging.tau_latency_ms,
        prior=candidate.prior,
    )


def train(history: DecisionHistory, candidate: Candidate, *, until: int) -> Fold:
    """Return the fold of a policy that has learned the outcomes of the first `until` decisions.

    What counts is the decision that an outcome belongs to, not when the outcome arrived.
    """
    fold = Fold(identity_of(candidate, history.policy_identity))
    decisions = set(history.ids[:until])
    for event in history.events:
        outcome = event.outcome or event.comparison
        is_learned = outcome is not None and outcome.decision_id in decisions
        if is_learned or event.kind in _LEARNED_IN_ANY_CASE:
            fold.apply(event)
    return fold


def frozen_action_dist(history: DecisionHistory, candidate: Candidate, *, first: int) -> Float64:
    """Return the pmf in the rows from `first` on of a policy that learned those before."""
    fold, rows = train(history, candidate, until=first), np.arange(first, len(history.log))
    models, options = history.log.models, candidate.options
    return compute_action_dist(history.requests, models, options, fold, rows=rows)


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
    requests : LoggedRequests
        All requests of the log.
    models : sequence of str
        K names, the columns of the result.
    options : PoolOptions
        What the router adds to the policy: exploration, trials.
    fold : Fold
        The policy, as far as it has learned.
    rows : int[m]
        Rows of `requests`.
    """
    column = {name: k for k, name in enumerate(models)}
    pmf = np.zeros((len(requests.spend_rate_usd), len(models)))
    snapshot = fold.snapshot()
    for members, offered in requests.model_sets:
        selected = np.intersect1d(members, rows)
        if not len(selected):
            continue
        # Only the pmf is used, not the draw, so the seed does not matter.
        router = Router(
            options=options, snapshot=snapshot, models=offered, rng=np.random.default_rng(0)
        )
        price = PriceTerms().rows(len(selected))
        price.rate_usd[:, 0] = requests.spend_rate_usd[selected]
        decisions = router.decide(_take(requests.batch, selected), price=price)
        columns = np.array([column[model.name] for model in decisions.scored.columns.models])
        pmf[np.ix_(selected, columns)] = decisions.pmf
    return pmf[rows]


def _take(batch: RequestBatch, rows: NDArray[np.intp]) -> RequestBatch:
    limit, models = batch.max_output_tokens, batch.models
    return RequestBatch(
        features=batch.features[rows],
        preference=batch.preference[rows],
        input_tokens=batch.input_tokens[rows],
        input_bound=batch.input_bound[rows],
        max_output_tokens=None if limit is None else limit[rows],
        models=None if models is None else [models[i] for i in rows.tolist()],
    )

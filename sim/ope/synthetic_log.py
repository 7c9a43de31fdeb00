"""Logs that are simulated on data of full information, so that the true values are known.

The daemon's own router and fold decide and learn, one request after the other. The result is what
the daemon would have logged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from banditroute.core.pool import ModelSpec
from banditroute.decide.columns import Decisions, RequestBatch
from banditroute.learn.fold import Event
from policies.base import Float32, Float64
from sim.data.dataset import Dataset
from sim.ope.bandit_log import BanditLog
from sim.ope.logged_requests import DecisionHistory, LoggedRequests
from sim.play.candidate import Candidate
from sim.play.router_player import POOL, RouterPlayer, outcomes


def simulate_log(
    dataset: Dataset,
    features: Float32,
    rows: NDArray[np.intp],
    *,
    candidate: Candidate,
    specs: Sequence[ModelSpec],
    embedder: str,
    preference: tuple[float, float, float],
    rng: np.random.Generator,
) -> DecisionHistory:
    """Let a policy decide some prompts, learn from each answer at once, and return its log.

    Parameters
    ----------
    dataset : Dataset
        N prompts with the answers of all models.
    features : float32[N, d]
        Of the prompts.
    rows : int[n]
        The prompts, in the order in which they come.
    candidate : Candidate
        The logging policy.
    specs : sequence of ModelSpec
        The models with their prices, in the order of the data's.
    embedder : str
        Identity of what made the features.
    preference : (float, float, float)
        Weights of quality, cost and latency; their sum is 1.
    rng : numpy.random.Generator
        Draws the choices.
    """
    player = RouterPlayer(
        specs=specs,
        candidate=candidate,
        dim=features.shape[1],
        embedder=embedder,
        preference=preference,
        rng=rng,
    )
    models, ids = dataset.models, [str(i) for i in range(len(rows))]
    events = [
        Event(k, POOL, "model_added", payload={"name": name}) for k, name in enumerate(models, 1)
    ]
    decisions: list[Decisions] = []
    chosen: list[int] = []
    for decision_id, row in zip(ids, rows.tolist(), strict=True):
        tokens = np.array([float(len(dataset.prompts[row].encode("utf-8", "surrogatepass")))])
        choice = player.decide(features[row : row + 1], tokens)[0]
        decisions.append(choice.note[0])
        arm = models.index(str(choice.model))
        chosen.append(arm)
        answer = {
            "quality": float(dataset.quality[row, arm]),
            "cost_usd": float(dataset.cost_usd[row, arm]),
        }
        player.feed(choice, **answer)
        for outcome in outcomes(choice, after_seq=len(events), decision_id=decision_id, **answer):
            events.append(Event(outcome.seq, POOL, "feedback", outcome, embedder))
    policy_identity, n = player.fold.policy_identity, len(rows)
    batch = RequestBatch.join([decision.scored.requests for decision in decisions])
    offered = decisions[0].scored.columns.models
    requests = LoggedRequests(
        batch=batch,
        model_sets=[(np.arange(n), offered)],
        spend_rate_usd=np.array([decision.spend_rate_usd[0] for decision in decisions]),
    )
    # The router has the models in another order than the data.
    order = [[model.name for model in offered].index(name) for name in models]
    action_dist: Float64 = np.concatenate([decision.pmf[:, order] for decision in decisions])
    log = BanditLog(
        name=dataset.name,
        models=models,
        features=batch.features,
        chosen=np.array(chosen),
        propensity=action_dist[np.arange(n), chosen],
        action_dist=action_dist,
        quality=dataset.quality[rows, chosen],
        cost_usd=dataset.cost_usd[rows, chosen],
        preference=batch.preference,
        tau_cost_usd=np.full(n, policy_identity.tau_cost_usd),
        session=np.arange(n),
    )
    return DecisionHistory(log, requests, ids, policy_identity, events)

"""Logs made in process on data of full information, so that the truth is known beside them.

The router and the fold of the daemon decide and learn, one request after the other; what is kept
is what the daemon would have logged.
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
from sim.play.router_player import POOL, Replayer, outcomes


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
    """Let a policy decide some rows, learning of each at once, and return its log.

    Parameters
    ----------
    dataset, features : complete data and float32[n, d] of its prompts.
    rows : int[m], in the order in which they come.
    specs : the models with their prices, in the order of the data's.
    rng : of the draws.
    """
    player = Replayer(
        specs=specs,
        contender=candidate,
        dim=features.shape[1],
        embedder=embedder,
        preference=preference,
        rng=rng,
    )
    names, ids = dataset.models, [str(i) for i in range(len(rows))]
    events = [
        Event(k, POOL, "model_added", payload={"name": name}) for k, name in enumerate(names, 1)
    ]
    decided: list[Decisions] = []
    for i, row in zip(ids, rows.tolist(), strict=True):
        tokens = np.array([float(len(dataset.prompts[row].encode("utf-8", "surrogatepass")))])
        choice = player.decide(features[row : row + 1], tokens)[0]
        decided.append(choice.note[0])
        arm = names.index(str(choice.model))
        said = {
            "quality": float(dataset.quality[row, arm]),
            "cost": float(dataset.cost_usd[row, arm]),
        }
        player.feed(choice, **said)
        for outcome in outcomes(choice, after=len(events), decision_id=i, **said):
            events.append(Event(outcome.seq, POOL, "feedback", outcome, embedder))
    asks = RequestBatch.join([one.scored.requests for one in decided])
    log = _log(dataset, rows, asks, decided, player.fold.policy_identity.tau_cost_usd)
    models = decided[0].scored.columns.models
    rate = np.array([one.spend_rate_usd[0] for one in decided])
    requests = LoggedRequests(asks, [(np.arange(len(rows)), models)], rate)
    return DecisionHistory(log, requests, ids, player.fold.policy_identity, events)


def _log(
    dataset: Dataset,
    rows: NDArray[np.intp],
    asks: RequestBatch,
    decided: Sequence[Decisions],
    tau_cost_usd: float,
) -> BanditLog:
    n, models = len(rows), dataset.models
    # The router has the models in its own order.
    at = np.array(
        [[m.name for m in decided[0].scored.columns.models].index(name) for name in models]
    )
    action_dist: Float64 = np.concatenate([one.pmf[:, at] for one in decided])
    arm = np.array([int(np.flatnonzero(at == one.chosen[0])[0]) for one in decided])
    return BanditLog(
        name=dataset.name,
        models=models,
        features=asks.features,
        chosen=arm,
        propensity=action_dist[np.arange(n), arm],
        action_dist=action_dist,
        open=np.ones(action_dist.shape, dtype=np.bool_),
        quality=dataset.quality[rows, arm],
        cost_usd=dataset.cost_usd[rows, arm],
        preference=asks.preference,
        tau_cost_usd=np.full(n, tau_cost_usd),
        session=np.arange(n),
    )

"""The direct method alone, for logs without propensities: a spend log, one answer to each prompt.

A reward model predicts what the choices of a policy would have got. The estimate is as wrong as
that model, which saw some answers to some prompts for reasons that were not logged. No interval
would show this error, so none is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from banditroute.features.embedding import make_embedder
from policies.base import Float32
from sim.data.formats import load
from sim.errors import InputError
from sim.ope.bandit_log import BanditLog
from sim.ope.evaluator import LOGGED
from sim.ope.logged_requests import DecisionHistory
from sim.ope.read_parquet import QUALITY_ALONE
from sim.ope.reward_model import predict_rewards
from sim.ope.target_policy import frozen_action_dist
from sim.play.candidate import Candidate


def read(path: Path) -> BanditLog:
    """Read data in which each prompt has the answer of one model; propensities are NaN.

    Parameters
    ----------
    path : Path
        Data in one of the formats of `sim.data.formats`.

    Raises
    ------
    InputError
        As `sim.data.formats.load`; and if no prompt has an answer, or one has several.
    """
    data = load(str(path))
    is_answered = ~(np.isnan(data.quality) & np.isnan(data.cost_usd))
    answers = is_answered.sum(axis=1)
    if (answers > 1).any():
        raise InputError(
            f"--log: {path}: prompts have the answers of several models, so nothing needs to be "
            "estimated: `sim replay` plays it"
        )
    rows = np.flatnonzero(answers)
    if not len(rows):
        raise InputError(f"--log: {path}: no row has an answer")
    chosen, n = is_answered[rows].argmax(axis=1), len(rows)
    unanswered = len(data) - n
    return BanditLog(
        name=data.name,
        models=data.models,
        features=_features([data.prompts[i] for i in rows.tolist()]),
        chosen=chosen,
        propensity=np.full(n, np.nan),
        action_dist=None,
        quality=data.quality[rows, chosen],
        cost_usd=data.cost_usd[rows, chosen],
        preference=np.tile(QUALITY_ALONE, (n, 1)),
        tau_cost_usd=np.ones(n),
        session=np.arange(n),
        left_out={"without an answer": unanswered} if unanswered else {},
        notes=data.notes,
    )


def _features(prompts: Sequence[str]) -> Float32:
    """Return the features of prompts, or an intercept alone if the log has no prompts."""
    if not any(prompts):
        return np.ones((len(prompts), 1), dtype=np.float32)
    return make_embedder("hashing").features(list(prompts))


def estimates(
    history: DecisionHistory, candidates: Sequence[Candidate], *, fraction: float
) -> dict[str, dict[str, float]]:
    """Return the estimates of the direct method, by policy and measure.

    Parameters
    ----------
    history : DecisionHistory
        A log without propensities.
    candidates : sequence of Candidate
        The policies.
    fraction : float
        Share of the log that policies learn from, in [0, 1); they are evaluated on the rest.

    Notes
    -----
    For the logging policy it is the mean of the observed outcomes.
    """
    log = history.log
    first = round(fraction * len(log))
    action_dists = {
        candidate.label: frozen_action_dist(history, candidate, first=first)
        for candidate in candidates
    }
    by_policy: dict[str, dict[str, float]] = {name: {} for name in (LOGGED, *action_dists)}
    for measure in ("quality", "cost"):
        reward = log.measure(measure)
        if np.isnan(reward[first:]).all():
            continue
        q_hat = predict_rewards(log.features, log.chosen, reward, len(log.models))[first:]
        by_policy[LOGGED][measure] = float(np.nanmean(reward[first:]))
        for label, pmf in action_dists.items():
            by_policy[label][measure] = float((pmf * q_hat).sum(axis=1).mean())
    return by_policy

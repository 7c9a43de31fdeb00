"""The direct method alone, for logs without propensities: a spend log, one answer to each prompt.

A model of the rewards says what the choices of a policy would have got. It is as wrong as that
model is, which saw some answers to some prompts for reasons that nobody wrote down, and there is
no interval that would show it.
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
from sim.ope.reward_model import predicted
from sim.ope.target_policy import compute_action_dist, train
from sim.play.candidate import Candidate


def read(path: Path) -> BanditLog:
    """Read data in which each prompt has the answer of one model; propensities are NaN.

    Raises
    ------
    InputError
        As `sim.data.formats.load`, and where there is no answer, or prompts have several.
    """
    data = load(str(path))
    known = ~(np.isnan(data.quality) & np.isnan(data.cost_usd))
    answers = known.sum(axis=1)
    if (answers > 1).any():
        raise InputError(
            f"--log: {path}: prompts have the answers of several models, so nothing needs to be "
            "estimated: `sim replay` plays it"
        )
    rows = np.flatnonzero(answers)
    if not len(rows):
        raise InputError(f"--log: {path}: no row has an answer")
    chosen, n = known[rows].argmax(axis=1), len(rows)
    unanswered = len(data) - n
    return BanditLog(
        name=data.name,
        models=data.models,
        features=_features([data.prompts[i] for i in rows.tolist()]),
        chosen=chosen,
        propensity=np.full(n, np.nan),
        action_dist=None,
        open=np.ones((n, len(data.models)), dtype=np.bool_),
        quality=data.quality[rows, chosen],
        cost_usd=data.cost_usd[rows, chosen],
        preference=np.tile(QUALITY_ALONE, (n, 1)),
        tau_cost_usd=np.ones(n),
        session=np.arange(n),
        left_out={"without an answer": unanswered} if unanswered else {},
        notes=data.notes,
    )


def _features(prompts: Sequence[str]) -> Float32:
    if not any(prompts):
        return np.ones((len(prompts), 1), dtype=np.float32)
    return make_embedder("hashing").features(list(prompts))


def estimates(
    history: DecisionHistory, candidates: Sequence[Candidate], *, fraction: float
) -> dict[str, dict[str, float]]:
    """Return by policy and measure what the reward model makes of its choices.

    Parameters
    ----------
    fraction : share of the log that is learned from before, in [0, 1); the rest is judged.

    Notes
    -----
    Of what was logged it is the mean of the answers that are known.
    """
    log = history.log
    first = round(fraction * len(log))
    judged = np.arange(first, len(log))
    laws = {
        one.label: compute_action_dist(
            history.requests, log.models, one.options, train(history, one, until=first), rows=judged
        )
        for one in candidates
    }
    found: dict[str, dict[str, float]] = {name: {} for name in (LOGGED, *laws)}
    for measure in ("quality", "cost"):
        reward = log.measure(measure)
        if np.isnan(reward[judged]).all():
            continue
        guess = predicted(log.features, log.chosen, reward, len(log.models))[judged]
        found[LOGGED][measure] = float(np.nanmean(reward[judged]))
        for label, pmf in laws.items():
            found[label][measure] = float((pmf * guess).sum(axis=1).mean())
    return found

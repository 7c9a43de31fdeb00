"""The evaluation of several policies on one log: learn from its first part, evaluate on the rest.

Each policy learns from the first part and is then frozen. It is compared with the logging policy,
with the other policies, and with its zero router: a mix of two models that costs as much as the
policy and does not look at the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from policies.base import Float64
from sim.errors import InputError
from sim.measure.baselines import Frontier, Offer
from sim.ope.bandit_log import BanditLog
from sim.ope.evaluator import HEADLINE, LOGGED, Estimate, Evaluator, PolicyEvaluation
from sim.ope.intervals import Interval
from sim.ope.logged_requests import DecisionHistory
from sim.ope.target_policy import frozen_action_dist
from sim.play.candidate import Candidate


@dataclass(frozen=True, slots=True)
class PolicyDifference:
    """The paired difference of two policies.

    Attributes
    ----------
    label : str
        ``a - b``, with the labels of the two.
    estimates : dict
        By measure and estimator.
    """

    label: str
    estimates: dict[str, dict[str, Estimate]]


@dataclass(frozen=True, slots=True)
class ZeroRouter:
    """The zero router of one policy; the field names are keys of ``--json``.

    Attributes
    ----------
    label : str
        Of the policy.
    mix : str
        The models and their shares, in words.
    quality : Interval
        Of the mix.
    difference : Interval
        Quality of the policy minus quality of the mix.
    """

    label: str
    mix: str
    quality: Interval
    difference: Interval


@dataclass(frozen=True, slots=True)
class LogComparison:
    """Estimates beside the mean quality of another log; the field names are keys of ``--json``.

    Attributes
    ----------
    label : str
        Of the other log.
    mean : Interval
        Mean quality of the other log.
    differences : dict
        By policy, its estimated quality minus that mean.
    """

    label: str
    mean: Interval
    differences: dict[str, Interval]


@dataclass(slots=True)
class Evaluation:
    """What one log says about several policies.

    Attributes
    ----------
    history : DecisionHistory
        The log.
    first : int
        The first evaluated row.
    evaluator : Evaluator
        Of that log.
    policies : list of PolicyEvaluation
        The logging policy first.
    differences : list of PolicyDifference
        Of the policies that were not refused.
    zero_routers : list of ZeroRouter
        For each policy whose cost was estimated.
    comparison : LogComparison or None
        None if there is no other log to compare with.
    """

    history: DecisionHistory
    first: int
    evaluator: Evaluator
    policies: list[PolicyEvaluation]
    differences: list[PolicyDifference]
    zero_routers: list[ZeroRouter]
    comparison: LogComparison | None = None


def evaluate(
    history: DecisionHistory,
    candidates: Sequence[Candidate],
    *,
    fraction: float = 0.5,
    baseline: str = LOGGED,
    seed: int = 0,
) -> Evaluation:
    """Train policies on the first part of a log, freeze them and evaluate them on the rest.

    Parameters
    ----------
    history : DecisionHistory
        The log.
    candidates : sequence of Candidate
        The policies.
    fraction : float
        Share of the log that policies learn from, in [0, 1).
    baseline : str
        ``logged`` or the label of a candidate; all others are compared with it.
    seed : int
        Of the bootstrap.

    Raises
    ------
    InputError
        If there are fewer than two rows to evaluate, or no quality was observed in them.
    """
    log, rows = history.log, len(history.log)
    first = round(fraction * rows)
    if rows - first < 2:
        raise InputError(f"--log: {rows} decisions are too few to evaluate a policy")
    evaluator = Evaluator(log, first=first, seed=seed)
    if "quality" not in evaluator.measures:
        raise InputError(f"--log: {log.name}: no evaluated decision has feedback on quality")
    policies = [evaluator.evaluate(LOGGED, None)]
    for candidate in candidates:
        pmf = frozen_action_dist(history, candidate, first=first)
        policies.append(evaluator.evaluate(candidate.label, pmf))
    estimated = [policy for policy in policies if policy.refusal is None]
    return Evaluation(
        history=history,
        first=first,
        evaluator=evaluator,
        policies=policies,
        differences=[_difference(evaluator, a, b) for a, b in _pairs(estimated, baseline)],
        zero_routers=_zero_routers(evaluator, estimated),
    )


def not_identified(label: str) -> PolicyEvaluation:
    """Return the refusal of a policy that is known only from a log of its own decisions.

    Parameters
    ----------
    label : str
        Of the policy.
    """
    refusal = (
        "its log holds the probabilities of the models that it chose itself, not of those that "
        "were chosen here, so its value on these decisions is not identified: log the whole pmf, "
        "or evaluate from its log instead"
    )
    return PolicyEvaluation(label, None, refusal, [], {}, {})


def compare_with_log(evaluation: Evaluation, other: BanditLog, label: str) -> LogComparison:
    """Compare estimates with the mean quality of another log.

    Parameters
    ----------
    evaluation : Evaluation
        Whose SNIPS estimates are compared.
    other : BanditLog
        A log that shares no row with the evaluated one, so that both errors are independent.
    label : str
        Of the other log.

    Raises
    ------
    InputError
        If no quality was observed in the other log.
    """
    evaluator = Evaluator(other, measures=["quality"])
    if not evaluator.measures:
        raise InputError("--compare: no decision there has feedback on quality")
    mean = evaluator.interval(evaluator.values(None, "quality")["snips"])
    differences = {}
    for policy in evaluation.policies:
        if policy.refusal is None:
            estimate = policy.estimates["quality"]["snips"].normal
            half_width = math.hypot(estimate.half_width, mean.half_width)
            difference = Interval.around(estimate.mean - mean.mean, half_width)
            differences[policy.label] = difference
    return LogComparison(label, mean, differences)


def _difference(evaluator: Evaluator, a: PolicyEvaluation, b: PolicyEvaluation) -> PolicyDifference:
    """Return a - b for the measures that were estimated for both."""
    estimates = {
        name: evaluator.difference(a, b, name)
        for name in evaluator.measures
        if name in a.values and name in b.values
    }
    return PolicyDifference(f"{a.label} - {b.label}", estimates)


def _pairs(
    policies: Sequence[PolicyEvaluation], baseline: str
) -> list[tuple[PolicyEvaluation, PolicyEvaluation]]:
    """Return each policy with the baseline, then each pair of the other candidates."""
    others = [policy for policy in policies if policy.label != baseline]
    pairs = [(a, b) for b in policies if b.label == baseline for a in others]
    return pairs + [*combinations([each for each in others if each.label != LOGGED], 2)]


@dataclass(frozen=True, slots=True)
class _SingleModel:
    """A model that the log supports as a policy that always chooses it.

    Attributes
    ----------
    name : str
        Of the model.
    quality : float64[n]
        Values of its quality.
    cost_usd : float
        Its estimated cost in US dollars per request.
    """

    name: str
    quality: Float64
    cost_usd: float


def _single_models(evaluator: Evaluator) -> list[_SingleModel]:
    log, models = evaluator.evaluated, []
    for name, one_hot in zip(log.models, np.eye(len(log.models)), strict=True):
        pmf = np.tile(one_hot, (len(log), 1))
        support = evaluator.support(pmf)
        if support is None or support.refusal() is not None:
            continue
        if evaluator.has_enough_rows(pmf, "cost"):
            quality = evaluator.values(pmf, "quality")[HEADLINE]
            cost_usd = float(evaluator.values(pmf, "cost")[HEADLINE].mean())
            models.append(_SingleModel(name, quality, cost_usd))
    return models


def _zero_routers(evaluator: Evaluator, policies: Sequence[PolicyEvaluation]) -> list[ZeroRouter]:
    """Return the zero routers of all policies whose cost was estimated; shares count as exact."""
    models = _single_models(evaluator) if "cost" in evaluator.measures else []
    if not models:
        return []
    quality = np.array([float(model.quality.mean()) for model in models])
    frontier = Frontier.of([Offer(1.0, quality, np.array([model.cost_usd for model in models]))])
    zero_routers = []
    for policy in policies:
        if "cost" not in policy.estimates:
            continue
        corner, share = frontier.mix_at(policy.estimates["cost"][HEADLINE].normal.mean)
        parts = [(models[frontier.arms[corner, 0]], 1.0 - share)]
        if share > 0.0:
            parts.append((models[frontier.arms[corner + 1, 0]], share))
        values = np.sum([part * model.quality for model, part in parts], axis=0)
        zero_router = ZeroRouter(
            label=policy.label,
            mix=" + ".join(f"{part:.0%} {model.name}" for model, part in parts),
            quality=evaluator.interval(values),
            difference=evaluator.interval(policy.values["quality"][HEADLINE] - values),
        )
        zero_routers.append(zero_router)
    return zero_routers

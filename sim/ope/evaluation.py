"""The evaluation of several policies on one log: learn from its first part, evaluate on the rest.

Each policy learns from the first part and is then frozen. It is compared with the logging policy,
with the other policies, and with its zero router: a mix of two models that costs as much as the
policy and does not look at the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from policies.base import Float64
from sim.errors import InputError
from sim.measure.baselines import Frontier, Offer
from sim.ope.bandit_log import BanditLog
from sim.ope.evaluator import HEADLINE, LOGGED, Estimate, Evaluator, PolicyEvaluation, Target
from sim.ope.intervals import Interval
from sim.ope.logged_requests import DecisionHistory
from sim.ope.target_policy import compute_action_dist, train
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
    policies: list[PolicyEvaluation] = field(default_factory=list)
    differences: list[PolicyDifference] = field(default_factory=list)
    zero_routers: list[ZeroRouter] = field(default_factory=list)
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
    targets = [Target(LOGGED, None)]
    for candidate in candidates:
        pmf = compute_action_dist(
            history.requests,
            log.models,
            candidate.options,
            train(history, candidate, until=first),
            rows=np.arange(first, rows),
        )
        targets.append(Target(candidate.label, pmf))
    policies = [evaluator.evaluate(target) for target in targets]
    estimated = {policy.label: policy for policy in policies if policy.refusal is None}
    return Evaluation(
        history=history,
        first=first,
        evaluator=evaluator,
        policies=policies,
        differences=[
            _difference(evaluator, estimated[a], estimated[b])
            for a, b in _pairs(list(estimated), baseline)
        ],
        zero_routers=_zero_routers(evaluator, list(estimated.values())),
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
    mean = evaluator.interval(evaluator.values(Target(label, None), "quality")["snips"])
    differences = {}
    for policy in evaluation.policies:
        if policy.refusal is None:
            estimate = evaluation.evaluator.interval(policy.values["quality"]["snips"])
            half_width = math.hypot(estimate.half_width, mean.half_width)
            difference = estimate.mean - mean.mean
            differences[policy.label] = Interval(
                difference, difference - half_width, difference + half_width
            )
    return LogComparison(label, mean, differences)


def _difference(evaluator: Evaluator, a: PolicyEvaluation, b: PolicyEvaluation) -> PolicyDifference:
    """Return a - b for the measures that were estimated for both."""
    estimates = {
        name: evaluator.difference(a, b, name)
        for name in evaluator.measures
        if name in a.values and name in b.values
    }
    return PolicyDifference(f"{a.label} - {b.label}", estimates)


def _pairs(labels: Sequence[str], baseline: str) -> list[tuple[str, str]]:
    """Return each policy with the baseline, then each pair of the other candidates."""
    others = [label for label in labels if label != baseline]
    pairs = [(label, baseline) for label in others if baseline in labels]
    named = [label for label in others if label != LOGGED]
    return pairs + [(a, b) for i, a in enumerate(named) for b in named[i + 1 :]]


def _zero_routers(evaluator: Evaluator, policies: Sequence[PolicyEvaluation]) -> list[ZeroRouter]:
    """Return the zero routers of all policies whose cost was estimated."""
    if "cost" not in evaluator.measures:
        return []
    mixes = _SingleModels.of(evaluator)
    if not mixes.names:
        return []
    return [
        mixes.zero_router(evaluator, policy) for policy in policies if "cost" in policy.estimates
    ]


@dataclass(frozen=True, slots=True)
class _SingleModels:
    """The models that the log supports as policies that always choose one model.

    Attributes
    ----------
    names : list of str
        m models.
    quality : list of float64[n]
        Values of the quality of each.
    cost_usd : list of float
        Estimated cost of each in US dollars per request.
    """

    names: list[str]
    quality: list[Float64]
    cost_usd: list[float]

    @classmethod
    def of(cls, evaluator: Evaluator) -> _SingleModels:
        single = cls([], [], [])
        log = evaluator.evaluated
        for k, name in enumerate(log.models):
            pmf = np.zeros((len(log), len(log.models)))
            pmf[:, k] = 1.0
            target = Target(name, pmf)
            support = evaluator.support(target)
            if support is None or support.refusal() is not None:
                continue
            if evaluator.has_enough_rows(target, "cost"):
                single.names.append(name)
                single.quality.append(evaluator.values(target, "quality")[HEADLINE])
                single.cost_usd.append(float(evaluator.values(target, "cost")[HEADLINE].mean()))
        return single

    def zero_router(self, evaluator: Evaluator, policy: PolicyEvaluation) -> ZeroRouter:
        """Return the mix that costs as much as a policy; its shares are taken as exact."""
        quality = np.array([float(values.mean()) for values in self.quality])
        frontier = Frontier.of([Offer(1.0, quality, np.array(self.cost_usd))])
        corner, share = frontier.mix_at(policy.estimates["cost"][HEADLINE].normal.mean)
        shares = {int(frontier.arms[corner, 0]): 1.0 - share}
        if share > 0.0:
            shares[int(frontier.arms[corner + 1, 0])] = share
        values = np.zeros(len(evaluator.evaluated))
        for k, part in shares.items():
            values += part * self.quality[k]
        return ZeroRouter(
            label=policy.label,
            mix=" + ".join(f"{part:.0%} {self.names[k]}" for k, part in shares.items()),
            quality=evaluator.interval(values),
            difference=evaluator.interval(policy.values["quality"][HEADLINE] - values),
        )

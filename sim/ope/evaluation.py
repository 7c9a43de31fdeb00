"""Judging several policies from one log: trained on its first part, frozen, judged on the rest.

Beside them stand the logging policy itself, every model alone, and for each policy the zero router:
the mix of two models that costs as much and does not look at the prompt.
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
    """A paired difference, by measure and estimator."""

    label: str
    estimates: dict[str, dict[str, Estimate]]


@dataclass(frozen=True, slots=True)
class ZeroRouter:
    """The zero router at a policy's cost: the mix in words, its quality, and policy minus zero."""

    label: str
    mix: str
    quality: Interval
    difference: Interval


@dataclass(frozen=True, slots=True)
class LogComparison:
    """Decisions of somebody else, for a check: their mean quality, and each policy's less it."""

    label: str
    mean: Interval
    differences: dict[str, Interval]


@dataclass(slots=True)
class Evaluation:
    """What one log says; `first` is the first judged row."""

    history: DecisionHistory
    first: int
    evaluator: Evaluator
    policies: list[PolicyEvaluation] = field(default_factory=list)
    differences: list[PolicyDifference] = field(default_factory=list)
    zeros: list[ZeroRouter] = field(default_factory=list)
    comparison: LogComparison | None = None


def evaluate(
    history: DecisionHistory,
    candidates: Sequence[Candidate],
    *,
    fraction: float = 0.5,
    baseline: str = LOGGED,
    seed: int = 0,
) -> Evaluation:
    """Judge frozen policies.

    Parameters
    ----------
    fraction : share of the log that is learned from, in [0, 1).
    baseline : ``logged`` or the label of a candidate; all others are compared with it.
    seed : of the bootstrap.

    Raises
    ------
    InputError
        When no outcome is known, or there are fewer than two rows to evaluator.
    """
    first = round(fraction * len(history.log))
    if len(history.log) - first < 2:
        raise InputError(f"--log: {len(history.log)} decisions are too few to judge anything")
    evaluator = Evaluator(history.log, first=first, seed=seed)
    if "quality" not in evaluator.measures:
        raise InputError(f"--log: {history.log.name}: no judged decision has feedback on quality")
    found = Evaluation(history, first, evaluator)
    targets, judged = [Target(LOGGED, None)], np.arange(first, len(history.log))
    for one in candidates:
        fold = train(history, one, until=first)
        pmf = compute_action_dist(
            history.requests, history.log.models, one.options, fold, rows=judged
        )
        targets.append(Target(one.label, pmf))
    found.policies = [evaluator.evaluate(target) for target in targets]
    told = [one for one in found.policies if one.refusal is None]
    for a, b in _pairs([one.label for one in told], baseline):
        first_of, other = (next(v for v in told if v.label == name) for name in (a, b))
        found.differences.append(
            PolicyDifference(
                f"{a} - {b}",
                {
                    name: evaluator.difference(first_of, other, name)
                    for name in evaluator.measures
                    if name in first_of.values and name in other.values
                },
            )
        )
    if "cost" in evaluator.measures:
        alone = _Alone.of(evaluator)
        costed = [one for one in told if "cost" in one.estimates]
        found.zeros = [alone.zero(evaluator, one) for one in costed] if alone.names else []
    return found


def not_identified(label: str) -> PolicyEvaluation:
    """Return the refusal of a policy that is known by another log alone."""
    why = (
        "its log holds what it gave to the models that it chose, not what it would have given to "
        "those chosen here, so its value on these decisions is not identified: log the whole pmf, "
        "or evaluate from its log instead"
    )
    return PolicyEvaluation(label, None, why, [], {}, {})


def compare_with_log(found: Evaluation, other: BanditLog, label: str) -> LogComparison:
    """Compare estimates with the mean quality of another log, which shares no row with this one.

    Raises
    ------
    InputError
        When no quality is known there.
    """
    evaluator = Evaluator(other, measures=["quality"])
    if not evaluator.measures:
        raise InputError("--compare: no decision there has feedback on quality")
    mean = evaluator.interval(evaluator.values(Target(label, None), "quality")["snips"])
    differences = {}
    for one in found.policies:
        if one.refusal is None:
            own = found.evaluator.interval(one.values["quality"]["snips"])
            wide = math.hypot(own.half_width, mean.half_width)
            apart = own.mean - mean.mean
            differences[one.label] = Interval(apart, apart - wide, apart + wide)
    return LogComparison(label, mean, differences)


def _pairs(labels: Sequence[str], baseline: str) -> list[tuple[str, str]]:
    """Return everybody against the baseline, then the candidates among each other."""
    others = [label for label in labels if label != baseline]
    pairs = [(label, baseline) for label in others if baseline in labels]
    named = [label for label in others if label != LOGGED]
    return pairs + [(a, b) for i, a in enumerate(named) for b in named[i + 1 :]]


@dataclass(frozen=True, slots=True)
class _Alone:
    """The models that the log can judge alone: per row values of their quality, and mean costs."""

    names: list[str]
    values: list[Float64]
    cost: list[float]

    @classmethod
    def of(cls, evaluator: Evaluator) -> _Alone:
        found = cls([], [], [])
        for k, name in enumerate(evaluator.log.models):
            pmf = np.zeros((len(evaluator.judged), len(evaluator.log.models)))
            pmf[:, k] = 1.0
            target = Target(name, pmf)
            support = evaluator.support(target)
            if (
                support is not None
                and support.refusal() is None
                and evaluator.enough(target, "cost")
            ):
                found.names.append(name)
                found.values.append(evaluator.values(target, "quality")[HEADLINE])
                found.cost.append(float(evaluator.values(target, "cost")[HEADLINE].mean()))
        return found

    def zero(self, evaluator: Evaluator, policy: PolicyEvaluation) -> ZeroRouter:
        """Return the zero router at the policy's estimated cost, its share taken as known."""
        quality = np.array([float(one.mean()) for one in self.values])
        frontier = Frontier.of([Offer(1.0, quality, np.array(self.cost))])
        corner, share = frontier.mix_at(policy.estimates["cost"][HEADLINE].normal.mean)
        parts = {int(frontier.arms[corner, 0]): 1.0 - share}
        if share > 0.0:
            parts[int(frontier.arms[corner + 1, 0])] = share
        values = np.zeros(len(evaluator.judged))
        for k, part in parts.items():
            values += part * self.values[k]
        return ZeroRouter(
            label=policy.label,
            mix=" + ".join(f"{part:.0%} {self.names[k]}" for k, part in parts.items()),
            quality=evaluator.interval(values),
            difference=evaluator.interval(policy.values["quality"][HEADLINE] - values),
        )

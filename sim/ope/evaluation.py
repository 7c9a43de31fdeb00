"""Judging several policies from one log: trained on its first part, frozen, judged on the rest.

Beside them stand the logged law itself, every model alone, and for each policy the zero router:
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
from sim.ope.evaluator import HEADLINE, LOGGED, Estimate, Evaluator, PolicyVerdict, Target
from sim.ope.intervals import Interval
from sim.ope.logged_requests import Trail
from sim.ope.target_policy import law, trained
from sim.play.candidate import Candidate


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference, by measure and estimator."""

    label: str
    estimates: dict[str, dict[str, Estimate]]


@dataclass(frozen=True, slots=True)
class Zero:
    """The zero router at a policy's cost: the mix in words, its quality, and policy minus zero."""

    label: str
    mix: str
    quality: Interval
    difference: Interval


@dataclass(frozen=True, slots=True)
class PolicyDifference:
    """Decisions of somebody else, for a check: their mean quality, and each policy's less it."""

    label: str
    mean: Interval
    differences: dict[str, Interval]


@dataclass(slots=True)
class Evaluation:
    """What one log says; `first` is the first judged row."""

    trail: Trail
    first: int
    judge: Evaluator
    verdicts: list[PolicyVerdict] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    zeros: list[Zero] = field(default_factory=list)
    comparison: PolicyDifference | None = None


def evaluate(
    trail: Trail,
    contenders: Sequence[Candidate],
    *,
    fraction: float = 0.5,
    baseline: str = LOGGED,
    seed: int = 0,
) -> Evaluation:
    """Judge frozen policies.

    Parameters
    ----------
    fraction : share of the log that is learned from, in [0, 1).
    baseline : ``logged`` or the label of a contender; all others are compared with it.
    seed : of the bootstrap.

    Raises
    ------
    InputError
        When no outcome is known, or there are fewer than two rows to judge.
    """
    first = round(fraction * len(trail.log))
    if len(trail.log) - first < 2:
        raise InputError(f"--log: {len(trail.log)} decisions are too few to judge anything")
    judge = Evaluator(trail.log, first=first, seed=seed)
    if "quality" not in judge.measures:
        raise InputError(f"--log: {trail.log.name}: no judged decision has feedback on quality")
    found = Evaluation(trail, first, judge)
    targets, judged = [Target(LOGGED, None)], np.arange(first, len(trail.log))
    for one in contenders:
        fold = trained(trail, one, until=first)
        pmf = law(trail.requests, trail.log.models, one.options, fold, rows=judged)
        targets.append(Target(one.label, pmf))
    found.verdicts = [judge.verdict(target) for target in targets]
    told = [one for one in found.verdicts if one.refusal is None]
    for a, b in _pairs([one.label for one in told], baseline):
        first_of, other = (next(v for v in told if v.label == name) for name in (a, b))
        found.differences.append(
            Difference(
                f"{a} - {b}",
                {
                    name: judge.difference(first_of, other, name)
                    for name in judge.measures
                    if name in first_of.values and name in other.values
                },
            )
        )
    if "cost" in judge.measures:
        alone = _Alone.of(judge)
        costed = [one for one in told if "cost" in one.estimates]
        found.zeros = [alone.zero(judge, one) for one in costed] if alone.names else []
    return found


def unknown(label: str) -> PolicyVerdict:
    """Return the refusal of a policy that is known by another log alone."""
    why = (
        "its log holds what it gave to the models that it chose, not what it would have given to "
        "those chosen here, so its value on these decisions is not identified: log the whole pmf, "
        "or evaluate from its log instead"
    )
    return PolicyVerdict(label, None, why, [], {}, {})


def compared(found: Evaluation, other: BanditLog, label: str) -> PolicyDifference:
    """Compare estimates with the mean quality of another log, which shares no row with this one.

    Raises
    ------
    InputError
        When no quality is known there.
    """
    judge = Evaluator(other, measures=["quality"])
    if not judge.measures:
        raise InputError("--compare: no decision there has feedback on quality")
    mean = judge.interval(judge.values(Target(label, None), "quality")["snips"])
    differences = {}
    for one in found.verdicts:
        if one.refusal is None:
            own = found.judge.interval(one.values["quality"]["snips"])
            wide = math.hypot(own.half_width, mean.half_width)
            apart = own.mean - mean.mean
            differences[one.label] = Interval(apart, apart - wide, apart + wide)
    return PolicyDifference(label, mean, differences)


def _pairs(labels: Sequence[str], baseline: str) -> list[tuple[str, str]]:
    """Return everybody against the baseline, then the contenders among each other."""
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
    def of(cls, judge: Evaluator) -> _Alone:
        found = cls([], [], [])
        for k, name in enumerate(judge.log.models):
            pmf = np.zeros((len(judge.judged), len(judge.log.models)))
            pmf[:, k] = 1.0
            target = Target(name, pmf)
            support = judge.support(target)
            if support is not None and support.refusal() is None and judge.enough(target, "cost"):
                found.names.append(name)
                found.values.append(judge.values(target, "quality")[HEADLINE])
                found.cost.append(float(judge.values(target, "cost")[HEADLINE].mean()))
        return found

    def zero(self, judge: Evaluator, policy: PolicyVerdict) -> Zero:
        """Return the zero router at the policy's estimated cost, its share taken as known."""
        quality = np.array([float(one.mean()) for one in self.values])
        frontier = Frontier.of([Offer(1.0, quality, np.array(self.cost))])
        corner, share = frontier.at(policy.estimates["cost"][HEADLINE].normal.mean)
        parts = {int(frontier.arms[corner, 0]): 1.0 - share}
        if share > 0.0:
            parts[int(frontier.arms[corner + 1, 0])] = share
        values = np.zeros(len(judge.judged))
        for k, part in parts.items():
            values += part * self.values[k]
        return Zero(
            label=policy.label,
            mix=" + ".join(f"{part:.0%} {self.names[k]}" for k, part in parts.items()),
            quality=judge.interval(values),
            difference=judge.interval(policy.values["quality"][HEADLINE] - values),
        )

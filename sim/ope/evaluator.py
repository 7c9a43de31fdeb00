"""From a log and what targets would do in it to verdicts: estimates, intervals, differences.

Here everything meets that the estimators need: the reward model, the probability of being
observed, the weights. No estimate leaves that the log does not support.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policies.base import Float64
from sim.ope.bandit_log import BanditLog
from sim.ope.estimators import ESTIMATORS
from sim.ope.inputs import EstimatorInputs
from sim.ope.intervals import Interval, bootstrap, empirical_bernstein, normal
from sim.ope.overlap import Support, effective, needed
from sim.ope.reward_model import observed, predicted

FEW_SESSIONS = 30
HEADLINE = "dr"
LOGGED = "logged"


@dataclass(frozen=True, slots=True)
class Target:
    """A policy to be judged: its pmf[n, K] in every judged row; None is the logging policy."""

    label: str
    pmf: Float64 | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """One estimator's say on one target: the estimate with three intervals.

    `guaranteed` is the empirical Bernstein interval; None for the direct method, whose bias no
    interval shows, where it holds every value that there could be, and where the largest weight
    that there could be is not known.
    """

    normal: Interval
    bootstrap: Interval
    guaranteed: Interval | None


@dataclass(frozen=True, slots=True)
class PolicyEvaluation:
    """What a log says of a target, by measure and estimator; `refusal` is why it says nothing.

    `support` is None for the logging policy, which needs none. A measure of which too little was
    observed is left out of `estimates` and `values`.
    """

    label: str
    support: Support | None
    refusal: str | None
    warnings: Sequence[str]
    estimates: Mapping[str, Mapping[str, Estimate]]
    values: Mapping[str, Mapping[str, Float64]]


class Evaluator:
    """Judges targets on the rows of a log from `first` on; what came before only teaches.

    Parameters
    ----------
    log : the whole log.
    first : row from which targets are judged; at least one row must be left.
    seed : of the bootstrap.
    measures : names of `BanditLog.measure`, all by default; what nobody observed is left out.
    """

    def __init__(
        self, log: BanditLog, *, first: int = 0, seed: int = 0, measures: Sequence[str] = ()
    ) -> None:
        self.log = log
        self.judged = log.rows(slice(first, None))
        self.seed = seed
        self._rewards: dict[str, Float64] = {}
        self._guesses: dict[str, Float64] = {}
        self._seen: dict[str, Float64] = {}
        for name in measures or log.measures:
            reward, arms = log.measure(name), len(log.models)
            known = ~np.isnan(reward)
            if not known[first:].any():
                continue
            guess = predicted(log.features, log.chosen, reward, arms)
            # Of the judged rows alone: before, feedback may have been rarer or more frequent.
            late = slice(first, None)
            chance = observed(log.features[late], log.chosen[late], known[late], arms)
            self._rewards[name] = np.where(known, reward, 0.0)[first:]
            self._guesses[name] = guess[first:]
            self._seen[name] = np.where(known[late], 1.0 / chance, 0.0)

    @property
    def measures(self) -> list[str]:
        """The measures that were observed."""
        return list(self._rewards)

    def observed(self, measure: str) -> float:
        """Return the share of the judged rows whose outcome is known."""
        return float((self._seen[measure] > 0.0).mean())

    def evaluate(self, target: Target) -> PolicyEvaluation:
        """Judge one target; the same arguments give the same numbers."""
        support = self.support(target)
        refusal = support.refusal() if support else None
        told, warnings = self.measures, list(support.warnings()) if support else []
        if support is not None:
            lacking = [name for name in told if not self.enough(target, name)]
            told = [] if refusal else [name for name in told if name not in lacking]
            warnings += [
                f"{name} is known of too few rows to be estimated"
                for name in lacking
                if not refusal
            ]
            sessions = int(self.judged.session.max()) + 1
            if sessions < FEW_SESSIONS:
                warnings.append(f"{sessions} sessions are few for an interval")
        values = {name: self.values(target, name) for name in told}
        most = support.most_weight if support else 1.0
        return PolicyEvaluation(
            label=target.label,
            support=support,
            refusal=refusal,
            warnings=warnings,
            estimates={
                name: self._estimates(name, one, most, possible=self._possible(name))
                for name, one in values.items()
            },
            values=values,
        )

    def enough(self, target: Target, measure: str) -> bool:
        """Tell whether the rows where a measure is known are enough to estimate it."""
        size = effective(self._weight(target) * self._seen[measure])
        return size >= needed(len(self.judged))

    def support(self, target: Target) -> Support | None:
        """Return how much of the log the target can use; None for the logged action_dist itself."""
        if target.pmf is None:
            return None
        weight = self._weight(target)
        seen = next(iter(self._seen.values()), np.ones(len(weight)))
        return Support.of(weight, seen, target.pmf, self.judged.action_dist)

    def values(self, target: Target, measure: str) -> dict[str, Float64]:
        """Return one value per judged row by estimator, whether or not the log supports it."""
        inputs = self._inputs(measure, target)
        return {how: of(inputs) for how, of in ESTIMATORS.items()}

    def difference(
        self, a: PolicyEvaluation, b: PolicyEvaluation, measure: str
    ) -> dict[str, Estimate]:
        """Return a - b by estimator, paired row by row; both must have been estimated."""
        each = [one.support.most_weight if one.support else 1.0 for one in (a, b)]
        most = None if None in each else sum(one for one in each if one is not None)
        apart = {how: a.values[measure][how] - b.values[measure][how] for how in ESTIMATORS}
        low, high = self._possible(measure)
        return self._estimates(measure, apart, most, possible=(low - high, high - low))

    def interval(self, values: Float64) -> Interval:
        """Return the normal interval of the mean of values[n], one per judged row."""
        return normal(values, self.judged.session)

    def _weight(self, target: Target) -> Float64:
        log = self.judged
        if target.pmf is None:
            return np.ones(len(log))
        weight: Float64 = target.pmf[np.arange(len(log)), log.chosen] / log.propensity
        return weight

    def _inputs(self, measure: str, target: Target) -> EstimatorInputs:
        guesses, log = self._guesses[measure], self.judged
        pmf = log.action_dist if target.pmf is None else target.pmf
        guess = guesses[np.arange(len(log)), log.chosen]
        return EstimatorInputs(
            reward=self._rewards[measure],
            weight=self._weight(target),
            seen=self._seen[measure],
            guess=guess,
            value=guess if pmf is None else (pmf * guesses).sum(axis=1),
        )

    def _estimates(
        self,
        measure: str,
        values: Mapping[str, Float64],
        most_weight: float | None,
        *,
        possible: tuple[float, float],
    ) -> dict[str, Estimate]:
        session, seen = self.judged.session, self._seen[measure]
        columns = np.column_stack(list(values.values()))
        resampled = bootstrap(columns, session, np.random.default_rng(self.seed))
        # No value is further from another than the rewards are, times what weights allow.
        span = float(np.ptp(self._possible(measure)))
        allowed = math.inf if most_weight is None else 1.0 + 2.0 * most_weight * float(seen.max())
        found = {}
        for (how, one), again in zip(values.items(), resampled, strict=True):
            sure = empirical_bernstein(one, session, span * allowed)
            told = how != "dm" and (sure.low > possible[0] or sure.high < possible[1])
            found[how] = Estimate(self.interval(one), again, sure if told else None)
        return found

    def _possible(self, measure: str) -> tuple[float, float]:
        """Return the least and the largest reward, and 0, which is what a weight of 0 makes of it.

        Quality has its limits; elsewhere they are those of what was observed.
        """
        if measure == "quality":
            return 0.0, 1.0
        known = self._rewards[measure][self._seen[measure] > 0.0]
        return min(0.0, float(known.min())), max(0.0, float(known.max()))

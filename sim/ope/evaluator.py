"""From a log and what target policies do in it to estimates, intervals and differences.

The reward model, the probability of being observed and the importance weights meet here. No
estimate may leave that the log does not support.
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
from sim.ope.overlap import Support, effective_sample_size, least_sample_size
from sim.ope.reward_model import observed_rewards, predict_rewards

FEW_SESSIONS = 30
"""Intervals over fewer sessions carry a warning."""
HEADLINE = "dr"
"""The estimator that tables and zero routers use."""
LOGGED = "logged"
"""Label of the logging policy."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimate of one estimator, with three intervals; the field names are keys of ``--json``.

    Attributes
    ----------
    normal : Interval
        See `sim.ope.intervals.normal`.
    bootstrap : Interval
        See `sim.ope.intervals.bootstrap`.
    guaranteed : Interval or None
        See `sim.ope.intervals.empirical_bernstein`. None for the direct method, whose bias no
        interval shows; where the largest possible weight is not known; and where the interval
        holds every value that is possible.
    """

    normal: Interval
    bootstrap: Interval
    guaranteed: Interval | None


@dataclass(frozen=True, slots=True)
class PolicyEvaluation:
    """What a log says about one target policy.

    Attributes
    ----------
    label : str
        Its name in results.
    support : Support or None
        None for the logging policy, which needs no support.
    refusal : str or None
        Why there are no estimates; None if there are some.
    warnings : sequence of str
        What makes the estimates doubtful.
    estimates : mapping
        By measure and estimator. A measure that was observed in too few rows is left out.
    values : mapping
        By measure and estimator, float64[n]: one value per evaluated row. The mean is the estimate.
    """

    label: str
    support: Support | None
    refusal: str | None
    warnings: Sequence[str]
    estimates: Mapping[str, Mapping[str, Estimate]]
    values: Mapping[str, Mapping[str, Float64]]


class Evaluator:
    """Evaluates target policies on the rows of a log from `first` on.

    The reward model learns from all rows, each of which is predicted from those before it. A target
    policy is given as its pmf in the n evaluated rows, float64[n, K]; None stands for the logging
    policy itself.

    Parameters
    ----------
    log : BanditLog
        The whole log.
    first : int
        The first evaluated row; at least one row must follow.
    seed : int
        Of the bootstrap.
    measures : sequence of str
        Names for `BanditLog.measure`; none stands for all. A measure that was never observed in
        the evaluated rows is left out.

    Attributes
    ----------
    evaluated : BanditLog
        The evaluated rows.
    """

    def __init__(
        self, log: BanditLog, *, first: int = 0, seed: int = 0, measures: Sequence[str] = ()
    ) -> None:
        self.evaluated = log.rows(slice(first, None))
        self.seed = seed
        self._reward: dict[str, Float64] = {}
        self._q_hat: dict[str, Float64] = {}
        self._observation_weight: dict[str, Float64] = {}
        arms = len(log.models)
        for name in measures or log.measures:
            reward, weight = observed_rewards(self.evaluated, name)
            if weight.any():
                self._reward[name], self._observation_weight[name] = reward, weight
                q_hat = predict_rewards(log.features, log.chosen, log.measure(name), arms)
                self._q_hat[name] = q_hat[first:]

    @property
    def measures(self) -> list[str]:
        """Names of the measures that were observed."""
        return list(self._reward)

    def observed_share(self, measure: str) -> float:
        """Return the share of the evaluated rows whose outcome was observed."""
        return float((self._observation_weight[measure] > 0.0).mean())

    def evaluate(self, label: str, action_dist: Float64 | None) -> PolicyEvaluation:
        """Evaluate one target policy; the same arguments give the same numbers."""
        support = self.support(action_dist)
        refusal = support.refusal() if support else None
        warnings = support.warnings() if support else []
        measures = [] if refusal else self.measures
        if support is not None:
            too_few = [name for name in measures if not self.has_enough_rows(action_dist, name)]
            measures = [name for name in measures if name not in too_few]
            warnings += [f"{name}: observed in too few rows for an estimate" for name in too_few]
            sessions = int(self.evaluated.session.max()) + 1
            if sessions < FEW_SESSIONS:
                warnings.append(f"{sessions} sessions are few for an interval")
        values = {name: self.values(action_dist, name) for name in measures}
        most_weight = _most_weight(support)
        return PolicyEvaluation(
            label=label,
            support=support,
            refusal=refusal,
            warnings=warnings,
            estimates={
                name: self._estimates(name, by, most_weight, possible=self._possible(name))
                for name, by in values.items()
            },
            values=values,
        )

    def has_enough_rows(self, action_dist: Float64 | None, measure: str) -> bool:
        """Return whether a measure was observed in enough rows that the target policy can use."""
        size = effective_sample_size(self._weight(action_dist) * self._observation_weight[measure])
        return size >= least_sample_size(len(self.evaluated))

    def support(self, action_dist: Float64 | None) -> Support | None:
        """Return how much of the log a target policy can use, or None for the logging policy."""
        if action_dist is None:
            return None
        weight = self._weight(action_dist)
        observation_weight = next(iter(self._observation_weight.values()), np.ones(len(weight)))
        return Support.of(weight, observation_weight, action_dist, self.evaluated.action_dist)

    def values(self, action_dist: Float64 | None, measure: str) -> dict[str, Float64]:
        """Return by estimator one value per evaluated row, whether or not the log supports it."""
        log, q_hat = self.evaluated, self._q_hat[measure]
        pmf = log.action_dist if action_dist is None else action_dist
        of_chosen = q_hat[np.arange(len(log)), log.chosen]
        inputs = EstimatorInputs(
            reward=self._reward[measure],
            weight=self._weight(action_dist),
            observation_weight=self._observation_weight[measure],
            q_hat=of_chosen,
            v_hat=of_chosen if pmf is None else (pmf * q_hat).sum(axis=1),
        )
        return {name: estimator(inputs) for name, estimator in ESTIMATORS.items()}

    def difference(
        self, a: PolicyEvaluation, b: PolicyEvaluation, measure: str
    ) -> dict[str, Estimate]:
        """Return a - b by estimator, paired row by row; neither may have been refused."""
        most_weight = _most_weight(a.support) + _most_weight(b.support)
        differences = {
            name: a.values[measure][name] - b.values[measure][name] for name in ESTIMATORS
        }
        low, high = self._possible(measure)
        return self._estimates(measure, differences, most_weight, possible=(low - high, high - low))

    def interval(self, values: Float64) -> Interval:
        """Return the normal interval of values, float64[n], one per evaluated row."""
        return normal(values, self.evaluated.session)

    def _weight(self, action_dist: Float64 | None) -> Float64:
        log = self.evaluated
        if action_dist is None:
            return np.ones(len(log))
        weight: Float64 = action_dist[np.arange(len(log)), log.chosen] / log.propensity
        return weight

    def _estimates(
        self,
        measure: str,
        values: Mapping[str, Float64],
        most_weight: float,
        *,
        possible: tuple[float, float],
    ) -> dict[str, Estimate]:
        """Return the mean of each estimator's values with its intervals.

        Parameters
        ----------
        measure : str
            Name of the measure.
        values : mapping
            By estimator, float64[n].
        most_weight : float
            The largest possible pi / p; inf if it is not known.
        possible : (float, float)
            Between these the truth lies in any case.
        """
        session = self.evaluated.session
        columns = np.column_stack(list(values.values()))
        resampled = bootstrap(columns, session, np.random.default_rng(self.seed))
        # Two values differ at most by the range of the rewards, times what the weights allow.
        reward_range = float(np.ptp(self._possible(measure)))
        factor = 1.0 + 2.0 * most_weight * float(self._observation_weight[measure].max())
        estimates = {}
        for (name, column), from_bootstrap in zip(values.items(), resampled, strict=True):
            guaranteed = empirical_bernstein(column, session, reward_range * factor)
            is_narrower = guaranteed.low > possible[0] or guaranteed.high < possible[1]
            estimates[name] = Estimate(
                normal=self.interval(column),
                bootstrap=from_bootstrap,
                guaranteed=guaranteed if is_narrower and name != "dm" else None,
            )
        return estimates

    def _possible(self, measure: str) -> tuple[float, float]:
        """Return the smallest and the largest possible reward, extended to include 0.

        A weight of 0 makes any reward 0. Quality is in [0, 1]; for other
        measures the observed rewards stand for the possible ones.
        """
        if measure == "quality":
            return 0.0, 1.0
        reward = self._reward[measure]
        return float(reward.min(initial=0.0)), float(reward.max(initial=0.0))


def _most_weight(support: Support | None) -> float:
    """Return the largest possible pi / p, inf if it is not known; the logging policy has 1."""
    if support is None:
        return 1.0
    return math.inf if support.most_weight is None else support.most_weight

"""Whether a log says anything about a target policy: overlap of the two, and reasons to refuse.

An estimate without overlap looks like any other number, so it must never be printed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from policies.base import Float64

LEAST_ESS, LEAST_SHARE = 50.0, 0.01
"""An estimate needs an effective sample size of so many rows, and of this share of all rows."""
MOST_OUTSIDE = 0.05
"""An estimate is refused above this `Support.outside`."""
LEAST_EXPECTED = 0.1
"""A model counts as one of probability 0 if a log in which each row gave it that probability would
be expected to choose it less often than this. Its weight is finite, but no row would show it."""
SUSPICIOUS = 3.0
"""A deviation of so many standard errors is not taken for chance."""


def effective_sample_size(importance: Float64) -> float:
    """Return ``(sum w)^2 / sum w^2``, in rows; 0 if all weights are 0.

    Parameters
    ----------
    importance : float64[n]
        See `EstimatorInputs.importance`.
    """
    square = float(importance @ importance)
    return float(importance.sum()) ** 2 / square if square > 0.0 else 0.0


def least_sample_size(rows: int) -> float:
    """Return the smallest effective sample size, in rows, from which an estimate is printed.

    Parameters
    ----------
    rows : int
        Evaluated rows.
    """
    return max(LEAST_ESS, LEAST_SHARE * rows)


@dataclass(frozen=True, slots=True)
class Support:
    """How much of a log a target policy can use; the field names are keys of ``--json``.

    Attributes
    ----------
    rows : int
        Evaluated rows, with an observed outcome or without.
    observed : int
        Those of them with an observed outcome.
    ess : float
        Effective sample size, in rows; see `effective_sample_size`.
    largest : float
        The share of the largest weight in the sum of weights.
    mean_weight : float
        Mean of pi / p. Its expectation is 1 if the propensities are right and ``outside`` is 0.
    mean_weight_error : float
        Standard error of ``mean_weight``.
    outside : float or None
        Mean probability with which the target policy chooses models that the log gave probability
        0; see `LEAST_EXPECTED`. None if only the propensities of the chosen models were logged.
    most_weight : float or None
        The largest pi / p that was possible in any row. None as for ``outside``.
    """

    rows: int
    observed: int
    ess: float
    largest: float
    mean_weight: float
    mean_weight_error: float
    outside: float | None
    most_weight: float | None

    @classmethod
    def of(
        cls,
        weight: Float64,
        observation_weight: Float64,
        action_dist: Float64,
        logged_action_dist: Float64 | None,
    ) -> Support:
        """Return the support of n rows.

        Parameters
        ----------
        weight : float64[n]
            See `EstimatorInputs`.
        observation_weight : float64[n]
            See `EstimatorInputs`.
        action_dist : float64[n, K]
            pmf of the target policy.
        logged_action_dist : float64[n, K] or None
            pmf of the logging policy. None if only the propensities of the chosen models were
            logged.
        """
        importance, n = weight * observation_weight, len(weight)
        total = float(importance.sum())
        outside = most = None
        if logged_action_dist is not None:
            never = logged_action_dist * n < LEAST_EXPECTED
            outside = float(np.where(never, action_dist, 0.0).sum() / n)
            possible = logged_action_dist > 0.0
            ratio = action_dist[possible] / logged_action_dist[possible]
            most = float(ratio.max(initial=0.0))
        return cls(
            rows=n,
            observed=int((observation_weight > 0.0).sum()),
            ess=effective_sample_size(importance),
            largest=float(importance.max(initial=0.0)) / total if total > 0.0 else 0.0,
            mean_weight=float(weight.mean()),
            mean_weight_error=float(weight.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0,
            outside=outside,
            most_weight=most,
        )

    def refusal(self) -> str | None:
        """Return why no estimate may be printed and what would help, or None if it may."""
        remedy = (
            "log with exploration: set the pool's exploration_share above 0 (0.1, say) and an "
            "exploration_cost_share that pays for it, then evaluate what is logged from then on"
        )
        if self.outside is not None and self.outside > MOST_OUTSIDE:
            return (
                f"{self.outside:.1%} of the target's choices are of models that the log gave "
                f"probability 0 (at most {MOST_OUTSIDE:.0%}); {remedy}"
            )
        least = least_sample_size(self.rows)
        if self.observed < least:
            return (
                f"{self.observed:,} of {self.rows:,} rows have feedback, at least {least:.0f} are "
                "needed: send more feedback, or wait for it"
            )
        if self.ess < least:
            return (
                f"effective sample size {self.ess:.1f} of {self.rows} rows, at least {least:.0f} "
                f"is needed; {remedy}, or wait for more rows"
            )
        return None

    def warnings(self) -> list[str]:
        """Return what makes an estimate doubtful without forbidding it."""
        warnings = []
        expected = 1.0 - (self.outside or 0.0)
        if abs(self.mean_weight - expected) > SUSPICIOUS * self.mean_weight_error + 1e-9:
            warnings.append(
                f"the mean weight is {self.mean_weight:.3f} +- {self.mean_weight_error:.3f}, not "
                f"{expected:.3f}: choices were not drawn with the logged propensities, or the "
                "target mostly chooses what the log hardly ever chose"
            )
        if self.outside is None:
            warnings.append(
                "the log has the propensity of the chosen model alone: whether the target chooses "
                "models that the log never chose cannot be checked"
            )
        elif self.outside > 0.0:
            warnings.append(
                f"{self.outside:.2%} of the target's choices are of models of probability 0"
            )
        if self.largest > 0.1:
            warnings.append(f"one row has {self.largest:.0%} of all weight")
        return warnings

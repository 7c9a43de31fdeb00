"""Whether a log says anything of a target at all: weights, support, and reasons to refuse.

An estimate without overlap is a number that looks like all others, so it is not printed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from policies.base import Float64

LEAST_ESS, LEAST_SHARE, MOST_OUTSIDE = 50.0, 0.01, 0.05
LEAST_EXPECTED = 0.1
"""A model whose probability would not have it chosen so often, if each row of the log gave it
that, counts as one of probability 0: its weight is finite, and never seen."""
SUSPICIOUS = 3.0


def effective(importance: Float64) -> float:
    """Return the effective sample size of weights, ``(sum w)^2 / sum w^2``; 0 if all are 0."""
    square = float(importance @ importance)
    return float(importance.sum()) ** 2 / square if square > 0.0 else 0.0


def needed(rows: int) -> float:
    """Return the least effective sample size that is believed."""
    return max(LEAST_ESS, LEAST_SHARE * rows)


@dataclass(frozen=True, slots=True)
class Support:
    """How much of a log a target can use.

    Attributes
    ----------
    rows : how many were judged, observed or not.
    observed : how many of them have an outcome.
    ess : effective sample size, see `effective`.
    largest : the largest weight's share of all weight.
    mean_weight : mean of pi / p, 1 in expectation where propensities are right, and its s.e.
    mean_weight_error : that standard error.
    outside : mass that the target puts on models that the log never would have chosen, see
        `LEAST_EXPECTED`; None where the log has propensities of the chosen ones alone.
    most_weight : the largest weight that a row could have had; None where that is not known.
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
        seen: Float64,
        target: Float64,
        action_dist: Float64 | None,
    ) -> Support:
        """Diagnose n rows.

        Parameters
        ----------
        weight, seen : float64[n], see `EstimatorInputs`.
        target : float64[n, K], the target's pmf.
        action_dist : float64[n, K], the logged pmf; None where only propensities are known.
        """
        importance, n = weight * seen, len(weight)
        total = float(importance.sum())
        outside = most = None
        if action_dist is not None:
            outside = float(np.where(action_dist * n < LEAST_EXPECTED, target, 0.0).sum() / n)
            ratio = np.divide(
                target, action_dist, out=np.zeros_like(target), where=action_dist > 0.0
            )
            most = float(ratio.max(initial=0.0))
        return cls(
            rows=n,
            observed=int((seen > 0.0).sum()),
            ess=effective(importance),
            largest=float(importance.max(initial=0.0)) / total if total > 0.0 else 0.0,
            mean_weight=float(weight.mean()),
            mean_weight_error=float(weight.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0,
            outside=outside,
            most_weight=most,
        )

    def refusal(self) -> str | None:
        """Return why no estimate may be printed, and what would change that; None if it may."""
        remedy = (
            "log with exploration: set the pool's exploration_share above 0 (0.1, say) with an "
            "exploration_cost_share that pays for it, and evaluate what is logged from then on"
        )
        if self.outside is not None and self.outside > MOST_OUTSIDE:
            return (
                f"{self.outside:.1%} of the target's choices are of models that the log gave "
                f"probability 0 (at most {MOST_OUTSIDE:.0%}); {remedy}"
            )
        least = needed(self.rows)
        if self.observed < least:
            return (
                f"{self.observed:,} of {self.rows:,} rows have feedback, at least {least:.0f} are "
                "needed: send more, or wait for it"
            )
        if self.ess < least:
            return (
                f"effective sample size {self.ess:.1f} of {self.rows} rows, at least {least:.0f} "
                f"is needed; {remedy}, or wait for more rows"
            )
        return None

    def warnings(self) -> list[str]:
        """Return what speaks against an estimate without forbidding it."""
        found = []
        apart = abs(self.mean_weight - (1.0 - (self.outside or 0.0)))
        if apart > SUSPICIOUS * self.mean_weight_error + 1e-9:
            found.append(
                f"the mean weight is {self.mean_weight:.3f} +- {self.mean_weight_error:.3f}, not "
                f"{1.0 - (self.outside or 0.0):.3f}: "
                "the logged propensities are not those that choices were drawn with, or the "
                "target stays where the log hardly went"
            )
        if self.outside is None:
            found.append(
                "the log has the propensity of the chosen model alone: whether the target stays "
                "where the log went cannot be checked"
            )
        elif self.outside > 0.0:
            found.append(f"{self.outside:.2%} of the target's mass is on models of probability 0")
        if self.largest > 0.1:
            found.append(f"one row has {self.largest:.0%} of all weight")
        return found

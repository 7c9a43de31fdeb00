"""What an estimator reads: the judged rows of a log, and what the target would do in each."""

from __future__ import annotations

from dataclasses import dataclass

from policies.base import Float64


@dataclass(frozen=True, slots=True)
class EstimatorInputs:
    """n logged rows for one target and one measure.

    Attributes
    ----------
    reward : float64[n], what was observed; anything finite where nothing was.
    weight : float64[n], pi(a | x) / p(a | x) of the logged arm, p the logged propensity.
    seen : float64[n], 1 / P(observed | x, a) where the reward was observed, else 0.
    guess : float64[n], the reward model's value of the logged arm.
    value : float64[n], its mean under the target, sum_a pi(a | x) q(x, a).
    """

    reward: Float64
    weight: Float64
    seen: Float64
    guess: Float64
    value: Float64

    @property
    def importance(self) -> Float64:
        """The weight of each row, float64[n], 0 where no reward was observed."""
        return self.weight * self.seen

"""What an estimator reads: the evaluated rows of a log, and what the target policy does in them."""

from __future__ import annotations

from dataclasses import dataclass

from policies.base import Float64


@dataclass(frozen=True, slots=True)
class EstimatorInputs:
    """n logged rows, for one target policy and one measure.

    Attributes
    ----------
    reward : float64[n]
        The observed outcome r; any finite number where none was observed.
    weight : float64[n]
        pi(a | x) / p(a | x) of the logged arm a: pi is the target policy, p the logged propensity.
    observation_weight : float64[n]
        1 / P(observed | x, a) where the reward was observed, else 0.
    q_hat : float64[n]
        q(x, a), the reward that the reward model predicts for the logged arm.
    v_hat : float64[n]
        sum_a pi(a | x) q(x, a), the predicted reward of the target policy.
    """

    reward: Float64
    weight: Float64
    observation_weight: Float64
    q_hat: Float64
    v_hat: Float64

    @property
    def importance(self) -> Float64:
        """The whole weight of each row, float64[n]; 0 where no reward was observed."""
        return self.weight * self.observation_weight

"""What one policy did in one world under one seed: its choices, and no judgement of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.base import Float64
from sim.worlds.world import World


@dataclass(frozen=True, slots=True)
class Trace:
    """The scored requests of one policy under one seed.

    Attributes
    ----------
    label : str
        Label of the policy.
    seed : int
        The seed.
    world : World
        The scored part of the world, n requests.
    chosen : int[n]
        Column of the model that answered, -1 where the request was refused.
    propensity : float64[n]
        Probability of that choice; NaN where the policy has none, or refused.
    entropy : float64[n]
        Entropy of the law of the choice, in nats; NaN likewise.
    digest : str
        Digest of the fold's state at the end, "" where there is no fold.
    """

    label: str
    seed: int
    world: World
    chosen: NDArray[np.intp]
    propensity: Float64
    entropy: Float64
    digest: str = ""

    @property
    def refused(self) -> float:
        """Share of the requests that got no model."""
        return float((self.chosen < 0).mean())

    @property
    def quality(self) -> float:
        """Mean quality; a refused request has 0."""
        return float(picked(self.world.quality, self.chosen).mean())

    @property
    def cost_usd(self) -> float:
        """Mean cost in US dollars; a refused request has 0."""
        return float(picked(self.world.cost_usd, self.chosen).mean())

    @property
    def share(self) -> Float64:
        """Share of each model in all requests, float64[K]; without the refused ones below 1."""
        answered = self.chosen[self.chosen >= 0]
        count: Float64 = np.bincount(answered, minlength=len(self.world.models)) / len(self.chosen)
        return count


def picked(values: Float64, chosen: NDArray[np.intp]) -> Float64:
    """Return float64[n], the value of each choice, 0 where there was none.

    Parameters
    ----------
    values : float64[n, K]
        A value for each request and model.
    chosen : int[n]
        Column of the choice, -1 for none.
    """
    return np.where(chosen < 0, 0.0, values[np.arange(len(chosen)), chosen])

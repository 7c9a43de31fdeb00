"""What one policy did in one world under one seed: its choices, and no judgement of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.base import Float64
from sim.world import World


@dataclass(frozen=True, slots=True)
class Trace:
    """The scored requests of one policy under one seed.

    Attributes
    ----------
    label : of the policy.
    world : the scored part of the world, n requests.
    chosen : int[n], column of the model that answered, -1 where the request was refused.
    propensity : float64[n], probability of that choice; NaN where the policy has none or refused.
    entropy : float64[n], of the law of the choice, in nats; NaN likewise.
    digest : digest of the fold's state at the end, "" where there is no fold.
    """

    label: str
    seed: int
    world: World
    chosen: NDArray[np.intp]
    propensity: Float64
    entropy: Float64
    digest: str = ""

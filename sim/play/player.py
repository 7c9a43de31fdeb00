"""What plays a world: our router with its fold, or a published package, behind one interface.

A player learns which models are on offer, decides requests, and later gets feedback on the answers
that it chose. It never sees the outcome of an answer that it did not choose.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from banditroute.core.pool import ModelSpec
from policies.base import Float32, Float64


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer to one request.

    Attributes
    ----------
    model : str or None
        Name of the model, None where the request was refused.
    propensity : float
        Probability of that choice, NaN where the player has none or refused.
    entropy : float
        Entropy of the law of the choice, in nats; NaN likewise.
    note : Any
        What the player itself needs when feedback comes.
    """

    model: str | None
    propensity: float = math.nan
    entropy: float = math.nan
    note: Any = None


@dataclass(frozen=True, slots=True)
class ModelsOnOffer:
    """The models of a world and their prices, from some request on.

    Attributes
    ----------
    specs : sequence of ModelSpec
        All models that were ever on offer.
    draining : collection of str
        Names of those that must not be chosen now.
    reservation_usd : mapping of str to float, or None
        By model, the US dollars that an answer costs at most; None if tokens and prices say so.
    """

    specs: Sequence[ModelSpec]
    draining: Collection[str] = ()
    reservation_usd: Mapping[str, float] | None = None


class Player(Protocol):
    """A policy that plays a world, one request after another."""

    def begin(self, requests: int) -> None:
        """Begin a stretch of requests, which has a budget of its own where there is one.

        Parameters
        ----------
        requests : int
            How many there are.
        """

    def offer(self, offer: ModelsOnOffer) -> None:
        """Choose from these models at these prices from now on."""

    def decide(self, x: Float32, prompt_bytes: Float64) -> Sequence[Choice]:
        """Decide requests, before any feedback on them.

        Parameters
        ----------
        x : float32[n, d]
            The features.
        prompt_bytes : float64[n]
            Length of the prompts in UTF-8.
        """

    def bill(self, choice: Choice, cost_usd: float) -> None:
        """Take note of what an answer cost, as soon as there is the answer."""

    def feed(self, choice: Choice, *, quality: float, cost_usd: float) -> None:
        """Learn from feedback on an answer.

        Parameters
        ----------
        choice : Choice
            As `decide` returned it.
        quality : float
            As judged, in [0, 1].
        cost_usd : float
            Of the answer.
        """

    def digest(self) -> str:
        """Return the digest of everything learned, "" where there is none."""

"""What plays a world: our router with its fold, or a published package, behind one small face.

A player is told what is on offer, shown requests, and later told what the judge said of the answers
that it chose. It never sees a label of an answer that it did not choose.
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
    model : name, None where the request was refused.
    propensity : probability of that choice, NaN where the player has none or refused.
    entropy : of the law of the choice, in nats; NaN likewise.
    note : what the player itself must know when feedback comes.
    """

    model: str | None
    propensity: float = math.nan
    entropy: float = math.nan
    note: Any = None


class Player(Protocol):
    """A policy on its way through a world."""

    def begin(self, requests: int) -> None:
        """Begin a stretch of so many requests; it has a budget of its own, where there is one."""

    def offer(
        self,
        specs: Sequence[ModelSpec],
        *,
        draining: Collection[str] = (),
        worst: Mapping[str, float] | None = None,
    ) -> None:
        """Choose from these models at these prices from now on.

        Parameters
        ----------
        specs : all models that were ever on offer.
        draining : those of them that may not be chosen now.
        worst : US dollars that an answer may cost at most, by model.
        """

    def decide(self, x: Float32, tokens: Float64) -> Sequence[Choice]:
        """Decide requests of features x[n, d] and tokens[n] bytes, before any feedback on them."""

    def bill(self, choice: Choice, cost: float) -> None:
        """Hear what an answer cost in US dollars, as soon as it is there."""

    def feed(self, choice: Choice, *, quality: float, cost: float) -> None:
        """Learn from feedback on an answer."""

    def digest(self) -> str:
        """Return the digest of everything learned, "" where there is none."""

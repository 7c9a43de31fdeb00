"""Events: each a small pure function from a world to another, and composing in order.

``Delay(seconds=60.0).apply(world, rng)`` is a world in which feedback is a minute late. The same
events are what scenario files are made of, see `sim.worlds.scenario`.
"""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from sim.worlds.event import Cast, WorldEvent
from sim.worlds.feedback_events import Delay, Judge, Loss, Poison
from sim.worlds.model_events import Add, Drain, Outage, PriceChange, Quality
from sim.worlds.traffic_events import Burst, Mix

AnyEvent = Annotated[
    Add | Burst | Delay | Drain | Judge | Loss | Mix | Outage | Poison | PriceChange | Quality,
    Field(discriminator="kind"),
]
KINDS: dict[str, type[WorldEvent]] = {
    event.model_fields["kind"].default: event for event in get_args(get_args(AnyEvent)[0])
}

__all__ = [
    "KINDS",
    "Add",
    "AnyEvent",
    "Burst",
    "Cast",
    "Delay",
    "Drain",
    "Judge",
    "Loss",
    "Mix",
    "Outage",
    "Poison",
    "PriceChange",
    "Quality",
    "WorldEvent",
]

"""All events of scenario files. Each event is a pure function from a world to another world.

``Delay(seconds=60.0).apply(world, rng)`` returns a world in which feedback is a minute late. To
compose events, apply them in order. `sim.worlds.scenario_files` reads events from files.
"""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from sim.worlds.event import WorldEvent
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

"""Events that change requests: the order of prompts and the rate of requests."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field

from policies.base import Bools
from sim.errors import InputError
from sim.worlds.event import LastingEvent
from sim.worlds.roles import Roles
from sim.worlds.world import World

_NAMES_SHOWN = 3


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Mix(LastingEvent):
    """Some tasks make up a share of the requests: rows of the world change places.

    A row keeps its answers when it moves. All other events change requests, whichever row a request
    has. So a scenario applies its mixes before them.

    Attributes
    ----------
    kind : str
        "mix".
    tasks : list of str
        Names of tasks, or "easy" or "hard"; see `Roles.select_tasks`.
    share : float
        Share of the requests during the event, 0 to 1.
    """

    kind: Literal["mix"] = "mix"
    tasks: Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
    share: float = Field(ge=0, le=1)

    def resolve(self, roles: Roles) -> Self:
        """See `WorldEvent.resolve`."""
        return self.model_copy(update={"tasks": roles.select_tasks(self.tasks, "tasks")})

    def _apply(self, world: World, rng: np.random.Generator) -> World:
        return self.arrange(world, rng, np.ones(len(world), dtype=np.bool_))

    def arrange(self, world: World, rng: np.random.Generator, free: Bools) -> World:
        """Return the world with its rows in a new order.

        Parameters
        ----------
        world : World
            The world; it is not changed.
        rng : numpy.random.Generator
            Draws the rows that change places.
        free : bool[n]
            True for requests that may exchange their rows if they are outside of the event.

        Returns
        -------
        World
            The same rows, each with its answers.

        Raises
        ------
        InputError
            If there are too few rows of these tasks or of other tasks.
        """
        part = self.part(world)
        inside = np.zeros(len(world), dtype=np.bool_)
        inside[part] = True
        ours = np.isin(np.array(world.task, dtype=object), np.array(self.tasks, dtype=object))
        size = part.stop - part.start
        missing = round(self.share * size) - int(ours[part].sum())
        needed = ours if missing > 0 else ~ours
        leave = np.flatnonzero(inside & ~needed)
        come = np.flatnonzero(~inside & free & needed)
        if abs(missing) > len(come):
            which = "of these tasks" if missing > 0 else "of other tasks"
            need = round((self.share if missing > 0 else 1.0 - self.share) * size)
            available = int(needed[part].sum()) + len(come)
            raise InputError(f"share: needs {need} rows {which}, and {available} are available")
        leave = rng.choice(leave, abs(missing), replace=False)
        come = rng.choice(come, abs(missing), replace=False)
        order = np.arange(len(world))
        order[leave], order[come] = come, leave
        moved = replace(
            world,
            rows=world.rows[order],
            task=tuple(world.task[i] for i in order.tolist()),
            quality=world.quality[order],
            judged=world.judged[order],
            cost_usd=world.cost_usd[order],
        )
        more = len(self.tasks) - _NAMES_SHOWN
        names = ", ".join(self.tasks[:_NAMES_SHOWN])
        names += f" and {more} more tasks" if more > 0 else ""
        label = f"{100 * self.share:.3g} % of the requests are {names}"
        return self.change(moved, label, "prompts as before")


class Burst(LastingEvent):
    """Requests come faster or slower.

    Attributes
    ----------
    kind : str
        "burst".
    factor : float
        Factor of the request rate; below 1, requests come slower.
    """

    kind: Literal["burst"] = "burst"
    factor: float = Field(gt=0, ge=1e-6, le=1e6)

    def _apply(self, world: World, rng: np.random.Generator) -> World:
        part = self.part(world)
        gaps_s = np.diff(world.time_s, prepend=0.0)
        gaps_s[part] /= self.factor
        label, time_s = f"requests come {self.factor:g} times as fast", np.cumsum(gaps_s)
        return self.change(world, label, "requests come as fast as before", time_s=time_s)

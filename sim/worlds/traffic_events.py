"""What happens to the requests: which prompts come when, and how fast."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field

from policies.base import Bools
from sim.errors import InputError
from sim.worlds.event import Cast, Spell, changed
from sim.worlds.world import World

_SHOWN = 3


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Mix(Spell):
    """Some tasks make `share` of the requests of a part; the rows change places with others.

    Rows take their answers along, but what else happens does so to requests: a scenario puts all
    its mixes before the other events.

    Attributes
    ----------
    tasks : names, or "easy" or "hard", see `Cast.choose`.
    """

    kind: Literal["mix"] = "mix"
    tasks: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
    share: float = Field(ge=0, le=1)

    def cast(self, cast: Cast) -> Self:
        return self.model_copy(update={"tasks": cast.choose(self.tasks, "tasks")})

    def _happen(self, world: World, rng: np.random.Generator) -> World:
        return self.arrange(world, rng, np.ones(len(world), dtype=np.bool_))

    def arrange(self, world: World, rng: np.random.Generator, free: Bools) -> World:
        """Return the world in a new order.

        Parameters
        ----------
        free : bool[n], requests outside of the part that may give their rows.

        Raises
        ------
        InputError
            When there are too few rows of these tasks, or of others.
        """
        part = self.part(world)
        inside = np.zeros(len(world), dtype=np.bool_)
        inside[part] = True
        ours = np.isin(np.array(world.task, dtype=object), np.array(self.tasks, dtype=object))
        size = part.stop - part.start
        missing = round(self.share * size) - int(ours[part].sum())
        wanted = ours if missing > 0 else ~ours
        leave = np.flatnonzero(inside & ~wanted)
        come = np.flatnonzero(~inside & free & wanted)
        if abs(missing) > len(come):
            which = "of these tasks" if missing > 0 else "of other tasks"
            need = round((self.share if missing > 0 else 1.0 - self.share) * size)
            had = int(wanted[part].sum()) + len(come)
            raise InputError(f"share: needs {need} rows {which}, and {had} are to be had")
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
        more = len(self.tasks) - _SHOWN
        names = ", ".join(self.tasks[:_SHOWN]) + (f" and {more} more tasks" if more > 0 else "")
        label = f"{100 * self.share:.3g} % of the requests are {names}"
        return changed(moved, label, part, "prompts as before")


class Burst(Spell):
    """Requests come `factor` times as fast; below 1, slower."""

    kind: Literal["burst"] = "burst"
    factor: float = Field(gt=0, ge=1e-6, le=1e6)

    def _happen(self, world: World, rng: np.random.Generator) -> World:
        part = self.part(world)
        gaps = np.diff(world.time_s, prepend=0.0)
        gaps[part] /= self.factor
        return changed(
            world,
            f"requests come {self.factor:g} times as fast",
            part,
            "requests come as fast as before",
            time_s=np.cumsum(gaps),
        )

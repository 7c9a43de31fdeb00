"""What all events are made of: when they happen, whom they concern, and how a world takes them.

An event says nothing about data: models and tasks may be named by what they are among others
("dearest", "easy"), times by their share of the world. It must never change a world in place, and
draws from nothing but the generator that it is given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Any, Self

import numpy as np
from pydantic import ConfigDict, Field, PlainValidator, model_validator

from banditroute.core.pool import Strict
from policies.base import Float64
from sim.data.dataset import Dataset
from sim.errors import InputError
from sim.worlds.world import World, WorldChange

BY_QUALITY = ("best", "second", "third")
BY_TASK = ("easy", "hard")


def _when(value: object) -> Fraction | int:
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}/[1-9]\d{0,8}", value.strip()):
        value = Fraction(value.strip())
    if isinstance(value, float) and 0.0 <= value <= 1.0:
        return Fraction(str(value))
    if isinstance(value, int) and not isinstance(value, bool) and value > 1:
        return value
    if isinstance(value, int | Fraction) and not isinstance(value, bool) and 0 <= value <= 1:
        return Fraction(value)
    raise ValueError(
        "a share of the world from 0 to 1 (such as 1/3), or a whole number of requests above 1"
    )


When = Annotated[Fraction | int, PlainValidator(_when)]
"""A share of the world as a Fraction, or as an int above 1 how many requests come before it."""


def position(when: Fraction | int, n: int, field: str) -> int:
    """Return the request of a world of n at which a time of field `field` falls, 0..n.

    Raises
    ------
    InputError
        For a number of requests that the world does not have.
    """
    if isinstance(when, Fraction):
        return int(when * n)
    if when > n:
        raise InputError(f"{field}: request {when} is not among the {n} of this world")
    return when


@dataclass(frozen=True, slots=True)
class Cast:
    """Who is who in some data.

    Attributes
    ----------
    models : K names; quality, cost_usd : float64[K], their means.
    tasks : names, from the easiest to the hardest by mean quality over all models.
    counts : int, of the rows of each task.
    """

    models: tuple[str, ...]
    quality: Float64
    cost_usd: Float64
    tasks: tuple[str, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, data: Dataset | World) -> Cast:
        """Return the cast of complete data, or of a world as it is by now."""
        names, at, counts = np.unique(
            np.array(data.task, dtype=object), return_inverse=True, return_counts=True
        )
        ease = np.bincount(at, weights=data.quality.mean(axis=1), minlength=len(names)) / counts
        order = np.argsort(-ease, kind="stable")
        return cls(
            models=data.models,
            quality=data.quality.mean(axis=0),
            cost_usd=data.cost_usd.mean(axis=0),
            tasks=tuple(names[order].tolist()),
            counts=tuple(counts[order].tolist()),
        )

    def model(self, name: str, field: str) -> str:
        """Return the model that a name or a role means; a model of that name comes first.

        Raises
        ------
        InputError
            Naming `field`, where there is no such model.
        """
        if name in self.models:
            return name
        ranked: list[int] = np.argsort(-self.quality, kind="stable").tolist()
        priced: list[int] = np.argsort(self.cost_usd, kind="stable").tolist()
        among = dict(zip(BY_QUALITY, ranked, strict=False))
        among |= {"worst": ranked[-1], "cheapest": priced[0], "dearest": priced[-1]}
        if name in among:
            return self.models[among[name]]
        known, roles = ", ".join(self.models), ", ".join(among)
        raise InputError(f"{field}: no model {name!r}; the data has {known}; roles: {roles}")

    def choose(self, names: list[str], field: str) -> list[str]:
        """Return the tasks that names mean: themselves, or "easy" or "hard".

        The easy tasks are the easiest ones that together make at least half of the rows; where
        that would be all, the hardest one is hard.

        Raises
        ------
        InputError
            Naming `field`, where there is no such task.
        """
        halves = np.flatnonzero(np.cumsum(self.counts) * 2 >= sum(self.counts))
        easy = min(int(halves[0]) + 1, len(self.tasks) - 1)
        chosen: list[str] = []
        for name in names:
            if name in self.tasks:
                chosen.append(name)
            elif name in BY_TASK and easy > 0:
                chosen.extend(self.tasks[:easy] if name == "easy" else self.tasks[easy:])
            elif name in BY_TASK:
                raise InputError(f"{field}: {name!r} among one task: the data has no others")
            else:
                known = ", ".join(sorted(self.tasks))
                raise InputError(f"{field}: no task {name!r}; the data has {known}; or easy, hard")
        return chosen


class WorldEvent(Strict):
    """Something that happens to a world."""

    model_config = ConfigDict(populate_by_name=True)

    kind: str

    def apply(self, world: World, rng: np.random.Generator) -> World:
        """Return the world in which it has happened; roles are those of `world` as it is.

        Raises
        ------
        InputError
            Naming the field, where the event does not fit the world.
        """
        return self.cast(Cast.of(world))._happen(world, rng)

    def cast(self, cast: Cast) -> Self:
        """Return the same event with names instead of roles.

        Raises
        ------
        InputError
            Naming the field, for a name that is not in the data.
        """
        return self

    def _happen(self, world: World, rng: np.random.Generator) -> World:
        raise NotImplementedError


class Spell(WorldEvent):
    """An event that lasts: from `since` until `until`, as before afterwards."""

    since: When = Field(Fraction(0), alias="from")
    until: When = Field(Fraction(1), alias="to")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if type(self.since) is type(self.until) and self.since >= self.until:
            raise ValueError("to must come after from")
        return self

    def part(self, world: World) -> slice:
        """Return the requests that it concerns; a share of a small world may hold none."""
        n = len(world)
        start, stop = position(self.since, n, "from"), position(self.until, n, "to")
        if start > stop:
            raise InputError(f"to: request {stop} comes before request {start} of from")
        return slice(start, stop)


def one_of(event: WorldEvent, *fields: str) -> None:
    """Refuse an event that does not have exactly one of some fields."""
    given = [field for field in fields if getattr(event, field) is not None]
    if len(given) != 1:
        found = f"not {' and '.join(given)}" if given else "and none is there"
        raise ValueError(f"one of {', '.join(fields)} is expected, {found}")


def changed(world: World, label: str, part: slice, after: str, **columns: Any) -> World:
    """Return the world with new columns, and with the change in words.

    Parameters
    ----------
    part : the requests concerned; where there is none, nothing has changed.
    label, after : what begins with them, and what begins where they end; "" for nothing.
    """
    if part.start == part.stop:
        return world
    new = [WorldChange(part.start, label)]
    if part.stop < len(world) and after:
        new.append(WorldChange(part.stop, after))
    changes = sorted((*world.changes, *new), key=lambda change: change.request)
    return replace(world, changes=tuple(changes), **columns)

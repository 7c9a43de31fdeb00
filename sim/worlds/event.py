"""The base of all events: when they happen, and how a world takes them.

An event must never change a world in place. It draws from nothing but the generator that it is
given. Models and tasks may be named by their roles, see `sim.worlds.roles`, and times by their
share of the world.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Any, Self

import numpy as np
from pydantic import ConfigDict, Field, PlainValidator, model_validator

from banditroute.core.pool import Strict
from sim.errors import InputError
from sim.worlds.roles import Roles
from sim.worlds.world import World, WorldChange


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
"""A share of the world as a Fraction, or an int above 1: how many requests come before it."""


def position(when: Fraction | int, n: int, field: str) -> int:
    """Return the request at which something happens.

    Parameters
    ----------
    when : Fraction or int
        See `When`.
    n : int
        Requests of the world.
    field : str
        Where the time stands, for messages.

    Returns
    -------
    int
        0 to n; n is after the last request.

    Raises
    ------
    InputError
        For more requests than the world has.
    """
    if isinstance(when, Fraction):
        return int(when * n)
    if when > n:
        raise InputError(f"{field}: request {when} is not among the {n} of this world")
    return when


class WorldEvent(Strict):
    """Something that happens to a world.

    Attributes
    ----------
    kind : str
        Name of the event in scenario files.
    """

    model_config = ConfigDict(populate_by_name=True)

    kind: str

    def apply(self, world: World, rng: np.random.Generator) -> World:
        """Return the world in which the event has happened.

        Parameters
        ----------
        world : World
            It stays as it is; roles are those in this world.
        rng : numpy.random.Generator
            The only source of what the event draws.

        Returns
        -------
        World
            With other columns, and one or two changes more.

        Raises
        ------
        InputError
            Naming the field, where the event does not fit the world.
        """
        return self.resolve(Roles.of(world))._apply(world, rng)

    def resolve(self, roles: Roles) -> Self:
        """Return the same event with names instead of roles.

        Parameters
        ----------
        roles : Roles
            Of the data that the event is for.

        Returns
        -------
        Self
            The event.

        Raises
        ------
        InputError
            Naming the field, for a name that is not in the data.
        """
        return self

    def _apply(self, world: World, rng: np.random.Generator) -> World:
        raise NotImplementedError


class LastingEvent(WorldEvent):
    """An event that ends: afterwards the world is as it was before.

    Attributes
    ----------
    since : Fraction or int
        Its first request; ``from`` in files.
    until : Fraction or int
        The first request after it; ``to`` in files.
    """

    since: When = Field(Fraction(0), alias="from")
    until: When = Field(Fraction(1), alias="to")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if type(self.since) is type(self.until) and self.since >= self.until:
            raise ValueError("to must come after from")
        return self

    def part(self, world: World) -> slice:
        """Return the requests during the event; a share of a small world may hold none.

        Parameters
        ----------
        world : World
            The world.

        Returns
        -------
        slice
            Of its requests.

        Raises
        ------
        InputError
            For a time that the world does not have, or an end before the beginning.
        """
        n = len(world)
        start, stop = position(self.since, n, "from"), position(self.until, n, "to")
        if start > stop:
            raise InputError(f"to: request {stop} comes before request {start} of from")
        return slice(start, stop)


def require_one_of(event: WorldEvent, *fields: str) -> None:
    """Refuse an event that does not have exactly one of some fields.

    Parameters
    ----------
    event : WorldEvent
        The event.
    *fields : str
        Names of its fields.

    Raises
    ------
    ValueError
        With the names that are present.
    """
    present = [field for field in fields if getattr(event, field) is not None]
    if len(present) != 1:
        fault = f"not {' and '.join(present)}" if present else "and none is there"
        raise ValueError(f"one of {', '.join(fields)} is expected, {fault}")


def with_change(world: World, label: str, part: slice, label_after: str, **columns: Any) -> World:
    """Return a world with new columns, and with what happened in words.

    Parameters
    ----------
    world : World
        It stays as it is.
    label : str
        What begins with the first request of `part`.
    part : slice
        The requests concerned; where there are none, nothing has changed.
    label_after : str
        What begins after the last one; "" for nothing.
    **columns : object
        Fields of `World`.

    Returns
    -------
    World
        Its changes are in order of time.
    """
    if part.start == part.stop:
        return world
    new = [WorldChange(part.start, label)]
    if part.stop < len(world) and label_after:
        new.append(WorldChange(part.stop, label_after))
    changes = sorted((*world.changes, *new), key=lambda change: change.request)
    return replace(world, changes=tuple(changes), **columns)

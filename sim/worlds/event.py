"""The base of all events: when an event happens, and how it is applied to a world.

An event must never change a world in place. It must draw only from the generator that its caller
passes. An event may name models and tasks by their roles, see `sim.worlds.roles`, and a time by its
share of the world.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Self

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
"""A time: a share of the world as a Fraction, or the number of requests before it, above 1."""


def position(when: Fraction | int, n: int, field: str) -> int:
    """Return the request at which something happens.

    Parameters
    ----------
    when : Fraction or int
        See `When`.
    n : int
        Number of requests of the world.
    field : str
        Name of the field that holds the time, for messages.

    Returns
    -------
    int
        0 to n; n is after the last request.

    Raises
    ------
    InputError
        If `when` is larger than n.
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
            The world; it is not changed. Roles are decided by its rows.
        rng : numpy.random.Generator
            The only source of random numbers.

        Returns
        -------
        World
            A world with other columns and at most two more changes.

        Raises
        ------
        InputError
            If the event does not fit the world. The message names the field.
        """
        return self.resolve(Roles.of(world))._apply(world, rng)

    def resolve(self, roles: Roles) -> Self:
        """Return the same event with names instead of roles.

        Parameters
        ----------
        roles : Roles
            Roles in the data that the event is for.

        Returns
        -------
        Self
            The event.

        Raises
        ------
        InputError
            If a name is not in the data. The message names the field.
        """
        return self

    def _apply(self, world: World, rng: np.random.Generator) -> World:
        raise NotImplementedError


class LastingEvent(WorldEvent):
    """An event that ends: after it, the world is as it was before.

    Attributes
    ----------
    since : Fraction or int
        First request of the event; ``from`` in files.
    until : Fraction or int
        First request after the event; ``to`` in files.
    one_of : tuple of str
        Names of fields of which exactly one must be set; of the class, empty for no such rule.
    """

    one_of: ClassVar[tuple[str, ...]] = ()

    since: When = Field(Fraction(0), alias="from")
    until: When = Field(Fraction(1), alias="to")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if type(self.since) is type(self.until) and self.since >= self.until:
            raise ValueError("to must come after from")
        return self

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        present = [field for field in self.one_of if getattr(self, field) is not None]
        if self.one_of and len(present) != 1:
            fault = f"not {' and '.join(present)}" if present else "and none is set"
            raise ValueError(f"one of {', '.join(self.one_of)} is expected, {fault}")
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
            Positions of the requests.

        Raises
        ------
        InputError
            If the world has too few requests, or the event ends before it begins.
        """
        n = len(world)
        start, stop = position(self.since, n, "from"), position(self.until, n, "to")
        if start > stop:
            raise InputError(f"to: request {stop} comes before request {start} of from")
        return slice(start, stop)

    def about(self) -> str:
        """Return what stands before the labels of the event: "" or the name of its model."""
        return ""

    def change(self, world: World, label: str, label_after: str, **columns: Any) -> World:
        """Return a world with new columns, and with labels of the event.

        Parameters
        ----------
        world : World
            The world; it is not changed.
        label, label_after : str
            What begins at the first request of the event, and what after its last one.
        **columns : object
            New values of fields of `World`.
        """
        before, part = self.about(), self.part(world)
        return with_change(world, before + label, part, before + label_after, **columns)


def with_change(world: World, label: str, part: slice, label_after: str, **columns: Any) -> World:
    """Return a world with new columns, and with labels of the change.

    Parameters
    ----------
    world : World
        The world; it is not changed.
    label : str
        What begins at the first request of `part`.
    part : slice
        Requests that change; if it is empty, the same world is returned.
    label_after : str
        What begins after the last request of `part`; "" for no label.
    **columns : object
        New values of fields of `World`.

    Returns
    -------
    World
        The new world; its changes are in order of time.
    """
    if part.start == part.stop:
        return world
    new = [WorldChange(part.start, label)]
    if part.stop < len(world) and label_after:
        new.append(WorldChange(part.stop, label_after))
    changes = sorted((*world.changes, *new), key=lambda change: change.request)
    return replace(world, changes=tuple(changes), **columns)

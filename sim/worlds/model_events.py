"""Events that change models: other quality, other prices, new and drained models, outages."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

import numpy as np
from pydantic import Field

from policies.base import Float64
from sim.errors import InputError
from sim.worlds.event import LastingEvent, When, WorldEvent, position, with_change
from sim.worlds.roles import Roles
from sim.worlds.world import World


class ModelEvent(WorldEvent):
    """An event that changes one model.

    Attributes
    ----------
    model : str
        Name or role of the model.
    """

    model: str

    def resolve(self, roles: Roles) -> Self:
        """See `WorldEvent.resolve`."""
        return self.model_copy(update={"model": roles.model(self.model, "model")})

    def about(self) -> str:
        """See `LastingEvent.about`."""
        return f"{self.model}: "


class Quality(ModelEvent, LastingEvent):
    """A model answers better or worse, and its feedback changes in the same way.

    Exactly one of `set`, `scale` and `shift` must be set. Results are clipped to [0, 1].

    Attributes
    ----------
    kind : str
        "quality".
    set : float, optional
        New quality of every answer.
    scale : float, optional
        Factor by which the quality is multiplied.
    shift : float, optional
        Number added to the quality.
    """

    one_of = ("set", "scale", "shift")

    kind: Literal["quality"] = "quality"
    set: float | None = Field(None, ge=0, le=1)
    scale: float | None = Field(None, ge=0, le=1000)
    shift: float | None = Field(None, ge=-1, le=1)

    def _apply(self, world: World, rng: np.random.Generator) -> World:
        part, arm = self.part(world), world.models.index(self.model)
        columns = {"quality": world.quality.copy(), "judged": world.judged.copy()}
        for values in columns.values():
            values[part, arm] = self._changed(values[part, arm])
        return self.change(world, f"quality {self._words()}", "quality as before", **columns)

    def _changed(self, values: Float64) -> Float64:
        if self.set is not None:
            return np.full(values.shape, self.set)
        return np.clip(values * (1 if self.scale is None else self.scale) + (self.shift or 0), 0, 1)

    def _words(self) -> str:
        if self.set is not None:
            return f"{self.set:g}"
        return f"x {self.scale:g}" if self.scale is not None else f"{self.shift:+g}"


class PriceChange(ModelEvent, LastingEvent):
    """The price of a model changes.

    Attributes
    ----------
    kind : str
        "price".
    factor : float
        Factor by which the cost of each answer is multiplied.
    announced : bool
        True if the price list that a policy sees changes too.
    """

    kind: Literal["price"] = "price"
    factor: float = Field(ge=0, le=1000)
    announced: bool = True

    def _apply(self, world: World, rng: np.random.Generator) -> World:
        part, arm = self.part(world), world.models.index(self.model)
        cost_usd, price_factor = world.cost_usd.copy(), world.price_factor.copy()
        cost_usd[part, arm] *= self.factor
        if self.announced:
            price_factor[part, arm] *= self.factor
        not_announced = "" if self.announced else ", not announced"
        label = f"price x {self.factor:g}{not_announced}"
        columns = {"cost_usd": cost_usd, "price_factor": price_factor}
        return self.change(world, label, "price as before", **columns)


class Add(ModelEvent):
    """A model is on offer only from request `at` onwards.

    Attributes
    ----------
    kind : str
        "add".
    at : Fraction or int
        The first request at which it is on offer.
    """

    kind: Literal["add"] = "add"
    at: When

    def _apply(self, world: World, rng: np.random.Generator) -> World:
        first, offered = position(self.at, len(world), "at"), world.offered.copy()
        offered[:first, world.models.index(self.model)] = False
        if first in (0, len(world)):  # always or never on offer: nothing changes during the world
            return replace(world, offered=offered)
        label = f"{self.model} is added"
        return with_change(world, label, slice(first, len(world)), "", offered=offered)


class Drain(ModelEvent):
    """A model is on offer only before request `at`.

    Attributes
    ----------
    kind : str
        "drain".
    at : Fraction or int
        The first request at which it is no longer on offer.
    """

    kind: Literal["drain"] = "drain"
    at: When

    def _apply(self, world: World, rng: np.random.Generator) -> World:
        first, offered = position(self.at, len(world), "at"), world.offered.copy()
        offered[first:, world.models.index(self.model)] = False
        label = f"{self.model} is drained"
        return with_change(world, label, slice(first, len(world)), "", offered=offered)


class Outage(LastingEvent):
    """Some models give empty answers: quality, feedback and cost are 0.

    The models stay on offer. Exactly one of `models` and `prefix` must be set.

    Attributes
    ----------
    kind : str
        "outage".
    models : list of str, optional
        Names or roles of the models.
    prefix : str, optional
        Selects all models whose names begin with it, such as those of one provider.
    """

    one_of = ("models", "prefix")

    kind: Literal["outage"] = "outage"
    models: list[str] | None = Field(None, min_length=1)
    prefix: str | None = Field(None, min_length=1)

    def resolve(self, roles: Roles) -> Self:
        """See `WorldEvent.resolve`."""
        if self.models is not None:
            names = [roles.model(name, f"models[{i}]") for i, name in enumerate(self.models)]
            return self.model_copy(update={"models": list(dict.fromkeys(names))})
        names = [name for name in roles.models if name.startswith(self.prefix or "")]
        if not names:
            models = ", ".join(roles.models)
            raise InputError(
                f"prefix: no model name begins with {self.prefix!r}; the data has {models}"
            )
        return self.model_copy(update={"models": names})

    def _apply(self, world: World, rng: np.random.Generator) -> World:
        part, names = self.part(world), self.models or []
        fields = ("quality", "judged", "cost_usd")
        columns = {field: getattr(world, field).copy() for field in fields}
        for values in columns.values():
            values[part, [world.models.index(name) for name in names]] = 0.0
        listed = ", ".join(names)
        return self.change(world, f"{listed}: outage", f"{listed}: outage over", **columns)

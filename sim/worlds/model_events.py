"""What happens to models: better and worse answers, prices, coming and going, outages."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from policies.base import Float64
from sim.errors import InputError
from sim.worlds.event import Cast, Spell, When, WorldEvent, changed, one_of, position
from sim.worlds.world import World


class OfModel(WorldEvent):
    """An event of one model, by name or role."""

    model: str

    def cast(self, cast: Cast) -> Self:
        return self.model_copy(update={"model": cast.model(self.model, "model")})


class Quality(OfModel, Spell):
    """A model answers better or worse, and feedback says so.

    Attributes
    ----------
    set : every answer has this quality; scale : times this; shift : plus this; one of the three.
        Results stay within 0 and 1.
    """

    kind: Literal["quality"] = "quality"
    set: float | None = Field(None, ge=0, le=1)
    scale: float | None = Field(None, ge=0, le=1000)
    shift: float | None = Field(None, ge=-1, le=1)

    @model_validator(mode="after")
    def _one(self) -> Self:
        one_of(self, "set", "scale", "shift")
        return self

    def _happen(self, world: World, rng: np.random.Generator) -> World:
        part, arm = self.part(world), world.models.index(self.model)
        columns = {"quality": world.quality.copy(), "judged": world.judged.copy()}
        for values in columns.values():
            values[part, arm] = self._of(values[part, arm])
        return changed(
            world,
            f"{self.model}: quality {self._words()}",
            part,
            f"{self.model}: quality as before",
            **columns,
        )

    def _of(self, values: Float64) -> Float64:
        if self.set is not None:
            return np.full(values.shape, self.set)
        return np.clip(values * (1 if self.scale is None else self.scale) + (self.shift or 0), 0, 1)

    def _words(self) -> str:
        if self.set is not None:
            return f"{self.set:g}"
        return f"x {self.scale:g}" if self.scale is not None else f"{self.shift:+g}"


class PriceChange(OfModel, Spell):
    """A model costs `factor` times as much; the price list says so unless not `announced`."""

    kind: Literal["price"] = "price"
    factor: float = Field(ge=0, le=1000)
    announced: bool = True

    def _happen(self, world: World, rng: np.random.Generator) -> World:
        part, arm = self.part(world), world.models.index(self.model)
        cost, factor = world.cost_usd.copy(), world.price_factor.copy()
        cost[part, arm] *= self.factor
        if self.announced:
            factor[part, arm] *= self.factor
        silently = "" if self.announced else ", not announced"
        return changed(
            world,
            f"{self.model}: price x {self.factor:g}{silently}",
            part,
            f"{self.model}: price as before",
            cost_usd=cost,
            price_factor=factor,
        )


class Add(OfModel):
    """A model is offered only from `at` on."""

    kind: Literal["add"] = "add"
    at: When

    def _happen(self, world: World, rng: np.random.Generator) -> World:
        at, offered = position(self.at, len(world), "at"), world.offered.copy()
        offered[:at, world.models.index(self.model)] = False
        if at in (0, len(world)):  # it is there all the time, or never
            return replace(world, offered=offered)
        label = f"{self.model} is added"
        return changed(world, label, slice(at, len(world)), "", offered=offered)


class Drain(OfModel):
    """A model is offered only until `at`."""

    kind: Literal["drain"] = "drain"
    at: When

    def _happen(self, world: World, rng: np.random.Generator) -> World:
        at, offered = position(self.at, len(world), "at"), world.offered.copy()
        offered[at:, world.models.index(self.model)] = False
        label = f"{self.model} is drained"
        return changed(world, label, slice(at, len(world)), "", offered=offered)


class Outage(Spell):
    """Models answer with nothing: quality and feedback 0, cost 0; they stay on offer.

    Attributes
    ----------
    models : names or roles; prefix : all models whose names begin so; one of the two.
    """

    kind: Literal["outage"] = "outage"
    models: list[str] | None = Field(None, min_length=1)
    prefix: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one(self) -> Self:
        one_of(self, "models", "prefix")
        return self

    def cast(self, cast: Cast) -> Self:
        if self.models is not None:
            names = [cast.model(name, f"models[{i}]") for i, name in enumerate(self.models)]
            return self.model_copy(update={"models": list(dict.fromkeys(names))})
        names = [name for name in cast.models if name.startswith(self.prefix or "")]
        if not names:
            known = ", ".join(cast.models)
            raise InputError(f"prefix: no model begins with {self.prefix!r}; the data has {known}")
        return self.model_copy(update={"models": names})

    def _happen(self, world: World, rng: np.random.Generator) -> World:
        part, names = self.part(world), self.models or []
        columns = {
            "quality": world.quality.copy(),
            "judged": world.judged.copy(),
            "cost_usd": world.cost_usd.copy(),
        }
        for values in columns.values():
            values[part, [world.models.index(name) for name in names]] = 0.0
        who = ", ".join(names)
        return changed(world, f"{who}: outage", part, f"{who}: outage over", **columns)

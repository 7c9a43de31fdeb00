"""Events that change feedback: it is late, lost, false or from another judge.

They must never change the answers, their quality or their cost.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, PlainValidator, TypeAdapter, ValidationError, model_validator

from policies.base import Bools
from sim.worlds.event import LastingEvent
from sim.worlds.roles import Roles
from sim.worlds.world import World

MAX_DELAY_S = 1e9

_SECONDS = TypeAdapter(
    Annotated[list[Annotated[float, Field(ge=0, le=MAX_DELAY_S)]], Field(min_length=1)]
)
_SHARE = TypeAdapter(Annotated[float, Field(ge=0, le=1)])


# Validators in place of a union: for a wrong value of a union, pydantic reports two mistakes, at
# paths that the file does not have.
def _seconds(value: object) -> float | list[float]:
    try:
        seconds = _SECONDS.validate_python(value if isinstance(value, list) else [value])
    except ValidationError:
        message = f"a number of seconds from 0 to {MAX_DELAY_S:g} is expected, or a list of them"
        raise ValueError(message) from None
    return seconds if isinstance(value, list) else seconds[0]


def _value(value: object) -> float | Literal["inverted"]:
    try:
        return "inverted" if value == "inverted" else _SHARE.validate_python(value)
    except ValidationError:
        raise ValueError('a number from 0 to 1 or "inverted" is expected') from None


class FeedbackEvent(LastingEvent):
    """An event that changes the feedback on one model or on all models.

    Attributes
    ----------
    model : str, optional
        Name or role of the model; None for all models.
    """

    model: str | None = None

    def resolve(self, roles: Roles) -> Self:
        """See `WorldEvent.resolve`."""
        if self.model is None:
            return self
        return self.model_copy(update={"model": roles.model(self.model, "model")})

    def concerned(self, world: World) -> Bools:
        """Return the models whose feedback changes.

        Parameters
        ----------
        world : World
            A world of K models.

        Returns
        -------
        bool[K]
            True for each model whose feedback changes.
        """
        return np.array([self.model in (None, name) for name in world.models])

    def about(self) -> str:
        """See `LastingEvent.about`."""
        return "" if self.model is None else f"{self.model}: "


class Delay(FeedbackEvent):
    """Feedback comes later: this delay is added to the delay of the world.

    Exactly one of `seconds` and `mean` must be set.

    Attributes
    ----------
    kind : str
        "delay".
    seconds : float or list of float, optional
        Delay in seconds. For each request, one value of a list is drawn.
    mean : float, optional
        Mean in seconds of an exponential distribution. Each request draws its delay from it.
    """

    one_of = ("seconds", "mean")

    kind: Literal["delay"] = "delay"
    seconds: Annotated[float | list[float], PlainValidator(_seconds)] | None = None
    mean: float | None = Field(None, gt=0, le=MAX_DELAY_S)

    def _apply(self, world: World, rng: np.random.Generator) -> World:
        part, delay_s = self.part(world), world.delay_s.copy()
        size = part.stop - part.start
        if self.mean is not None:
            late_s, words = rng.exponential(self.mean, size), f"{self.mean:g} s late on average"
        else:
            late_s = rng.choice(np.atleast_1d(np.array(self.seconds, dtype=np.float64)), size)
            choices_s = self.seconds if isinstance(self.seconds, list) else [self.seconds or 0.0]
            words = f"{min(choices_s):g} to {max(choices_s):g} s late" if len(choices_s) > 1 else ""
            words = words or f"{choices_s[0]:g} s late"
        delay_s[part] += late_s[:, None] * self.concerned(world)
        label = f"feedback {words}"
        return self.change(world, label, "feedback as prompt as before", delay_s=delay_s)


class Loss(FeedbackEvent):
    """A share of the feedback never comes.

    With `below` or `above` the loss depends on quality: feedback is missing not at random.

    Attributes
    ----------
    kind : str
        "loss".
    share : float
        Share of the requests, 0 to 1.
    below : float, optional
        Only feedback on answers of a quality below this value is lost.
    above : float, optional
        Only feedback on answers of a quality above this value is lost.
    """

    kind: Literal["loss"] = "loss"
    share: float = Field(ge=0, le=1)
    below: float | None = Field(None, ge=0, le=1)
    above: float | None = Field(None, ge=0, le=1)

    def _apply(self, world: World, rng: np.random.Generator) -> World:
        part, delay_s = self.part(world), world.delay_s.copy()
        quality = world.quality[part]
        lost = (rng.random(len(quality)) < self.share)[:, None] & self.concerned(world)
        where = ""
        if self.below is not None:
            lost, where = lost & (quality < self.below), f"{where} where quality < {self.below:g}"
        if self.above is not None:
            lost = lost & (quality > self.above)
            where = f"{where}{' and' if where else ' where quality'} > {self.above:g}"
        delay_s[part] = np.where(lost, np.inf, delay_s[part])
        label = f"{100 * self.share:.3g} % of the feedback is lost{where}"
        return self.change(world, label, "feedback is no longer lost", delay_s=delay_s)


class Poison(FeedbackEvent):
    """A share of the feedback is false.

    Attributes
    ----------
    kind : str
        "poison".
    share : float
        Share of the requests, 0 to 1.
    value : float or "inverted"
        Quality that false feedback reports; "inverted" reports 1 minus the judged quality.
    """

    kind: Literal["poison"] = "poison"
    share: float = Field(ge=0, le=1)
    value: Annotated[float | Literal["inverted"], PlainValidator(_value)]

    def _apply(self, world: World, rng: np.random.Generator) -> World:
        part, judged = self.part(world), world.judged.copy()
        true = judged[part]
        false = (rng.random(len(true)) < self.share)[:, None] & self.concerned(world)
        judged[part] = np.where(false, 1.0 - true if self.value == "inverted" else self.value, true)
        value = self.value if self.value == "inverted" else f"{self.value:g}"
        label = f"{100 * self.share:.3g} % of the feedback is poisoned: {value}"
        return self.change(world, label, "feedback is no longer poisoned", judged=judged)


class Judge(LastingEvent):
    """Another judge gives the feedback, with values computed from those of the previous judge.

    The value is ``scale x judged + shift + bias of the model + N(0, noise)``, clipped to [0, 1]. At
    least one field must differ from its default.

    Attributes
    ----------
    kind : str
        "judge".
    scale : float
        Factor of the quality that the previous judge gives.
    shift : float
        Number added to the scaled quality.
    noise : float
        Standard deviation of the normal error that is drawn for each answer.
    bias : dict of str to float
        Number added for a model, by its name or role.
    """

    kind: Literal["judge"] = "judge"
    scale: float = Field(1.0, ge=-10, le=10)
    shift: float = Field(0.0, ge=-10, le=10)
    noise: float = Field(0.0, ge=0, le=10)
    bias: dict[str, Annotated[float, Field(ge=-1, le=1)]] = {}

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if (self.scale, self.shift, self.noise, self.bias) == (1.0, 0.0, 0.0, {}):
            raise ValueError("at least one of scale, shift, noise, bias is expected")
        return self

    def resolve(self, roles: Roles) -> Self:
        """See `WorldEvent.resolve`."""
        bias: dict[str, float] = {}
        for name, value in self.bias.items():
            model = roles.model(name, f"bias.{name}")
            bias[model] = bias.get(model, 0.0) + value
        return self.model_copy(update={"bias": bias})

    def _apply(self, world: World, rng: np.random.Generator) -> World:
        part, judged = self.part(world), world.judged.copy()
        bias = np.array([self.bias.get(name, 0.0) for name in world.models])
        mean = self.scale * judged[part] + self.shift + bias
        judged[part] = np.clip(mean + rng.normal(0.0, self.noise, mean.shape), 0.0, 1.0)
        words = [f"x {self.scale:g}"] if self.scale != 1.0 else []
        words += [f"{self.shift:+g}"] if self.shift else []
        words += [f"{value:+g} for {name}" for name, value in self.bias.items()]
        words += [f"noise of sd {self.noise:g}"] if self.noise else []
        label = f"another judge: {', '.join(words)}"
        return self.change(world, label, "the judge of before", judged=judged)

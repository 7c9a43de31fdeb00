"""What happens to feedback, while answers stay what they are: late, lost, false, judged anew."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, PlainValidator, TypeAdapter, ValidationError, model_validator

from policies.base import Bools
from sim.worlds.event import Cast, Spell, changed, one_of
from sim.worlds.world import World

MOST_SECONDS = 1e9


_SECONDS = TypeAdapter(
    Annotated[list[Annotated[float, Field(ge=0, le=MOST_SECONDS)]], Field(min_length=1)]
)
_SHARE = TypeAdapter(Annotated[float, Field(ge=0, le=1)])


# A union of pydantic's own would be told as two mistakes, with a path that is in no file.
def _seconds(value: object) -> float | list[float]:
    try:
        seconds = _SECONDS.validate_python(value if isinstance(value, list) else [value])
    except ValidationError:
        message = f"seconds from 0 to {MOST_SECONDS:g} are expected, or a list of them"
        raise ValueError(message) from None
    return seconds if isinstance(value, list) else seconds[0]


def _value(value: object) -> float | Literal["inverted"]:
    try:
        return "inverted" if value == "inverted" else _SHARE.validate_python(value)
    except ValidationError:
        raise ValueError("a number from 0 to 1 is expected, or inverted") from None


class OfAnswers(Spell):
    """Feedback on the answers of one model, or of all without `model`."""

    model: str | None = None

    def cast(self, cast: Cast) -> Self:
        if self.model is None:
            return self
        return self.model_copy(update={"model": cast.model(self.model, "model")})

    def concerned(self, world: World) -> Bools:
        """Return bool[K], which models' feedback it is."""
        return np.array([self.model in (None, name) for name in world.models])

    def _words(self, text: str) -> str:
        return text if self.model is None else f"{self.model}: {text}"


class Delay(OfAnswers):
    """Feedback comes later, on top of the delay that it has.

    Attributes
    ----------
    seconds : as many; of a list, one drawn for each request.
    mean : of an exponential law, drawn for each request; one of the two.
    """

    kind: Literal["delay"] = "delay"
    seconds: Annotated[float | list[float], PlainValidator(_seconds)] | None = None
    mean: float | None = Field(None, gt=0, le=MOST_SECONDS)

    @model_validator(mode="after")
    def _one(self) -> Self:
        one_of(self, "seconds", "mean")
        return self

    def _happen(self, world: World, rng: np.random.Generator) -> World:
        part, delay = self.part(world), world.delay_s.copy()
        size = part.stop - part.start
        if self.mean is not None:
            late, words = rng.exponential(self.mean, size), f"{self.mean:g} s late on average"
        else:
            late = rng.choice(np.atleast_1d(np.array(self.seconds, dtype=np.float64)), size)
            among = self.seconds if isinstance(self.seconds, list) else [self.seconds or 0.0]
            words = f"{min(among):g} to {max(among):g} s late" if len(among) > 1 else ""
            words = words or f"{among[0]:g} s late"
        delay[part] += late[:, None] * self.concerned(world)
        return changed(
            world,
            self._words(f"feedback {words}"),
            part,
            self._words("feedback as prompt as before"),
            delay_s=delay,
        )


class Loss(OfAnswers):
    """A share of the feedback never comes.

    Attributes
    ----------
    share : of the requests.
    below, above : only where the answer is worse, or better, than this: missing not at random.
    """

    kind: Literal["loss"] = "loss"
    share: float = Field(ge=0, le=1)
    below: float | None = Field(None, ge=0, le=1)
    above: float | None = Field(None, ge=0, le=1)

    def _happen(self, world: World, rng: np.random.Generator) -> World:
        part, delay = self.part(world), world.delay_s.copy()
        quality = world.quality[part]
        lost = (rng.random(len(quality)) < self.share)[:, None] & self.concerned(world)
        where = ""
        if self.below is not None:
            lost, where = lost & (quality < self.below), f"{where} where quality < {self.below:g}"
        if self.above is not None:
            lost = lost & (quality > self.above)
            where = f"{where}{' and' if where else ' where quality'} > {self.above:g}"
        delay[part] = np.where(lost, np.inf, delay[part])
        return changed(
            world,
            self._words(f"{100 * self.share:.3g} % of the feedback is lost{where}"),
            part,
            self._words("feedback is no longer lost"),
            delay_s=delay,
        )


class Poison(OfAnswers):
    """A share of the feedback says something else than the judge.

    Attributes
    ----------
    share : of the requests.
    value : what it says instead; "inverted" for 1 minus what the judge says.
    """

    kind: Literal["poison"] = "poison"
    share: float = Field(ge=0, le=1)
    value: Annotated[float | Literal["inverted"], PlainValidator(_value)]

    def _happen(self, world: World, rng: np.random.Generator) -> World:
        part, judged = self.part(world), world.judged.copy()
        said = judged[part]
        false = (rng.random(len(said)) < self.share)[:, None] & self.concerned(world)
        judged[part] = np.where(false, 1.0 - said if self.value == "inverted" else self.value, said)
        value = self.value if self.value == "inverted" else f"{self.value:g}"
        return changed(
            world,
            self._words(f"{100 * self.share:.3g} % of the feedback is poisoned: {value}"),
            part,
            self._words("feedback is no longer poisoned"),
            judged=judged,
        )


class Judge(Spell):
    """Another judge: ``scale x judged + shift + bias of the model + N(0, noise)``, in [0, 1].

    Attributes
    ----------
    noise : standard deviation, drawn for each answer.
    bias : by model name or role.
    """

    kind: Literal["judge"] = "judge"
    scale: float = Field(1.0, ge=-10, le=10)
    shift: float = Field(0.0, ge=-10, le=10)
    noise: float = Field(0.0, ge=0, le=10)
    bias: dict[str, Annotated[float, Field(ge=-1, le=1)]] = {}

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if (self.scale, self.shift, self.noise, self.bias) == (1.0, 0.0, 0.0, {}):
            raise ValueError("one of scale, shift, noise, bias is expected")
        return self

    def cast(self, cast: Cast) -> Self:
        bias: dict[str, float] = {}
        for name, value in self.bias.items():
            model = cast.model(name, f"bias.{name}")
            bias[model] = bias.get(model, 0.0) + value
        return self.model_copy(update={"bias": bias})

    def _happen(self, world: World, rng: np.random.Generator) -> World:
        part, judged = self.part(world), world.judged.copy()
        bias = np.array([self.bias.get(name, 0.0) for name in world.models])
        said = self.scale * judged[part] + self.shift + bias
        judged[part] = np.clip(said + rng.normal(0.0, self.noise, said.shape), 0.0, 1.0)
        words = [f"x {self.scale:g}"] if self.scale != 1.0 else []
        words += [f"{self.shift:+g}"] if self.shift else []
        words += [f"{value:+g} for {name}" for name, value in self.bias.items()]
        words += [f"noise of sd {self.noise:g}"] if self.noise else []
        label = f"another judge: {', '.join(words)}"
        return changed(world, label, part, "the judge of before", judged=judged)

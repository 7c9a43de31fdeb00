"""Scenarios: small YAML files that say what happens to a world, and that compose.

A file names events and when they come; staging it on rows of a data set gives the world that
everybody plays. Nothing here plays anything, and the same file, rows and seed give the same world.
Shipped files lie in ``sim/scenarios``; a folder of several is a bundle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from banditroute.core.mistakes import mistakes, path_of
from banditroute.core.pool import Preference, Strict
from banditroute.core.yaml_file import YamlError, read_yaml
from sim.data.dataset import Dataset
from sim.errors import InputError
from sim.worlds.events import KINDS, AnyEvent, Cast, Mix, WorldEvent
from sim.worlds.world import World

SUFFIXES = (".yaml", ".yml")


class ScenarioFile(Strict):
    """What a file may hold.

    Attributes
    ----------
    title : a few words; says : one sentence on what happens.
    compose : other scenarios, by shipped name or by file beside this one. Their events come
        first, in order; nothing else is taken from them.
    models, without : names of the models to keep or to leave out of the data; empty: all.
    budget_rates : US dollars per request, each a world of its own; empty: no budget.
    preference : what policies are asked for, where that is part of what is staged.
    events : in the order in which they are applied.
    """

    title: str = Field(min_length=1)
    says: str = ""
    compose: list[str] = []
    models: list[str] = []
    without: list[str] = []
    budget_rates: list[Annotated[float, Field(gt=0)]] = []
    preference: Preference | None = None
    events: list[AnyEvent] = []


@dataclass(frozen=True, slots=True)
class Act:
    """An event and where it is written, for messages."""

    event: WorldEvent
    where: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario with the events of all that it is composed of.

    Attributes
    ----------
    name : as it is asked for, or the path of its file.
    title, says, models, without, budget_rates, preference : see `ScenarioFile`.
    acts : all events, in the order in which they are applied.
    """

    name: str
    title: str
    says: str = ""
    models: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    budget_rates: tuple[float, ...] = ()
    preference: Preference | None = None
    acts: tuple[Act, ...] = ()

    def then(self, event: WorldEvent, where: str) -> Scenario:
        """Return this scenario with one event more; `where` it was asked for, for messages."""
        return replace(self, acts=(*self.acts, Act(event, where)))

    def restrict(self, dataset: Dataset) -> Dataset:
        """Return the data that the scenario is about: its models, and the rows that have them all.

        Raises
        ------
        InputError
            Naming the scenario, for a model that the data does not have.
        """
        for field, names in (("models", self.models), ("without", self.without)):
            for i, name in enumerate(names):
                if name not in dataset.models:
                    known = ", ".join(dataset.models)
                    at = f"{self.name}: {field}[{i}]"
                    raise InputError(f"{at}: {dataset.name} has no model {name!r}; it has {known}")
        return dataset.restrict(models=self.models, without=self.without).complete()

    def stage(self, dataset: Dataset, rows: NDArray[np.intp], rng: np.random.Generator) -> World:
        """Return the world of some rows.

        Parameters
        ----------
        dataset : as `restrict` returned it; roles are those of all its rows.
        rows : int[n], in the order in which they come; mixes change it.
        rng : its children draw for the events, one for each: what an event draws does not depend
            on the others.

        Raises
        ------
        InputError
            Naming the scenario and the field, for an event that does not fit the data.
        """
        self._is_restricted(dataset)
        cast, world = Cast.of(dataset), World.still(dataset, rows)
        free = np.ones(len(world), dtype=np.bool_)
        later: list[tuple[WorldEvent, str, np.random.Generator]] = []
        for act, child in zip(self.acts, rng.spawn(len(self.acts)), strict=True):
            with _at(act.where):
                event = act.event.cast(cast)
                if isinstance(event, Mix):
                    world = event.arrange(world, child, free)
                    free[event.part(world)] = False
                else:
                    later.append((event, act.where, child))
        for event, where, child in later:
            with _at(where):
                world = event.apply(world, child)
        alone = np.flatnonzero(~world.offered.any(axis=1))
        if len(alone):
            raise InputError(f"{self.name}: no model is offered at request {alone[0]}")
        return world

    def _is_restricted(self, dataset: Dataset) -> None:
        kept = set(self.models) or set(dataset.models)
        if set(dataset.models) != kept - set(self.without):
            raise ValueError(f"{self.name}: stage takes the data that restrict returned")


@contextmanager
def _at(where: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}.{error}") from error


def shipped() -> dict[str, Traversable]:
    """Return the scenarios of this package by name; those of a bundle as ``bundle/name``."""
    found: dict[str, Traversable] = {}
    for entry in files("sim").joinpath("scenarios").iterdir():
        inside = _scenario_files(entry) if entry.is_dir() else ()
        found |= {f"{entry.name}/{_stem(file)}": file for file in inside}
        if _is_scenario(entry):
            found[_stem(entry)] = entry
    return dict(sorted(found.items()))


def load_scenarios(name: str) -> list[Scenario]:
    """Read scenarios.

    Parameters
    ----------
    name : a shipped one, a bundle, a file or a folder of files; shipped names come first, so that
        a folder called ``drop`` is ``./drop``.

    Returns
    -------
    list of Scenario
        One, or those of a bundle or folder in the order of their file names.

    Raises
    ------
    InputError
        Naming the file and the path in it.
    """
    known = shipped()
    if name in known:
        return [_load(name, known[name], ())]
    bundle = [one for one in known if one.startswith(f"{name}/")]
    if bundle:
        return [_load(one, known[one], ()) for one in bundle]
    path = Path(name)
    if path.is_dir():
        found = _scenario_files(path)
        if not found:
            raise InputError(f"{name}: no {' or '.join(SUFFIXES)} file in this folder")
        return [_load(str(path / file.name), file, ()) for file in found]
    if path.is_file():
        return [_load(str(path), path, ())]
    raise InputError(f"{name}: no such file, and no such scenario; valid: {_names(known)}")


def _names(known: Sequence[str] | dict[str, Traversable]) -> str:
    bundles = {name.partition("/")[0] for name in known if "/" in name}
    return ", ".join(sorted({*known, *bundles}))


def _is_scenario(file: Traversable) -> bool:
    return file.is_file() and file.name.endswith(SUFFIXES)


def _stem(file: Traversable) -> str:
    return file.name.rpartition(".")[0]


def _scenario_files(folder: Traversable) -> list[Traversable]:
    return sorted(filter(_is_scenario, folder.iterdir()), key=lambda file: file.name)


def _load(name: str, file: Traversable, above: tuple[str, ...]) -> Scenario:
    given = _parse(name, file)
    acts: list[Act] = []
    for i, other in enumerate(given.compose):
        where = f"{name}: compose[{i}]"
        found, source = _composed(other, file, where)
        circle = (*above, name)
        if found in circle:
            raise InputError(f"{where}: a circle: {' > '.join((*circle, found))}")
        acts.extend(_load(found, source, circle).acts)
    acts.extend(Act(event, f"{name}: events[{i}]") for i, event in enumerate(given.events))
    return Scenario(
        name=name,
        title=given.title,
        says=given.says,
        models=tuple(given.models),
        without=tuple(given.without),
        budget_rates=tuple(given.budget_rates),
        preference=given.preference,
        acts=tuple(acts),
    )


def _composed(other: str, file: Traversable, where: str) -> tuple[str, Traversable]:
    known = shipped()
    if other in known:
        return other, known[other]
    bundle = [one for one in known if one.startswith(f"{other}/")]
    if bundle:
        raise InputError(f"{where}: {other!r} is several; valid: {', '.join(bundle)}")
    if isinstance(file, Path):
        beside = file.parent / other
        if beside.is_file():
            # One name for one file, or a circle would not be seen as one.
            return str(beside.resolve()), beside
    raise InputError(f"{where}: no file or scenario {other!r}; valid: {_names(known)}")


def _parse(name: str, file: Traversable) -> ScenarioFile:
    try:
        content = read_yaml(file).content
    except YamlError as error:
        raise InputError(f"{name}: {error}") from error
    if content is None:
        raise InputError(f"{name}: a mapping of keys is expected")
    try:
        return ScenarioFile.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{name}: {_problem(error)}") from error


def _problem(error: ValidationError) -> str:
    """Return the path and the reason of one mistake; unknown keys come before missing ones."""
    first = min(mistakes(error), key=lambda mistake: mistake.kind != "extra_forbidden")
    location, reason = list(first.location), first.reason
    holder: type[BaseModel] = ScenarioFile
    if location[0] == "events" and len(location) > 2:
        holder = KINDS[str(location.pop(2))]  # pydantic names the kind after the index
    if first.kind in ("union_tag_invalid", "union_tag_not_found"):
        location.append("kind")
        tag = first.context.get("tag")
        reason = "missing" if tag is None else f"unknown kind {tag!r}"
        reason += f"; valid: {', '.join(KINDS)}"
    elif first.kind == "extra_forbidden":
        keys = [field.alias or key for key, field in holder.model_fields.items()]
        reason = f"unknown key; valid: {', '.join(keys)}"
    elif first.kind == "missing":
        reason = "missing"
    elif first.kind == "model_attributes_type":
        reason = "a mapping of keys is expected"
    return f"{path_of(location)}: {reason}"

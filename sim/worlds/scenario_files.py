"""Scenario files: small YAML files that name events and when they happen, and that compose.

Shipped files lie in ``sim/scenarios``; a folder of several files is a bundle.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from banditroute.core.mistakes import mistakes, path_of
from banditroute.core.pool import Preference, Strict
from banditroute.core.yaml_file import YamlError, read_yaml
from sim.errors import InputError, input_errors
from sim.worlds.events import KINDS, AnyEvent
from sim.worlds.scenario import Scenario, ScenarioEvent

SUFFIXES = (".yaml", ".yml")


class ScenarioFile(Strict):
    """Keys of a file; see `Scenario` for those that are not explained here.

    Attributes
    ----------
    title : str
        A few words.
    says : str
        One sentence on what happens.
    compose : list of str
        Other scenarios, by shipped name or by file beside this one. Their events come first, in
        order; nothing else is taken from them.
    models : list of str
        Models to keep of the data; empty keeps all.
    without : list of str
        Models to leave out of the data.
    budget_rates : list of float
        US dollars per request.
    preference : Preference, optional
        Weights of requests.
    events : list of AnyEvent
        In the order in which they are applied.
    """

    title: str = Field(min_length=1)
    says: str = ""
    compose: list[str] = []
    models: list[str] = []
    without: list[str] = []
    budget_rates: list[Annotated[float, Field(gt=0)]] = []
    preference: Preference | None = None
    events: list[AnyEvent] = []


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
    name : str
        A shipped scenario, a bundle, a file or a folder of files. Shipped names come first, so
        that a folder called ``drop`` is ``./drop``.

    Returns
    -------
    list of Scenario
        One, or those of a bundle or folder in the order of their file names.

    Raises
    ------
    InputError
        Naming the file and the path in it.
    """
    available = shipped()
    if name in available:
        return [_load(name, available[name], ())]
    bundle = _bundle(name, available)
    if bundle:
        return [_load(member, available[member], ()) for member in bundle]
    path = Path(name)
    if path.is_dir():
        inside = _scenario_files(path)
        if not inside:
            raise InputError(f"{name}: no {' or '.join(SUFFIXES)} file in this folder")
        return [_load(str(path / file.name), file, ()) for file in inside]
    if path.is_file():
        return [_load(str(path), path, ())]
    raise InputError(f"{name}: no such file, and no such scenario; valid: {_names(available)}")


def _bundle(name: str, available: Iterable[str]) -> list[str]:
    return [member for member in available if member.startswith(f"{name}/")]


def _names(available: Iterable[str]) -> str:
    bundles = {name.partition("/")[0] for name in available if "/" in name}
    return ", ".join(sorted({*available, *bundles}))


def _is_scenario(file: Traversable) -> bool:
    return file.is_file() and file.name.endswith(SUFFIXES)


def _stem(file: Traversable) -> str:
    return file.name.rpartition(".")[0]


def _scenario_files(folder: Traversable) -> list[Traversable]:
    return sorted(filter(_is_scenario, folder.iterdir()), key=lambda file: file.name)


def _load(name: str, file: Traversable, above: tuple[str, ...]) -> Scenario:
    """Return the scenario of a file; `above` are the scenarios that it is composed into."""
    content = _parse(name, file)
    events: list[ScenarioEvent] = []
    for i, other in enumerate(content.compose):
        where = f"{name}: compose[{i}]"
        other_name, other_file = _composed(other, file, where)
        chain = (*above, name)
        if other_name in chain:
            raise InputError(f"{where}: a circle: {' > '.join((*chain, other_name))}")
        events.extend(_load(other_name, other_file, chain).events)
    for i, event in enumerate(content.events):
        events.append(ScenarioEvent(event, f"{name}: events[{i}]"))
    return Scenario(
        name=name,
        title=content.title,
        says=content.says,
        models=tuple(content.models),
        without=tuple(content.without),
        budget_rates_usd=tuple(content.budget_rates),
        preference=content.preference,
        events=tuple(events),
    )


def _composed(other: str, file: Traversable, where: str) -> tuple[str, Traversable]:
    """Return name and file of a scenario that `file` names."""
    available = shipped()
    if other in available:
        return other, available[other]
    bundle = _bundle(other, available)
    if bundle:
        raise InputError(f"{where}: {other!r} is several; valid: {', '.join(bundle)}")
    if isinstance(file, Path):
        beside = file.parent / other
        if beside.is_file():
            # One name for one file, or a circle would not be recognised.
            return str(beside.resolve()), beside
    raise InputError(f"{where}: no file or scenario {other!r}; valid: {_names(available)}")


def _parse(name: str, file: Traversable) -> ScenarioFile:
    with input_errors(name, YamlError):
        content = read_yaml(file).content
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

"""Check the docstrings that others read, with numpydoc: ``python tests/docstrings.py [MODULE ...]``.

It reads what a package's ``__init__`` exports, the policies, the client, the settings and the
simulator's estimators: every class, function and method without an underscore that is defined
there. A line per fault, and status 1 where there is one. An override may say ``See `Base.method```
in place of a repetition.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import sys
import typing
from collections.abc import Iterator
from types import FunctionType, ModuleType

from numpydoc.docscrape import FunctionDoc
from numpydoc.validate import validate

PACKAGES = ["policies", "banditroute.client"]
MODULES = [
    "banditroute.settings",
    "banditroute.core.pool",
    "banditroute.core.policy_identity",
    "banditroute.features.basis",
    "banditroute.features.projection",
    "banditroute.serve",
    "sim.data.dataset",
    "sim.data.formats",
    "sim.worlds.event",
    "sim.worlds.events",
    "sim.worlds.roles",
    "sim.worlds.scenario",
    "sim.ope.estimators",
    "sim.ope.intervals",
    "sim.ope.overlap",
]
CHECKS = {
    "GL08": "has no docstring",
    "SS03": "summary without a period",
    "SS05": "summary is not a command",
    "PR01": "parameters not documented",
    "PR02": "documents parameters that it does not have",
    "PR03": "parameters in another order",
    "PR04": "a parameter without a type",
    "PR07": "a parameter without a text",
    "PR10": "a space before the colon is missing",
    "RT01": "does not say what it returns",
    "YD01": "does not say what it yields",
}
METHODS = (FunctionType, classmethod, staticmethod)
BY_SUMMARY = {"RT01", "YD01"}
"""A summary that begins with ``Return`` or ``Yield`` says so."""


def modules() -> Iterator[ModuleType]:
    """Yield the modules whose docstrings are checked."""
    for name in PACKAGES:
        package = importlib.import_module(name)
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            yield importlib.import_module(found.name)
    yield from map(importlib.import_module, MODULES)


def objects(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Yield (path, object) of what a module shows to others."""
    exported = getattr(module, "__all__", None)
    for name, thing in vars(module).items():
        if name.startswith("_") or not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        here = thing.__module__ == module.__name__
        if not (name in exported if exported is not None else here):
            continue
        path = f"{thing.__module__}.{thing.__qualname__}"
        yield path, thing
        if inspect.isclass(thing) and here:
            for method, body in vars(thing).items():
                if not method.startswith("_") and isinstance(body, METHODS):
                    yield f"{path}.{method}", getattr(thing, method)


def faults(path: str, thing: object) -> Iterator[str]:
    """Yield what is wrong with one docstring."""
    text = inspect.getdoc(thing) or ""
    if text.startswith("See `"):
        return
    fields = _fields(thing)
    if fields is not None:
        if not text:
            yield CHECKS["GL08"]
            return
        doc = FunctionDoc(None, doc=text)
        said = {
            name.strip().lstrip("*"): one.type
            for section in ("Parameters", "Attributes")
            for one in doc[section]
            for name in one.name.split(",")
        }
        if lacking := [name for name in fields if name not in said]:
            yield f"fields not documented: {', '.join(lacking)}"
        if untyped := [name for name in fields if name in said and not said[name]]:
            yield f"fields without a type: {', '.join(untyped)}"
        return
    summary = text.split(maxsplit=1)[0] if text else ""
    for code, message in validate(path)["errors"]:
        if code not in CHECKS or (code in BY_SUMMARY and summary in ("Return", "Yield")):
            continue
        yield f"{CHECKS[code]} ({code}: {message})"


def _fields(thing: object) -> list[str] | None:
    """Return the fields of a dataclass, model, typed dict or named tuple; None for all else."""
    if not inspect.isclass(thing):
        return None
    if getattr(thing, "_is_protocol", False):
        return []  # its __init__ is not its own
    if dataclasses.is_dataclass(thing):
        return [f.name for f in dataclasses.fields(thing) if f.init and not f.name.startswith("_")]
    if typing.is_typeddict(thing) or hasattr(thing, "_fields"):
        return list(thing.__annotations__)
    own = getattr(thing, "model_fields", None)
    return None if own is None else [name for name in own if name in thing.__annotations__]


def main() -> None:
    """Print the faults of the modules that are named, or of all."""
    wanted, seen, count = set(sys.argv[1:]), set[str](), 0
    for module in modules():
        if wanted and not any(module.__name__.startswith(name) for name in wanted):
            continue
        for path, thing in objects(module):
            if path in seen:
                continue
            seen.add(path)
            for fault in faults(path, thing):
                count += 1
                print(f"{path}: {fault}")
    print(f"{len(seen)} docstrings, {count} faults")
    sys.exit(1 if count else 0)


if __name__ == "__main__":
    main()

"""Mistakes in values from outside, as pydantic finds them, in words for a person.

Paths read like ``requests[17].prompt``, in requests as in files and on the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

_BLAMED = "blamed"
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a value.

    Attributes
    ----------
    kind : str
        Pydantic's name for such a mistake, for instance ``missing``.
    location : tuple of (int or str)
        Field names, keys and indices that lead to the mistake.
    reason : str
        What is wrong there.
    context : Mapping[str, Any]
        What pydantic adds about mistakes of this kind.
    """

    kind: str
    location: tuple[int | str, ...]
    reason: str
    context: Mapping[str, Any]


def blame(field: str, reason: str) -> PydanticCustomError:
    """Return an error about one field, for a validator of the whole model to raise."""
    return PydanticCustomError(_BLAMED, "{reason}", {"field": field, "reason": reason})


def mistakes(error: ValidationError) -> Iterator[Mistake]:
    """Yield all mistakes of a value, in the order of its fields."""
    for problem in error.errors(include_url=False, include_input=False):
        kind, location, context = problem["type"], problem["loc"], problem.get("ctx", {})
        if kind == _BLAMED:
            location = (*location, context["field"])
        reason = problem["msg"].removeprefix("Value error, ")
        yield Mistake(kind, location, reason, context)


def path_of(location: Iterable[int | str]) -> str:
    """Return a location as text; a long name is cut, since it may come from a caller."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":  # pydantic's mark of a mistake in a key
            path += f".{part[:_LONGEST_NAME]}" if path else part[:_LONGEST_NAME]
    return path


def explain(error: ValidationError) -> str:
    """Return the first mistake in one line, its path in front."""
    first = next(mistakes(error))
    path = path_of(first.location)
    return f"{path}: {first.reason}" if path else first.reason

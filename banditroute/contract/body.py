"""Bodies from the wire: their base, and what a mistake in one is answered with."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from banditroute.core.errors import InvalidJson, InvalidRequest, InvalidValue

MANY_MISTAKES = 10_000


def blame(field: str, why: str) -> PydanticCustomError:
    """Return the error of a field that is wrong beside others, for a validator of the whole."""
    return PydanticCustomError("blamed", "{why}", {"field": field, "why": why})


class Wire(BaseModel):
    """Base of every body."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


Body = TypeVar("Body", bound=BaseModel)


def parse(kind: type[Body], body: bytes) -> Body:
    """Return `body` as `kind`; anything wrong is an `InvalidRequest` with the field named."""
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise invalid_body(error) from None


def invalid_body(error: ValidationError) -> InvalidRequest:
    """Return the first mistake of a body as a fault."""
    if error.error_count() > MANY_MISTAKES:
        # Naming one would mean to list them all first.
        return InvalidValue(f"body: over {MANY_MISTAKES:,} mistakes")
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] == "json_invalid":
        return InvalidJson(f"body: {problem['msg']}")
    at = problem["loc"]
    path = _path((*at, problem["ctx"]["field"]) if problem["type"] == "blamed" else at)
    message = problem["msg"].removeprefix("Value error, ")
    return InvalidValue(f"{path or 'body'}: {message}", param=path or None)


def _path(location: tuple[int | str, ...]) -> str:
    """Return the path of a field; what comes from the caller is cut short."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{part[:200]}" if path else part[:200]
        if part == "content":  # below it stand the names of the types that it may have
            break
    return path

"""How the body of a request is read, and how a mistake in it is reported."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from banditroute.core.errors import InvalidJson, InvalidRequest, InvalidValue
from banditroute.core.mistakes import mistakes, path_of

MANY_MISTAKES = 10_000


class Wire(BaseModel):
    """Base of all bodies: strict types, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


Body = TypeVar("Body", bound=BaseModel)


def parse(kind: type[Body], body: bytes) -> Body:
    """Return a JSON body as a model.

    Parameters
    ----------
    kind : type
        The model.
    body : bytes
        The body as it was received.

    Raises
    ------
    InvalidRequest
        Naming the first field that is wrong.
    """
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise invalid_body(error) from None


def invalid_body(error: ValidationError) -> InvalidRequest:
    """Return the first mistake of a body as a fault."""
    if error.error_count() > MANY_MISTAKES:
        # Pydantic lists all mistakes before it gives the first one.
        return InvalidValue(f"body: over {MANY_MISTAKES:,} mistakes")
    first = next(mistakes(error))
    if first.kind == "json_invalid":
        return InvalidJson(f"body: {first.reason}")
    location = first.location
    if "content" in location:  # pydantic adds the names of the types that it may have
        location = location[: location.index("content") + 1]
    path = path_of(location)
    return InvalidValue(f"{path or 'body'}: {first.reason}", param=path or None)

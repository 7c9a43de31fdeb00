"""Errors in what a user gives: a file, an option or a value. Never raised for a bug of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Wrong input. The message is one line that names the file and field, or the option."""


@contextmanager
def input_errors(where: str, *kinds: type[Exception]) -> Iterator[None]:
    """Raise InputError for an error of these kinds in the body, with its place in front.

    Parameters
    ----------
    where : str
        The file or the option.
    *kinds : type
        Of exceptions. Of an OSError, only its reason is kept.
    """
    try:
        yield
    except kinds as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise InputError(f"{where}: {reason or error}") from error

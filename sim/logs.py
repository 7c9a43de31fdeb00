"""The log of a daemon, opened for reading by whoever learns or judges from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from banditroute.store.engine import open_engine
from banditroute.store.log import Log
from sim.errors import InputError


@contextmanager
def opened(url: str, option: str = "--log") -> Iterator[Log]:
    """Yield the log at a database URL; what the database says against it is an InputError.

    Parameters
    ----------
    url : any that SQLAlchemy knows.
    option : where it was given, for messages.
    """
    try:
        engine = open_engine(url)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from error
    try:
        if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
            raise InputError(f"{option}: there is no file {engine.url.database}")
        try:
            yield Log(engine)
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        raise InputError(f"{option}: {str(error).splitlines()[0]}") from error

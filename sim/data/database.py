"""The log of a daemon, opened for reading by whoever learns or judges from it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError

from banditroute.store.engine import open_engine, shown
from banditroute.store.log import Log
from banditroute.store.tables import decisions
from sim.errors import InputError

_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*(?=@)|([?&][^=&\s]*password=)[^&\s]*")


def without_passwords(text: str) -> str:
    """Return text in which the URLs of databases have no passwords."""
    return _PASSWORD.sub(lambda found: f"{found[2] or f'{found[1]}:'}***", text)


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
        if engine.dialect.name == "sqlite":
            _is_ours(Path(engine.url.database or ""), option)
        try:
            if not inspect(engine).has_table(decisions.name):
                raise InputError(f"{option}: {shown(url)} is no daemon's database")
            yield Log(engine)
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        raise InputError(f"{option}: {str(error).splitlines()[0]}") from error


def _is_ours(path: Path, option: str) -> None:
    """Refuse a file that a daemon did not make: to open it as if one had would change it."""
    if not path.exists():
        raise InputError(f"{option}: there is no file {path}")
    query = "SELECT 1 FROM sqlite_master WHERE name = ?"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
            found = file.execute(query, (decisions.name,)).fetchone()
    except sqlite3.Error as error:
        raise InputError(f"{option}: {path}: {error}") from error
    if found is None:
        raise InputError(f"{option}: {path} is no daemon's database")

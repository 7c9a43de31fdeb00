"""The log of a daemon, opened for reading. Nothing here may change a database."""

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
from sim.errors import InputError, input_errors

_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*(?=@)|([?&][^=&\s]*password=)[^&\s]*")


def without_passwords(text: str) -> str:
    """Return a text with asterisks for the passwords in URLs of databases.

    Parameters
    ----------
    text : str
        Any text, such as a command line.

    Returns
    -------
    str
        The text, to show or to store.
    """
    return _PASSWORD.sub(lambda match: f"{match[2] or f'{match[1]}:'}***", text)


@contextmanager
def open_log(url: str, option: str = "--log") -> Iterator[Log]:
    """Open the log in a daemon's database, and close it afterwards.

    Parameters
    ----------
    url : str
        Any that SQLAlchemy accepts.
    option : str
        Option that the URL comes from, for messages.

    Yields
    ------
    Log
        The log.

    Raises
    ------
    InputError
        Naming the option, for every error of the database, also while the log is open.
    """
    with input_errors(option, ValueError):
        engine = open_engine(url)
    try:
        if engine.dialect.name == "sqlite":
            _require_decisions(Path(engine.url.database or ""), option)
        try:
            if not inspect(engine).has_table(decisions.name):
                raise InputError(f"{option}: {shown(url)} is not a daemon's database")
            yield Log(engine)
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        raise InputError(f"{option}: {str(error).splitlines()[0]}") from error


def _require_decisions(path: Path, option: str) -> None:
    """Refuse an SQLite file without the table of decisions: to open it for a log changes it."""
    if not path.exists():
        raise InputError(f"{option}: there is no file {path}")
    query = "SELECT 1 FROM sqlite_master WHERE name = ?"
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with (
        input_errors(f"{option}: {path}", sqlite3.Error),
        closing(sqlite3.connect(uri, uri=True)) as file,
    ):
        table = file.execute(query, (decisions.name,)).fetchone()
    if table is None:
        raise InputError(f"{option}: {path} is not a daemon's database")

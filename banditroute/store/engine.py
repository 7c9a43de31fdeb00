"""Open a database and check the revision of its schema.

The schema of an empty database is built at once. A database of another revision is refused with
the command that upgrades it; it is never changed silently. Only one writer writes at a time: SQLite
has a lock of its own, on PostgreSQL it is an advisory lock. So positions in the log grow in the
order of commits, and a reader that continues from a position misses no event that commits later.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from typing import IO, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

HEAD = "0004"
"""The revision that this code needs."""

WRITER = {"banditroute_writer": True}
"""Execution options of a connection that writes."""

_PSYCOPG = "postgresql+psycopg"
_WRITERS = 0x62616E646974  # the advisory lock of all writers; any constant would do
# A writer that hangs in a transaction loses it, so that the others can go on. A writer that waits
# for the lock gives up after the time that SQLite waits. One statement saves every group two round
# trips.
_TAKE_TURN = (
    "SELECT set_config('idle_in_transaction_session_timeout', '5s', true), "
    f"set_config('lock_timeout', '10s', true), pg_advisory_xact_lock({_WRITERS})"
)
# Detect a server that is gone within seconds; the default of TCP is two hours.
_TIMEOUTS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


class SchemaMismatch(RuntimeError):
    """The schema of the database is of another revision than this code needs."""


def open_engine(url: str) -> Engine:
    """Return an engine.

    Each transaction of a reader sees one consistent state while the writer writes.

    Parameters
    ----------
    url : str
        URL of the database, as SQLAlchemy reads it.

    Returns
    -------
    Engine
        Not connected yet.

    Raises
    ------
    ValueError
        When the URL cannot be used, or its driver is not installed.
    """
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername=_PSYCOPG)
        elif parsed.get_backend_name() == "postgresql" and parsed.drivername != _PSYCOPG:
            raise ValueError("database: PostgreSQL is reached through psycopg: postgresql://...")
        memory = parsed.database in (None, "", ":memory:") or parsed.query.get("mode") == "memory"
        if parsed.get_backend_name() == "sqlite" and memory:
            raise ValueError("database: an in-memory SQLite database cannot be shared; use a file")
        # A failed statement is logged without its parameters, which are data of callers.
        engine = create_engine(parsed, hide_parameters=True, **_options(parsed))
    except ImportError as error:
        if not url.startswith("postgres"):
            raise ValueError(f"database: {error}") from error
        raise ValueError(
            "database: PostgreSQL needs psycopg, which comes with the extra 'postgres': "
            f"pip install 'banditroute[postgres]' ({str(error).splitlines()[0]})"
        ) from error
    except (ArgumentError, NoSuchModuleError) as error:
        raise ValueError(f"database: {error}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _tune_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.dialect.name == "postgresql":
        event.listen(engine, "begin", _begin_postgresql)
    return engine


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    """Open an engine for a block, at whose end its connections are closed; see `open_engine`.

    Parameters
    ----------
    url : str
        See `open_engine`.

    Yields
    ------
    Engine
        Not connected yet.
    """
    engine = open_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def _options(url: URL) -> dict[str, Any]:
    """Return options of `create_engine`."""
    if url.drivername != _PSYCOPG:
        return {}
    timeouts = {name: value for name, value in _TIMEOUTS.items() if name not in url.query}
    return {"pool_pre_ping": True, "connect_args": timeouts}


def shown(url: str | URL) -> str:
    """Return a database URL without its passwords, for a person."""
    parsed = make_url(url)
    secret = [name for name in parsed.query if "password" in name]
    return parsed.difference_update_query(secret).render_as_string(hide_password=True)


def claim(engine: Engine, *, patience_s: float) -> IO[bytes] | None:
    """Claim a SQLite file for one daemon; a server's database can be shared and needs no claim.

    Parameters
    ----------
    engine : Engine
        The database.
    patience_s : float
        Seconds to wait for a daemon that is just ending.

    Returns
    -------
    file or None
        A file that holds the claim until it is closed, or the process ends.

    Raises
    ------
    ValueError
        When another daemon has the claim.
    """
    if engine.dialect.name != "sqlite":
        return None
    path = f"{engine.url.database}.lock"
    deadline_s = time.monotonic() + patience_s
    lock = open(path, "ab")  # noqa: SIM115 - it stays open for as long as the daemon lives
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError:
            if time.monotonic() >= deadline_s:
                lock.close()
                raise ValueError(
                    f"database: another daemon uses {engine.url.database}; SQLite serves one"
                ) from None
        time.sleep(0.1)


def _tune_sqlite(connection: Any, _record: Any) -> None:
    # SQLAlchemy begins transactions itself, through `_begin_sqlite`.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=10000")
    connection.execute("PRAGMA cache_size=-65536")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("banditroute_writer")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    from psycopg import IsolationLevel

    writes = connection.get_execution_options().get("banditroute_writer")
    raw: Any = connection.connection.driver_connection
    # A writer must see what was committed while it waited. All queries of a reader must see the
    # same state.
    level = IsolationLevel.READ_COMMITTED if writes else IsolationLevel.REPEATABLE_READ
    if raw.isolation_level != level:
        raw.isolation_level = level
    if writes:
        connection.exec_driver_sql(_TAKE_TURN)


def set_durability(connection: Connection, *, full: bool) -> None:
    """Choose whether the next commits survive a power loss, or only the death of this process.

    It must be called outside a transaction. On PostgreSQL every commit survives a power loss.

    Parameters
    ----------
    connection : Connection
        Of the writer.
    full : bool
        Whether commits must survive a power loss.
    """
    if connection.dialect.name == "sqlite":
        raw: Any = connection.connection.driver_connection
        raw.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")


def upgrade(engine: Engine) -> None:
    """Bring the schema to the revision that this code needs."""
    # These imports take a fifth of a daemon's start, and most starts need no migration.
    from alembic import command
    from alembic.config import Config

    with as_file(files("banditroute.store") / "migrations") as scripts:
        config = Config()
        config.set_main_option("script_location", str(scripts))
        config.attributes["engine"] = engine
        command.upgrade(config, "head")


def prepare(engine: Engine) -> None:
    """Build the schema of an empty database; refuse a database of another revision.

    Raises
    ------
    SchemaMismatch
        With the command that upgrades it.
    """
    with engine.connect() as connection:
        tables = inspect(connection).get_table_names()
        current = None
        if "alembic_version" in tables:
            current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if current == HEAD:
        return
    if tables:
        where = shown(engine.url)
        raise SchemaMismatch(
            f"database {where} is at revision {current}, this version needs {HEAD}: "
            f"run `banditroute db upgrade --db {where}`"
        )
    upgrade(engine)

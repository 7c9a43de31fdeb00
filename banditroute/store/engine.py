"""Opening a database, and knowing whether its schema is ours.

A fresh database is built at once; one of another revision is refused with the command that
upgrades it, never changed silently. Writers go one at a time, whatever the database: on SQLite by
its own lock, on PostgreSQL by an advisory one, so that positions in the log grow in the order of
commits and nobody who reads on from a position misses what commits late.
"""

from __future__ import annotations

import fcntl
import time
from importlib.resources import as_file, files
from typing import IO, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

HEAD = "0004"
"""The revision that this code needs."""

WRITER = {"banditroute_writer": True}
"""Execution options of a connection that will write."""

_PSYCOPG = "postgresql+psycopg"
_WRITERS = 0x62616E646974  # the advisory lock of all writers; any constant would do
# A writer that is stopped inside a transaction loses it, so that the others can go on; one that
# waits for its turn gives up when SQLite would. In one statement: a round trip for each group.
_TURN = (
    "SELECT set_config('idle_in_transaction_session_timeout', '5s', true), "
    f"set_config('lock_timeout', '10s', true), pg_advisory_xact_lock({_WRITERS})"
)
# A server that is gone must be noticed in seconds, not after the two hours of TCP.
_PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


class SchemaMismatch(RuntimeError):
    """The database is of another revision than this code."""


def open_engine(url: str) -> Engine:
    """Return an engine for `url`; a URL that cannot be used is a ValueError.

    Readers see one consistent state per transaction while the writer writes: of SQLite's WAL, or
    a snapshot of PostgreSQL's.
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
        # A failed statement is logged without its parameters: they are the callers' data.
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


def _options(url: URL) -> dict[str, Any]:
    """Return what `create_engine` is told beside the URL."""
    if url.drivername != _PSYCOPG:
        return {}
    patience = {name: value for name, value in _PATIENCE.items() if name not in url.query}
    return {"pool_pre_ping": True, "connect_args": patience}


def shown(url: str | URL) -> str:
    """Return a database URL without its passwords."""
    parsed = make_url(url)
    secret = [name for name in parsed.query if "password" in name]
    return parsed.difference_update_query(secret).render_as_string(hide_password=True)


def claim(engine: Engine, *, patience: float) -> IO[bytes] | None:
    """Claim a SQLite file for one daemon; another database can be shared and needs no claim.

    Parameters
    ----------
    engine : the database.
    patience : seconds to wait for a daemon that is just ending.

    Returns
    -------
    A file to close when the daemon ends; the death of the process closes it too.

    Raises
    ------
    ValueError
        Another daemon has the file.
    """
    if engine.dialect.name != "sqlite":
        return None
    path = f"{engine.url.database}.lock"
    deadline = time.monotonic() + patience
    lock = open(path, "ab")  # noqa: SIM115 - it stays open for as long as the daemon lives
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError:
            if time.monotonic() >= deadline:
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
    # A writer must see what was committed while it waited; a reader's queries belong together.
    level = IsolationLevel.READ_COMMITTED if writes else IsolationLevel.REPEATABLE_READ
    if raw.isolation_level != level:
        raw.isolation_level = level
    if writes:
        connection.exec_driver_sql(_TURN)


def set_durability(connection: Connection, *, full: bool) -> None:
    """Choose what the next commit survives: power loss, or only the death of this process.

    Must be called outside a transaction. On PostgreSQL every commit is a full one.
    """
    if connection.dialect.name == "sqlite":
        raw: Any = connection.connection.driver_connection
        raw.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")


def upgrade(engine: Engine) -> None:
    """Bring the schema to the revision of this code."""
    # A fifth of a daemon's start, and most starts need no migration.
    from alembic import command
    from alembic.config import Config

    with as_file(files("banditroute.store") / "migrations") as scripts:
        config = Config()
        config.set_main_option("script_location", str(scripts))
        config.attributes["engine"] = engine
        command.upgrade(config, "head")


def prepare(engine: Engine) -> None:
    """Build an empty database; refuse one of another revision.

    Raises
    ------
    SchemaMismatch
        With the command to run.
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

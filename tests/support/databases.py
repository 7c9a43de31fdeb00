"""Databases for tests: files of SQLite, and a PostgreSQL server that runs during the tests."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, text

import banditroute.store
from banditroute.store.engine import HEAD, open_engine, prepare
from banditroute.store.tables import metadata

SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For a test of SQLite itself, or of arithmetic that no database changes."""

POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


_SCHEMA = """
SELECT md5(string_agg(concat_ws(' ', c.relname, a.attname, a.attnum), ',' ORDER BY c.oid, a.attnum))
FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace
"""
_OTHERS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_RESTART = "SELECT setval(oid, 1, false) FROM pg_class WHERE relkind = 'S'"


class Postgres:
    """A server with a template that the migrations built once.

    A database that a test has done with is emptied for the next one, which takes some 10 ms; it is
    copied again, which takes 100, after a test that changed its tables.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = itertools.count()
        self._kept: list[tuple[str, Engine]] = []
        self._admin = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        # Nothing here has to survive a crash of the machine.
        for name in ("fsync", "full_page_writes"):
            self._run(f"ALTER SYSTEM SET {name} = off")
        self._run("SELECT pg_reload_conf()")
        self._run("CREATE DATABASE built")
        engine = open_engine(self.url("built"))
        prepare(engine)
        with engine.connect() as connection:
            self._schema = connection.execute(text(_SCHEMA)).scalar_one()
        engine.dispose()

    def url(self, name: str) -> str:
        return self._url.replace("/postgres?", f"/{name}?").replace("://", "+psycopg://", 1)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the URL of a database of its own, with the tables of this version."""
        name, admin = self._kept.pop() if self._kept else self._make("built")
        yield self.url(name)
        with admin.connect() as connection:
            connection.execute(text(_OTHERS))
            clean = connection.execute(text(_SCHEMA)).scalar_one() == self._schema
            if clean:
                emptied = [
                    f"DELETE FROM {table}" for table in (*metadata.tables, "alembic_version")
                ]
                head = f"INSERT INTO alembic_version VALUES ('{HEAD}')"
                connection.exec_driver_sql("; ".join([*emptied, head, _RESTART]))
        if clean:
            self._kept.append((name, admin))
        else:
            self._drop(name, admin)

    @contextmanager
    def empty(self) -> Iterator[str]:
        """Yield the URL of a database without tables."""
        name, admin = self._make("template1")
        yield self.url(name)
        self._drop(name, admin)

    def _make(self, template: str) -> tuple[str, Engine]:
        name = f"t{next(self._numbers)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name, create_engine(self.url(name), isolation_level="AUTOCOMMIT")

    def _drop(self, name: str, admin: Engine) -> None:
        admin.dispose()
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        for _, admin in self._kept:
            admin.dispose()
        self._admin.dispose()

    def _run(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(statement))


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it misses in the environment
        import pgserver
    # Not below pytest's own folder: the name of a socket has at most 107 characters.
    home = Path(tempfile.mkdtemp(prefix="pg-"))
    server = pgserver.get_server(home, cleanup_mode="stop")
    try:
        made = Postgres(server.get_uri())
        yield made
        made.close()
    finally:
        server.cleanup()
        shutil.rmtree(home, ignore_errors=True)


def migrate(engine: Engine, revision: str) -> None:
    """Go up to the head, or down to another revision."""
    config = Config()
    scripts = Path(banditroute.store.__file__).parent / "migrations"
    config.set_main_option("script_location", str(scripts))
    config.attributes["engine"] = engine
    (command.upgrade if revision == "head" else command.downgrade)(config, revision)

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from support.databases import POSTGRESQL, SQLITE, Postgres, migrate
from support.small_log import Book

import banditroute.store
from banditroute.store import engine as engine_module
from banditroute.store.engine import (
    HEAD,
    WRITER,
    SchemaMismatch,
    claim,
    open_engine,
    prepare,
    set_durability,
    shown,
    upgrade,
)
from banditroute.store.feedback import Post
from banditroute.store.log import append_event, append_resets
from banditroute.store.sessions import SessionQuality
from banditroute.store.tables import metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/new.db"
    else:
        with request.getfixturevalue("postgres").empty() as url:
            yield url


def tables(url: str) -> set[str]:
    engine = open_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_a_fresh_database_is_built_and_then_left_alone(url: str) -> None:
    for _ in range(2):
        engine = open_engine(url)
        prepare(engine)
        engine.dispose()
    assert tables(url) == {*metadata.tables, "alembic_version"}


def test_migrations_build_exactly_the_tables(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "render_as_batch": True}
        )
        assert compare_metadata(context, metadata) == []


def test_constraints_that_keep_feedback_exactly_once_are_there(engine: Engine) -> None:
    unique = {
        table: {tuple(found["column_names"]) for found in inspect(engine).get_unique_constraints(table)}
        for table in ("events", "feedback")
    }  # fmt: skip
    assert unique == {
        "events": {("decision_id", "field")},
        "feedback": {("decision_id", "key")},
    }


@pytest.mark.parametrize("revision", ["0000", None])
def test_another_revision_is_refused_with_the_command(engine: Engine, revision: str | None) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
        if revision is not None:
            add = text("INSERT INTO alembic_version VALUES (:revision)")
            connection.execute(add, {"revision": revision})
    with pytest.raises(SchemaMismatch) as caught:
        prepare(engine)
    message = str(caught.value)
    assert f"at revision {revision}" in message and HEAD in message
    assert f"banditroute db upgrade --db {engine.url}" in message


def test_a_refused_database_is_not_touched(url: str) -> None:
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (value INTEGER)"))
    with pytest.raises(SchemaMismatch):
        prepare(engine)
    engine.dispose()
    assert tables(url) == {"theirs"}


def test_a_password_is_not_shown(tmp_path: Path, empty_database: Path) -> None:
    path = tmp_path / "copy.db"
    shutil.copy(empty_database, path)
    engine = open_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'x'"))
    engine.url = engine.url.set(username="me", password="secret")
    with pytest.raises(SchemaMismatch) as caught:
        prepare(engine)
    engine.dispose()
    assert "secret" not in str(caught.value)


def test_upgrade_brings_an_empty_database_up(url: str) -> None:
    engine = open_engine(url)
    upgrade(engine)
    upgrade(engine)
    prepare(engine)
    with engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == HEAD
    engine.dispose()


def test_there_is_one_line_of_migrations() -> None:
    scripts = ScriptDirectory(str(Path(banditroute.store.__file__).parent / "migrations"))
    assert scripts.get_heads() == [HEAD]


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"],
)
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="in-memory"):
        open_engine(url)


@pytest.mark.parametrize("url", ["nosuch://host/db", "sqlite+nosuch:///x", "not a url", "", "pg:x"])
def test_a_url_that_cannot_be_used_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match="^database: "):
        open_engine(url)


def test_a_url_of_postgresql_means_psycopg_3(postgres_url: str) -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        engine = open_engine(str(make_url(postgres_url).set(drivername=scheme)))
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
        engine.dispose()
    with pytest.raises(ValueError, match="^database: PostgreSQL is reached through psycopg"):
        open_engine("postgresql+psycopg2://host/db")


def test_without_psycopg_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        ValueError, match=r"^database: .*pip install 'banditroute\[postgres\]'"
    ) as e:
        open_engine("postgresql://me:secret@host/db")
    assert "secret" not in str(e.value)


def test_no_password_of_a_url_is_shown() -> None:
    url = shown("postgresql://me:secret@host/db?sslpassword=hidden&sslmode=require")
    assert url == "postgresql://me:***@host/db?sslmode=require"
    assert shown("sqlite:///x.db") == "sqlite:///x.db"


def test_readers_do_not_wait_for_the_writer(engine: Engine) -> None:
    with engine.connect().execution_options(**WRITER) as writing, writing.begin():
        writing.execute(text("DELETE FROM events"))
        with engine.connect() as reading:
            if engine.dialect.name == "sqlite":
                assert reading.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
            assert reading.execute(text("SELECT count(*) FROM events")).scalar_one() == 0


@SQLITE
def test_durability_is_chosen_per_commit(engine: Engine) -> None:
    with engine.connect() as connection:
        for full, level in ((False, 1), (True, 2)):
            set_durability(connection, full=full)
            with connection.begin():
                assert connection.execute(text("PRAGMA synchronous")).scalar_one() == level


@SQLITE
def test_a_file_is_claimed_by_one_daemon_at_a_time(engine: Engine) -> None:
    held = claim(engine, patience_s=0.0)
    assert held is not None
    with pytest.raises(ValueError, match="database: another daemon uses .*test.db"):
        claim(engine, patience_s=0.0)
    held.close()
    again = claim(engine, patience_s=0.0)
    assert again is not None
    again.close()


def test_processes_that_start_at_once_build_one_schema(postgres: Postgres, tmp_path: Path) -> None:
    """SQLite serves one daemon, which claims its file."""
    script = (
        "import sys, pathlib, time\n"
        "from alembic import command\n"
        "from banditroute.store.engine import open_engine, prepare\n"
        "engine = open_engine(sys.argv[1])\n"
        "print(flush=True)\n"
        "sys.stdin.readline()\n"
        "prepare(engine)\n"
        "engine.dispose()\n"
    )
    with postgres.empty() as url:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", script, url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        for process in started:
            assert process.stdout is not None and process.stdout.readline() == "\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60.0)[1] for process in started]
        assert [process.returncode for process in started] == [0, 0, 0], said
        assert tables(url) == {*metadata.tables, "alembic_version"}


def test_writers_take_turns_and_see_what_the_previous_one_committed(engine: Engine) -> None:
    """Otherwise a position could be committed after a later one, and a learner would skip it."""
    book, order = Book(engine), []
    first = book.log.end()
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:
        with engine.connect().execution_options(**WRITER) as connection, connection.begin():
            append_event(connection, pool="default", kind="x", payload={}, now_us=0)
            holding.set()
            assert release.wait(10.0)
            order.append("first")

    def follow() -> None:
        with engine.connect().execution_options(**WRITER) as connection, connection.begin():
            order.append("second")
            count = text("SELECT count(*), max(seq) FROM events")
            order.append(tuple(connection.execute(count).one()))

    with ThreadPoolExecutor(2) as threads:
        held = threads.submit(hold)
        assert holding.wait(10.0)
        followed = threads.submit(follow)
        assert book.log.end() == first  # a reader sees neither and does not wait
        release.set()
        held.result(), followed.result()
    assert order == ["first", "second", (first + 1, first + 1)]


def test_all_queries_of_a_reader_see_one_state(engine: Engine) -> None:
    book = Book(engine)
    count = text("SELECT count(*) FROM events")
    with engine.connect() as connection:
        before = connection.execute(count).scalar_one()
        book.append("x")
        assert connection.execute(count).scalar_one() == before
    with engine.connect() as connection:
        assert connection.execute(count).scalar_one() == before + 1


@POSTGRESQL
def test_a_writer_that_waits_too_long_gives_up(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.connect().execution_options(**WRITER) as holding, holding.begin():
        holding.execute(text("SELECT 1"))
        monkeypatch.setattr(
            engine_module, "_TAKE_TURN", engine_module._TAKE_TURN.replace("10s", "50ms")
        )
        with engine.connect().execution_options(**WRITER) as waiting:
            with pytest.raises(OperationalError, match="lock timeout"):
                waiting.begin()
            holding.rollback()
            with waiting.begin():  # the failure has left nothing behind
                assert waiting.execute(text("SELECT 1")).scalar_one() == 1


@POSTGRESQL
def test_a_writer_that_hangs_in_a_transaction_loses_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        engine_module, "_TAKE_TURN", engine_module._TAKE_TURN.replace("'5s'", "'50ms'")
    )
    with engine.connect().execution_options(**WRITER) as asleep:
        asleep.begin()
        with engine.connect().execution_options(**WRITER) as other, other.begin():
            assert other.execute(text("SELECT 1")).scalar_one() == 1
        with pytest.raises(DBAPIError) as caught:
            asleep.execute(text("SELECT 1"))
        assert caught.value.connection_invalidated
        asleep.rollback()
        with asleep.begin():
            assert asleep.execute(text("SELECT 1")).scalar_one() == 1


@POSTGRESQL
def test_every_commit_of_postgresql_survives_a_power_loss(engine: Engine) -> None:
    with engine.connect().execution_options(**WRITER) as connection:
        set_durability(connection, full=False)
        with connection.begin():
            assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == "on"


def test_going_down_a_revision_and_up_again_keeps_rows_and_gives_no_position_twice(
    engine: Engine,
) -> None:
    book = Book(engine)
    book.feed(5)
    _, (one,) = book.decide(1, session="s")
    assert book.send(SessionQuality("default", "s", "k", 0.5), Post(one, "k", cost_usd=1.0)) == [
        "accepted", "accepted"
    ]  # fmt: skip
    with book.begin() as connection:
        append_resets(connection, pool="default", policy="p", alarms={"small": 3}, now_us=0)
    book.append("drained", name="x")
    newest = book.log.end()
    with engine.begin() as connection:
        connection.execute(text(f"DELETE FROM events WHERE seq = {newest}"))
    rows = [tuple(event)[:18] for event in book.events()]
    book.compare(np.random.default_rng(0))
    assert book.log.end() > newest
    migrate(engine, "0001")
    with engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == "0001"
        assert "trigger_seq" not in {c["name"] for c in inspect(connection).get_columns("events")}
    migrate(engine, "head")
    assert [tuple(event)[:18] for event in book.events()] == rows
    assert book.append("drained", name="x") > newest + 1
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"render_as_batch": True})
        assert compare_metadata(context, metadata) == []

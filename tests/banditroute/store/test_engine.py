from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from logbook import Book
from sqlalchemy import Engine, inspect, text

import banditroute.store
from banditroute.store.engine import (
    HEAD,
    WRITER,
    SchemaMismatch,
    claim,
    open_engine,
    prepare,
    set_durability,
    upgrade,
)
from banditroute.store.tables import metadata


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/new.db"


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


def test_readers_do_not_wait_for_the_writer(engine: Engine) -> None:
    with engine.connect().execution_options(**WRITER) as writing, writing.begin():
        writing.execute(text("DELETE FROM events"))
        with engine.connect() as reading:
            assert reading.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
            assert reading.execute(text("SELECT count(*) FROM events")).scalar_one() == 0


def test_durability_is_chosen_per_commit(engine: Engine) -> None:
    with engine.connect() as connection:
        for full, level in ((False, 1), (True, 2)):
            set_durability(connection, full=full)
            with connection.begin():
                assert connection.execute(text("PRAGMA synchronous")).scalar_one() == level


def test_a_file_is_claimed_by_one_daemon_at_a_time(engine: Engine) -> None:
    held = claim(engine, patience=0.0)
    assert held is not None
    with pytest.raises(ValueError, match="database: another daemon uses .*test.db"):
        claim(engine, patience=0.0)
    held.close()
    again = claim(engine, patience=0.0)
    assert again is not None
    again.close()


def test_going_down_a_revision_and_up_again_keeps_rows_and_gives_no_position_twice(
    engine: Engine,
) -> None:
    book = Book(engine)
    book.feed(5)
    book.append("drained", name="x")
    newest = book.log.end()
    with engine.begin() as connection:
        connection.execute(text(f"DELETE FROM events WHERE seq = {newest}"))
    rows = [tuple(event)[:18] for event in book.events()]
    migrate(engine, "0001")
    with engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == "0001"
        assert "trigger_seq" not in {c["name"] for c in inspect(connection).get_columns("events")}
    migrate(engine, "head")
    assert [tuple(event)[:18] for event in book.events()] == rows
    assert book.append("drained", name="x") == newest + 1
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"render_as_batch": True})
        assert compare_metadata(context, metadata) == []


def migrate(engine: Engine, revision: str) -> None:
    config = Config()
    scripts = Path(banditroute.store.__file__).parent / "migrations"
    config.set_main_option("script_location", str(scripts))
    config.attributes["engine"] = engine
    (command.upgrade if revision == "head" else command.downgrade)(config, revision)

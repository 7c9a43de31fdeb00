from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from banditroute.store.engine import open_engine, prepare
from sim.data.database import open_log, without_passwords
from sim.errors import InputError


def test_a_daemons_database_is_opened(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/ours.db")
    prepare(engine)
    engine.dispose()
    with open_log(f"sqlite:///{tmp_path}/ours.db") as log:
        assert log.started_pools() == []


@pytest.mark.parametrize("content", ["empty", "another's", "text"])
def test_what_no_daemon_made_is_refused_and_left_as_it_was(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a file?.db"
    path.write_bytes(
        b"" if content == "empty" else b"no database at all, but a file of text\n" * 40
    )
    if content == "another's":
        path.unlink()
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE things (name TEXT)")
    before = path.read_bytes()
    url = f"sqlite:///{path}".replace("?", "%3F")
    with (
        pytest.raises(InputError, match=r"^--log: .*(not a daemon's database|not a database)$"),
        open_log(url),
    ):
        pass
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log:postgresql://me:s:3cret@host:5432/db", "log:postgresql://me:***@host:5432/db"),
        (
            "--delay=log:postgresql://me:x@host/db?a=b",
            "--delay=log:postgresql://me:***@host/db?a=b",
        ),
        ("postgresql:///db?user=me&password=x&a=b", "postgresql:///db?user=me&password=***&a=b"),
        ("sqlite:///log.db", "sqlite:///log.db"),
        ("fixed:arm=a@b", "fixed:arm=a@b"),
    ],
)
def test_a_password_is_not_shown(text: str, expected: str) -> None:
    assert without_passwords(text) == expected

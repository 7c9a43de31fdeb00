"""The command line: exit codes, messages for people, and the commands that talk to a daemon."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from support.commands import banditroute as run
from support.databases import Postgres, migrate
from support.served_daemon import Served

from banditroute import __version__
from banditroute.store.engine import open_engine, prepare


def test_version() -> None:
    result = run("version")
    assert (result.exit_code, result.stdout) == (0, f"banditroute {__version__}\n")


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in (
        "serve",
        "check",
        "verify",
        "version",
        "warm-start",
        "db",
        "models",
        "decisions",
    ):
        assert command in result.stdout


def test_check_prints_the_pools(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text("pools:\n  a: {policy: {name: random}}\n  b: {}\n")
    result = run("check", good)
    assert result.exit_code == 0
    assert result.stdout == (
        "pool a: policy random, embedder hashing, 0 models\n"
        "pool b: policy thompson, embedder hashing, 0 models\n"
        "ok\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 1", "banditroute: prot (line 1): unknown key; did you mean 'port'?\n"),
        ("port: 0", "banditroute: port (line 1): "),
        ("[", "not YAML"),
        (None, "No such file"),
    ],
)
def test_check_reports_a_mistake(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "bad.yaml"
    if text is not None:
        path.write_text(text)
    result = run("check", path)
    assert result.exit_code == 2 and result.stdout == "" and message in result.stderr


def test_a_missing_argument_is_named() -> None:
    result = run("check")
    assert result.exit_code == 2 and "Missing argument" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "0"], "port: Input should be greater"),
        (["--replicas", "0"], "replicas: Input should be greater"),
        (["--local", "--replicas", "2"], "replicas: --local is one process"),
        (["--replicas", "2"], "replicas: 2 replicas cannot share SQLite"),
        (["--local", "--db", "sqlite://"], "in-memory SQLite database cannot be shared"),
        (["--local", "--db", "nonsense"], "database: "),
    ],
)
def test_serve_refuses_before_it_starts(tmp_path: Path, words: list[str], message: str) -> None:
    if "--db" not in words:
        words = [*words, "--db", f"sqlite:///{tmp_path}/serve.db"]
    result = run("serve", *words)
    assert result.exit_code == 2 and message in result.stderr


def test_db_upgrade_builds_a_database_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    first, second = run("db", "upgrade", "--db", url), run("db", "upgrade", "--db", url)
    assert first.exit_code == second.exit_code == 0
    assert first.stdout == second.stdout
    assert first.stdout.startswith(f"{url} is at revision ")


def test_db_upgrade_upgrades_postgresql(postgres: Postgres) -> None:
    with postgres.empty() as url:
        engine = open_engine(url)
        prepare(engine)
        migrate(engine, "0002")
        result = run("serve", "--local", "--db", url)
        assert result.exit_code == 2 and "is at revision 0002" in result.stderr
        result = run("db", "upgrade", "--db", url)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith("postgresql+psycopg://postgres:***@/")
        prepare(engine)
        engine.dispose()


def test_a_database_of_another_revision_names_the_command(database: Path) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = 'older'")
    connection.close()
    url = f"sqlite:///{database}"
    result = run("serve", "--local", "--db", url)
    assert result.exit_code == 2 and f"banditroute db upgrade --db {url}" in result.stderr
    result = run("db", "upgrade", "--db", url)
    assert result.exit_code == 2 and result.stderr.startswith("banditroute: database: ")


def test_db_upgrade_hides_the_password() -> None:
    result = run("db", "upgrade", "--db", "postgresql://me:secret@127.0.0.1:1/x")
    assert result.exit_code == 2 and "secret" not in result.stderr + result.stdout


def test_models_are_listed_added_priced_and_drained(live: Served) -> None:
    result = run("models", "add", "new/one", "--input-price", "1", "--output-price", "2.5")
    assert (result.exit_code, result.stdout) == (0, "added new/one to pool default\n")
    result = run("models", "price", "new/one", "--output-price", "3")
    assert (result.exit_code, result.stdout) == (0, "new/one: 1 in, 3 out, $/M tokens\n")
    result = run("models", "drain", "new/one")
    assert (result.exit_code, result.stdout) == (0, "new/one drains\n")
    listed = run("models", "list").stdout
    assert "new/one" in listed and "draining" in listed and "small" in listed
    result = run("models", "price", "new/one")
    assert result.exit_code == 2 and "--input-price or --output-price" in result.stderr
    result = run("models", "drain", "nothing")
    assert result.exit_code == 2 and "no model 'nothing'" in result.stderr


def test_a_model_is_added_with_scored_prompts(live: Served, tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    path.write_text('{"prompt": "a\u2028b", "quality": 1}\n\n{"prompt": "c", "quality": 0.5}\n')
    words = ("models", "add", "new", "--input-price", "1", "--output-price", "2", "--scored")
    result = run(*words, path, "--n-effective", "1.5")
    assert (result.exit_code, result.stdout) == (
        0,
        "added new to pool default\n2 scored prompts in 1 clusters, worth 1.5 outcomes\n",
    )


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        (None, [], "No such file"),
        ("{", [], "line 1: "),
        ('{"prompt": "a", "quality": 1}\n[]\n', [], "line 2: an object is expected"),
        ('{"prompt": "a", "quality": 2}\n', [], "scored[0].quality"),
        ("{}", ["--n-effective", "0"], "scored[0]"),
    ],
)
def test_a_mistake_in_scored_prompts_is_reported(
    live: Served, tmp_path: Path, text: str | None, more: list[str], message: str
) -> None:
    path = tmp_path / "scored.jsonl"
    if text is not None:
        path.write_text(text)
    words = ("models", "add", "new", "--input-price", "1", "--output-price", "2")
    result = run(*words, "--scored", path, *more)
    assert result.exit_code == 2 and message in result.stderr
    result = run(*words, "--n-effective", "3")
    assert result.exit_code == 2 and "--n-effective goes with --scored" in result.stderr


def test_a_decision_is_shown(live: Served) -> None:
    decision = live.route()["decision_id"]
    result = run("decisions", "show", decision)
    assert result.exit_code == 0 and decision in result.stdout and '"probability"' in result.stdout
    result = run("decisions", "show", "nothing")
    assert result.exit_code == 2 and "no decision 'nothing'" in result.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://[", "ftp://127.0.0.1"])
def test_a_daemon_that_does_not_answer_is_named(url: str) -> None:
    result = run("models", "list", "--url", url)
    assert result.exit_code == 2 and url in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_verify_names_a_missing_pool_or_file(live: Served, tmp_path: Path) -> None:
    result = run("verify", "--db", f"sqlite:///{live.path}", "--pool", "nowhere")
    assert result.exit_code == 2 and "'nowhere'" in result.output
    missing = tmp_path / "missing.db"
    result = run("verify", "--db", f"sqlite:///{missing}")
    assert result.exit_code == 2 and "there is no file" in result.output
    assert not missing.exists()


def test_verify_tells_a_sound_log_from_an_altered_one(live: Served) -> None:
    for i in range(5):
        live.feedback(live.route(f"prompt {i}")["decision_id"], quality=i / 5)
    live.policy()
    result = run("verify", "--db", f"sqlite:///{live.path}")
    assert result.exit_code == 0, result.output
    connection = sqlite3.connect(live.path)
    with connection:
        connection.execute("UPDATE decisions SET u = 0.999 - u, propensity = propensity / 2")
    connection.close()
    assert run("verify", "--db", f"sqlite:///{live.path}").exit_code == 1

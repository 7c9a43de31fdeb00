"""A fresh database per test, copied from one that the migrations built once.

``database_url`` is the URL of one, on SQLite and again on PostgreSQL; ``engine`` and ``book`` are
on that. A test that belongs to one of the two takes a mark of `databases`. ``postgres_url`` is one
on PostgreSQL, and ``postgres`` the server, which makes more (`Postgres.database`).
``database`` is a file of SQLite's for a daemon, ``served`` a daemon on it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine
from support.databases import Postgres, postgres_server
from support.served_daemon import Served, serve
from support.small_log import Book

from banditroute import client
from banditroute.settings import DEMO_MODELS
from banditroute.store.engine import open_engine, prepare

FREE = {"name": "free", "input_price": 0.0, "output_price": 0.0}
DEAR = {"name": "vendor/dear", "input_price": 9.0, "output_price": 9.0}


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "empty.db"
    engine = open_engine(f"sqlite:///{path}")
    prepare(engine)
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(
    request: pytest.FixtureRequest, empty_database: Path, tmp_path: Path
) -> Iterator[str]:
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        with server.database() as url:
            yield url
    else:
        path = tmp_path / "test.db"
        shutil.copy(empty_database, path)
        yield f"sqlite:///{path}"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def book(engine: Engine) -> Book:
    return Book(engine)


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    """A fresh database file for a daemon."""
    path = tmp_path / "served.db"
    shutil.copy(empty_database, path)
    return path


@pytest.fixture
def served(database: Path) -> Iterator[Served]:
    """A daemon with the demo pool, for a test that changes something."""
    with serve(database) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def shared(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A daemon with the demo pool and a pool of vectors, for tests that leave no traces."""
    path = tmp_path_factory.mktemp("shared") / "served.db"
    shutil.copy(empty_database, path)
    vectors = {"embedder": "precomputed", "embedding_dim": 4, "models": [FREE, DEAR]}
    pools = {"default": {"models": DEMO_MODELS}, "vectors": vectors, "empty": {}}
    with serve(path, pools=pools) as daemon:
        yield daemon


@pytest.fixture
def unchanged(shared: Served) -> Iterator[None]:
    """No request of the test may leave a row behind, nor count as a decision."""
    shared.route()  # starts the policy
    before = shared.counts() | {"decided": decided(shared)}
    yield
    assert shared.counts() | {"decided": decided(shared)} == before


def decided(shared: Served) -> list[str]:
    lines = shared.client.get("/metrics").text.splitlines()
    return [line for line in lines if line.startswith("banditroute_decisions_total")]


@pytest.fixture
def live(served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """A daemon that `banditroute.client.Client` reaches without a socket."""

    def forward(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        answer = served.client.request(request.method, path, content=request.content)
        return httpx.Response(answer.status_code, content=answer.content)

    wired = partial(client.Client, transport=httpx.MockTransport(forward))
    monkeypatch.setattr(client, "Client", wired)
    return served

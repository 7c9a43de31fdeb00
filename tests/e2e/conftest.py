from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.databases import Postgres, postgres_server

from sim.data.dataset import save
from sim.data.synthetic import generate


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_empty(postgres: Postgres) -> Iterator[str]:
    """A database without tables."""
    with postgres.empty() as url:
        yield url


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 600 rows with a planted context effect."""
    path = tmp_path_factory.mktemp("data") / "planted.parquet"
    save(generate(rows=600, seed=3).dataset, path)
    return path

from __future__ import annotations

from pathlib import Path

import pytest

from sim.datasets import save
from sim.synthetic import generate


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 600 rows with a planted context effect."""
    path = tmp_path_factory.mktemp("data") / "planted.parquet"
    save(generate(rows=600, seed=3).dataset, path)
    return path

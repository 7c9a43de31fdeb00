"""Logs to evaluate policies on: by the daemon's own code in SQLite, or with a known truth."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine
from support.small_log import Book

from banditroute.store.engine import open_engine, prepare
from policies.base import Float32, Float64
from sim.ope.bandit_log import BanditLog


@pytest.fixture(scope="session")
def empty_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "empty.db"
    engine = open_engine(f"sqlite:///{path}")
    prepare(engine)
    engine.dispose()
    return path


@pytest.fixture
def engine(empty_log: Path, tmp_path: Path) -> Iterator[Engine]:
    shutil.copy(empty_log, tmp_path / "log.db")
    engine = open_engine(f"sqlite:///{tmp_path}/log.db")
    yield engine
    engine.dispose()


@pytest.fixture
def book(engine: Engine) -> Book:
    """Return a pool that explores."""
    return Book(engine, exploration_share=0.3, exploration_cost_share=10.0)


Make = Callable[..., BanditLog]


@pytest.fixture(scope="session")
def make_log() -> Make:
    """Return a function that makes logs of three arms with a known mean reward.

    `a` has the mean 0.8 where feature 0 is positive and 0.3 elsewhere, `b` the other way round, and
    `c` always 0.5. The log chooses with `action_dist`, one pmf for all rows. `missing` is the share
    of outcomes that are not observed; a negative share is of the outcomes of `a` alone.
    """

    def make(
        n: int = 600,
        seed: int = 0,
        *,
        action_dist: Sequence[float] = (1 / 3, 1 / 3, 1 / 3),
        missing: float = 0.0,
        cost: bool = False,
    ) -> BanditLog:
        rng = np.random.default_rng([seed, 17])
        x = rng.normal(size=(n, 3)).astype(np.float32)
        x[:, -1] = 1.0
        pmf = np.tile(action_dist, (n, 1))
        chosen = (pmf.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
        quality = (rng.random(n) < truths(x)[np.arange(n), chosen]).astype(np.float64)
        lost = rng.random(n) < (missing if missing >= 0.0 else -missing * (chosen == 0))
        return BanditLog(
            name="planted",
            models=("a", "b", "c"),
            features=x,
            chosen=chosen,
            propensity=pmf[np.arange(n), chosen],
            action_dist=pmf,
            quality=np.where(lost, np.nan, quality),
            cost_usd=0.001 * (1.0 + chosen + rng.random(n)) if cost else np.full(n, np.nan),
            preference=np.tile([1.0, 0.0, 0.0], (n, 1)),
            tau_cost_usd=np.ones(n),
            session=np.arange(n),
        )

    return make


def truths(x: Float32) -> Float64:
    """Return the mean reward of each arm, float64[n, 3]; see `make_log`."""
    right = x[:, 0] > 0.0
    return np.column_stack(
        [np.where(right, 0.8, 0.3), np.where(right, 0.3, 0.8), np.full(len(x), 0.5)]
    )


@pytest.fixture(scope="session")
def good_policy() -> Callable[[Float32], Float64]:
    """Return a policy that plays the better of `a` and `b` with probability 0.9; its value is 0.75."""

    def pmf(x: Float32) -> Float64:
        right = (x[:, 0] > 0.0)[:, None]
        action_dist: Float64 = np.where(right, [0.9, 0.1, 0.0], [0.1, 0.9, 0.0])
        return action_dist

    return pmf

"""What the command line says of feedback, and what a daemon's log says of delays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import insert

from banditroute.store import engine
from banditroute.store.tables import feedback
from sim.data.synthetic import generate
from sim.errors import InputError
from sim.worlds.feedback_options import logged_delays_s, parse_delay, with_feedback
from sim.worlds.scenario import Scenario

STILL = Scenario(name="", title="still")


def test_options_are_events_of_the_scenario_beside_its_own() -> None:
    data = generate(rows=2_000, seed=1).dataset
    staged = with_feedback(STILL, delay="60", missing=0.25, judge_noise=0.1)
    world = staged.stage(data, np.arange(2_000), np.random.default_rng(0))
    lost = np.isinf(world.delay_s[:, 0])
    assert lost.mean() == pytest.approx(0.25, abs=0.04)
    assert (world.delay_s[~lost] == 60.0).all()
    away = world.judged - world.quality
    inside = (world.quality > 0.3) & (world.quality < 0.7)
    assert away[inside].std() == pytest.approx(0.1, abs=0.01)
    assert world.judged.min() >= 0.0 and world.judged.max() <= 1.0
    assert with_feedback(STILL) == STILL


def test_an_exponential_delay_has_its_mean() -> None:
    assert parse_delay("exponential:60").mean == 60.0
    assert parse_delay("1.5").seconds == 1.5


@pytest.mark.parametrize("text", ["", "x", "-1", "exponential", "exponential:0", "nan", "log:"])
def test_what_is_no_delay_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--delay: .*: seconds, exponential:SECONDS or log:URL"):
        parse_delay(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"missing": 1.5}, "--missing: a share"), ({"judge_noise": 0.0}, "--judge-noise: above 0")],
)
def test_shares_and_deviations_out_of_range_are_refused(
    options: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        with_feedback(STILL, **options)  # type: ignore[arg-type]


def log_of(path: Path, waits: list[int]) -> str:
    """Write a daemon's log in which feedback came after so many microseconds."""
    from banditroute.store.tables import decisions

    url = f"sqlite:///{path}"
    database = engine.open_engine(url)
    engine.prepare(database)
    needed = {column.name: column for column in decisions.columns if not column.nullable}
    blank = {
        name: {"str": "", "int": 0, "bytes": b"", "float": 0.0, "bool": False}[
            column.type.python_type.__name__
        ]
        for name, column in needed.items()
    }
    other = {
        column.name: {"str": "quality", "int": 0, "bytes": b"", "float": 0.0, "bool": False}[
            column.type.python_type.__name__
        ]
        for column in feedback.columns
        if not column.nullable and column.name != "id"
    }
    with database.begin() as connection:
        for k, wait in enumerate(waits):
            connection.execute(insert(decisions), blank | {"id": f"d{k}", "created_at": 1_000 * k})
            row = {"decision_id": f"d{k}", "key": "default", "received_at": 1_000 * k + wait}
            connection.execute(insert(feedback), other | row)
    database.dispose()
    return url


def test_delays_of_a_log_are_drawn_from(tmp_path: Path) -> None:
    url = log_of(tmp_path / "log.db", [2_000_000, 500_000, 90_000_000])
    assert sorted(logged_delays_s(url)) == [0.5, 2.0, 90.0]
    assert sorted(parse_delay(f"log:{url}").seconds or []) == [0.5, 2.0, 90.0]  # type: ignore[arg-type]


def test_a_log_without_feedback_or_a_file_is_told(tmp_path: Path) -> None:
    url = log_of(tmp_path / "log.db", [])
    with pytest.raises(InputError, match="--delay: log: sqlite:.*: no feedback in this log"):
        parse_delay(f"log:{url}")
    with pytest.raises(InputError, match="--delay: log: there is no file .*absent.db"):
        parse_delay(f"log:sqlite:///{tmp_path / 'absent.db'}")
    assert not (tmp_path / "absent.db").exists()
    (tmp_path / "other.db").write_bytes(b"")
    with pytest.raises(InputError, match="--delay: log: .*other.db is not a daemon's database"):
        parse_delay(f"log:sqlite:///{tmp_path / 'other.db'}")

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from banditroute.learn.fold import Fold
from sim.errors import InputError
from sim.ope.read_parquet import history_of, read


def write(path: Path, **columns: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def own(path: Path, **change: Any) -> Path:
    columns = {
        "arm": ["b", "a", "b", "a"],
        "propensity": [0.25, 0.75, 0.5, 0.5],
        "reward": [1.0, 0.0, None, 0.5],
        "cost": [0.1, None, 0.2, 0.3],
        "session": ["s", None, "s", None],
        "pmf:a": [0.75, 0.75, 0.5, 0.5],
        "pmf:b": [0.25, 0.25, 0.5, 0.5],
        "x:one": [1.0, 2.0, 3.0, 4.0],
        "who": [1, 2, 1, 2],
    }
    kept = {name: values for name, values in (columns | change).items() if values is not None}
    return write(path, **kept)


def test_our_own_form(tmp_path: Path) -> None:
    log = read(own(tmp_path / "own.parquet"))
    assert (log.name, log.models) == ("own", ("a", "b"))
    assert log.chosen.tolist() == [1, 0, 1, 0]
    assert log.action_dist is not None and log.action_dist.tolist()[0] == [0.75, 0.25]
    assert log.features.tolist() == [[1, 1], [2, 1], [3, 1], [4, 1]]
    assert log.quality == pytest.approx([1.0, 0.0, np.nan, 0.5], nan_ok=True)
    assert log.cost_usd == pytest.approx([0.1, np.nan, 0.2, 0.3], nan_ok=True)
    assert log.session[0] == log.session[2] and len(set(log.session.tolist())) == 3
    assert history_of(log).requests.batch.models is None


def test_open_bandit_columns(tmp_path: Path) -> None:
    path = write(
        tmp_path / "obd.parquet",
        item_id=[10, 9, 2],
        propensity_score=[0.1, 0.2, 0.3],
        click=[0, 1, 0],
        position=[1, 2, 3],
    )
    log = read(path)
    assert log.models == ("2", "9", "10")
    assert log.chosen.tolist() == [2, 1, 0]
    assert log.action_dist is None and np.isnan(log.cost_usd).all()
    assert log.quality.tolist() == [0.0, 1.0, 0.0]
    assert log.measures == ("quality",)
    assert read(path, tags={"position": "2"}).models == ("2", "9", "10")


def test_tags_select_rows(tmp_path: Path) -> None:
    log = read(own(tmp_path / "own.parquet"), tags={"who": "2"})
    assert log.chosen.tolist() == [0, 0] and log.propensity.tolist() == [0.75, 0.5]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"propensity": [0.25, 0.0, 0.5, 0.5]}, "row 2, column 'propensity': 0 is not in (0, 1]"),
        ({"propensity": [0.25, 0.75, 1.5, 0.5]}, "row 3, column 'propensity': 1.5 is not in"),
        ({"propensity": [0.25, 0.75, None, 0.5]}, "row 3, column 'propensity': nan is not in"),
        ({"propensity": [0.25, 0.7, 0.5, 0.5]}, "row 2, column 'propensity': not that of its pmf"),
        ({"propensity": ["a", "b", "c", "d"]}, "column 'propensity' is not numeric"),
        ({"propensity": None}, "column 'propensity' is missing"),
        ({"arm": ["b", None, "b", "a"]}, "row 2, column 'arm': missing"),
        ({"pmf:b": None}, "column 'pmf:b' is missing"),
        ({"pmf:a": [0.75, 0.75, None, 0.5]}, "row 3, column 'pmf:a': nan is not in [0, 1]"),
        ({"pmf:a": [0.75, 0.75, -0.5, 0.5]}, "row 3, column 'pmf:a': -0.5 is not in [0, 1]"),
        ({"pmf:a": [0.75, 0.75, 0.2, 0.5]}, "row 3, columns 'pmf:*': their sum is 0.7, not 1"),
        ({"x:one": [1.0, None, 3.0, 4.0]}, "row 2, column 'x:one': missing"),
        ({"x:one": [1.0, np.inf, 3.0, 4.0]}, "row 2, column 'x:one': not finite"),
        ({"reward": [1.0, 0.0, 3.0, 4.0]}, "row 3, column 'reward': 3 is not in [0, 1]"),
        ({"reward": ["yes"] * 4}, "column 'reward' is not numeric"),
    ],
)
def test_a_fault_names_its_row_and_column(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    path = own(tmp_path / "bad.parquet", **change)
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {expected}")
    assert "\n" not in str(caught.value)


def test_rows_are_numbered_as_in_the_file(tmp_path: Path) -> None:
    path = own(tmp_path / "bad.parquet", propensity=[0.25, 0.75, 0.5, 2.0])
    with pytest.raises(InputError, match="row 4, column 'propensity'"):
        read(path, tags={"who": "2"})


def test_a_path_that_is_no_parquet_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.parquet: no such file"):
        read(tmp_path / "gone.parquet")
    (tmp_path / "text.parquet").write_text("arm,propensity\n")
    with pytest.raises(InputError, match=r"text.parquet: not a parquet file"):
        read(tmp_path / "text.parquet")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [({"colour": "red"}, "has no column 'colour'"), ({"who": "7"}, "--tag: no row of")],
)
def test_tags_that_select_nothing(tmp_path: Path, tags: dict[str, str], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        read(own(tmp_path / "own.parquet"), tags=tags)


def test_the_events_hold_what_was_observed(tmp_path: Path) -> None:
    found = history_of(read(own(tmp_path / "own.parquet")))
    taught = [event.outcome for event in found.events if event.outcome is not None]
    assert [one.decision_id for one in taught] == ["0", "1", "3"]
    assert [(one.arm, one.value, one.propensity) for one in taught] == [
        ("b", 1.0, 0.25),
        ("a", 0.0, 0.75),
        ("a", 0.5, 0.5),
    ]
    assert [event.seq for event in found.events] == [1, 2, 3, 4, 5]
    fold = Fold(found.policy_identity)
    for event in found.events:
        fold.apply(event)
    assert fold.learned == 3 and list(fold.policy.arms) == ["a", "b"]

"""The data set: what it keeps, what it refuses, and that nothing is lost on the way to a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.data.dataset import Dataset, checked_quality, save
from sim.data.formats import load
from sim.data.synthetic import generate
from sim.errors import InputError

NAN = float("nan")


def made(quality: list[list[float]], cost: list[list[float]]) -> Dataset:
    models = tuple("abc"[: len(quality[0])])
    empty = ("",) * len(quality)
    return Dataset("log", empty, empty, empty, models, np.array(quality), np.array(cost))


def test_round_trip_keeps_the_digest_and_the_notes(tmp_path: Path) -> None:
    dataset = replace(generate(rows=30, seed=4).dataset, notes=("12 cache hits left out",))
    save(dataset, tmp_path / "out.parquet")
    again = load(tmp_path / "out.parquet")
    assert again.digest() == dataset.digest()
    assert again.notes == dataset.notes
    assert again.take(np.arange(29)).digest() != dataset.digest()


def test_only_rows_with_everything_are_complete() -> None:
    data = made([[0.5, 0.5], [NAN, 0.5], [0.5, 0.5]], [[1.0, 1.0], [1.0, 1.0], [1.0, NAN]])
    assert len(data.complete()) == 1
    assert len(data.restrict(without=["a"]).complete()) == 2


@pytest.mark.parametrize(
    ("quality", "cost", "message"),
    [
        ([[]], [[]], "log holds prompts without outcomes: nothing to replay; `sim describe` shows"),
        ([[NAN, NAN]], [[0.1, 0.1]], "log: no answer is judged"),
        (
            [[0.5, NAN], [NAN, 0.5], [0.5, NAN]],
            [[0.1, 0.1]] * 3,
            "log: no row has the quality of every model: a partial log, .* most often 'b' is missing",
        ),
        ([[0.5, 0.5]], [[NAN, NAN]], "log: no answer has a cost; --prices FILE"),
        ([[0.5, 0.5]], [[0.1, NAN]], "log: no row has quality and cost .* 'b' is missing"),
    ],
)
def test_data_that_cannot_be_replayed_says_what_is_missing(
    quality: list[list[float]], cost: list[list[float]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        made(quality, cost).complete()


def test_restrict_names_the_option_and_the_models() -> None:
    data = generate(rows=3).dataset
    assert data.restrict(models=["large", "small"]).models == ("small", "large")
    with pytest.raises(InputError, match=r"--without: .*'lage'.*small, coder, large"):
        data.restrict(without=["lage"])
    with pytest.raises(InputError, match="no model"):
        data.restrict(without=["small", "coder", "large"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": ("a", "\ud800")}, "row 2, column 'prompt': half a surrogate pair"),
        ({"models": (), "quality": np.empty((2, 0))}, "prompts without outcomes: nothing to write"),
    ],
)
def test_what_a_parquet_cannot_hold_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        save(replace(generate(rows=2).dataset, **change), tmp_path / "out.parquet")  # type: ignore[arg-type]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone/out\.parquet: .*No such file"):
        save(generate(rows=2).dataset, tmp_path / "gone" / "out.parquet")


def test_values_are_clipped_near_the_edge_and_refused_beyond() -> None:
    cost = np.array([[0.0, NAN]])
    assert checked_quality("f", "ab", np.array([[-0.02, 1.01]]), cost).tolist() == [[0.0, 1.0]]
    for quality, dollars, message in (
        (7.0, 0.0, r"f: row 1, column 'quality:b': 7 is not in \[0, 1\]"),
        (float("inf"), 0.0, "column 'quality:b'"),
        (0.5, -1.0, "f: row 1, column 'cost:b': -1 is not a cost in US dollars"),
        (0.5, 1e9, "column 'cost:b'"),
        (0.5, float("inf"), "column 'cost:b'"),
    ):
        with pytest.raises(InputError, match=message):
            checked_quality("f", "ab", np.array([[0.5, quality]]), np.array([[0.1, dollars]]))

"""The file of a run: round trips, and the errors of bad files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.run_file import run_file

from sim.errors import InputError
from sim.results import RunFile, by_scenario


@pytest.fixture(scope="module")
def made() -> RunFile:
    return run_file(seeds=2, n=40)


def test_round_trip(made: RunFile, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    made.write(path)
    assert RunFile.read(path) == made
    first = path.read_bytes()
    RunFile.read(path).write(path)
    assert path.read_bytes() == first
    # Plain JSON: no number that is not one.
    json.loads(first, parse_constant=lambda name: pytest.fail(name))


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("format",), "banditroute-run/9", "format: "),
        (("stages", 0, "requests"), "many", "stages[0].requests: "),
        (
            ("stages", 1, "contenders", 2, "metrics", "cost", "mean"),
            [],
            "stages[1].contenders[2].metrics.cost.mean: ",
        ),
        (("stages", 0, "frontier", 0, "price"), 1, "stages[0].frontier[0].price: "),
        (
            ("stages", 2, "contenders", 0, "adapted", 0, "outcome"),
            "soon",
            "stages[2].contenders[0].adapted[0].outcome: ",
        ),
    ],
)
def test_the_error_of_a_bad_file_names_the_field(
    made: RunFile, tmp_path: Path, where: tuple[str | int, ...], value: object, message: str
) -> None:
    content = json.loads(made.model_dump_json())
    node = content
    for step in where[:-1]:
        node = node[step]
    node[where[-1]] = value
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        RunFile.read(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null"])
def test_a_file_that_is_no_run_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{path}: "):
        RunFile.read(path)


def test_files_that_are_not_there(made: RunFile, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        RunFile.read(tmp_path / "absent.json")
    with pytest.raises(InputError, match="No such file"):
        made.write(tmp_path / "absent" / "run.json")


def test_stages_of_one_scenario_are_grouped_where_they_follow(made: RunFile) -> None:
    named = [("", 1.0), ("", 2.0), ("a", 1.0), ("a", 2.0), ("b", 1.0), ("a", 1.0), ("a", None)]
    stages = [
        made.stages[0].model_copy(update={"title": str(k), "scenario": name, "budget_rate": rate})
        for k, (name, rate) in enumerate(named)
    ]
    groups = [[stage.title for stage in group] for group in by_scenario(stages)]
    assert groups == [["0"], ["1"], ["2", "3"], ["4"], ["5"], ["6"]]

"""Scenario files: what they say, how they compose, and what is wrong with one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.data.dataset import Dataset
from sim.data.synthetic import MODELS, generate
from sim.errors import InputError
from sim.worlds.events import KINDS, Delay, Loss, Mix, Poison
from sim.worlds.scenario import Scenario
from sim.worlds.scenario_files import load_scenarios, shipped
from sim.worlds.world import World

ROWS = 300
DATA = generate(rows=ROWS, seed=3).dataset
PARETO = (
    "meta-llama/llama-3.1-8b-instruct",
    "mistralai/mistral-large-2512",
    "google/gemini-2.5-pro",
    "google/gemini-2.5-flash",
)


def paretobandit() -> Dataset:
    """Return data with the model names of the four experiments."""
    rng = np.random.default_rng(0)
    return Dataset(
        name="four",
        prompts=DATA.prompts,
        task=DATA.task,
        split=DATA.split,
        models=PARETO,
        quality=rng.uniform(0.5, 1.0, (ROWS, 4)),
        cost_usd=rng.uniform(1e-4, 1e-3, (ROWS, 4)),
    )


def stage(scenario: Scenario, dataset: Dataset = DATA, *, seed: int = 0) -> World:
    data = scenario.restrict(dataset)
    rows = np.random.default_rng([seed, 0]).permutation(len(data))
    return scenario.stage(data, rows, np.random.default_rng([seed, 1]))


def one(name: str | Path) -> Scenario:
    (scenario,) = load_scenarios(str(name))
    return scenario


def written(folder: Path, text: str, name: str = "a.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def same(a: World, b: World) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(World))


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_scenarios_stage(name: str) -> None:
    scenario = one(name)
    world = stage(scenario, paretobandit() if "/" in name else DATA)
    assert scenario.name == name
    assert scenario.title
    assert scenario.says.endswith(".")
    assert len(world) == ROWS
    silent = name in ("still", "paretobandit/budgets")
    assert bool(world.changes) != silent


def test_something_is_shipped_for_every_kind_of_event() -> None:
    kinds = {each.event.kind for name in shipped() for each in one(name).events}
    assert kinds == set(KINDS)


def test_paretobandit_is_four_experiments() -> None:
    scenarios = load_scenarios("paretobandit")
    assert [scenario.title for scenario in scenarios] == [
        "ParetoBandit 1, stationary budgets",
        "ParetoBandit 2, cost drift",
        "ParetoBandit 3, silent failure",
        "ParetoBandit 4, onboarding",
    ]
    assert scenarios[0].budget_rates_usd == (8.3e-5, 2.3e-4, 6.6e-4, 1.9e-3, 5.3e-3, 1.5e-2)
    assert {scenario.budget_rates_usd for scenario in scenarios[1:]} == {(3.0e-4, 6.6e-4, 1.9e-3)}
    data = paretobandit()
    still, drift, failure, onboarding = (stage(scenario, data) for scenario in scenarios)
    third, dear, good, new = ROWS // 3, 2, 1, 3
    middle = np.zeros(ROWS, dtype=bool)
    middle[third : 2 * third] = True
    assert still.models == drift.models == failure.models == PARETO[:3]
    assert onboarding.models == PARETO
    assert np.array_equal(drift.price_factor[:, dear], np.where(middle, 0.0178, 1.0))
    assert np.array_equal(drift.cost_usd, still.cost_usd * drift.price_factor)
    assert np.array_equal(failure.judged[:, good] == 0.75, middle)
    assert np.array_equal(failure.cost_usd, still.cost_usd)
    assert onboarding.offered[:, :3].all()
    assert np.array_equal(onboarding.offered[:, new], np.arange(ROWS) >= third)


def test_the_same_seed_is_the_same_world() -> None:
    for name in ("delay", "loss", "poison", "judge", "mix"):
        assert same(stage(one(name), seed=1), stage(one(name), seed=1)), name
        assert not same(stage(one(name), seed=1), stage(one(name), seed=2)), name


def test_an_event_draws_for_itself() -> None:
    """What an event draws does not depend on what those before it draw."""
    plain = Scenario(name="made", title="made")
    few = plain.then(Loss(share=0.1), "x").then(Poison(share=0.5, value=0), "y")
    more = plain.then(Delay(mean=9.0), "x").then(Poison(share=0.5, value=0), "y")
    assert np.array_equal(stage(few).judged, stage(more).judged)


def test_events_come_in_order(tmp_path: Path) -> None:
    lines = {
        "set": "- {kind: quality, model: large, set: 0.5}",
        "scale": "- {kind: quality, model: large, scale: 0.5}",
    }
    found = []
    for order in (("set", "scale"), ("scale", "set")):
        text = "title: x\nevents:\n" + "\n".join(lines[name] for name in order)
        world = stage(one(written(tmp_path, text)))
        found.append(float(world.quality[0, MODELS.index("large")]))
    assert found == [0.25, 0.5]


def test_composed_events_come_first(tmp_path: Path) -> None:
    written(
        tmp_path,
        "title: base\nwithout: [coder]\nbudget_rates: [1.0e-3]\n"
        "events: [{kind: quality, model: large, set: 0.5}]",
        "base.yaml",
    )
    path = written(
        tmp_path,
        "title: top\ncompose: [base.yaml, delay]\n"
        "events: [{kind: quality, model: large, scale: 0.5}]",
    )
    scenario = one(path)
    assert [one.event.kind for one in scenario.events] == ["quality", "delay", "quality"]
    assert (scenario.without, scenario.budget_rates_usd) == ((), ())
    world = stage(scenario)
    assert world.models == MODELS
    assert (world.quality[:, MODELS.index("large")] == 0.25).all()
    assert (world.delay_s > 0.0).all()


def test_black_friday_composes() -> None:
    kinds = [one.event.kind for one in one("black-friday").events]
    assert kinds == ["delay", "burst", "outage"]


def test_mixes_order_the_rows_before_anything_happens(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "title: x\nevents:\n"
        "- {kind: quality, model: large, set: 0, from: 1/3, to: 2/3}\n"
        "- {kind: mix, tasks: [maths], share: 0.5, from: 0, to: 1/3}\n"
        "- {kind: mix, tasks: [maths], share: 0.3, from: 1/3, to: 2/3}\n",
    )
    world = stage(one(path))
    broken = world.quality[:, MODELS.index("large")] == 0.0
    assert broken.nonzero()[0].tolist() == list(range(100, 200))
    assert world.task[:100].count("maths") == 50
    assert world.task[100:200].count("maths") == 30


def test_roles_are_those_of_the_data_not_of_the_moment(tmp_path: Path) -> None:
    """The best model stays the one that is meant, although it is no longer the best."""
    path = written(
        tmp_path,
        "title: x\nevents:\n"
        "- {kind: quality, model: best, set: 0}\n"
        "- {kind: price, model: best, factor: 2}\n",
    )
    assert [change.label for change in stage(one(path)).changes] == [
        "large: quality 0",
        "large: price x 2",
    ]


def test_restrict_keeps_the_models_and_complete_rows() -> None:
    quality = DATA.quality.copy()
    quality[:10, MODELS.index("coder")] = np.nan
    quality[10:15, MODELS.index("large")] = np.nan
    gaps = Dataset(
        DATA.name, DATA.prompts, DATA.task, DATA.split, DATA.models, quality, DATA.cost_usd
    )
    few = Scenario(name="x", title="x", without=("coder",))
    assert few.restrict(gaps).models == ("small", "large")
    assert len(few.restrict(gaps)) == ROWS - 5
    assert Scenario(name="x", title="x", models=("large",)).restrict(gaps).models == ("large",)
    with pytest.raises(ValueError, match="stage needs the data that restrict returned"):
        few.stage(DATA, np.arange(5), np.random.default_rng(0))
    wrong = Scenario(name="file.yaml", title="x", models=("large", "nobody"))
    with pytest.raises(InputError) as caught:
        wrong.restrict(DATA)
    assert str(caught.value) == (
        "file.yaml: models[1]: synthetic has no model 'nobody'; it has small, coder, large"
    )


def test_folders_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "title: second", "b.yml")
    written(tmp_path, "title: first", "a.yaml")
    written(tmp_path, "not a scenario", "notes.txt")
    assert [scenario.title for scenario in load_scenarios(str(tmp_path))] == ["first", "second"]
    (tmp_path / "drop").mkdir()
    written(tmp_path / "drop", "title: mine")
    monkeypatch.chdir(tmp_path)
    assert one("drop").title == "quality drop and recovery"
    assert one("./drop").title == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("says: x", "title: missing"),
        ("title: ''", "title: String should have at least 1 character"),
        ("- x", "a mapping of keys is expected"),
        ("", "a mapping of keys is expected"),
        ("title: [", "not YAML in line 1: "),
        ("title: x\n1: y", "[1]: Keys should be strings"),
        ("title: x\ntitle: y", "title (line 2): given twice"),
        (
            "title: x\nevents:\n  - {kind: add, model: y, at: 1/3,\n     at: 1/2}",
            "events[0].at (line 4): given twice",
        ),
        ("title: x\nevent: []", "event: unknown key; valid: title, says, compose, models, "),
        ("title: x\nbudget_rates: [1, 0]", "budget_rates[1]: Input should be greater than 0"),
        ("title: x\nevents: {}", "events: Input should be a valid list"),
        ("title: x\nevents: [drop]", "events[0]: a mapping of keys is expected"),
        (
            "title: x\nevents: [{kind: drop}]",
            "events[0].kind: unknown kind 'drop'; valid: add, burst, delay, drain, judge, loss, "
            "mix, outage, poison, price, quality",
        ),
        ("title: x\nevents: [{kind: add, model: y}]", "events[0].at: missing"),
        ("title: x\nevents: [{model: y}]", "events[0].kind: missing; valid: add, burst"),
        (
            "title: x\nevents: [{kind: burst, factor: 2}, {kind: add, model: y, when: 1/3}]",
            "events[1].when: unknown key; valid: kind, model, at",
        ),
        (
            "title: x\nevents: [{kind: burst, factor: 2, form: 1/3}]",
            "events[0].form: unknown key; valid: kind, from, to, factor",
        ),
        (
            "title: x\nevents: [{kind: burst, factor: 2, from: 1.5}]",
            "events[0].from: a share of the world from 0 to 1 (such as 1/3), or a whole number of "
            "requests above 1",
        ),
        (
            "title: x\nevents: [{kind: burst, factor: 2, from: 2/3, to: 1/3}]",
            "events[0]: to must come after from",
        ),
        (
            "title: x\nevents: [{kind: quality, model: best}]",
            "events[0]: one of set, scale, shift is expected, and none is set",
        ),
        (
            "title: x\nevents: [{kind: delay, seconds: [1, -1]}]",
            "events[0].seconds: a number of seconds from 0 to 1e+09 is expected, or a list of them",
        ),
        (
            "title: x\nevents: [{kind: judge, bias: {best: 3}}]",
            "events[0].bias.best: Input should be less than or equal to 1",
        ),
        ("title: x\ncompose: [nobody]", "compose[0]: no file or scenario 'nobody'; valid: black-f"),
        (
            "title: x\ncompose: [drop, paretobandit]",
            "compose[1]: 'paretobandit' is several; valid: paretobandit/budgets, ",
        ),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_scenarios(str(path))
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"title: caf\xe9")
    with pytest.raises(InputError, match=r"latin\.yaml: not UTF-8"):
        load_scenarios(str(tmp_path / "latin.yaml"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no \.yaml or \.yml file in this folder"):
        load_scenarios(str(tmp_path / "empty"))
    with pytest.raises(InputError) as caught:
        load_scenarios("dorp")
    assert str(caught.value).startswith("dorp: no such file, and no such scenario; valid: black-")
    assert ", paretobandit, paretobandit/budgets, " in str(caught.value)


def test_a_circle_is_refused(tmp_path: Path) -> None:
    a = written(tmp_path, "title: a\ncompose: [b.yaml]", "a.yaml").resolve()
    b = written(tmp_path, "title: b\ncompose: [still, a.yaml]", "b.yaml").resolve()
    with pytest.raises(InputError) as caught:
        load_scenarios(str(a))
    assert str(caught.value) == f"{b}: compose[1]: a circle: {a} > {b} > {a}"
    own = written(tmp_path, "title: own\ncompose: [./own.yaml]", "own.yaml")
    with pytest.raises(InputError, match=r"own\.yaml: compose\[0\]: a circle: "):
        load_scenarios(str(own))


def test_yaml_anchors_and_merges(tmp_path: Path) -> None:
    text = """
title: x
events:
  - &cut {kind: price, model: large, factor: 0.5, from: 1/3, to: 2/3}
  - {<<: *cut, model: small}
"""
    assert [change.label for change in stage(one(written(tmp_path, text))).changes] == [
        "large: price x 0.5",
        "small: price x 0.5",
        "large: price as before",
        "small: price as before",
    ]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("{kind: drain, model: nobody, at: 0.5}", "events[0].model: no model 'nobody'; "),
        ("{kind: drain, model: best, at: 301}", "events[0].at: request 301 is not among the 300 "),
        ("{kind: mix, tasks: [maths], share: 1}", "events[0].share: needs 300 rows of these "),
        (
            "{kind: outage, prefix: google/}",
            "events[0].prefix: no model name begins with 'google/'",
        ),
    ],
)
def test_what_does_not_fit_the_data(tmp_path: Path, event: str, message: str) -> None:
    path = written(tmp_path, f"title: x\nevents: [{event}]")
    with pytest.raises(InputError) as caught:
        stage(one(path))
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_composed_event_is_blamed_on_its_own_file(tmp_path: Path) -> None:
    base = written(tmp_path, "title: x\nevents: [{kind: add, model: x, at: 0.5}]", "base.yaml")
    path = written(tmp_path, "title: y\ncompose: [base.yaml]")
    with pytest.raises(InputError) as caught:
        stage(one(path))
    assert str(caught.value).startswith(f"{base.resolve()}: events[0].model: no model 'x'")


def test_somebody_must_answer(tmp_path: Path) -> None:
    text = "title: x\nevents:\n" + "".join(
        f"- {{kind: drain, model: {name}, at: 1/2}}\n" for name in MODELS
    )
    with pytest.raises(InputError, match=r"a\.yaml: no model is offered at request 150$"):
        stage(one(written(tmp_path, text)))


def test_then_adds_an_event() -> None:
    scenario = one("drop").then(Delay(seconds=60.0), "--delay")
    assert (stage(scenario).delay_s == 60.0).all()
    asked = one("still").then(Mix(tasks=["nothing"], share=1.0), "--mix")
    with pytest.raises(InputError, match=r"^--mix\.tasks: no task 'nothing'"):
        stage(asked)


def test_command_lists_and_checks(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["scenarios"])
    assert listed.exit_code == 0
    assert "paretobandit/onboarding" in listed.output
    assert "quality drop and recovery" in listed.output
    own = CliRunner().invoke(app, ["scenarios", str(written(tmp_path, "title: my own"))])
    assert own.exit_code == 0
    assert "my own" in own.output
    wrong = CliRunner().invoke(app, ["scenarios", "dorp"])
    assert isinstance(wrong.exception, InputError)

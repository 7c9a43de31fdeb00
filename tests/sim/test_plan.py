"""From options to stages: which worlds are played, and what stands beside the results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from banditroute.core.pool import Preference, default_tau_cost_usd
from banditroute.features.embedding import make_embedder
from sim import plan as stages
from sim.data.synthetic import generate
from sim.errors import InputError
from sim.play.candidate import Candidate
from sim.play.parallel import run_all
from sim.play.replay import Split
from sim.worlds.events import Quality
from sim.worlds.scenario import Scenario, ScenarioEvent

DATA = generate(rows=120, seed=4).dataset
STILL = Scenario(name="still", title="still")
DROP = Scenario(
    name="drop",
    title="drop",
    without=("coder",),
    budget_rates_usd=(1e-4, 3e-4),
    preference=Preference(quality=1.0),
    events=(
        ScenarioEvent(
            Quality.model_validate({"model": "large", "set": 0.1, "from": "1/2"}), "drop"
        ),
    ),
)


def plan(*scenarios: Scenario, **given: object) -> list[stages.StagePlan]:
    options: dict[str, object] = {
        "budget_rates_usd": (),
        "embedder": make_embedder("hashing"),
        "tasks": False,
        "split": Split(fraction=0.0),
        "preference": None,
        "prices": None,
        "batch": 1,
    }
    return stages.plan_stages(DATA, scenarios, **(options | given))  # type: ignore[arg-type]


def test_each_scenario_is_played_at_each_of_its_budgets() -> None:
    still, tight, loose = plan(STILL, DROP)
    assert (still.title, still.experiment.budget_rate_usd) == ("still", None)
    assert tight.title == "drop, 0.1 USD per 1,000 requests"
    assert [one.scenario for one in (still, tight, loose)] == ["still", "drop", "drop"]
    assert (tight.experiment.budget_rate_usd, loose.experiment.budget_rate_usd) == (1e-4, 3e-4)
    assert still.experiment.preference == pytest.approx((0.7, 0.3, 0.0))
    assert tight.experiment.preference == (1.0, 0.0, 0.0)
    assert tight.experiment.dataset.models == ("small", "large")
    assert tight.experiment.features is loose.experiment.features


def test_options_come_before_what_a_scenario_says() -> None:
    planned = plan(STILL, DROP, budget_rates_usd=[5e-4], preference=(0.5, 0.5, 0.0), tasks=True)
    assert [one.experiment.budget_rate_usd for one in planned] == [5e-4, 5e-4]
    assert {one.experiment.preference for one in planned} == {(0.5, 0.5, 0.0)}
    plain = plan(STILL)[0].experiment.features.shape[1]
    tasks = len(set(DATA.task) - {""})
    assert planned[0].experiment.features.shape[1] == plain + tasks > plain


def test_who_does_not_fit_a_stage_is_refused() -> None:
    _, tight, _ = plan(STILL, DROP)
    with pytest.raises(InputError, match="arm: no such model"):
        tight.check([Candidate.of("fixed", {"arm": "coder"})])
    with pytest.raises(InputError, match="'mabwiser': mabwiser has no budget control"):
        tight.check([Candidate.of("mabwiser")])


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_the_supervised_limit_stands_beside_worlds_that_are_as_the_data(fraction: float) -> None:
    still, drop, _ = plan(STILL, DROP, split=Split(fraction=fraction))
    who = [Candidate.of("random"), Candidate.of("linucb")]
    (played, dropped) = run_all([still.experiment, drop.experiment], who, range(2))
    stage = still.judge(played)
    names = [point.name for point in stage.references]
    assert "supervised limit" in names and stage.requests == 120 - round(120 * fraction)
    assert [one.label for one in stage.contenders] == ["random", "linucb"]
    assert "utility" in stage.contenders[0].metrics
    judged = drop.judge(dropped)
    assert "supervised limit" not in [point.name for point in judged.references]
    assert [change.label for change in judged.changes] == ["large: quality 0.1"]
    assert judged.title.startswith("drop, 0.1 USD") and judged.scenario == "drop"


def test_utility_is_what_was_asked_for_at_the_first_prices() -> None:
    (still,) = plan(STILL)
    ((trace,),) = run_all([still.experiment], [Candidate.of("random")], range(1))
    tau = default_tau_cost_usd(list(still.experiment.specs(0)))
    world = trace.world
    expected = 0.7 * world.quality - 0.3 * np.minimum(world.cost_usd / tau, 1.0)
    assert stages.utility(still.experiment, trace) == pytest.approx(expected)


def test_versions_are_those_of_what_was_used() -> None:
    assert {"python", "numpy", "scipy", "ray", "banditroute"} == set(
        stages.versions([Candidate.of("linucb")])
    )
    assert "mabwiser" in stages.versions([Candidate.of("mabwiser")])


def test_gaps_are_left_out_of_the_stages_that_they_concern() -> None:
    quality = DATA.quality.copy()
    quality[:20, DATA.models.index("coder")] = np.nan
    gappy = replace(DATA, quality=quality)
    assert stages.unchanged(gappy).title.endswith(": 100 rows, 3 models")
    assert len(DROP.restrict(gappy)) == 120

"""Tables on the terminal: their columns, and the digits of their numbers."""

from __future__ import annotations

import pytest
from rich.console import Console
from support.run_file import BUDGETS, PLANS, POLICIES, staged

from sim.report import tables
from sim.report.terminal import show
from sim.results import Adapted, Measure, Stage


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return {plan.title: staged(plan, seeds=3, n=150, policies=POLICIES) for plan in PLANS}


def shown(*stages: Stage, full: bool = False, tasks: bool = False) -> str:
    console = Console(width=250)
    with console.capture() as captured:
        show(console, stages, full=full, tasks=tasks)
    return captured.get()


def test_every_policy_stands_beside_the_zero_router_with_errors(stages: dict[str, Stage]) -> None:
    table = tables.results(stages["still"])
    assert table.title == "Results over 150 requests, 3 seeds"
    assert table.columns[:5] == [
        "policy",
        "quality",
        "$ per 1k",
        "zero router at that $",
        "difference",
    ]
    for row, one in zip(table.rows, stages["still"].contenders, strict=True):
        quality, zero = one.metrics["quality"], one.metrics["zero"]
        assert row[0] == one.label
        assert row[1] == f"{quality.mean:.4f} ± {quality.se:.4f}"
        assert row[3] == f"{zero.mean:.4f} ± {zero.se:.4f}"
        assert row[4][0] in "+-"


def test_budget_and_refusals_are_shown_where_there_is_a_budget(stages: dict[str, Stage]) -> None:
    assert "budget used, %" not in tables.results(stages["still"]).columns
    assert "refused, %" not in tables.results(stages["still"]).columns
    assert {"budget used, %", "refused, %"} < {*tables.results(stages["drop, on a budget"]).columns}
    assert "budget: 0.400 $ per 1k" in tables.references(stages["drop, on a budget"]).caption


def test_adaptation_is_shown_where_something_changes(stages: dict[str, Stage]) -> None:
    assert tables.adaptation(stages["still"]) is None
    table = tables.adaptation(stages["drop, on a budget"])
    assert table is not None
    assert table.columns[1:] == [
        "large-latest drops to 60 % (at 50)",
        "it recovers (at 100)",
    ]
    assert [len(row) for row in table.rows] == [3] * 3


@pytest.mark.parametrize(
    ("adapted", "text"),
    [
        (Adapted(at=9, outcome="settled", seeds=1), "settled"),
        (Adapted(at=9, outcome="never", seeds=3), "never"),
        (Adapted(at=9, outcome="never", low=40.0, seeds=3), "never (40 to never)"),
        (
            Adapted(at=9, outcome="adapted", requests=60.0, low=40.0, high=None, seeds=3),
            "60 (40 to never)",
        ),
        (Adapted(at=9, outcome="adapted", requests=60.0, low=60.0, high=60.0, seeds=1), "60"),
    ],
)
def test_adaptation_in_words(stages: dict[str, Stage], adapted: Adapted, text: str) -> None:
    stage = stages["drained"]
    first = stage.contenders[0].model_copy(update={"adapted": [adapted]})
    table = tables.adaptation(stage.model_copy(update={"contenders": [first]}))
    assert table is not None
    assert table.rows[0][1] == text


def test_references_models_and_shares(stages: dict[str, Stage]) -> None:
    text = " ".join(shown(stages["still"]).split())
    for part in (
        "best single: costly/pro-2.5-preview",
        "oracle",
        "random",
        "supervised limit",
        "zero router corner: cheap/8b",
        "the zero router's is 0.",
        "Share of the answered requests, %",
    ):
        assert part in text
    # Names are no markup of the terminal either.
    assert "<b>bold</b> & $co$" in text


def test_utility_and_chance_are_shown_where_they_are_known(stages: dict[str, Stage]) -> None:
    assert tables.utility(stages["still"]) is None
    table = tables.utility(stages["drop, on a budget"])
    assert table is not None
    assert table.columns == ["policy", "utility", "regret to the highest"]
    stage = stages["still"]
    assert tables.exploration(stage) is not None
    silent = [
        one.model_copy(update={"metrics": one.metrics | {"propensity": Measure(mean=None)}})
        for one in stage.contenders
    ]
    assert tables.exploration(stage.model_copy(update={"contenders": silent})) is None


def test_tasks_are_shown_on_request_alone(stages: dict[str, Stage]) -> None:
    assert "learner by task" not in shown(stages["still"])
    text = shown(stages["still"], tasks=True)
    assert "learner by task" in text
    assert "hard" in text


def test_one_seed_says_that_errors_are_over_requests() -> None:
    stage = staged(PLANS[0], seeds=1, n=60, policies=POLICIES[:1])
    assert "150" not in (table := tables.results(stage)).title
    assert table.title.endswith("1 seed")
    assert " ± " in table.rows[0][1]
    assert shown(stage).count("with one seed, standard error over requests") == 1


def test_what_errors_are_over_is_said_once(stages: dict[str, Stage]) -> None:
    text = shown(*stages.values(), full=True, tasks=True)
    assert text.count("standard error over seeds") == 1


def test_the_overview_has_a_row_for_each_stage_and_policy(stages: dict[str, Stage]) -> None:
    table = tables.overview(list(stages.values()))
    assert table is not None
    assert table.columns == [
        "stage",
        "policy",
        "budget, $ per 1k",
        "quality",
        "$ per 1k",
        "zero router at that $",
        "difference",
        "budget used, %",
        "refused, %",
        "adapted",
    ]
    who = [one.label for one in stages["still"].contenders]
    assert [row[:2] for row in table.rows] == [[name, one] for name in stages for one in who]
    still, budgeted = table.rows[0], table.rows[len(who)]
    assert still[2] == still[7] == still[9] == "-"
    assert budgeted[2] == "0.400"
    # The cells are those of the stage's own tables.
    own = tables.results(stages["drop, on a budget"])
    cells = dict(zip(own.columns, own.rows[0], strict=True))
    assert budgeted[3:9] == [cells[heading] for heading in table.columns[3:9]]
    adapted = tables.adaptation(stages["drop, on a budget"])
    assert adapted is not None
    assert budgeted[9] == adapted.rows[0][1]


def test_the_overview_shows_the_first_change(stages: dict[str, Stage]) -> None:
    stage = stages["drop, on a budget"]
    adapted = [Adapted(at=at, outcome="adapted", requests=at / 10, seeds=1) for at in (50, 100)]
    one = stage.contenders[0].model_copy(update={"adapted": adapted})
    table = tables.overview([stages["still"], stage.model_copy(update={"contenders": [one]})])
    assert table is not None
    assert table.rows[-1][-1] == "5"


def test_the_overview_leaves_out_what_no_stage_has(stages: dict[str, Stage]) -> None:
    still = stages["still"]
    assert tables.overview([still]) is None
    table = tables.overview([still, still])
    assert table is not None
    assert {"budget, $ per 1k", "budget used, %", "refused, %", "adapted"}.isdisjoint(table.columns)
    assert not table.caption


def test_the_overview_calls_stages_by_their_scenario() -> None:
    made = [staged(plan, seeds=1, n=60, policies=POLICIES[:1]) for plan in BUDGETS]
    table = tables.overview(made)
    assert table is not None
    assert [row[0] for row in table.rows] == ["drop", "drop"]
    assert [row[2] for row in table.rows] == ["0.200", "1.20"]


def test_only_the_results_of_many_stages_are_printed(stages: dict[str, Stage]) -> None:
    few = [*stages.values()]
    assert few[0].title in shown(*few)
    assert shown(*few).count("References, in hindsight") == len(few)
    many = [*few, stages["still"]]
    text = shown(*many)
    assert text.count("Results over") == len(many)
    assert "References, in hindsight" not in text
    assert text.index("Results over") < text.index("All stages") < text.index("--full")
    text = shown(*many, full=True)
    assert text.count("References, in hindsight") == len(many)
    assert "--full" not in text
    assert "All stages" not in shown(few[0])


@pytest.mark.parametrize(
    ("mean", "se", "text"),
    [
        (None, None, "-"),
        (2.34e-4, None, "0.234"),
        (1.5e-2, 2e-4, "15.0 ± 0.2"),
        (1.0, 0.25, "1000 ± 250"),
        (4.6e-8, 1e-9, "0.0000460 ± 0.0000010"),
        (1e-3, 1e-20, "1.00 ± 0.00"),
        (1e-3, 2e-6, "1.000 ± 0.002"),
        (0.0, 0.0, "0.00 ± 0.00"),
    ],
)
def test_money_is_in_dollars_per_thousand(mean: float | None, se: float | None, text: str) -> None:
    assert tables.money(Measure(mean=mean, se=se)) == text


def test_no_sign_is_left_on_a_zero() -> None:
    assert tables.GAIN(Measure(mean=-1e-9, se=1e-9)) == "+0.0000 ± 0.0000"
    assert tables.QUALITY(None) == "-"

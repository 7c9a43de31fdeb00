"""Tables on the terminal: what stands where, and in how many digits."""

from __future__ import annotations

import pytest
from made_run import PLANS, POLICIES, staged
from rich.console import Console

from sim import tables
from sim.report import show
from sim.runfile import Adapted, Measure, Stage


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return {plan.title: staged(plan, seeds=3, n=150, policies=POLICIES) for plan in PLANS}


def shown(stage: Stage, *, tasks: bool = False) -> str:
    console = Console(width=250)
    with console.capture() as captured:
        show(console, stage, tasks=tasks)
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
    assert "standard error over seeds" in table.caption


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
        "best single: dear/pro-2.5-preview",
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
    assert "one seed: ± standard error over requests" in table.caption
    assert " ± " in table.rows[0][1]


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

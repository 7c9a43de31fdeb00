"""The tables of a run as text, for the terminal and the page.

Every mean has its standard error, and every policy has the zero router beside it. Costs are shown
in US dollars per 1,000 requests; the run file holds US dollars per request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sim.results import Adapted, Measure, Point, Stage

PER_REQUESTS = 1_000
"""Costs are shown in US dollars per that many requests."""

ERRORS = {
    "seeds": "±: standard error over seeds.",
    "requests": "±: with one seed, standard error over requests (bootstrap, the choices as they "
    "were made), which leaves out what other draws or another order would change.",
}

Show = Callable[[Measure | None], str]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headings.

    Attributes
    ----------
    title : str
        Title.
    columns : sequence of str
        Headings.
    rows : sequence of sequence of str
        Cells, as many in each row as there are columns.
    caption : str
        A note under the table; "" for none.
    names : int
        How many of the first columns name the row; all others are numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    names: int = 1


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a table of policies: the metric that it shows, and how."""

    metric: str
    heading: str
    show: Show

    def cell(self, metrics: Mapping[str, Measure]) -> str:
        """Return the cell of a policy, or of one of its tasks, by its metrics."""
        return self.show(metrics.get(self.metric))


def number(decimals: int, *, factor: float = 1.0, sign: str = "") -> Show:
    """Return a function that writes a measure.

    Parameters
    ----------
    decimals : int
        Number of decimals.
    factor : float
        The measure is multiplied by this first.
    sign : str
        "+" to write a sign before a positive number, too.
    """

    def show(measure: Measure | None) -> str:
        if measure is None or measure.mean is None:
            return "-"
        # Rounding must not leave a sign on a zero.
        mean = round(measure.mean * factor, decimals) + 0.0
        error = "" if measure.se is None else f" ± {measure.se * factor:.{decimals}f}"
        return f"{mean:{sign}.{decimals}f}{error}"

    return show


def money(cost_usd: Measure | None) -> str:
    """Write US dollars per request as US dollars per 1,000 requests, to three digits."""
    if cost_usd is None or cost_usd.mean is None:
        return "-"
    mean, error = cost_usd.mean * PER_REQUESTS, (cost_usd.se or 0.0) * PER_REQUESTS
    decimals = _decimals(mean)
    if 1e-9 * mean < error < mean:
        # An error is never shown as zero, unless that would take more than two further digits.
        decimals = min(max(decimals, _decimals(error) - 2), decimals + 2)
    return f"{mean:.{decimals}f}" + ("" if cost_usd.se is None else f" ± {error:.{decimals}f}")


def _decimals(value: float) -> int:
    """Return the number of decimals that show three digits of a value."""
    return min(max(2 - math.floor(math.log10(value)), 0), 9) if value > 0.0 else 2


QUALITY, GAIN, PERCENT = number(4), number(4, sign="+"), number(1, factor=100.0)
RESULTS = (
    _Column("quality", "quality", QUALITY),
    _Column("cost", "$ per 1k", money),
    _Column("zero", "zero router at that $", QUALITY),
    _Column("difference", "difference", GAIN),
    _Column("captured", "captured gain", number(3)),
    _Column("regret", "regret to oracle", QUALITY),
    _Column("used", "budget used, %", PERCENT),
    _Column("refused", "refused, %", PERCENT),
)
OVERVIEW = ("quality", "cost", "zero", "difference", "used", "refused")
SCORES = (
    _Column("limit_regret", "regret to supervised limit", GAIN),
    _Column("single_regret", "regret to best single", GAIN),
    _Column("quality_of_single", "quality, % of best single", PERCENT),
    _Column("cost_of_single", "$, % of best single", PERCENT),
    _Column("aiq", "AIQ", QUALITY),
    _Column("arena", "RouterArena score", number(2)),
)
UTILITY = (
    _Column("utility", "utility", QUALITY),
    _Column("utility_regret", "regret to the highest", QUALITY),
)
CHANCE = (
    _Column("propensity", "mean propensity", number(3)),
    _Column("entropy", "mean entropy, nats", number(3)),
)


def errors(stages: Sequence[Stage]) -> str:
    """Return the meaning of ± in the tables of these stages, each meaning once."""
    return " ".join(dict.fromkeys(ERRORS[stage.errors_over] for stage in stages))


def budget(stage: Stage) -> str:
    """Write a stage's budget in US dollars per 1,000 requests."""
    return money(Measure(mean=stage.budget_rate))


def overview(stages: Sequence[Stage]) -> Table | None:
    """Return a row for every policy of every stage, None where there is one stage alone."""
    if len(stages) < 2:
        return None
    results = [(stage, policy) for stage in stages for policy in stage.contenders]
    cells = {
        "stage": [stage.scenario or stage.title for stage, _ in results],
        "policy": [policy.label for _, policy in results],
    }
    if any(stage.budget_rate is not None for stage in stages):
        cells["budget, $ per 1k"] = [budget(stage) for stage, _ in results]
    for column in _shown(stages, [column for column in RESULTS if column.metric in OVERVIEW]):
        cells[column.heading] = [column.cell(policy.metrics) for _, policy in results]
    caption = ""
    if any(changes(stage) and policy.adapted for stage, policy in results):
        caption = "adapted: requests until adapted to a stage's first change, see its own table"
        cells["adapted"] = [
            _adapted(policy.adapted[0], quartiles=False)
            if changes(stage) and policy.adapted
            else "-"
            for stage, policy in results
        ]
    rows = [list(row) for row in zip(*cells.values(), strict=True)]
    return Table("All stages", list(cells), rows, caption, names=2)


def results(stage: Stage) -> Table:
    """Return quality and cost of every policy, and the zero router beside it."""
    notes = []
    if _has(stage, "captured"):
        notes.append("captured gain: share of what the supervised limit gains at the same $")
    if any(policy.seeds > 1 for policy in stage.contenders):
        notes.append("differences are paired within a seed")
    return _table(stage, f"Results over {_requests(stage)}", RESULTS, "; ".join(notes))


def scores(stage: Stage) -> Table:
    """Return published scores, and shares of the best single model's quality and cost."""
    caption = (
        "AIQ: with mixes of the policy and the cheapest model, from the cheapest to the most "
        f"expensive model's mean cost; the zero router's is {QUALITY(stage.zero_aiq)}"
    )
    return _table(stage, "Scores", SCORES, caption)


def utility(stage: Stage) -> Table | None:
    """Return the utility that policies maximise; None where quality alone counts."""
    return _table(stage, "Utility", UTILITY) if _has(stage, "utility") else None


def exploration(stage: Stage) -> Table | None:
    """Return how random the choices were; None where no policy has propensities."""
    return _table(stage, "Chance in the choices", CHANCE) if _has(stage, "propensity") else None


def _table(stage: Stage, title: str, columns: Sequence[_Column], caption: str = "") -> Table:
    shown = _shown([stage], columns)
    rows = [
        [policy.label, *(column.cell(policy.metrics) for column in shown)]
        for policy in stage.contenders
    ]
    return Table(title, ["policy", *(column.heading for column in shown)], rows, caption)


def _shown(stages: Sequence[Stage], columns: Sequence[_Column]) -> list[_Column]:
    """Return the columns whose metric any of these stages has.

    Refusals are left out where there is no budget and nothing was refused.
    """
    shown = [column for column in columns if any(_has(stage, column.metric) for stage in stages)]
    refused = [policy.metrics.get("refused") for stage in stages for policy in stage.contenders]
    no_budget = all(stage.budget_rate is None for stage in stages)
    if no_budget and not any(measure and measure.mean for measure in refused):
        shown = [column for column in shown if column.metric != "refused"]
    return shown


def _has(stage: Stage, metric: str) -> bool:
    """Return whether any policy of a stage has a metric."""
    measures = [policy.metrics.get(metric) for policy in stage.contenders]
    return any(measure is not None and measure.mean is not None for measure in measures)


def _requests(stage: Stage) -> str:
    seeds = max((policy.seeds for policy in stage.contenders), default=0)
    return f"{stage.requests:,} requests, {seeds} {'seed' if seeds == 1 else 'seeds'}"


def references(stage: Stage) -> Table:
    """Return what policies are compared with."""
    corners = [
        point.model_copy(update={"name": f"zero router corner: {point.name}"})
        for point in stage.frontier
    ]
    return Table(
        "References, in hindsight on the scored requests",
        ["reference", "quality", "$ per 1k"],
        [_point(point) for point in [*stage.references, *corners]],
        "" if stage.budget_rate is None else f"budget: {budget(stage)} $ per 1k",
    )


def models(stage: Stage) -> Table:
    """Return every model alone."""
    return Table(
        "Models alone",
        ["model", "quality", "$ per 1k"],
        [_point(point) for point in stage.models],
        "over the requests at which a model was on offer",
    )


def _point(point: Point) -> list[str]:
    quality = Measure(mean=point.quality, se=point.quality_se)
    return [point.name, QUALITY(quality), money(Measure(mean=point.cost, se=point.cost_se))]


def shares(stage: Stage) -> Table:
    """Return how often each policy chose each model."""
    policies = stage.contenders
    names = dict.fromkeys(model for policy in policies for model in policy.share)
    return Table(
        "Share of the answered requests, %",
        ["model", *(policy.label for policy in policies)],
        [[name, *(PERCENT(policy.share.get(name)) for policy in policies)] for name in names],
    )


def changes(stage: Stage) -> dict[int, str]:
    """Return what changes during the scored requests, by request."""
    labels: dict[int, list[str]] = {}
    for change in stage.changes:
        if 0 < change.at < stage.requests:
            labels.setdefault(change.at, []).append(change.label)
    return {request: "; ".join(together) for request, together in sorted(labels.items())}


def adaptation(stage: Stage) -> Table | None:
    """Return the requests until policies adapted to each change; None where nothing changes."""
    labels = changes(stage)
    if not labels or not any(policy.adapted for policy in stage.contenders):
        return None
    value = "utility" if _has(stage, "utility") else "quality"
    if stage.budget_rate is not None:
        value += " minus what its money would buy the zero router at the budget's rate"
    return Table(
        "Requests until adapted",
        ["policy", *(f"{label} (at {request:,})" for request, label in labels.items())],
        [[policy.label, *map(_adapted, policy.adapted)] for policy in stage.contenders],
        f"until the mean {value} of 40 choices has gone 90 % of the way from those before the "
        "change to the best single model after it; median and quartiles over the seeds in which "
        "there was a way to go; settled: there was none in most of them",
    )


def _adapted(adapted: Adapted, *, quartiles: bool = True) -> str:
    """Write the median, with the quartiles if there are several seeds."""
    if adapted.outcome == "settled":
        return "settled"
    low, high = ("never" if end is None else f"{end:.0f}" for end in (adapted.low, adapted.high))
    middle = "never" if adapted.requests is None else f"{adapted.requests:.0f}"
    spread = quartiles and adapted.seeds > 1 and {low, high} != {"never"}
    return f"{middle} ({low} to {high})" if spread else middle


def tasks(stage: Stage) -> list[Table]:
    """Return a table by task for each policy; none where requests have no task."""
    columns, count = RESULTS[:4], number(0)
    return [
        Table(
            f"{policy.label} by task",
            ["task", "requests", *(column.heading for column in columns)],
            [
                [
                    task,
                    count(Measure(mean=metrics["requests"].mean)),
                    *(column.cell(metrics) for column in columns),
                ]
                for task, metrics in policy.tasks.items()
            ],
            "the zero router sees the task's requests alone",
        )
        for policy in stage.contenders
        if policy.tasks
    ]

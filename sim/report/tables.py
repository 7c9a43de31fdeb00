"""The tables of a run as text: what the terminal prints and the page shows, in one place.

Every mean stands with its standard error, and the zero router beside every policy. Costs are in US
dollars per 1,000 requests here, and only here and in plots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sim.results import Adapted, CandidateResult, Measure, Point, Stage

PER = 1_000
ERRORS = {
    "seeds": "±: standard error over seeds.",
    "requests": "±: with one seed, standard error over requests (bootstrap, the choices as they "
    "were made), which leaves out what other draws or another order would change.",
}

Show = Callable[[Measure | None], str]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headings; the first columns name the row, all others are numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    names: int = 1


@dataclass(frozen=True, slots=True)
class _Column:
    metric: str
    heading: str
    show: Show


def number(
    decimals: int, *, factor: float = 1.0, sign: str = ""
) -> Callable[[Measure | None], str]:
    """Return what writes a measure times a factor with so many decimals."""

    def show(one: Measure | None) -> str:
        if one is None or one.mean is None:
            return "-"
        # Rounding must not leave a sign on a zero.
        mean = round(one.mean * factor, decimals) + 0.0
        error = "" if one.se is None else f" ± {one.se * factor:.{decimals}f}"
        return f"{mean:{sign}.{decimals}f}{error}"

    return show


def money(one: Measure | None) -> str:
    """Write US dollars per request as dollars per 1,000 of them, to three digits."""
    if one is None or one.mean is None:
        return "-"
    mean, error = one.mean * PER, (one.se or 0.0) * PER
    decimals = _decimals(mean)
    if 1e-9 * mean < error < mean:
        # An error is never shown as zero, unless that would take more than two digits more.
        decimals = min(max(decimals, _decimals(error) - 2), decimals + 2)
    return f"{mean:.{decimals}f}" + ("" if one.se is None else f" ± {error:.{decimals}f}")


def _decimals(value: float) -> int:
    """Return how many decimals show three digits of a value."""
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
    """Return what ± means in the tables of these stages: said once, it holds for all."""
    return " ".join(dict.fromkeys(ERRORS[stage.errors_over] for stage in stages))


def budget(stage: Stage) -> str:
    """Write a stage's budget in US dollars per 1,000 requests."""
    return money(Measure(mean=stage.budget_rate))


def overview(stages: Sequence[Stage]) -> Table | None:
    """Return every policy of every stage in a row, None where there is one stage alone."""
    if len(stages) < 2:
        return None
    shown = _shown(stages, [one for one in RESULTS if one.metric in OVERVIEW])
    heads = ["stage", "policy", *(one.heading for one in shown)]
    rows = [
        [stage.scenario or stage.title, one.label, *_cells(one, shown)]
        for stage in stages
        for one in stage.contenders
    ]
    played = [(stage, one) for stage in stages for one in stage.contenders]
    if any(stage.budget_rate is not None for stage in stages):
        heads.insert(2, "budget, $ per 1k")
        for row, (stage, _) in zip(rows, played, strict=True):
            row.insert(2, budget(stage))
    caption = ""
    if any(changes(stage) and one.adapted for stage, one in played):
        caption = "adapted: requests until adapted to a stage's first change, see its own table"
        heads.append("adapted")
        for row, (stage, one) in zip(rows, played, strict=True):
            known = changes(stage) and one.adapted
            row.append(_adapted(one.adapted[0], quartiles=False) if known else "-")
    return Table("All stages", heads, rows, caption, names=2)


def results(stage: Stage) -> Table:
    """Return quality and cost of every policy, and the zero router beside it."""
    notes = []
    if _some(stage, "captured"):
        notes.append("captured gain: share of what the supervised limit gains at the same $")
    if any(one.seeds > 1 for one in stage.contenders):
        notes.append("differences are paired within a seed")
    return _table(stage, f"Results over {_requests(stage)}", RESULTS, "; ".join(notes))


def scores(stage: Stage) -> Table:
    """Return published scores, and shares of the best single model's quality and cost."""
    zero = QUALITY(stage.zero_aiq)
    return _table(
        stage,
        "Scores",
        SCORES,
        f"AIQ: with mixes of the policy and the cheapest model, from "
        f"the cheapest model's mean cost to the dearest's; the zero router's is {zero}",
    )


def utility(stage: Stage) -> Table | None:
    """Return the utility that policies were asked for; None where none is given."""
    if not _some(stage, "utility"):
        return None
    return _table(stage, "Utility", UTILITY)


def exploration(stage: Stage) -> Table | None:
    """Return how much of a choice was chance; None where no policy tells."""
    if not _some(stage, "propensity"):
        return None
    return _table(stage, "Chance in the choices", CHANCE)


def _table(stage: Stage, title: str, columns: Sequence[_Column], caption: str = "") -> Table:
    shown = _shown([stage], columns)
    return Table(
        title,
        ["policy", *(one.heading for one in shown)],
        [[one.label, *_cells(one, shown)] for one in stage.contenders],
        caption,
    )


def _cells(one: CandidateResult, columns: Sequence[_Column]) -> list[str]:
    return [column.show(one.metrics.get(column.metric)) for column in columns]


def _shown(stages: Sequence[Stage], columns: Sequence[_Column]) -> list[_Column]:
    """Return the columns that say something of any of these stages."""
    shown = [one for one in columns if any(_some(stage, one.metric) for stage in stages)]
    refused = [one.metrics.get("refused") for stage in stages for one in stage.contenders]
    free = all(stage.budget_rate is None for stage in stages)
    if free and not any(one and one.mean for one in refused):
        shown = [one for one in shown if one.metric != "refused"]
    return shown


def _some(stage: Stage, metric: str) -> bool:
    found = [one.metrics.get(metric) for one in stage.contenders]
    return any(one is not None and one.mean is not None for one in found)


def _requests(stage: Stage) -> str:
    seeds = max((one.seeds for one in stage.contenders), default=0)
    return f"{stage.requests:,} requests, {seeds} {'seed' if seeds == 1 else 'seeds'}"


def references(stage: Stage) -> Table:
    """Return what policies are held against."""
    kinds = [
        *stage.references,
        *(
            point.model_copy(update={"name": f"zero router corner: {point.name}"})
            for point in stage.frontier
        ),
    ]
    return Table(
        "References, in hindsight on the scored requests",
        ["reference", "quality", "$ per 1k"],
        [_point(point) for point in kinds],
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
    names = dict.fromkeys(model for one in stage.contenders for model in one.share)
    return Table(
        "Share of the answered requests, %",
        ["model", *(one.label for one in stage.contenders)],
        [[name, *(PERCENT(one.share.get(name)) for one in stage.contenders)] for name in names],
    )


def changes(stage: Stage) -> dict[int, str]:
    """Return what changes during the scored requests, by request."""
    found: dict[int, list[str]] = {}
    for one in stage.changes:
        if 0 < one.at < stage.requests:
            found.setdefault(one.at, []).append(one.label)
    return {at: "; ".join(labels) for at, labels in sorted(found.items())}


def adaptation(stage: Stage) -> Table | None:
    """Return how soon policies were back after each change; None where nothing changes."""
    said = changes(stage)
    if not said or not any(one.adapted for one in stage.contenders):
        return None
    value = "utility" if _some(stage, "utility") else "quality"
    if stage.budget_rate is not None:
        value += " minus what its money would buy the zero router at the budget's rate"
    return Table(
        "Requests until adapted",
        ["policy", *(f"{label} (at {at:,})" for at, label in said.items())],
        [[one.label, *map(_adapted, one.adapted)] for one in stage.contenders],
        f"until the mean {value} of 40 choices has gone 90 % of the way from those before the "
        "change to the best single model after it; median and quartiles over the seeds in which "
        "there was a way to go; settled: there was none in most of them",
    )


def _adapted(one: Adapted, *, quartiles: bool = True) -> str:
    if one.outcome == "settled":
        return "settled"
    ends = ["never" if end is None else f"{end:.0f}" for end in (one.low, one.high)]
    middle = "never" if one.requests is None else f"{one.requests:.0f}"
    spread = quartiles and one.seeds > 1 and {*ends} != {"never"}
    return f"{middle} ({ends[0]} to {ends[1]})" if spread else middle


def tasks(stage: Stage, policy: CandidateResult) -> Table | None:
    """Return one policy by task; None where requests have none."""
    if not policy.tasks:
        return None
    count = number(0)
    return Table(
        f"{policy.label} by task",
        ["task", "requests", "quality", "$ per 1k", "zero router at that $", "difference"],
        [
            [
                name,
                count(Measure(mean=one["requests"].mean)),
                QUALITY(one["quality"]),
                money(one["cost"]),
                QUALITY(one["zero"]),
                GAIN(one.get("difference")),
            ]
            for name, one in policy.tasks.items()
        ],
        "the zero router sees the task's requests alone",
    )

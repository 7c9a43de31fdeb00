"""What is in a data set, and what is suspicious about it, before anybody trusts a result on it.

Everything is read off the matrix of labels; nothing is dropped, changed or guessed. A warning says
what was found and what to do about it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from policies.pacing.knapsack import Plan
from sim.data.dataset import Bools, Dataset, Float64
from sim.measure.baselines import References, oracle_plan, planned

MOST_TASKS = 20
_NO_TASK = "(none)"


@dataclass(frozen=True, slots=True)
class ModelLine:
    """One model; a number that does not exist is NaN.

    Attributes
    ----------
    quality, quality_se : mean over the rows on which it was judged, and the standard error of it.
    cost, cost_se : likewise over the rows on which it is known, US dollars per request.
    judged : share of rows with a quality.
    unique_best : share of the rows judged for every model on which it is better than all others;
        NaN for a model alone.
    """

    name: str
    quality: float
    quality_se: float
    cost: float
    cost_se: float
    judged: float
    unique_best: float


@dataclass(frozen=True, slots=True)
class ReferenceLine:
    """One reference: means over the complete rows, and their standard errors."""

    name: str
    quality: float
    quality_se: float
    cost: float
    cost_se: float


@dataclass(frozen=True, slots=True)
class Description:
    """A data set in numbers.

    Attributes
    ----------
    complete : rows with quality and cost of every model.
    references : on the complete rows; None where there are none.
    lines : the same in words, with standard errors.
    tasks : rows by task, the most frequent first.
    duplicates : rows whose prompt and task stood in an earlier row; 0 without prompts.
    empty_prompts, unjudged, unpriced, free : counts of rows without a prompt, and of cells without
        a quality, with a quality and no cost, and with a cost of exactly 0.
    warnings : a sentence each.
    """

    name: str
    rows: int
    complete: int
    models: tuple[ModelLine, ...]
    references: References | None
    lines: tuple[ReferenceLine, ...]
    tasks: dict[str, int]
    duplicates: int
    empty_prompts: int
    unjudged: int
    unpriced: int
    free: int
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def describe(dataset: Dataset) -> Description:
    """Return the description of a data set of any kind, a partial log or bare prompts as well."""
    quality, cost = dataset.quality, dataset.cost_usd
    judged, priced = ~np.isnan(quality), ~np.isnan(cost)
    complete = (judged & priced).all(axis=1) & bool(dataset.models)
    references, lines = None, list[ReferenceLine]()
    if complete.any():
        known = quality[complete], cost[complete]
        plan = oracle_plan(*known)
        references = References.of(dataset.models, *known, plan=plan)
        lines = _reference_lines(references, plan, *known)
    keys = Counter(zip(dataset.prompts, dataset.task, strict=True))
    tasks = Counter(task or _NO_TASK for task in dataset.task)
    return Description(
        name=dataset.name,
        rows=len(dataset),
        complete=int(complete.sum()),
        models=_lines(dataset, judged),
        references=references,
        lines=tuple(lines),
        tasks=dict(tasks.most_common()),
        duplicates=sum(count - 1 for (prompt, _), count in keys.items() if prompt),
        empty_prompts=sum(not prompt for prompt in dataset.prompts),
        unjudged=int((~judged).sum()),
        unpriced=int((judged & ~priced).sum()),
        free=int((cost == 0.0).sum()),
        warnings=tuple(_warnings(dataset, judged, priced)),
        notes=dataset.notes,
    )


def _lines(dataset: Dataset, judged: Bools) -> tuple[ModelLine, ...]:
    whole = dataset.quality[judged.all(axis=1)]
    best = np.full(len(dataset.models), np.nan)
    if len(dataset.models) > 1 and len(whole):
        top = whole == whole.max(axis=1, keepdims=True)
        best = (top & (top.sum(axis=1, keepdims=True) == 1)).mean(axis=0)
    return tuple(
        ModelLine(
            name=name,
            quality=_mean(dataset.quality[judged[:, k], k]),
            quality_se=_error(dataset.quality[judged[:, k], k]),
            cost=_mean(dataset.cost_usd[~np.isnan(dataset.cost_usd[:, k]), k]),
            cost_se=_error(dataset.cost_usd[~np.isnan(dataset.cost_usd[:, k]), k]),
            judged=float(judged[:, k].mean()),
            unique_best=float(best[k]),
        )
        for k, name in enumerate(dataset.models)
    )


def _reference_lines(
    references: References, plan: Plan, quality: Float64, cost: Float64
) -> list[ReferenceLine]:
    """Return the best model alone, the zero router's corners and the oracle."""
    mixes, names = references.mixes(), references.models
    corners = [int(arms[0]) for arms in mixes.arms]
    single = references.best_single
    found = [
        (f"best single: {names[single]}", quality[:, single], cost[:, single]),
        *((f"zero router corner: {names[k]}", quality[:, k], cost[:, k]) for k in corners),
        ("oracle", planned(plan, quality), planned(plan, cost)),
    ]
    return [ReferenceLine(n, _mean(q), _error(q), _mean(c), _error(c)) for n, q, c in found]


def _mean(values: Float64) -> float:
    return float(values.mean()) if len(values) else math.nan


def _error(values: Float64) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _warnings(dataset: Dataset, judged: Bools, priced: Bools) -> list[str]:
    found = []
    if not dataset.models:
        return ["prompts without outcomes: there is nothing to replay"]
    if not judged.any():
        found.append("no answer is judged: there is nothing to replay or to compare")
    if judged.any() and not priced.any():
        found.append("no answer has a cost; see --prices")
    for k, name in enumerate(dataset.models):
        quality = dataset.quality[judged[:, k], k]
        cost = dataset.cost_usd[priced[:, k], k]
        lacking = int((judged[:, k] & ~priced[:, k]).sum())
        free = int((cost == 0.0).sum())
        if free:
            found.append(
                f"{name}: {free} of {len(cost)} costs are exactly 0: free, or rather unpriced?"
            )
        if lacking and priced.any():
            found.append(f"{name}: {lacking} judged answers have no cost; see --prices")
        if len(quality) > 1 and np.ptp(quality) == 0.0:
            found.append(
                f"{name}: its quality is {quality[0]:g} on every row: is it judged at all?"
            )
        if len(cost) > 1 and np.ptp(cost) == 0.0 and not free:
            found.append(f"{name}: its cost is {cost[0]:g} on every row: a price, not a cost?")
        for earlier in range(k):
            if _copied(dataset.quality[:, earlier], dataset.quality[:, k]):
                found.append(f"{name}: its quality is a copy of {dataset.models[earlier]}'s")
    return found


def _copied(a: Float64, b: Float64) -> bool:
    known = a[~np.isnan(a)]
    # Two models may well agree where there is nothing to disagree about.
    return bool(len(known) > 1 and np.ptp(known) > 0.0 and np.array_equal(a, b, equal_nan=True))


def as_json(found: Description) -> dict[str, Any]:
    """Return the description as plain values; a number that does not exist is None."""
    references = found.references
    plain = {
        name: getattr(found, name)
        for name in Description.__dataclass_fields__
        if name not in ("models", "references", "lines")
    }
    return plain | {
        "warnings": list(found.warnings),
        "notes": list(found.notes),
        "models": [
            {name: _finite(getattr(one, name)) for name in ModelLine.__dataclass_fields__}
            for one in found.models
        ],
        "references": None
        if references is None
        else {
            "best_single": references.models[references.best_single],
            "oracle": {"quality": references.oracle[0], "cost": references.oracle[1]},
            "zero_router": references.frontier().tolist(),
            "lines": [
                {name: _finite(getattr(one, name)) for name in ReferenceLine.__dataclass_fields__}
                for one in found.lines
            ],
        },
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(console: Console, found: Description) -> None:
    """Print the tables and the warnings."""
    title = f"{found.name}: {found.rows:,} rows, {len(found.models)} models"
    if found.models:
        table = Table(title=escape(title), title_justify="left")
        for heading in ("model", "quality", "$ per request", "judged", "unique best"):
            table.add_column(heading)
        for one in found.models:
            table.add_row(
                escape(one.name),
                _known(one.quality, ".4f", error=one.quality_se),
                _known(one.cost, ".3g", error=one.cost_se),
                f"{one.judged:.1%}",
                _known(one.unique_best, ".1%"),
            )
        console.print(table)
    else:
        console.print(escape(title))
    if found.lines:
        console.print(_reference_table(found))
    if set(found.tasks) != {_NO_TASK}:
        console.print(_task_table(found))
    console.print(
        f"{found.duplicates:,} duplicate prompts, {found.empty_prompts:,} empty ones; cells: "
        f"{found.unjudged:,} not judged, {found.unpriced:,} judged without a cost, "
        f"{found.free:,} of cost 0"
    )
    for warning in found.warnings:
        console.print(f"[yellow]warning[/]: {escape(warning)}", highlight=False)


def _known(value: float, form: str, *, error: float = math.nan) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:{form}}" + (f" ± {error:{form}}" if math.isfinite(error) else "")


def _reference_table(found: Description) -> Table:
    table = Table(title=f"on the {found.complete:,} complete rows", title_justify="left")
    for heading in ("reference", "quality", "$ per request"):
        table.add_column(heading)
    for one in found.lines:
        table.add_row(
            escape(one.name),
            _known(one.quality, ".4f", error=one.quality_se),
            _known(one.cost, ".3g", error=one.cost_se),
        )
    return table


def _task_table(found: Description) -> Table:
    table = Table(title="task mix", title_justify="left")
    for heading in ("task", "rows", "share"):
        table.add_column(heading)
    shown = list(found.tasks.items())
    rest = shown[MOST_TASKS:]
    for task, count in shown[:MOST_TASKS]:
        table.add_row(escape(task), f"{count:,}", f"{count / found.rows:.1%}")
    if rest:
        count = sum(count for _, count in rest)
        table.add_row(f"({len(rest)} more)", f"{count:,}", f"{count / found.rows:.1%}")
    return table

"""What a data set holds, and what is suspicious about it: to be read before any result on it.

Everything is read off the matrix of labels; nothing is dropped, changed or guessed. A warning says
what is suspicious and, where something can be done about it, what.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from policies.pacing.knapsack import Plan
from sim.data.dataset import Bools, Dataset, Float64
from sim.measure.baselines import References, oracle_plan, plan_values
from sim.measure.uncertainty import standard_error

MOST_TASKS = 20
_NO_TASK = "(none)"


@dataclass(frozen=True, slots=True)
class Line:
    """One model or reference; a number that is not defined is NaN.

    The fields are keys of `describe --json`.

    Attributes
    ----------
    name : str
        Name of the model or the reference.
    quality, quality_se : float
        Mean over the rows on which the model was judged, and its standard error. For a reference
        these are the complete rows.
    cost, cost_se : float
        Mean over the rows on which its cost is known, and its standard error; US dollars per
        request.
    """

    name: str
    quality: float
    quality_se: float
    cost: float
    cost_se: float

    def cells(self) -> tuple[str, str, str]:
        """Return name, quality and cost as cells of a table."""
        return (
            escape(self.name),
            _number(self.quality, ".4f", error=self.quality_se),
            _number(self.cost, ".3g", error=self.cost_se),
        )


@dataclass(frozen=True, slots=True)
class ModelLine(Line):
    """One model.

    Attributes
    ----------
    judged : float
        Share of rows with a quality.
    unique_best : float
        Share of the rows judged for every model on which it is better than all others; NaN for a
        model alone.
    """

    judged: float
    unique_best: float


@dataclass(frozen=True, slots=True)
class Description:
    """A data set in numbers; most fields are keys of `describe --json`.

    Attributes
    ----------
    name : str
        Name of the data set.
    rows, complete : int
        All rows, and those with quality and cost of every model.
    models : tuple of ModelLine
        In the order of the data set.
    references : References or None
        On the complete rows; None where there are none.
    lines : tuple of Line
        The same as lines of a table, with standard errors.
    tasks : dict of str to int
        Rows by task, the most frequent first.
    duplicates : int
        Rows with the prompt and the task of an earlier row; 0 without prompts.
    empty_prompts : int
        Rows without a prompt.
    unjudged, unpriced, free : int
        Cells without a quality, with a quality and no cost, and with a cost of exactly 0.
    warnings : tuple of str
        A sentence each.
    notes : tuple of str
        What the loader of the data reported.
    """

    name: str
    rows: int
    complete: int
    models: tuple[ModelLine, ...]
    references: References | None
    lines: tuple[Line, ...]
    tasks: dict[str, int]
    duplicates: int
    empty_prompts: int
    unjudged: int
    unpriced: int
    free: int
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def describe(dataset: Dataset) -> Description:
    """Return the description of a data set of any kind, also of a partial log or bare prompts."""
    quality, cost_usd = dataset.quality, dataset.cost_usd
    judged, priced = ~np.isnan(quality), ~np.isnan(cost_usd)
    complete = (judged & priced).all(axis=1) & bool(dataset.models)
    references, lines = None, list[Line]()
    if complete.any():
        labels = quality[complete], cost_usd[complete]
        plan = oracle_plan(*labels)
        references = References.of(dataset.models, *labels, plan=plan)
        lines = _reference_lines(references, plan, *labels)
    keys = Counter(zip(dataset.prompts, dataset.task, strict=True))
    tasks = Counter(task or _NO_TASK for task in dataset.task)
    return Description(
        name=dataset.name,
        rows=len(dataset),
        complete=int(complete.sum()),
        models=_model_lines(dataset, judged, priced),
        references=references,
        lines=tuple(lines),
        tasks=dict(tasks.most_common()),
        duplicates=sum(count - 1 for (prompt, _), count in keys.items() if prompt),
        empty_prompts=sum(not prompt for prompt in dataset.prompts),
        unjudged=int((~judged).sum()),
        unpriced=int((judged & ~priced).sum()),
        free=int((cost_usd == 0.0).sum()),
        warnings=tuple(_warnings(dataset, judged, priced)),
        notes=dataset.notes,
    )


def _model_lines(dataset: Dataset, judged: Bools, priced: Bools) -> tuple[ModelLine, ...]:
    fully_judged = dataset.quality[judged.all(axis=1)]
    unique_best = np.full(len(dataset.models), np.nan)
    if len(dataset.models) > 1 and len(fully_judged):
        top = fully_judged == fully_judged.max(axis=1, keepdims=True)
        unique_best = (top & (top.sum(axis=1, keepdims=True) == 1)).mean(axis=0)
    lines = []
    for k, name in enumerate(dataset.models):
        quality = _mean_and_error(dataset.quality[judged[:, k], k])
        cost_usd = _mean_and_error(dataset.cost_usd[priced[:, k], k])
        shares = float(judged[:, k].mean()), float(unique_best[k])
        lines.append(ModelLine(name, *quality, *cost_usd, *shares))
    return tuple(lines)


def _reference_lines(
    references: References, plan: Plan, quality: Float64, cost_usd: Float64
) -> list[Line]:
    """Return the best model alone, the zero router's corners and the oracle."""
    names, single = references.models, references.best_single
    corners = [int(arms[0]) for arms in references.zero_router().arms]
    columns = [
        (f"best single: {names[single]}", quality[:, single], cost_usd[:, single]),
        *((f"zero router corner: {names[k]}", quality[:, k], cost_usd[:, k]) for k in corners),
        ("oracle", plan_values(plan, quality), plan_values(plan, cost_usd)),
    ]
    return [
        Line(name, *_mean_and_error(its_quality), *_mean_and_error(its_cost_usd))
        for name, its_quality, its_cost_usd in columns
    ]


def _mean_and_error(values: Float64) -> tuple[float, float]:
    """Return mean and standard error, NaN where there are too few values."""
    mean, error = float(values.mean()) if len(values) else math.nan, standard_error(values)
    return mean, math.nan if error is None else error


def _warnings(dataset: Dataset, judged: Bools, priced: Bools) -> list[str]:
    """Return the warnings: those on the whole data first, then model by model."""
    if not dataset.models:
        return ["prompts without outcomes: there is nothing to replay"]
    warnings = []
    if not judged.any():
        warnings.append("no answer is judged: there is nothing to replay or to compare")
    if judged.any() and not priced.any():
        warnings.append("no answer has a cost; see --prices")
    for k in range(len(dataset.models)):
        warnings += _model_warnings(dataset, judged, priced, k)
    return warnings


def _model_warnings(dataset: Dataset, judged: Bools, priced: Bools, k: int) -> list[str]:
    """Return the warnings on model k."""
    warnings, name = [], dataset.models[k]
    quality = dataset.quality[judged[:, k], k]
    cost_usd = dataset.cost_usd[priced[:, k], k]
    unpriced = int((judged[:, k] & ~priced[:, k]).sum())
    free = int((cost_usd == 0.0).sum())
    if free:
        warnings.append(
            f"{name}: {free} of {len(cost_usd)} costs are exactly 0: free, or rather unpriced?"
        )
    if unpriced and priced.any():
        warnings.append(f"{name}: {unpriced} judged answers have no cost; see --prices")
    if len(quality) > 1 and np.ptp(quality) == 0.0:
        warnings.append(f"{name}: its quality is {quality[0]:g} on every row: is it judged at all?")
    if len(cost_usd) > 1 and np.ptp(cost_usd) == 0.0 and not free:
        warnings.append(f"{name}: its cost is {cost_usd[0]:g} on every row: a price, not a cost?")
    for earlier in range(k):
        if _copied(dataset.quality[:, earlier], dataset.quality[:, k]):
            warnings.append(f"{name}: its quality is a copy of {dataset.models[earlier]}'s")
    return warnings


def _copied(a: Float64, b: Float64) -> bool:
    """Return whether two columns are equal and not constant."""
    numbers = a[~np.isnan(a)]
    # Two models may well agree on rows that all models answer equally well.
    varies = len(numbers) > 1 and np.ptp(numbers) > 0.0
    return bool(varies and np.array_equal(a, b, equal_nan=True))


def as_json(description: Description) -> dict[str, Any]:
    """Return the description as plain values; a number that is not defined is None."""
    report = {field.name: getattr(description, field.name) for field in fields(description)}
    lines, references = report.pop("lines"), report.pop("references")
    # The models come after all numbers, and the references last.
    report["models"] = report.pop("models")
    report["references"] = references and {
        "best_single": references.models[references.best_single],
        "oracle": {"quality": references.oracle[0], "cost": references.oracle[1]},
        "zero_router": references.zero_router().corners.tolist(),
        "lines": lines,
    }
    plain: dict[str, Any] = to_jsonable_python(report, inf_nan_mode="null")
    return plain


def show(console: Console, description: Description) -> None:
    """Print the tables and the warnings of a data set."""
    title = f"{description.name}: {description.rows:,} rows, {len(description.models)} models"
    if description.models:
        table = _table(escape(title), "model", "quality", "$ per request", "judged", "unique best")
        for line in description.models:
            unique_best = _number(line.unique_best, ".1%")
            table.add_row(*line.cells(), f"{line.judged:.1%}", unique_best)
        console.print(table)
    else:
        console.print(escape(title))
    if description.lines:
        console.print(_reference_table(description))
    if set(description.tasks) != {_NO_TASK}:
        console.print(_task_table(description))
    console.print(
        f"{description.duplicates:,} duplicate prompts, {description.empty_prompts:,} empty ones; "
        f"cells: {description.unjudged:,} not judged, {description.unpriced:,} judged without a "
        f"cost, {description.free:,} of cost 0"
    )
    for warning in description.warnings:
        console.print(f"[yellow]warning[/]: {escape(warning)}", highlight=False)


def _number(value: float, form: str, *, error: float = math.nan) -> str:
    """Return a value in a format, with its error where there is one; "-" for NaN."""
    if not math.isfinite(value):
        return "-"
    return f"{value:{form}}" + (f" ± {error:{form}}" if math.isfinite(error) else "")


def _table(title: str, *headings: str) -> Table:
    return Table(*headings, title=title, title_justify="left")


def _reference_table(description: Description) -> Table:
    title = f"on the {description.complete:,} complete rows"
    table = _table(title, "reference", "quality", "$ per request")
    for line in description.lines:
        table.add_row(*line.cells())
    return table


def _task_table(description: Description) -> Table:
    table = _table("task mix", "task", "rows", "share")
    tasks = list(description.tasks.items())
    rest = tasks[MOST_TASKS:]
    for task, count in tasks[:MOST_TASKS]:
        table.add_row(escape(task), f"{count:,}", f"{count / description.rows:.1%}")
    if rest:
        count = sum(count for _, count in rest)
        table.add_row(f"({len(rest)} more)", f"{count:,}", f"{count / description.rows:.1%}")
    return table

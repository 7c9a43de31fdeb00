"""From runs to a verdict: means over seeds, paired differences, a table and JSON.

Differences are taken within a seed before they are averaged, so the draw of the scored rows
cancels. Nothing here runs a policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sim.references import Float64, References
from sim.trace import Trace


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds; the standard error is None when there is a single seed."""

    mean: float
    error: float | None

    @classmethod
    def of(cls, values: Sequence[float] | Float64) -> Estimate:
        """Return mean and standard error of the mean."""
        array = np.asarray(values, dtype=np.float64)
        if len(array) < 2:
            return cls(float(array.mean()), None)
        return cls(float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array))))

    def show(self, form: str = ".4f") -> str:
        """Return ``mean ± error``."""
        return f"{self.mean:{form}}" + ("" if self.error is None else f" ± {self.error:{form}}")


@dataclass(frozen=True, slots=True)
class Summary:
    """One policy over all seeds; cost in US dollars per request, share[K] per model."""

    label: str
    seeds: int
    quality: Estimate
    cost: Estimate
    zero: Estimate
    difference: Estimate
    share: Float64
    quality_of_best: float
    cost_of_best: float
    utilisation: Estimate | None
    refused: float
    per_seed: dict[str, list[float]]


def summarise(runs: Sequence[Trace], *, budget_rate: float | None = None) -> Summary:
    """Return the summary of one policy's runs.

    Parameters
    ----------
    runs : one per seed, all of one policy.
    budget_rate : US dollars per request, to report how much of it was used.
    """
    own = [references_of(run, budget_rate) for run in runs]
    zero = [one.zero(run.cost) for one, run in zip(own, runs, strict=True)]
    difference = [run.quality - at for run, at in zip(runs, zero, strict=True)]
    references = References.mean(own)
    best = references.best_single
    quality = Estimate.of([run.quality for run in runs])
    cost = Estimate.of([run.cost for run in runs])
    return Summary(
        label=runs[0].label,
        seeds=len(runs),
        quality=quality,
        cost=cost,
        zero=Estimate.of(zero),
        difference=Estimate.of(difference),
        share=np.mean([run.share for run in runs], axis=0),
        quality_of_best=_ratio(quality.mean, float(references.quality[best])),
        cost_of_best=_ratio(cost.mean, float(references.cost[best])),
        utilisation=Estimate.of([run.cost / budget_rate for run in runs]) if budget_rate else None,
        refused=float(np.mean([run.refused for run in runs])),
        per_seed={
            "quality": [run.quality for run in runs],
            "cost": [run.cost for run in runs],
            "zero_at_cost": zero,
            "difference": difference,
        },
    )


def references_of(run: Trace, rate: float | None) -> References:
    """Return the references of the scored requests."""
    world = run.world
    return References.of(world.models, world.quality, world.cost, budget_rate=rate)


def _ratio(value: float, whole: float) -> float:
    return value / whole if whole > 0.0 else math.nan


def as_json(
    data: str,
    models: Sequence[str],
    summaries: Sequence[Summary],
    references: References,
) -> dict[str, Any]:
    """Return the report as plain values; a number that does not exist is None."""
    random, best = references.random, references.best_single
    return {
        "data": data,
        "models": list(models),
        "policies": {one.label: _policy_json(one, models) for one in summaries},
        "references": {
            "random": {"quality": random[0], "cost": random[1]},
            "best_single": {
                "model": references.models[best],
                "quality": float(references.quality[best]),
                "cost": float(references.cost[best]),
            },
            "oracle": {"quality": references.oracle[0], "cost": references.oracle[1]},
            "zero_router": references.frontier().tolist(),
        },
    }


def _policy_json(one: Summary, models: Sequence[str]) -> dict[str, Any]:
    return {
        "seeds": one.seeds,
        "quality": one.quality.mean,
        "quality_se": one.quality.error,
        "cost": one.cost.mean,
        "cost_se": one.cost.error,
        "zero_at_cost": one.zero.mean,
        "difference": one.difference.mean,
        "difference_se": one.difference.error,
        "quality_of_best_single": _finite(one.quality_of_best),
        "cost_of_best_single": _finite(one.cost_of_best),
        "utilisation": one.utilisation.mean if one.utilisation else None,
        "utilisation_se": one.utilisation.error if one.utilisation else None,
        "refused": one.refused,
        "share": dict(zip(models, one.share.tolist(), strict=True)),
        "per_seed": one.per_seed,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def show(
    console: Console, title: str, summaries: Sequence[Summary], references: References
) -> None:
    """Print the table of policies and the table of references."""
    paced = any(one.utilisation is not None for one in summaries)
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("policy", overflow="fold", max_width=24)
    for heading in ("quality", "$ per request", "zero router\nat that $", "difference"):
        table.add_column(heading)
    for heading in ("quality\nof best", "$ of\nbest"):
        table.add_column(heading)
    if paced:
        table.add_column("budget used,\nrefused")
    table.add_column("share per model", no_wrap=True)
    for one in summaries:
        shares = zip(references.models, one.share.tolist(), strict=True)
        cells = [
            one.label,
            one.quality.show(),
            one.cost.show(".3g"),
            one.zero.show(),
            one.difference.show("+.4f").replace("± +", "± "),
            f"{one.quality_of_best:.1%}",
            f"{one.cost_of_best:.1%}",
            *(
                [f"{one.utilisation.show('.3f')}\n{one.refused:.1%}" if one.utilisation else ""]
                if paced
                else []
            ),
            "\n".join(f"{share:6.1%} {model}" for model, share in shares),
        ]
        table.add_row(*cells)
    console.print(table)
    console.print(_reference_table(references))


def _reference_table(references: References) -> Table:
    best, frontier = references.best_single, references.frontier()
    table = Table(title="references, in hindsight on the scored rows", title_justify="left")
    for heading in ("reference", "quality", "$ per request"):
        table.add_column(heading)
    rows = [
        ("random", *references.random),
        (
            f"best single: {references.models[best]}",
            float(references.quality[best]),
            float(references.cost[best]),
        ),
        ("oracle (knapsack)", *references.oracle),
        *(("zero router corner", float(q), float(c)) for c, q in frontier),
    ]
    for name, quality, cost in rows:
        table.add_row(name, f"{quality:.4f}", f"{cost:.3g}")
    return table

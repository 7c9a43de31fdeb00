"""The figures of a run, as files: SVG for the page, PNG for wherever else.

Everything drawn is in the run's file already. Names come from data and policies, so they are never
read as formulas. The same run gives the same bytes. Needs matplotlib, the extra `report`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from sim.report.quality_cost import frontier, mean, plane
from sim.report.style import (
    AREAS,
    BLUE,
    COLOURS,
    SETTINGS,
    STYLES,
    label,
    legend,
    mark,
    panels,
    slim,
)
from sim.report.tables import changes
from sim.results import Band, Stage, by_scenario

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REQUESTS = "scored requests"


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure: a short name for its file, a title, and what it shows in words."""

    name: str
    title: str
    alt: str
    draw: Callable[[], Figure]

    def save(self, form: Literal["svg", "png"]) -> bytes:
        """Return the file."""
        out = io.BytesIO()
        # What a user has set for other figures must not change these.
        with style.context(["default", SETTINGS]):
            figure = self.draw()
            stamp = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
            figure.savefig(out, format=form, dpi=150, metadata=stamp)
        drawn = out.getvalue()
        return slim(drawn.decode()).encode() if form == "svg" else drawn


def pictures(stage: Stage) -> list[Picture]:
    """Return the figures that make sense for a stage; none where nobody played it."""
    if not stage.contenders or not stage.frontier:
        return []
    who = ", ".join(one.label for one in stage.contenders)
    found = [
        Picture(
            "plane",
            "Quality and cost",
            "Two charts over cost on a logarithmic axis. Left: mean quality of every model alone, "
            f"the zero router's hull, the oracle, and the policies {who}. Right: how far above the "
            "zero router each policy is at its own cost. All values are in the tables.",
            partial(plane, stage),
        ),
        Picture(
            "regret",
            "Regret over time",
            f"Two line charts over requests with 95 % bands for {who}: quality lost to the oracle, "
            "cumulated, and quality gained over the zero router of the same mean cost, cumulated.",
            partial(regret, stage),
        ),
        Picture(
            "shares",
            "Share per model over time",
            f"One stacked area chart for each of {who}: which part of the requests went to which "
            "model, over requests.",
            partial(shares, stage),
        ),
    ]
    if any("spent" in one.curves for one in stage.contenders):
        found.append(
            Picture(
                "budget",
                "Budget use over time",
                f"A line chart over requests of the share of the budget that {who} had spent.",
                partial(spent, stage),
            )
        )
    if any(one.propensity for one in stage.contenders):
        found.append(
            Picture(
                "propensity",
                "Propensity of the choices",
                f"One histogram for each of {who}: the probability with which the chosen model was "
                "chosen.",
                partial(propensity, stage),
            )
        )
    return found


def frontiers(stages: Sequence[Stage]) -> list[Picture]:
    """Return a figure for each scenario that was played under several budgets."""
    found = []
    for group in by_scenario(stages):
        if len(group) < 2 or not all(stage.contenders and stage.frontier for stage in group):
            continue
        who = ", ".join(dict.fromkeys(one.label for stage in group for one in stage.contenders))
        found.append(
            Picture(
                "frontier",
                f"{group[0].scenario}: {len(group)} budgets",
                "Two charts over cost on a logarithmic axis. Left: mean quality of every model "
                "alone, the zero router's hull, the oracle at each budget, and a line through the "
                f"budgets for each of {who}. Right: how far above the zero router each is at its "
                "own cost. All values are in the table.",
                partial(frontier, group),
            )
        )
    return found


def regret(stage: Stage) -> Figure:
    """Draw cumulated regret to the oracle, and gain over the zero router."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    handles = _curves(left, stage, "regret")
    _curves(right, stage, "gain")
    # With money to spend, the best single model is no match for anybody on a budget.
    if stage.single_regret is not None and stage.contenders and stage.budget_rate is None:
        at = [0, *stage.contenders[0].at]
        handles += left.plot(
            at, [0.0, *stage.single_regret.mean], color="black", lw=1.4, label="best single model"
        )
    right.axhline(0.0, color="black", lw=1.4)
    handles += mark(changes(stage), left, right)
    left.set(xlabel=REQUESTS, ylabel="cumulated quality", title="Regret: below the oracle")
    right.set(xlabel=REQUESTS, ylabel="cumulated quality")
    right.set_title("Gain: above the zero router of the same mean cost")
    legend(figure, handles)
    return figure


def spent(stage: Stage) -> Figure:
    """Draw the share of the budget that is spent."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axis = figure.subplots()
    handles = _curves(axis, stage, "spent")
    handles += axis.plot(
        [0, stage.requests], [0.0, 1.0], color="black", lw=1.2, ls=(0, (1, 2)), label="even pace"
    )
    axis.axhline(1.0, color="black", lw=1.2)
    handles += mark(changes(stage), axis)
    axis.set(xlabel=REQUESTS, ylabel="spent, % of the whole budget")
    # A band of few seeds may reach far above a cap that no seed did.
    ends = [one.curves["spent"].mean[-1] for one in stage.contenders if "spent" in one.curves]
    axis.set_ylim(0.0, 1.08 * max(1.0, *ends))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
    legend(figure, handles, columns=3)
    return figure


def shares(stage: Stage) -> Figure:
    """Draw which models were chosen when, a panel for each policy."""
    figure, axes = panels([one.label for one in stage.contenders])
    used = {
        name: sum(float(np.sum(one.shares.get(name, []))) for one in stage.contenders)
        for name in dict.fromkeys(name for one in stage.contenders for name in one.shares)
    }
    ranked = sorted(used, key=lambda name: -used[name])
    own = ranked if len(ranked) <= len(AREAS) else ranked[: len(AREAS) - 1]
    names = [name for name in used if name in own]
    rest = [name for name in used if name not in own]
    for axis, one in zip(axes, stage.contenders, strict=True):
        rows = [np.array(one.shares[name]) for name in names]
        if rest:
            rows.append(np.sum([one.shares[name] for name in rest], axis=0))
        edges = np.array([0, *one.at])
        # Steps, as each bin has one value.
        stacked = [np.append(row, row[-1]) for row in rows]
        colours = [*AREAS[: len(names)], *(["0.75"] if rest else [])]
        axis.stackplot(edges, stacked, colors=colours, step="post", lw=0)
        axis.set(xlim=(0, stage.requests), ylim=(0, 1))
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
        axis.grid(False)
    label(axes, REQUESTS, "share of requests, %")
    handles: list[Any] = [
        Patch(color=colour, label=name) for colour, name in zip(AREAS, names, strict=False)
    ]
    if rest:
        handles.append(Patch(color="0.75", label=f"{len(rest)} other models"))
    if any(mean(one, "refused") > 0.0 for one in stage.contenders):
        handles.append(Patch(facecolor="white", edgecolor="0.5", label="refused"))
    legend(figure, [*handles, *mark(changes(stage), *axes, colour="white")])
    return figure


def propensity(stage: Stage) -> Figure:
    """Draw histograms of the propensity of the choice, a panel for each policy that has one."""
    found = [one for one in stage.contenders if one.propensity]
    figure, axes = panels([one.label for one in found])
    for axis, one in zip(axes, found, strict=True):
        counts = np.array(one.propensity, dtype=np.float64)
        edges = np.linspace(0.0, 1.0, len(counts) + 1)
        width = edges[1]
        axis.bar(edges[:-1], counts / counts.sum(), width=width, align="edge", color=BLUE)
        axis.set_xlim(0, 1)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
    label(axes, "propensity of the choice", "share of choices, %")
    return figure


def _curves(axis: Axes, stage: Stage, name: str) -> list[Any]:
    handles: list[Any] = []
    for k, one in enumerate(stage.contenders):
        curve: Band | None = one.curves.get(name)
        if curve is None:
            continue
        at = [0, *one.at]
        style = {"color": COLOURS[k % len(COLOURS)], "ls": STYLES[k % len(STYLES)]}
        handles += axis.plot(at, [0.0, *curve.mean], lw=1.8, label=one.label, **style)
        axis.fill_between(
            at, [0.0, *curve.low], [0.0, *curve.high], color=style["color"], alpha=0.15, lw=0
        )
    axis.set_xlim(0, stage.requests)
    return handles

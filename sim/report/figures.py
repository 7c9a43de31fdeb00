"""The figures of a run, as SVG for the page or as PNG files.

They only draw what the run file holds. Names come from data and policies, so they are never read
as formulas. The same run gives the same bytes. Needs matplotlib, the extra `report`.
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
from sim.results import Stage, by_scenario

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REQUESTS = "scored requests"


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure of the page.

    Attributes
    ----------
    name : str
        Short name, for its file.
    title : str
        Title.
    alt : str
        What it shows, in words.
    draw : callable
        Returns the figure.
    """

    name: str
    title: str
    alt: str
    draw: Callable[[], Figure]

    def save(self, form: Literal["svg", "png"]) -> bytes:
        """Return the content of a file of that format."""
        out = io.BytesIO()
        # The user's own settings of matplotlib must not change these figures.
        with style.context(["default", SETTINGS]):
            figure = self.draw()
            no_stamp = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
            figure.savefig(out, format=form, dpi=150, metadata=no_stamp)
        drawn = out.getvalue()
        return slim(drawn.decode()).encode() if form == "svg" else drawn


def pictures(stage: Stage) -> list[Picture]:
    """Return the figures that make sense for a stage; none for one without policies."""
    if not stage.contenders or not stage.frontier:
        return []
    labels = ", ".join(policy.label for policy in stage.contenders)
    figures = [
        Picture(
            "plane",
            "Quality and cost",
            "Two charts over cost on a logarithmic axis. Left: mean quality of every model alone, "
            f"the zero router's hull, the oracle, and the policies {labels}. Right: how far above "
            "the zero router each policy is at its own cost. All values are in the tables.",
            partial(plane, stage),
        ),
        Picture(
            "regret",
            "Regret over time",
            f"Two line charts over requests with 95 % bands for {labels}: quality lost to the "
            "oracle, cumulated, and quality gained over the zero router of the same mean cost, "
            "cumulated.",
            partial(regret, stage),
        ),
        Picture(
            "shares",
            "Share per model over time",
            f"One stacked area chart for each of {labels}: which part of the requests went to "
            "which model, over requests.",
            partial(shares, stage),
        ),
        Picture(
            "budget",
            "Budget use over time",
            f"A line chart over requests of the share of the budget that {labels} had spent.",
            partial(spent, stage),
        ),
        Picture(
            "propensity",
            "Propensity of the choices",
            f"One histogram for each of {labels}: the probability with which the chosen model was "
            "chosen.",
            partial(propensity, stage),
        ),
    ]
    absent = set()
    if not any("spent" in policy.curves for policy in stage.contenders):
        absent.add("budget")
    if not any(policy.propensity for policy in stage.contenders):
        absent.add("propensity")
    return [figure for figure in figures if figure.name not in absent]


def frontiers(stages: Sequence[Stage]) -> list[Picture]:
    """Return a figure for each scenario that was played under several budgets."""
    figures = []
    for group in by_scenario(stages):
        if len(group) < 2 or not all(stage.contenders and stage.frontier for stage in group):
            continue
        policies = dict.fromkeys(policy.label for stage in group for policy in stage.contenders)
        labels = ", ".join(policies)
        figures.append(
            Picture(
                "frontier",
                f"{group[0].scenario}: {len(group)} budgets",
                "Two charts over cost on a logarithmic axis. Left: mean quality of every model "
                "alone, the zero router's hull, the oracle at each budget, and a line through the "
                f"budgets for each of {labels}. Right: how far above the zero router each is at "
                "its own cost. All values are in the table.",
                partial(frontier, group),
            )
        )
    return figures


def regret(stage: Stage) -> Figure:
    """Draw cumulated regret to the oracle, and gain over the zero router."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    handles = _curves(left, stage, "regret")
    _curves(right, stage, "gain")
    # The best single model spends without a limit: it is no baseline for policies on a budget.
    if stage.single_regret is not None and stage.contenders and stage.budget_rate is None:
        edges = [0, *stage.contenders[0].at]
        regret = [0.0, *stage.single_regret.mean]
        handles += left.plot(edges, regret, color="black", lw=1.4, label="best single model")
    right.axhline(0.0, color="black", lw=1.4)
    handles += mark(changes(stage), left, right)
    left.set(xlabel=REQUESTS, ylabel="cumulated quality", title="Regret: below the oracle")
    right.set(xlabel=REQUESTS, ylabel="cumulated quality")
    right.set_title("Gain: above the zero router of the same mean cost")
    legend(figure, handles)
    return figure


def spent(stage: Stage) -> Figure:
    """Draw the share of the budget that was spent, over requests."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axis = figure.subplots()
    handles = _curves(axis, stage, "spent")
    handles += axis.plot(
        [0, stage.requests], [0.0, 1.0], color="black", lw=1.2, ls=(0, (1, 2)), label="even pace"
    )
    axis.axhline(1.0, color="black", lw=1.2)
    handles += mark(changes(stage), axis)
    axis.set(xlabel=REQUESTS, ylabel="spent, % of the whole budget")
    # The band of few seeds may reach far above a cap that no seed exceeded.
    curves = [policy.curves.get("spent") for policy in stage.contenders]
    axis.set_ylim(0.0, 1.08 * max(1.0, *(curve.mean[-1] for curve in curves if curve)))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
    legend(figure, handles, columns=3)
    return figure


def shares(stage: Stage) -> Figure:
    """Draw the share of each model over requests, a panel for each policy."""
    figure, axes = panels([policy.label for policy in stage.contenders])
    names, rest = _most_used(stage)
    for axis, policy in zip(axes, stage.contenders, strict=True):
        rows = [np.array(policy.shares[name]) for name in names]
        if rest:
            rows.append(np.sum([policy.shares[name] for name in rest], axis=0))
        edges = np.array([0, *policy.at])
        # Steps, because each bin has one value.
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
    if any(mean(policy, "refused") > 0.0 for policy in stage.contenders):
        handles.append(Patch(facecolor="white", edgecolor="0.5", label="refused"))
    legend(figure, [*handles, *mark(changes(stage), *axes, colour="white")])
    return figure


def propensity(stage: Stage) -> Figure:
    """Draw histograms of the propensity of the choice, a panel for each policy that has one."""
    policies = [policy for policy in stage.contenders if policy.propensity]
    figure, axes = panels([policy.label for policy in policies])
    for axis, policy in zip(axes, policies, strict=True):
        counts = np.array(policy.propensity, dtype=np.float64)
        edges = np.linspace(0.0, 1.0, len(counts) + 1)
        width = edges[1]
        axis.bar(edges[:-1], counts / counts.sum(), width=width, align="edge", color=BLUE)
        axis.set_xlim(0, 1)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
    label(axes, "propensity of the choice", "share of choices, %")
    return figure


def _most_used(stage: Stage) -> tuple[list[str], list[str]]:
    """Return the models that get an area of their own, and those that share one, in their order."""
    used = {
        name: sum(float(np.sum(policy.shares.get(name, []))) for policy in stage.contenders)
        for name in dict.fromkeys(name for policy in stage.contenders for name in policy.shares)
    }
    ranked = sorted(used, key=lambda name: -used[name])
    own = ranked if len(ranked) <= len(AREAS) else ranked[: len(AREAS) - 1]
    return [name for name in used if name in own], [name for name in used if name not in own]


def _curves(axis: Axes, stage: Stage, name: str) -> list[Any]:
    """Draw the curve of that name of each policy that has one, with its band."""
    handles: list[Any] = []
    for k, policy in enumerate(stage.contenders):
        curve = policy.curves.get(name)
        if curve is None:
            continue
        edges, colour = [0, *policy.at], COLOURS[k % len(COLOURS)]
        handles += axis.plot(
            edges,
            [0.0, *curve.mean],
            lw=1.8,
            label=policy.label,
            color=colour,
            ls=STYLES[k % len(STYLES)],
        )
        axis.fill_between(
            edges, [0.0, *curve.low], [0.0, *curve.high], color=colour, alpha=0.15, lw=0
        )
    axis.set_xlim(0, stage.requests)
    return handles

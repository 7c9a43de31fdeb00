"""The figures of a stage, as files: SVG for the page, PNG for wherever else.

Everything drawn is in the run's file already. Names come from data and policies, so they are never
read as formulas. The same run gives the same bytes. Needs matplotlib, the extra `report`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter
from matplotlib.transforms import Affine2D

from sim.runfile import Band, Contender, Point, Stage
from sim.tables import PER, changes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito: told apart with any vision. Black is the references', yellow too light for lines.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
)
COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)
AREAS = (*COLOURS, "#F0E442", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "h", "<", ">")
STYLES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
GREY = "0.35"
PANELS = 3
"""Policies in a row."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SETTINGS: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.dpi": 100,
    "font.size": 9.5,
    "grid.color": "0.9",
    "legend.fontsize": 9,
    "legend.frameon": False,
    "svg.hashsalt": "banditroute",
    "text.parse_math": False,
}
REQUESTS = "scored requests"
COST = "US dollars per 1,000 requests (log scale)"


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure: a short name for its file, a title, and what it shows in words."""

    name: str
    title: str
    alt: str
    draw: Callable[[Stage], Figure]
    stage: Stage

    def save(self, form: Literal["svg", "png"]) -> bytes:
        """Return the file."""
        out = io.BytesIO()
        with matplotlib.rc_context(SETTINGS):
            figure = self.draw(self.stage)
            stamp = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
            figure.savefig(out, format=form, dpi=150, metadata=stamp)
        return out.getvalue()


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
            plane,
            stage,
        ),
        Picture(
            "regret",
            "Regret over time",
            f"Two line charts over requests with 95 % bands for {who}: quality lost to the oracle, "
            "cumulated, and quality gained over the zero router of the same mean cost, cumulated.",
            regret,
            stage,
        ),
        Picture(
            "shares",
            "Share per model over time",
            f"One stacked area chart for each of {who}: which part of the requests went to which "
            "model, over requests.",
            shares,
            stage,
        ),
    ]
    if any("spent" in one.curves for one in stage.contenders):
        found.append(
            Picture(
                "budget",
                "Budget use over time",
                f"A line chart over requests of the share of the budget that {who} had spent.",
                spent,
                stage,
            )
        )
    if any(one.propensity for one in stage.contenders):
        found.append(
            Picture(
                "propensity",
                "Propensity of the choices",
                f"One histogram for each of {who}: the probability with which the chosen model was "
                "chosen.",
                propensity,
                stage,
            )
        )
    return found


def plane(stage: Stage) -> Figure:
    """Draw the quality-cost plane, and the gain over the zero router."""
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    corners = np.array([(one.cost * PER, one.quality) for one in stage.frontier])
    points = [*stage.models, *stage.references]
    costs = [
        *(one.cost * PER for one in points),
        *(_mean(p, "cost") * PER for p in stage.contenders),
    ]
    flat = np.vstack([corners, [[max(*costs, corners[-1, 0]), corners[-1, 1]]]])
    # On a logarithmic axis a mix of two models is a curve.
    least = min((cost for cost in [*costs, *flat[:, 0]] if cost > 0.0), default=1.0)
    curve = np.geomspace(least, max(flat[-1, 0], least), 400)
    dense = np.unique(np.concatenate([curve, flat[:, 0]])).clip(flat[0, 0], flat[-1, 0])
    handles: list[Any] = left.plot(
        dense, np.interp(dense, flat[:, 0], flat[:, 1]), color="black", lw=1.4, label="zero router"
    )
    right.axhline(0.0, color="black", lw=1.4)
    for one, letter in zip(stage.models, LETTERS, strict=False):
        best = any(p.name == f"best single: {one.name}" for p in stage.references)
        at = one.cost * PER, one.quality
        left.plot(*at, ls="", marker=".", color=GREY)
        left.annotate(
            letter, at, xytext=(-3, 4), textcoords="offset points", ha="right", color=GREY
        )
        note = " (best single)" if best else ""
        glyph = _letter(letter)
        handles.append(Line2D([], [], ls="", marker=glyph, c=GREY, mew=0.0, label=one.name + note))
    for point, marker in _named(stage, {"oracle": "*", "random": "+"}):
        handles += left.plot(
            point.cost * PER,
            point.quality,
            ls="",
            marker=marker,
            ms=11,
            color="black",
            label=point.name,
        )
    if stage.limit:
        cost = np.array([one.cost * PER for one in stage.limit])
        quality = np.array([one.quality for one in stage.limit])
        line = {"color": "black", "ls": (0, (1, 2)), "lw": 1.4}
        at = dense[(dense >= cost[0]) & (dense <= cost[-1])]
        between = np.interp(at, cost, quality)
        handles += left.plot(at, between, label="supervised limit", **line)
        right.plot(at, between - np.interp(at, flat[:, 0], flat[:, 1]), **line)
    for k, policy in enumerate(stage.contenders):
        own = _mean(policy, "cost") * PER
        for axis, metric in ((left, "quality"), (right, "difference")):
            drawn = axis.errorbar(
                own,
                _mean(policy, metric),
                xerr=min(2.0 * _error(policy, "cost") * PER, 0.999 * own),
                yerr=2.0 * _error(policy, metric),
                capsize=3,
                label=policy.label,
                **_marked(k),
            )
        handles.append(drawn)
    left.set(xlabel=COST, ylabel="mean quality", title="Quality at its cost")
    right.set(xlabel=COST, ylabel="quality above the zero router")
    right.set_title("Gain over the zero router at the same cost (± 2 standard errors)")
    for axis in (left, right):
        _log_scale(axis, least, free=min(costs) <= 0.0)
    _legend(figure, handles)
    return figure


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
    handles += _changes(stage, left, right)
    left.set(xlabel=REQUESTS, ylabel="cumulated quality", title="Regret: below the oracle")
    right.set(xlabel=REQUESTS, ylabel="cumulated quality")
    right.set_title("Gain: above the zero router of the same mean cost")
    _legend(figure, handles)
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
    handles += _changes(stage, axis)
    axis.set(xlabel=REQUESTS, ylabel="spent, % of the whole budget")
    axis.set_ylim(bottom=0.0)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
    _legend(figure, handles, columns=3)
    return figure


def shares(stage: Stage) -> Figure:
    """Draw which models were chosen when, a panel for each policy."""
    figure, panels = _panels(stage.contenders)
    used = {
        name: sum(float(np.sum(one.shares.get(name, []))) for one in stage.contenders)
        for name in dict.fromkeys(name for one in stage.contenders for name in one.shares)
    }
    ranked = sorted(used, key=lambda name: -used[name])
    own = ranked if len(ranked) <= len(AREAS) else ranked[: len(AREAS) - 1]
    names = [name for name in used if name in own]
    rest = [name for name in used if name not in own]
    for axis, one in zip(panels, stage.contenders, strict=True):
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
    _label(panels, REQUESTS, "share of requests, %")
    handles: list[Any] = [
        Patch(color=colour, label=name) for colour, name in zip(AREAS, names, strict=False)
    ]
    if rest:
        handles.append(Patch(color="0.75", label=f"{len(rest)} other models"))
    if any((_mean(one, "refused") or 0.0) > 0.0 for one in stage.contenders):
        handles.append(Patch(facecolor="white", edgecolor="0.5", label="refused"))
    _legend(figure, [*handles, *_changes(stage, *panels, colour="white")])
    return figure


def propensity(stage: Stage) -> Figure:
    """Draw histograms of the propensity of the choice, a panel for each policy that has one."""
    found = [one for one in stage.contenders if one.propensity]
    figure, panels = _panels(found)
    for axis, one in zip(panels, found, strict=True):
        counts = np.array(one.propensity, dtype=np.float64)
        edges = np.linspace(0.0, 1.0, len(counts) + 1)
        width = edges[1]
        axis.bar(edges[:-1], counts / counts.sum(), width=width, align="edge", color=BLUE)
        axis.set_xlim(0, 1)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
    _label(panels, "propensity of the choice", "share of choices, %")
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


def _changes(stage: Stage, *axes: Axes, colour: str = GREY) -> list[Any]:
    """Draw a numbered line for each change; return what says which is which."""
    handles: list[Any] = []
    for k, (at, said) in enumerate(changes(stage).items(), start=1):
        for axis in axes:
            axis.axvline(at, color=colour, lw=1.1, ls=(0, (3, 2)))
            axis.annotate(
                f"{k}",
                (at, 1.0),
                xycoords=axis.get_xaxis_transform(),
                xytext=(3, -2),
                textcoords="offset points",
                va="top",
                color="black",
                fontsize=8.5,
                bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
            )
        handles.append(Line2D([], [], color=GREY, lw=1.1, ls=(0, (3, 2)), label=f"{k}: {said}"))
    return handles


def _panels(found: Sequence[Contender]) -> tuple[Figure, list[Axes]]:
    """Return a figure with a titled panel for each policy, three in a row."""
    columns = min(len(found), PANELS)
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(11 if columns == PANELS else 4 + 3.5 * columns, 1.2 + 2.4 * rows))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = list(grid.flat)
    for spare in panels[len(found) :]:
        spare.set_visible(False)
    for k, (axis, one) in enumerate(zip(panels, found, strict=False)):
        axis.set_title(one.label)
        axis.tick_params(labelbottom=k + columns >= len(found))
    return figure, panels[: len(found)]


def _label(panels: Sequence[Axes], across: str, up: str) -> None:
    """Label the axes at the left, and those with nothing below."""
    for k, axis in enumerate(panels):
        if k % PANELS == 0:
            axis.set_ylabel(up)
        if k + PANELS >= len(panels):
            axis.set_xlabel(across)


def _letter(letter: str) -> Path:
    """Return a marker; matplotlib's own for letters are formulas."""
    path = TextPath((0.0, 0.0), letter, size=10)
    box = path.get_extents()
    return path.transformed(Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2))


def _legend(figure: Figure, handles: Sequence[Any], columns: int = 4) -> None:
    longest = max((len(str(one.get_label())) for one in handles), default=0)
    fits = max(1, min(columns, int(figure.get_figwidth() * 12 // (longest + 6))))
    figure.legend(handles=handles, loc="outside lower center", ncols=fits)


def _marked(k: int) -> dict[str, Any]:
    return {
        "color": COLOURS[k % len(COLOURS)],
        "marker": MARKERS[k % len(MARKERS)],
        "ms": 7,
        "lw": 1.4,
        "ls": "",
        "mec": "white",
        "mew": 0.6,
    }


def _named(stage: Stage, markers: dict[str, str]) -> list[tuple[Point, str]]:
    return [(one, markers[one.name]) for one in stage.references if one.name in markers]


def _log_scale(axis: Axes, least: float, *, free: bool) -> None:
    """Scale costs, labelled in plain numbers.

    Parameters
    ----------
    least : the least cost above 0; what is free stands at 0, below it.
    """
    if free:
        axis.set_xscale("symlog", linthresh=least)
    else:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _mean(one: Contender, metric: str) -> float:
    found = one.metrics.get(metric)
    return 0.0 if found is None or found.mean is None else found.mean


def _error(one: Contender, metric: str) -> float:
    found = one.metrics.get(metric)
    return 0.0 if found is None or found.se is None else found.se

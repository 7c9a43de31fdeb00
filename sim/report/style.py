"""Style of the figures: colours, markers and lines that anyone can tell apart, panels, legends.

Nothing here knows what is drawn. Names come from data and policies, so they are never read as
formulas. Needs matplotlib, the extra `report`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Affine2D

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito: distinguishable with any colour vision. Black is for references, and yellow is too
# light for lines. These are blue, orange, green, vermilion, purple and sky.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
BLUE = COLOURS[0]
AREAS = (*COLOURS, "#F0E442", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "h", "<", ">")
STYLES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
GREY = "0.35"
PANELS = 3
"""Panels in a row."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SETTINGS: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.dpi": 100,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.size": 9.5,
    "grid.color": "0.9",
    "legend.fontsize": 9,
    "legend.frameon": False,
    # Text as outlines would make a figure three times as large. So the reader's font is used: the
    # layout is for DejaVu Sans, Verdana is as wide, and other fonts are narrower.
    "svg.fonttype": "none",
    "svg.hashsalt": "banditroute",
    "text.parse_math": False,
}


def mark(events: Mapping[int, str], *axes: Axes, colour: str = GREY) -> list[Any]:
    """Draw a numbered line at each event, by request; return the handles of the legend."""
    handles: list[Any] = []
    for k, (request, event) in enumerate(events.items(), start=1):
        for axis in axes:
            axis.axvline(request, color=colour, lw=1.1, ls=(0, (3, 2)))
            axis.annotate(
                f"{k}",
                (request, 1.0),
                xycoords=axis.get_xaxis_transform(),
                xytext=(3, -2),
                textcoords="offset points",
                va="top",
                color="black",
                fontsize=8.5,
                bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
            )
        handles.append(Line2D([], [], color=GREY, lw=1.1, ls=(0, (3, 2)), label=f"{k}: {event}"))
    return handles


def panels(titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel for each title, `PANELS` in a row."""
    columns = min(len(titles), PANELS)
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(11 if columns == PANELS else 4 + 3.5 * columns, 1.2 + 2.4 * rows))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.flat)
    for unused in axes[len(titles) :]:
        unused.set_visible(False)
    for k, (axis, title) in enumerate(zip(axes, titles, strict=False)):
        axis.set_title(title)
        axis.tick_params(labelbottom=k + columns >= len(titles))
    return figure, axes[: len(titles)]


def label(axes: Sequence[Axes], x_label: str, y_label: str) -> None:
    """Label the axes of panels: y at the left, x where no panel is below."""
    for k, axis in enumerate(axes):
        if k % PANELS == 0:
            axis.set_ylabel(y_label)
        if k + PANELS >= len(axes):
            axis.set_xlabel(x_label)


def letter(which: str) -> Path:
    """Return a letter as a marker; matplotlib's own letters are formulas."""
    path = TextPath((0.0, 0.0), which, size=10)
    box = path.get_extents()
    return path.transformed(Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2))


def legend(figure: Figure, handles: Sequence[Any], columns: int = 4) -> None:
    """Put a legend below everything, where it covers nothing."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    fits = max(1, min(columns, int(figure.get_figwidth() * 12 // (longest + 6))))
    figure.legend(handles=handles, loc="outside lower center", ncols=fits)


def marker(k: int) -> dict[str, Any]:
    """Return how the k-th of several points is drawn."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "marker": MARKERS[k % len(MARKERS)],
        "ms": 7,
        "lw": 1.4,
        "ls": "",
        "mec": "white",
        "mew": 0.6,
    }


def log_scale(axis: Axes, least_usd: float, *, free: bool) -> None:
    """Make the axis of costs logarithmic, labelled in plain numbers.

    Parameters
    ----------
    axis : Axes
        The axis.
    least_usd : float
        The least cost above 0.
    free : bool
        Whether any cost is 0. The axis then is linear between 0 and the least cost.
    """
    if free:
        axis.set_xscale("symlog", linthresh=least_usd)
    else:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def slim(svg: str) -> str:
    """Return an SVG of about half the size: to hundredths of a point, without indentation.

    The text of the figure does not change.
    """

    def slim_tag(tag: re.Match[str]) -> str:
        unrotated = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag[0])
        return re.sub(r"\s*\n\s*", " ", re.sub(r"(\d\.\d\d)\d+", r"\1", unrotated))

    return re.sub(r">\s+<", "><", re.sub(r"<[^>]*>", slim_tag, svg))

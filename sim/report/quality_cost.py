"""The quality-cost plane: one stage in it, or one scenario under all its budgets.

Costs are mean US dollars per 1,000 requests on a logarithmic axis, on which a mix of two models is
a curve. Needs matplotlib, the extra `report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from policies.base import Float64
from sim.report.style import GREY, LETTERS, STYLES, legend, letter, log_scale, marker
from sim.report.tables import PER
from sim.results import CandidateResult, Point, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COST = "US dollars per 1,000 requests (log scale)"


def plane(stage: Stage) -> Figure:
    """Draw one stage in the plane, and the gain over the zero router."""
    figure, (left, right), handles = _ground([stage])
    for k, policy in enumerate(stage.contenders):
        _bars(left, [policy], "quality", k)
        handles.append(_bars(right, [policy], "difference", k))
    legend(figure, handles)
    return figure


def frontier(stages: Sequence[Stage]) -> Figure:
    """Draw one scenario under several budgets, a line for each policy.

    Parameters
    ----------
    stages : of one world, so that the models and the zero router are the same in all.
    """
    figure, (left, right), handles = _ground(stages)
    paths: dict[str, list[CandidateResult]] = {}
    for stage in sorted(stages, key=lambda one: one.budget_rate or float("inf")):
        for policy in stage.contenders:
            paths.setdefault(policy.label, []).append(policy)
    for k, path in enumerate(paths.values()):
        line = STYLES[k % len(STYLES)]
        _bars(left, path, "quality", k, ls=line)
        handles.append(_bars(right, path, "difference", k, ls=line))
    legend(figure, handles)
    return figure


def mean(one: CandidateResult, metric: str) -> float:
    """Return the mean of a metric, 0 where it is not known."""
    found = one.metrics.get(metric)
    return 0.0 if found is None or found.mean is None else found.mean


def _error(one: CandidateResult, metric: str) -> float:
    found = one.metrics.get(metric)
    return 0.0 if found is None or found.se is None else found.se


def _ground(stages: Sequence[Stage]) -> tuple[Figure, tuple[Axes, Axes], list[Any]]:
    """Return both axes with all that no policy did: models, zero router, limit, references."""
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    stage = stages[0]
    references = _references(stages)
    costs = [
        *(one.cost * PER for one in [*stage.models, *(point for point, _, _ in references)]),
        *(mean(one, "cost") * PER for played in stages for one in played.contenders),
    ]
    corners = np.array([(one.cost * PER, one.quality) for one in stage.frontier])
    flat = np.vstack([corners, [[max(*costs, corners[-1, 0]), corners[-1, 1]]]])
    least = min((cost for cost in [*costs, *flat[:, 0]] if cost > 0.0), default=1.0)
    curve = np.geomspace(least, max(flat[-1, 0], least), 200)
    dense = np.unique(np.concatenate([curve, flat[:, 0]])).clip(flat[0, 0], flat[-1, 0])
    zero = np.interp(dense, flat[:, 0], flat[:, 1])
    handles: list[Any] = left.plot(dense, zero, color="black", lw=1.4, label="zero router")
    right.axhline(0.0, color="black", lw=1.4)
    handles += _models(left, stage)
    for point, symbol, label in references:
        drawn = left.plot(
            point.cost * PER, point.quality, ls="", marker=symbol, ms=11, c="black", label=label
        )
        handles += drawn if label else []
    if stage.limit:
        handles.append(_limit(left, right, stage.limit, dense, zero))
    left.set(xlabel=COST, ylabel="mean quality", title="Quality at its cost (± 2 standard errors)")
    right.set(xlabel=COST, ylabel="quality above the zero router")
    right.set_title("Gain over the zero router at the same cost (± 2 standard errors)")
    for axis in (left, right):
        log_scale(axis, least, free=min(costs) <= 0.0)
    return figure, (left, right), handles


def _references(stages: Sequence[Stage]) -> list[tuple[Point, str, str]]:
    """Return points with their markers and labels, of which the oracle has one at each budget."""
    # A policy may be called random, too.
    chance = [one for one in stages[0].references if one.name == "random"]
    oracles = [one for stage in stages for one in stage.references if one.name == "oracle"]
    name = "oracle" if len(stages) == 1 else "oracle at each budget"
    return [
        *((one, "+", "random (reference)") for one in chance),
        *((one, "*", "" if k else name) for k, one in enumerate(oracles)),
    ]


def _models(axis: Axes, stage: Stage) -> list[Any]:
    handles = []
    for k, one in enumerate(stage.models):
        which = LETTERS[k] if k < len(LETTERS) else str(k)
        best = any(p.name == f"best single: {one.name}" for p in stage.references)
        at = one.cost * PER, one.quality
        axis.plot(*at, ls="", marker=".", color=GREY)
        axis.annotate(which, at, xytext=(-3, 4), textcoords="offset points", ha="right", color=GREY)
        note = " (best single)" if best else ""
        glyph = letter(which)
        handles.append(Line2D([], [], ls="", marker=glyph, c=GREY, mew=0.0, label=one.name + note))
    return handles


def _limit(left: Axes, right: Axes, limit: Sequence[Point], dense: Float64, zero: Float64) -> Any:
    """Draw the supervised limit over the costs at which it is known."""
    cost = np.array([one.cost * PER for one in limit])
    known = (dense >= cost[0]) & (dense <= cost[-1])
    line: dict[str, Any] = {"color": "black", "ls": (0, (1, 2)), "lw": 1.4}
    at = dense[known]
    between = np.interp(at, cost, np.array([one.quality for one in limit]))
    right.plot(at, between - zero[known], **line)
    (drawn,) = left.plot(at, between, label="supervised limit", **line)
    return drawn


def _bars(axis: Axes, path: Sequence[CandidateResult], metric: str, k: int, *, ls: Any = "") -> Any:
    """Draw the k-th policy at one budget or several, within two standard errors."""
    cost = np.array([mean(one, "cost") * PER for one in path])
    error = np.array([_error(one, "cost") * PER for one in path])
    return axis.errorbar(
        cost,
        [mean(one, metric) for one in path],
        # On a logarithmic axis nothing reaches 0.
        xerr=np.minimum(2.0 * error, 0.999 * cost),
        yerr=[2.0 * _error(one, metric) for one in path],
        capsize=3,
        label=path[0].label,
        **{**marker(k), "ls": ls},
    )

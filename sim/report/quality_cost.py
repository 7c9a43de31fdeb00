"""The quality-cost plane: one stage in it, or one scenario under all its budgets.

Costs are mean US dollars per 1,000 requests here, on a logarithmic axis. On it a mix of two models
is a curve. Needs matplotlib, the extra `report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from policies.base import Float64
from sim.report.style import GREY, LETTERS, STYLES, legend, letter, log_scale, marker
from sim.report.tables import PER_REQUESTS
from sim.results import CandidateResult, Point, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COST_LABEL = "US dollars per 1,000 requests (log scale)"


def plane(stage: Stage) -> Figure:
    """Draw one stage in the plane, and the gain over the zero router."""
    figure, (left, right), handles = _baselines([stage])
    for k, policy in enumerate(stage.contenders):
        _bars(left, [policy], "quality", k)
        handles.append(_bars(right, [policy], "difference", k))
    legend(figure, handles)
    return figure


def frontier(stages: Sequence[Stage]) -> Figure:
    """Draw one scenario under several budgets, a line for each policy.

    Parameters
    ----------
    stages : sequence of Stage
        Stages of one world, so that the models and the zero router are the same in all.
    """
    figure, (left, right), handles = _baselines(stages)
    paths: dict[str, list[CandidateResult]] = {}
    for stage in sorted(stages, key=lambda stage: stage.budget_rate or float("inf")):
        for policy in stage.contenders:
            paths.setdefault(policy.label, []).append(policy)
    for k, path in enumerate(paths.values()):
        line = STYLES[k % len(STYLES)]
        _bars(left, path, "quality", k, ls=line)
        handles.append(_bars(right, path, "difference", k, ls=line))
    legend(figure, handles)
    return figure


def mean(policy: CandidateResult, metric: str) -> float:
    """Return the mean of a metric, 0 where it is undefined."""
    measure = policy.metrics.get(metric)
    return 0.0 if measure is None or measure.mean is None else measure.mean


def _error(policy: CandidateResult, metric: str) -> float:
    """Return the standard error of a metric, 0 where it is undefined."""
    measure = policy.metrics.get(metric)
    return 0.0 if measure is None or measure.se is None else measure.se


def _baselines(stages: Sequence[Stage]) -> tuple[Figure, tuple[Axes, Axes], list[Any]]:
    """Return both axes with all but the policies: models, zero router, limit, references."""
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    stage = stages[0]
    references = _references(stages)
    points = [*stage.models, *(point for point, _, _ in references)]
    costs_usd = [
        *(point.cost * PER_REQUESTS for point in points),
        *(mean(policy, "cost") * PER_REQUESTS for each in stages for policy in each.contenders),
    ]
    grid_usd, zero, least_usd = _zero_router(stage, costs_usd)
    handles: list[Any] = left.plot(grid_usd, zero, color="black", lw=1.4, label="zero router")
    right.axhline(0.0, color="black", lw=1.4)
    handles += _models(left, stage)
    for point, symbol, label in references:
        position = point.cost * PER_REQUESTS, point.quality
        drawn = left.plot(*position, ls="", marker=symbol, ms=11, c="black", label=label)
        handles += drawn if label else []
    if stage.limit:
        handles.append(_limit(left, right, stage.limit, grid_usd, zero))
    left.set(
        xlabel=COST_LABEL, ylabel="mean quality", title="Quality at its cost (± 2 standard errors)"
    )
    right.set(xlabel=COST_LABEL, ylabel="quality above the zero router")
    right.set_title("Gain over the zero router at the same cost (± 2 standard errors)")
    for axis in (left, right):
        log_scale(axis, least_usd, free=min(costs_usd) <= 0.0)
    return figure, (left, right), handles


def _zero_router(stage: Stage, costs_usd: Sequence[float]) -> tuple[Float64, Float64, float]:
    """Return the zero router's curve, flat up to the highest of some costs.

    Returns
    -------
    grid_usd, quality : float64[m]
        Points of the curve.
    least_usd : float
        The least cost above 0; 1 where all is free.
    """
    corners = np.array([(point.cost * PER_REQUESTS, point.quality) for point in stage.frontier])
    end_usd = max(*costs_usd, corners[-1, 0])
    flat = np.vstack([corners, [[end_usd, corners[-1, 1]]]])
    least_usd = min((cost for cost in [*costs_usd, *flat[:, 0]] if cost > 0.0), default=1.0)
    curve = np.geomspace(least_usd, max(flat[-1, 0], least_usd), 200)
    grid_usd = np.unique(np.concatenate([curve, flat[:, 0]])).clip(flat[0, 0], flat[-1, 0])
    return grid_usd, np.interp(grid_usd, flat[:, 0], flat[:, 1]), least_usd


def _references(stages: Sequence[Stage]) -> list[tuple[Point, str, str]]:
    """Return points with their markers and labels; the oracle has a point at each budget."""
    # The label says that it is the reference, because a policy may be called random, too.
    random = [point for point in stages[0].references if point.name == "random"]
    oracles = [point for each in stages for point in each.references if point.name == "oracle"]
    name = "oracle" if len(stages) == 1 else "oracle at each budget"
    return [
        *((point, "+", "random (reference)") for point in random),
        *((point, "*", "" if k else name) for k, point in enumerate(oracles)),
    ]


def _models(axis: Axes, stage: Stage) -> list[Any]:
    """Draw every model alone, with a letter that the legend explains."""
    handles = []
    for k, model in enumerate(stage.models):
        which = LETTERS[k] if k < len(LETTERS) else str(k)
        best = any(point.name == f"best single: {model.name}" for point in stage.references)
        position = model.cost * PER_REQUESTS, model.quality
        axis.plot(*position, ls="", marker=".", color=GREY)
        axis.annotate(
            which, position, xytext=(-3, 4), textcoords="offset points", ha="right", color=GREY
        )
        label = f"{model.name} (best single)" if best else model.name
        handles.append(Line2D([], [], ls="", marker=letter(which), c=GREY, mew=0.0, label=label))
    return handles


def _limit(
    left: Axes, right: Axes, limit: Sequence[Point], grid_usd: Float64, zero: Float64
) -> Any:
    """Draw the supervised limit over the range of cost in which it is known."""
    costs_usd = np.array([point.cost * PER_REQUESTS for point in limit])
    inside = (grid_usd >= costs_usd[0]) & (grid_usd <= costs_usd[-1])
    line: dict[str, Any] = {"color": "black", "ls": (0, (1, 2)), "lw": 1.4}
    quality = np.interp(grid_usd[inside], costs_usd, np.array([point.quality for point in limit]))
    right.plot(grid_usd[inside], quality - zero[inside], **line)
    (drawn,) = left.plot(grid_usd[inside], quality, label="supervised limit", **line)
    return drawn


def _bars(axis: Axes, path: Sequence[CandidateResult], metric: str, k: int, *, ls: Any = "") -> Any:
    """Draw the k-th policy at one or several budgets, with bars of two standard errors."""
    costs_usd = np.array([mean(policy, "cost") * PER_REQUESTS for policy in path])
    errors_usd = np.array([_error(policy, "cost") * PER_REQUESTS for policy in path])
    return axis.errorbar(
        costs_usd,
        [mean(policy, metric) for policy in path],
        # A logarithmic axis has no 0.
        xerr=np.minimum(2.0 * errors_usd, 0.999 * costs_usd),
        yerr=[2.0 * _error(policy, metric) for policy in path],
        capsize=3,
        label=path[0].label,
        **{**marker(k), "ls": ls},
    )

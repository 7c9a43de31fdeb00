"""Drive a running daemon over HTTP with logged rows, as an application would.

Every row is one route call and one feedback with the logged quality and cost of the chosen model.
The report is what the caller saw: latencies include retries. This module must never reach the store
or the router otherwise than through the client.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from rich.console import Console
from rich.table import Table

from banditroute.client import Ask, AsyncClient, RouterError
from banditroute.core.pool import ModelSpec
from sim.data.dataset import Dataset
from sim.errors import InputError, input_errors
from sim.measure.baselines import References
from sim.options import DriveOptions

CURVE_PARTS = 10
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Drive:
    """What to send, and where to.

    Attributes
    ----------
    dataset : Dataset
        Complete data, without NaN.
    specs : sequence of ModelSpec
        The models to add to the pool, with their prices.
    options : DriveOptions
        Where to and how.
    preference : tuple of float, or None
        Weights of (quality, cost, latency), None for the pool's own.
    """

    dataset: Dataset
    specs: Sequence[ModelSpec]
    options: DriveOptions
    preference: tuple[float, float, float] | None = None

    @property
    def pool(self) -> str:
        """Name of the pool."""
        return self.options.pool or Path(self.options.data).stem


@dataclass(slots=True)
class _Tally:
    """What happened so far; `chosen` is the model's column by position in the stream."""

    chosen: dict[int, int] = field(default_factory=dict)
    route_ms: list[float] = field(default_factory=list)
    feedback_ms: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)


def run_drive(plan: Drive, *, on_done: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Send the rows and return the report as plain values.

    Parameters
    ----------
    plan : Drive
        What to send.
    on_done : callable
        Called after each row.

    Raises
    ------
    InputError
        If the pool cannot be set up, or `acked` cannot be written.
    """
    return asyncio.run(_drive(plan, on_done))


async def _drive(plan: Drive, on_done: Callable[[], None]) -> dict[str, Any]:
    asked = plan.options
    rng = np.random.default_rng([asked.seed, 0])
    stream = rng.permutation(len(plan.dataset))[: asked.limit].tolist()
    tally = _Tally()
    with ExitStack() as stack:
        acked = None
        if asked.acked is not None:
            with input_errors(f"--acked: {asked.acked}", OSError):
                acked = stack.enter_context(asked.acked.open("w", encoding="utf-8"))
        async with AsyncClient(
            asked.url, api_key=asked.api_key, timeout=asked.timeout, retry_for=asked.retry_for
        ) as client:
            await _add_models(client, plan)
            begun_s = time.perf_counter()
            work = iter(enumerate(stream))
            async with asyncio.TaskGroup() as group:
                for _ in range(min(asked.concurrency, len(stream))):
                    group.create_task(_worker(client, plan, work, tally, acked, on_done))
            elapsed_s = time.perf_counter() - begun_s
            return _report(plan, stream, tally, elapsed_s=elapsed_s, retries=client.retried)


async def _add_models(client: AsyncClient, plan: Drive) -> None:
    # A pool without `tau_cost` takes its cost scale from its first model: the most expensive one.
    for spec in sorted(plan.specs, key=lambda spec: -spec.output_price):
        properties = spec.model_dump(exclude={"name"}, exclude_none=True)
        try:
            await client.add_model(spec.name, pool=plan.pool, **properties)
        except RouterError as error:
            if error.status == 0:
                raise InputError(f"--url: {plan.options.url}: {error.message}") from error
            if error.status != 409:
                raise InputError(f"--pool: {plan.pool}: model {spec.name!r}: {error}") from error


async def _worker(
    client: AsyncClient,
    plan: Drive,
    work: Iterator[tuple[int, int]],
    tally: _Tally,
    acked: TextIO | None,
    on_done: Callable[[], None],
) -> None:
    data = plan.dataset
    column = {name: k for k, name in enumerate(data.models)}
    for position, row in work:
        ask = Ask(prompt=data.prompts[row], pool=plan.pool)
        if data.task[row]:
            ask["task"] = data.task[row]
        if plan.preference is not None:
            quality, cost, latency = plan.preference
            ask["preference"] = {"quality": quality, "cost": cost, "latency": latency}
        try:
            begun_s = time.perf_counter()
            route = await client.route(**ask)
            tally.route_ms.append(1_000.0 * (time.perf_counter() - begun_s))
            arm = column[route.model]
            tally.chosen[position] = arm
            begun_s = time.perf_counter()
            status = await client.feedback(
                route.decision_id,
                quality=float(data.quality[row, arm]),
                cost_usd=float(data.cost_usd[row, arm]),
            )
            tally.feedback_ms.append(1_000.0 * (time.perf_counter() - begun_s))
            tally.statuses[status] += 1
            if acked is not None:
                # Each line must have left this process when the next request starts.
                acked.write(f"{route.decision_id}\n")
                acked.flush()
        except RouterError as error:
            tally.errors[f"{error.status} {error.code}"] += 1
        except KeyError as error:
            tally.errors[f"model {error} is not in the data"] += 1
        on_done()


def _report(
    plan: Drive, stream: list[int], tally: _Tally, *, elapsed_s: float, retries: int
) -> dict[str, Any]:
    done = np.array(sorted(tally.chosen), dtype=np.intp)
    rows = np.array(stream, dtype=np.intp)[done]
    arms = np.array([tally.chosen[position] for position in done.tolist()], dtype=np.intp)
    quality, cost_usd = plan.dataset.quality[rows, arms], plan.dataset.cost_usd[rows, arms]
    share = np.bincount(arms, minlength=len(plan.dataset.models)) / max(len(arms), 1)
    return {
        "data": plan.dataset.name,
        "pool": plan.pool,
        "rows": len(stream),
        "decisions": len(done),
        "feedback": dict(tally.statuses),
        "errors": sum(tally.errors.values()),
        "error_kinds": dict(tally.errors),
        "retries": retries,
        "seconds": elapsed_s,
        "decisions_per_second": len(done) / elapsed_s if elapsed_s > 0.0 else None,
        "route_ms": _percentiles(tally.route_ms),
        "feedback_ms": _percentiles(tally.feedback_ms),
        "quality": _mean(quality),
        "cost": _mean(cost_usd),
        "curve": [_mean(part) for part in np.array_split(quality, CURVE_PARTS)],
        "share": dict(zip(plan.dataset.models, share.tolist(), strict=True)),
        "last_third": _last_third(plan.dataset, rows, quality, cost_usd),
    }


def _last_third(
    data: Dataset, rows: np.ndarray[Any, Any], quality: Any, cost_usd: Any
) -> dict[str, Any] | None:
    tail = slice(2 * len(rows) // 3, None)
    if len(rows[tail]) == 0:
        return None
    references = References.of(data.models, data.quality[rows[tail]], data.cost_usd[rows[tail]])
    mean_quality, mean_cost_usd = float(quality[tail].mean()), float(cost_usd[tail].mean())
    zero_quality = references.zero_router().quality_at(mean_cost_usd)
    return {
        "quality": mean_quality,
        "cost": mean_cost_usd,
        "zero_at_cost": zero_quality,
        "difference": mean_quality - zero_quality,
    }


def _mean(values: np.ndarray[Any, Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _percentiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    points = np.percentile(values, PERCENTILES)
    return {f"p{p}": float(v) for p, v in zip(PERCENTILES, points, strict=True)}


def show(console: Console, report: dict[str, Any]) -> None:
    """Print the report of a drive.

    Parameters
    ----------
    console : rich.console.Console
        Where to.
    report : dict of str to Any
        As `run_drive` returned it.
    """
    table = Table(title=f"{report['data']} against pool {report['pool']}", title_justify="left")
    table.add_column("measure")
    table.add_column("value")
    rate = report["decisions_per_second"]
    table.add_row("decisions", f"{report['decisions']} of {report['rows']}")
    table.add_row("decisions per second", "-" if rate is None else f"{rate:,.0f}")
    for name, label in (("route_ms", "route latency"), ("feedback_ms", "feedback latency")):
        points = report[name] or {}
        shown = "  ".join(f"{p} {value:.2f} ms" for p, value in points.items())
        table.add_row(label, shown or "-")
    table.add_row("feedback", _counts(report["feedback"]))
    table.add_row("errors", _counts(report["error_kinds"]))
    table.add_row("retries", str(report["retries"]))
    curve = " ".join("-" if part is None else f"{part:.3f}" for part in report["curve"])
    table.add_row("quality by tenth", curve)
    table.add_row("share", "\n".join(f"{v:6.1%} {name}" for name, v in report["share"].items()))
    last = report["last_third"]
    if last is not None:
        table.add_row(
            "last third",
            f"quality {last['quality']:.4f} at {last['cost']:.3g} $, "
            f"zero router {last['zero_at_cost']:.4f}, difference {last['difference']:+.4f}",
        )
    console.print(table)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "0"

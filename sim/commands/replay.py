"""`sim replay`: policies over logged data, in process, as it was or in a scenario."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.commands import options

if TYPE_CHECKING:
    from sim.plan import ReplayOptions, ReplayPlan
    from sim.results import RunFile


def command(
    data: options.Data,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME, NAME:key=value,.., NAME@PRIOR_FILE:.. or FILE.yaml with keys of a pool; "
            "paretobandit and mabwiser are the packages; may be repeated."
        ),
    ] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(help="A name of `sim scenarios`, or a file; each is played; may be repeated."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of shuffles.")] = 10,
    learn_split: Annotated[str | None, typer.Option(help="Split to learn from first.")] = None,
    test_split: Annotated[str | None, typer.Option(help="Split to score.")] = None,
    learn_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of rows before the scored ones (default 0.5, in a scenario 0).",
            show_default=False,
        ),
    ] = None,
    budget_rate: Annotated[
        list[float] | None,
        typer.Option(help="Spend at most this many USD per request; each is played."),
    ] = None,
    pacing: Annotated[
        str, typer.Option(help="What sets the price of a budget's money: history, zcl or pacer.")
    ] = "history",
    delay: Annotated[
        str | None,
        typer.Option(help="Feedback after SECONDS, exponential:SECONDS, or as in log:URL."),
    ] = None,
    missing: Annotated[
        float | None, typer.Option(help="Share of the feedback that never comes.")
    ] = None,
    judge_noise: Annotated[
        float | None, typer.Option(help="Standard deviation of the judge's error.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Decide this many requests before learning from any of them.")
    ] = 1,
    prices: options.Prices = None,
    format: options.Format = None,
    trust_pickle: options.TrustPickle = False,
    embedder: Annotated[str, typer.Option(help="hashing, minilm, ...")] = "hashing",
    tasks: Annotated[
        bool, typer.Option("--tasks", help="Give policies the data's task as columns.")
    ] = False,
    reset_on_drift: Annotated[
        bool,
        typer.Option(
            "--reset-on-drift",
            help="Reset a model after its drift alarm, as a pool with this key does.",
        ),
    ] = False,
    preference: Annotated[
        str | None,
        typer.Option(help="quality,cost,latency (default: the scenario's, or a pool's)."),
    ] = None,
    models: options.Models = "",
    without: options.Without = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 is one per core.")] = 0,
    ray: Annotated[bool, typer.Option("--ray", help="Run on Ray, started here.")] = False,
    ray_address: Annotated[
        str | None, typer.Option(help="Run on this Ray cluster; auto finds a running one.")
    ] = None,
    json_path: options.Json = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the run as one page that opens from disk.")
    ] = None,
    full: options.Full = False,
) -> None:
    """Replay policies over logged data; tables show the scored part."""
    given = dict(locals())
    _use_one_blas_thread()
    from sim.plan import ReplayOptions, plan_replay

    asked = ReplayOptions(**given)
    _check_outputs(asked)
    loaded = options.load_data(data, format=format, prices=prices, trust_pickle=trust_pickle)
    dataset = loaded.restrict(models=options.split_names(models), without=without or [])
    plan = plan_replay(dataset, asked)
    if plan.rows_left_out:
        rows = f"{plan.rows_left_out} of {len(dataset)} rows"
        print(f"{rows} left out: a model lacks there", file=sys.stderr)
    _show(_run(plan), asked)


def _use_one_blas_thread() -> None:
    """Set BLAS to one thread, before numpy is imported; workers inherit it.

    The matrices are small, and results must not depend on the number of cores.
    """
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")


def _check_outputs(asked: ReplayOptions) -> None:
    """Raise InputError for a file that could not be written at the end."""
    from sim.commands.report import FOR_PAGE, check_installed

    options.check_writable("--json", asked.json_path)
    options.check_writable("--report", asked.report)
    if asked.report is not None:
        check_installed("--report", *FOR_PAGE)


def _run(plan: ReplayPlan) -> RunFile:
    """Play every candidate under every seed in every stage."""
    from sim.commands.terminal import progress
    from sim.play.parallel import LOCAL, run_all

    asked = plan.options
    with progress(len(plan.stages) * len(plan.candidates) * asked.seeds) as advance:
        traces = run_all(
            [stage.experiment for stage in plan.stages],
            plan.candidates,
            range(asked.seeds),
            jobs=asked.jobs or os.cpu_count() or 1,
            ray=asked.ray_address or (LOCAL if asked.ray else None),
            on_done=advance,
        )
    return plan.judge(traces, sys.argv[1:])


def _show(run: RunFile, asked: ReplayOptions) -> None:
    """Print the tables, then write the files: an error in writing must not cost the tables."""
    from sim.commands.report import write_page
    from sim.commands.terminal import console
    from sim.report.terminal import show

    show(console(), run.stages, full=asked.full)
    if asked.json_path is not None:
        run.write(asked.json_path)
    if asked.report is not None:
        write_page(run, asked.report, "--report")

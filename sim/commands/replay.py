"""`sim replay`: policies over logged data, in process, as it was or in a scenario."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from sim import options
from sim.options import ReplayOptions

if TYPE_CHECKING:
    from sim.plan import ReplayPlan
    from sim.results import RunFile


@options.command_of(ReplayOptions)
def command(asked: ReplayOptions) -> None:
    """Replay policies over logged data; tables show the scored part."""
    _use_one_blas_thread()
    from sim.data.formats import load
    from sim.plan import check_options, plan_replay

    check_options(asked)
    _check_outputs(asked)
    loaded = load(
        asked.data, format=asked.format, prices=asked.prices, trust_pickle=asked.trust_pickle
    )
    names = options.split_names(asked.models)
    dataset = options.with_notes(loaded).restrict(models=names, without=asked.without or [])
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

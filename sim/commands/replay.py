"""`sim replay`: policies over logged data, in process, as it was or in a scenario."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.commands import options

if TYPE_CHECKING:
    from sim.play.candidate import Candidate
    from sim.play.replay import Split
    from sim.worlds.scenario import Scenario


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
        typer.Option(help="Of `sim scenarios`, or a file; each is played; may be repeated."),
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
        str, typer.Option(help="What prices a budget's money: history, zcl or pacer.")
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
        int, typer.Option(min=1, help="Decide so many requests before learning of any.")
    ] = 1,
    prices: options.Prices = None,
    format: options.Format = None,
    trust_pickle: options.TrustPickle = False,
    embedder: Annotated[str, typer.Option(help="hashing, minilm, ...")] = "hashing",
    tasks: Annotated[
        bool, typer.Option("--tasks", help="Give policies the data's task as columns.")
    ] = False,
    reset_on_drift: Annotated[
        bool, typer.Option("--reset-on-drift", help="Answer drift alarms as such a pool does.")
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
    # One BLAS thread: these matrices are small, and results must not depend on the machine.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    from banditroute.features.embedding import make_embedder
    from policies import make_pacing
    from sim import plan as stages
    from sim.commands.report import FOR_PAGE, check_installed, write_page
    from sim.commands.terminal import console, progress
    from sim.data.database import without_passwords
    from sim.errors import InputError
    from sim.play.candidate import distinct, parse
    from sim.play.parallel import LOCAL, run_all
    from sim.report.terminal import show
    from sim.results import RunFile
    from sim.worlds.feedback_options import with_feedback

    rates = budget_rate or []
    for rate in rates:
        if not 0.0 < rate < float("inf"):
            raise InputError(f"--budget-rate: must be above 0, not {rate:g}")
    options.writable("--json", json_path)
    options.writable("--report", report)
    if report is not None:
        check_installed("--report", *FOR_PAGE)
    try:
        make_pacing(pacing)
    except ValueError as error:
        raise InputError(f"--{error}") from error
    weights = options.preference(preference) if preference else None
    source = options.loaded(data, format=format, prices=prices, trust_pickle=trust_pickle)
    whole = source.restrict(models=options.names(models), without=without or [])
    split = _split(learn_split, test_split, learn_fraction, default=0.0 if scenario else 0.5)
    try:
        maker = make_embedder(embedder)
    except (ValueError, ImportError) as error:
        raise InputError(f"--embedder: {error}") from error
    contenders = [_settled(parse(spec), reset_on_drift, pacing) for spec in policy or ["thompson"]]
    distinct(contenders)
    played = [
        with_feedback(one, delay=delay, missing=missing, judge_noise=judge_noise)
        for one in (_scenarios(scenario) if scenario else [stages.as_it_is(whole)])
    ]
    plan = stages.plan(
        whole,
        played,
        rates=rates,
        maker=maker,
        tasks=tasks,
        split=split,
        preference=weights,
        prices=prices,
        batch=batch,
    )
    for one in plan:
        one.check(contenders)
    fewest = min(len(one.experiment.dataset) for one in plan)
    if fewest < len(whole):
        left_out = len(whole) - fewest
        print(f"{left_out} of {len(whole)} rows left out: a model lacks there", file=sys.stderr)
    with progress(len(plan) * len(contenders) * seeds) as advance:
        traces = run_all(
            [one.experiment for one in plan],
            contenders,
            range(seeds),
            jobs=jobs or os.cpu_count() or 1,
            ray=ray_address or (LOCAL if ray else None),
            on_done=advance,
        )
    asked = {one.experiment.preference for one in plan}
    run = RunFile(
        title=", ".join([whole.name, *(scenario or ())]),
        command=["python", "-m", "sim", *map(without_passwords, sys.argv[1:])],
        versions=stages.versions(contenders),
        data=stages.described(whole),
        settings={
            "seeds": seeds,
            "preference": list(asked.pop()) if len(asked) == 1 else None,
            "embedder": maker.identity,
            "learned first": (
                f"{split.fraction:g} of the rows" if split.learn is None else split.learn
            ),
            "pacing": pacing,
            "reset_on_drift": reset_on_drift,
            "delay": None if delay is None else without_passwords(delay),
            "missing": missing,
            "judge_noise": judge_noise,
            "batch": batch,
        },
        stages=[one.judge(mine) for one, mine in zip(plan, traces, strict=True)],
    )
    # First where nothing can go wrong any more.
    show(console(), run.stages, full=full)
    if json_path is not None:
        run.write(json_path)
    if report is not None:
        write_page(run, report, "--report")


def _scenarios(names: list[str]) -> list[Scenario]:
    from sim.errors import InputError
    from sim.worlds.scenario import load_scenarios

    found: list[Scenario] = []
    for name in names:
        try:
            found += load_scenarios(name)
        except InputError as error:
            raise InputError(f"--scenario: {error}") from error
    return found


def _split(learn: str | None, test: str | None, fraction: float | None, *, default: float) -> Split:
    from sim.errors import InputError
    from sim.play.replay import Split

    if (learn is None) != (test is None):
        missing = "--learn-split" if learn is None else "--test-split"
        raise InputError(f"{missing}: --learn-split and --test-split go together")
    if learn is not None and fraction is not None:
        raise InputError("--learn-fraction: not together with --learn-split")
    if learn is not None and learn == test:
        raise InputError(f"--test-split: {test!r} is the split that is learned from")
    if fraction is not None and not 0.0 <= fraction < 1.0:
        raise InputError(f"--learn-fraction: in [0, 1), not {fraction:g}")
    return Split(learn=learn, test=test, fraction=default if fraction is None else fraction)


def _settled(contender: Candidate, reset_on_drift: bool, pacing: str) -> Candidate:
    """Return a contender with what the command says of all of them."""
    options = contender.options
    if reset_on_drift:
        options = options.model_copy(update={"reset_on_drift": True})
    return replace(contender, options=options, pacing=pacing)

"""Command line of the simulator: replay, drive and synth.

Wrong input ends with one line on stderr and status 2, an interrupt with 130. Heavy imports wait
inside the commands, so that ``--help`` is quick; no command ever changes its input.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from banditroute.pool import ModelSpec
    from sim.datasets import Dataset
    from sim.replay import Contender, Split

app = typer.Typer(
    help="Judge routing policies on logged data, offline or against a running daemon.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Wide .parquet or ParetoBandit .jsonl.")]
Models = Annotated[str, typer.Option(help="Only these models, separated by commas.")]
Without = Annotated[list[str] | None, typer.Option(help="Leave out a model; may be repeated.")]
Prices = Annotated[
    Path | None, typer.Option(help="CSV of model,input_price,output_price in USD per million.")
]
Json = Annotated[Path | None, typer.Option("--json", help="Write the report to this file.")]


@app.command()
def replay(
    data: Data,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="NAME, NAME:key=value,.. or NAME@PRIOR_FILE:..; may be repeated."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of shuffles.")] = 10,
    learn_split: Annotated[str | None, typer.Option(help="Split to learn from first.")] = None,
    test_split: Annotated[str | None, typer.Option(help="Split to score.")] = None,
    learn_fraction: Annotated[
        float | None, typer.Option(help="Share of rows before the scored ones (default 0.5).")
    ] = None,
    budget_rate: Annotated[
        float | None, typer.Option(help="Spend at most this many USD per request.")
    ] = None,
    pacing: Annotated[
        str, typer.Option(help="What prices a budget's money: history, zcl or pacer.")
    ] = "history",
    prices: Prices = None,
    embedder: Annotated[str, typer.Option(help="hashing, minilm, ...")] = "hashing",
    tasks: Annotated[
        bool, typer.Option("--tasks", help="Give policies the data's task as columns.")
    ] = False,
    reset_on_drift: Annotated[
        bool, typer.Option("--reset-on-drift", help="Answer drift alarms as such a pool does.")
    ] = False,
    preference: Annotated[
        str | None, typer.Option(help="quality,cost,latency (default: the pool's).")
    ] = None,
    models: Models = "",
    without: Without = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 is one per core.")] = 0,
    json_path: Json = None,
) -> None:
    """Replay policies over logged data; the table shows the scored part."""
    # One BLAS thread: these matrices are small, and results must not depend on the machine.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    from banditroute.embedding import FEATURES, make_embedder
    from banditroute.tasks import identity, widen
    from policies import make_pacing
    from sim.datasets import load
    from sim.errors import InputError
    from sim.references import References
    from sim.replay import Experiment, run_all
    from sim.report import as_json, show, summarise
    from sim.terminal import console, progress

    if budget_rate is not None and not 0.0 < budget_rate < float("inf"):
        raise InputError(f"--budget-rate: must be above 0, not {budget_rate:g}")
    try:
        make_pacing(pacing)
    except ValueError as error:
        raise InputError(f"--{error}") from error
    weights = _preference(preference)
    split = _split(learn_split, test_split, learn_fraction)
    whole = load(data).restrict(models=_names(models), without=without or [])
    dataset = whole.complete()
    if len(dataset) < len(whole):
        left_out = len(whole) - len(dataset)
        print(f"{left_out} of {len(whole)} rows left out: a model lacks there", file=sys.stderr)
    try:
        maker = make_embedder(embedder)
    except (ValueError, ImportError) as error:
        raise InputError(f"--embedder: {error}") from error
    names = sorted(set(dataset.task) - {""}) if tasks else []
    seen = identity(maker.identity, names)
    contenders = [
        replace(one, reset_on_drift=reset_on_drift, pacing=pacing)
        for one in _contenders(policy or ["thompson"], dataset, seen, FEATURES + len(names))
    ]
    features = widen(maker.features(list(dataset.prompts)), dataset.task, names)
    experiment = Experiment(
        dataset=dataset,
        features=features,
        embedder=seen,
        split=split,
        preference=weights,
        prices=_listed(prices, dataset),
        budget_rate=budget_rate,
    )
    total = len(contenders) * seeds
    with progress(total) as advance:
        runs = run_all(
            experiment,
            contenders,
            range(seeds),
            jobs=jobs or os.cpu_count() or 1,
            on_done=advance,
        )
    summaries = [
        summarise([run for run in runs if run.label == one.label], budget_rate=budget_rate)
        for one in contenders
    ]
    references = References.mean([run.references for run in runs[:seeds]])
    title = f"{dataset.name}: {len(dataset)} rows, {len(dataset.models)} models, {seeds} seeds"
    show(console(), title, summaries, references)
    if json_path is not None:
        report = as_json(dataset.name, dataset.models, summaries, references)
        extra = {"rows": len(dataset), "digest": dataset.digest(), "preference": list(weights)}
        _write_json(json_path, report | extra)


@app.command()
def drive(
    data: Data,
    url: Annotated[str, typer.Option(help="Where the daemon listens.")] = "http://127.0.0.1:8000",
    pool: Annotated[str | None, typer.Option(help="Pool (default: the file's stem).")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many rows.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the shuffle and the prices.")] = 0,
    prices: Prices = None,
    models: Models = "",
    without: Without = None,
    preference: Annotated[
        str | None, typer.Option(help="quality,cost,latency (default: the pool's).")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="BANDITROUTE_API_KEY", help="Bearer key.")
    ] = None,
    retry_for: Annotated[
        float | None, typer.Option(min=0.0, help="Seconds to ride out a restart.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds per attempt.")] = 10.0,
    acked: Annotated[
        Path | None, typer.Option(help="Write the decision ids of acknowledged feedback.")
    ] = None,
    json_path: Json = None,
) -> None:
    """Replay logged data over HTTP against a running daemon."""
    from sim.datasets import load
    from sim.drive import Drive, run_drive, show
    from sim.prices import drawn
    from sim.terminal import console, progress

    weights = _preference(preference) if preference else None
    dataset = load(data).restrict(models=_names(models), without=without or []).complete()
    specs = _listed(prices, dataset) or drawn(dataset, seed=seed)
    plan = Drive(
        dataset=dataset,
        specs=specs,
        url=url,
        pool=pool or data.stem,
        concurrency=concurrency,
        limit=limit,
        seed=seed,
        preference=weights,
        api_key=api_key,
        retry_for=retry_for,
        timeout=timeout,
        acked=acked,
    )
    with progress(min(limit or len(dataset), len(dataset))) as advance:
        report = run_drive(plan, on_done=advance)
    show(console(), report)
    if json_path is not None:
        _write_json(json_path, report)
    if report["errors"]:
        raise typer.Exit(1)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="File to write.")],
    rows: Annotated[int, typer.Option(min=1, help="Number of prompts.")] = 2_000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same file.")] = 0,
) -> None:
    """Write a stream with a planted context effect, to try things on."""
    from sim.datasets import save
    from sim.errors import InputError
    from sim.synthetic import generate

    if out.suffix != ".parquet":
        raise InputError(f"OUT.parquet: the name must end in .parquet, not {out.name!r}")
    save(generate(rows=rows, seed=seed).dataset, out)
    print(f"{out}: {rows} rows")


def main() -> None:
    """Run the command line."""
    from sim.errors import InputError

    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _preference(text: str | None) -> tuple[float, float, float]:
    from pydantic import ValidationError

    from banditroute.pool import PoolOptions, Preference
    from sim.errors import InputError

    if text is None:
        return PoolOptions.model_validate({}).preference.weights()
    try:
        quality, cost, latency = (float(part) for part in text.split(","))
        return Preference(quality=quality, cost=cost, latency=latency).weights()
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
    except ValueError:
        reason = "expected three numbers, quality,cost,latency"
    raise InputError(f"--preference: {text!r}: {reason}")


def _split(learn: str | None, test: str | None, fraction: float | None) -> Split:
    from sim.errors import InputError
    from sim.replay import Split

    if (learn is None) != (test is None):
        missing = "--learn-split" if learn is None else "--test-split"
        raise InputError(f"{missing}: --learn-split and --test-split go together")
    if learn is not None and fraction is not None:
        raise InputError("--learn-fraction: not together with --learn-split")
    if learn is not None and learn == test:
        raise InputError(f"--test-split: {test!r} is the split that is learned from")
    if fraction is not None and not 0.0 <= fraction < 1.0:
        raise InputError(f"--learn-fraction: in [0, 1), not {fraction:g}")
    return Split(learn=learn, test=test, fraction=0.5 if fraction is None else fraction)


def _contenders(specs: list[str], dataset: Dataset, embedder: str, dim: int) -> list[Contender]:
    from banditroute.prior import Prior
    from policies import make_policy
    from sim.errors import InputError
    from sim.replay import Contender

    contenders: list[Contender] = []
    for spec in specs:
        head, _, text = spec.partition(":")
        name, at, file = head.partition("@")
        if at and not file:
            raise InputError(f"--policy: {spec!r}: a file is expected after @")
        params = {}
        for pair in _names(text):
            key, equals, value = pair.partition("=")
            if not equals:
                raise InputError(f"--policy: {spec!r}: {pair!r} is not key=value")
            params[key] = _value(value)
        try:
            policy = make_policy(name, dim=dim, params=params)
            prior = Prior.read(Path(file)) if file else None
            if prior is not None:
                prior.belongs_to(embedder)
                policy.adopt(prior.arrays)
            for model in dataset.models:
                policy.add_arm(model)
        except ValueError as error:
            raise InputError(f"--policy: {spec!r}: {error}") from error
        if params.get("arm", dataset.models[0]) not in dataset.models:
            known = ", ".join(dataset.models)
            raise InputError(f"--policy: {spec!r}: arm: no such model; the data has {known}")
        if spec in [one.label for one in contenders]:
            raise InputError(f"--policy: {spec!r} is given twice")
        started = prior.text() if prior else ""
        contenders.append(Contender(label=spec, name=name, params=params, prior=started))
    return contenders


def _value(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _listed(path: Path | None, dataset: Dataset) -> list[ModelSpec] | None:
    from sim.prices import listed

    return None if path is None else listed(path, dataset.models)


def _write_json(path: Path, report: dict[str, Any]) -> None:
    import json

    from sim.errors import InputError

    try:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--json: {path}: {error.strerror}") from error

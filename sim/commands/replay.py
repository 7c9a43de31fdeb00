"""`sim replay`: policies over logged data, in process."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.commands import options

if TYPE_CHECKING:
    from sim.datasets import Dataset
    from sim.replay import Contender, Split


def command(
    data: options.Data,
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
        str | None, typer.Option(help="quality,cost,latency (default: the pool's).")
    ] = None,
    models: options.Models = "",
    without: options.Without = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 is one per core.")] = 0,
    json_path: options.Json = None,
) -> None:
    """Replay policies over logged data; the table shows the scored part."""
    # One BLAS thread: these matrices are small, and results must not depend on the machine.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    from banditroute.embedding import FEATURES, make_embedder
    from banditroute.tasks import identity, widen
    from policies import make_pacing
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
    weights = options.preference(preference)
    split = _split(learn_split, test_split, learn_fraction)
    source = options.loaded(data, format=format, prices=prices, trust_pickle=trust_pickle)
    whole = source.restrict(models=options.names(models), without=without or [])
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
        prices=options.specs(prices, dataset),
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
        options.write_json(json_path, report | extra)


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
        for pair in options.names(text):
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

"""`banditroute pretrain`: BaRP's net, trained on labelled data or on the log of a daemon.

It is a command of `banditroute` by its entry point, like `warm-start`. The same input gives the
same bytes. Heavy imports wait inside the functions, so that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.commands import prior_data
from sim.errors import InputError
from sim.options import Format, Prices, TrustPickle, with_notes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from banditroute.fitting.pretraining import Answers
    from policies.base import Arrays
    from sim.data.dataset import Dataset


def command(
    data: prior_data.Data = None,
    *,
    out: Annotated[Path, typer.Option(help="File to write.")],
    epochs: Annotated[int, typer.Option(help="Passes over the prompts.")] = 20,
    seed: Annotated[int, typer.Option(help="The same seed, the same bytes.")] = 0,
    tau_cost: Annotated[
        float | None,
        typer.Option(
            help="USD per request that count as cost 1 (default: the most expensive model's mean)."
        ),
    ] = None,
    embedder: prior_data.EmbedderKind = "hashing",
    task: prior_data.Tasks = None,
    prices: Prices = None,
    format: Format = None,
    trust_pickle: TrustPickle = False,
    split: prior_data.Split = None,
    without: prior_data.Without = None,
    log: Annotated[
        str | None, typer.Option(help="In place of DATA, the URL of a daemon's database.")
    ] = None,
    pool: prior_data.LogPool = "default",
) -> None:
    """Train policy barp's net: of DATA it sees one model's answer at a time. Needs torch."""
    tasks = task or []
    prior_data.check_source(
        data,
        log,
        embedder=embedder,
        tasks=tasks,
        tau_cost=tau_cost,
        prices=prices,
        split=split,
        without=without,
    )
    if tau_cost is not None and not 0.0 < tau_cost < float("inf"):
        prior_data.fail(f"--tau-cost: above 0, not {tau_cost:g}")
    if not out.parent.is_dir():
        prior_data.fail(f"--out: there is no directory {out.parent}")
    from banditroute.core.policy_identity import digest
    from banditroute.fitting.autograd import require_torch
    from banditroute.fitting.pretraining import PretrainingOptions, fit
    from banditroute.learn.prior import Prior
    from sim.commands.terminal import progress
    from sim.data.formats import load

    with prior_data.failing_in_one_line(out):
        options = PretrainingOptions(epochs=epochs, seed=seed)
        require_torch()
        if data is None:
            identity, answers, basis, tau_cost_usd = _answers_of_log(str(log), pool)
        else:
            loaded = load(data, format=format, prices=prices, trust_pickle=trust_pickle)
            dataset = prior_data.select_rows(with_notes(loaded), split, without or [])
            identity, answers, basis, tau_cost_usd = _answers_of_data(
                dataset, embedder, tasks, tau_cost
            )
        with progress(epochs, "training") as advance:
            arrays, revealed = fit(answers, options, tau_cost_usd=tau_cost_usd, tick=advance)
        prior = Prior("barp", identity, arrays | basis)
        prior.write(out)
    typer.echo(
        f"{out}: prior {digest(prior.text())}, {len(answers.models)} models, {revealed:,} answers "
        f"to {len(answers.x):,} prompts, cost 1 is {tau_cost_usd:.4g} USD, embedder {identity}"
    )


def _answers_of_data(
    dataset: Dataset, embedder: str, tasks: Sequence[str], tau_cost_usd: float | None
) -> tuple[str, Answers, Arrays, float]:
    """Return the embedder's identity, the answers, the arrays of a basis, and tau_cost_usd."""
    import numpy as np

    from banditroute.fitting.pretraining import Answers

    for name, cost_usd in zip(dataset.models, dataset.cost_usd.T, strict=True):
        if np.isnan(cost_usd).all():
            raise InputError(f"{dataset.name}: column 'cost:{name}': there is none to learn from")
    dataset = dataset.complete()
    if tau_cost_usd is None:
        tau_cost_usd = float(dataset.cost_usd.mean(axis=0).max())
    if tau_cost_usd <= 0.0:
        raise InputError(f"{dataset.name}: every cost is 0; --tau-cost says what counts as 1")
    identity, x, basis = prior_data.embed(dataset, embedder, tasks)
    answers = Answers(dataset.models, x, dataset.quality, dataset.cost_usd)
    return identity, answers, basis, tau_cost_usd


def _answers_of_log(url: str, pool: str) -> tuple[str, Answers, Arrays, float]:
    """Return the embedder's identity, the answers, the arrays of a basis, and tau_cost_usd."""
    from banditroute.fitting.pretraining import answers_of_log
    from banditroute.fitting.warm_start import basis_arrays
    from sim.data.database import open_log

    with open_log(url) as log:
        identity, answers = answers_of_log(log, pool)
    return identity.embedder, answers, basis_arrays(identity), identity.tau_cost_usd

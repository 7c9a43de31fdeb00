"""`banditroute pretrain`: BaRP's net, trained on labelled data or on the log of a daemon.

Registered as a command of `banditroute` by its entry point, like `warm-start`. The same input gives
the same bytes. Heavy imports wait inside, so that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.commands.options import Format, Prices, TrustPickle, loaded
from sim.commands.warm_start import fail, features, rows

if TYPE_CHECKING:
    from banditroute.fitting.pretraining import Answers
    from policies.base import Arrays
    from sim.data.dataset import Dataset


def command(
    data: Annotated[
        Path | None,
        typer.Argument(metavar="DATA", help="A file of routing data, see --format; or --log."),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="File to write.")],
    epochs: Annotated[int, typer.Option(help="Passes over the prompts.")] = 20,
    seed: Annotated[int, typer.Option(help="The same seed, the same bytes.")] = 0,
    tau_cost: Annotated[
        float | None,
        typer.Option(
            help="USD per request that count as cost 1 (default: the dearest model's mean cost)."
        ),
    ] = None,
    embedder: Annotated[
        str, typer.Option(help="Of DATA: hashing, minilm or sentence-transformers:NAME.")
    ] = "hashing",
    task: Annotated[
        list[str] | None, typer.Option(help="A task of the pool, in its order; repeatable.")
    ] = None,
    prices: Prices = None,
    format: Format = None,
    trust_pickle: TrustPickle = False,
    split: Annotated[str | None, typer.Option(help="Only this split of DATA.")] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Leave out a model; repeatable.")
    ] = None,
    log: Annotated[
        str | None, typer.Option(help="In place of DATA, the URL of a daemon's database.")
    ] = None,
    pool: Annotated[str, typer.Option(help="The pool of --log.")] = "default",
) -> None:
    """Train policy barp's net: of DATA it sees one model's answer at a time. Needs torch."""
    if (data is None) == (log is None):
        fail("one of DATA and --log is expected")
    if log is not None and (
        prices or task or split or without or embedder != "hashing" or tau_cost
    ):
        fail(
            "--log: takes no --embedder, --tau-cost, --task, --prices, --split or --without: "
            "they are in it"
        )
    if len(set(task or [])) < len(task or []):
        fail("--task: given twice")
    if tau_cost is not None and not 0.0 < tau_cost < float("inf"):
        fail(f"--tau-cost: above 0, not {tau_cost:g}")
    if not out.parent.is_dir():
        fail(f"--out: there is no directory {out.parent}")
    from banditroute.core.policy_identity import digest
    from banditroute.fitting.autograd import require_torch
    from banditroute.fitting.pretraining import PretrainingOptions, fit
    from banditroute.learn.prior import Prior
    from sim.commands.terminal import progress

    try:
        options = PretrainingOptions(epochs=epochs, seed=seed)
        require_torch()
        if data is not None:
            whole = loaded(data, format=format, prices=prices, trust_pickle=trust_pickle)
            identity, answers, own, tau = _of_data(
                rows(whole, split, without or []), embedder, task or [], tau_cost
            )
        else:
            identity, answers, own, tau = _of_log(str(log), pool)
        with progress(epochs, "training") as advance:
            arrays, revealed = fit(answers, options, tau_cost_usd=tau, tick=advance)
        prior = Prior("barp", identity, arrays | own)
        prior.write(out)
    except (ValueError, ImportError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"--out: {out}: {error.strerror or error}")
    typer.echo(
        f"{out}: prior {digest(prior.text())}, {len(answers.models)} models, {revealed:,} answers "
        f"to {len(answers.x):,} prompts, cost 1 is {tau:.4g} USD, embedder {identity}"
    )


def _of_data(
    dataset: Dataset,
    embedder: str,
    tasks: list[str],
    tau: float | None,
) -> tuple[str, Answers, Arrays, float]:
    import numpy as np

    from banditroute.features.tasks import identity, widen
    from banditroute.fitting.pretraining import Answers
    from sim.errors import InputError

    for name, cost in zip(dataset.models, dataset.cost_usd.T, strict=True):
        if np.isnan(cost).all():
            raise InputError(f"{dataset.name}: column 'cost:{name}': there is none to learn from")
    dataset = dataset.complete()
    tau = float(dataset.cost_usd.mean(axis=0).max()) if tau is None else tau
    if tau <= 0.0:
        raise InputError(f"{dataset.name}: every cost is 0; --tau-cost says what counts as 1")
    made, x, basis = features(embedder, dataset.prompts)
    own: Arrays = {} if basis is None else {"basis_mean": basis.mean, "basis_matrix": basis.matrix}
    answers = Answers(
        dataset.models, widen(x, dataset.task, tasks), dataset.quality, dataset.cost_usd
    )
    return identity(made.identity, tasks), answers, own, tau


def _of_log(url: str, pool: str) -> tuple[str, Answers, Arrays, float]:
    from banditroute.fitting.pretraining import answers_of_log
    from banditroute.fitting.warm_start import basis_arrays
    from sim.data.database import open_log

    with open_log(url) as log:
        policy_identity, answers = answers_of_log(log, pool)
    return (
        policy_identity.embedder,
        answers,
        basis_arrays(policy_identity),
        policy_identity.tau_cost_usd,
    )

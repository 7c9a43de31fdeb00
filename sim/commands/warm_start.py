"""`banditroute warm-start`: a fitted prior from labelled data, or from the log of a daemon.

Registered as a command of `banditroute` by its entry point, since it reads the simulator's data
sets and the daemon must not know of those. The same input gives the same bytes. Heavy imports wait
inside, so that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from sim.commands.options import Format, TrustPickle, loaded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from banditroute.features.basis import Basis
    from banditroute.features.embedding import Embedder
    from banditroute.learn.prior import Prior
    from policies.base import Arrays, Float32, Float64
    from sim.data.dataset import Dataset

AT_ONCE = 64


def command(
    data: Annotated[
        Path | None,
        typer.Argument(metavar="DATA", help="A file of routing data, see --format; or --log."),
    ] = None,
    *,
    n_effective: Annotated[
        float,
        typer.Option(
            help="How many outcomes of a model the prior is worth; never more than there are."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    embedder: Annotated[
        str, typer.Option(help="Of DATA: hashing, minilm or sentence-transformers:NAME.")
    ] = "hashing",
    task: Annotated[
        list[str] | None, typer.Option(help="A task of the pool, in its order; repeatable.")
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            help="CSV of model,input_price,output_price in USD per million: fits DATA's costs too, "
            "with bytes / 4 input tokens and against 512 output tokens."
        ),
    ] = None,
    clusters: Annotated[
        int | None, typer.Option(min=1, help="Keep only mean qualities of so many clusters.")
    ] = None,
    format: Format = None,
    trust_pickle: TrustPickle = False,
    split: Annotated[str | None, typer.Option(help="Only this split of DATA.")] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Leave out a model; repeatable.")
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            help="In place of DATA, the URL of a daemon's database; for another pool, since a pool "
            "learns its own log anyway."
        ),
    ] = None,
    pool: Annotated[str, typer.Option(help="The pool of --log.")] = "default",
) -> None:
    """Fit a prior that pools can start from, see their key `prior`."""
    if (data is None) == (log is None):
        fail("one of DATA and --log is expected")
    if log is not None and (prices or task or split or without or embedder != "hashing"):
        fail("--log: takes no --embedder, --task, --prices, --split or --without: they are in it")
    if len(set(task or [])) < len(task or []):
        fail("--task: given twice")
    if not 0.0 < n_effective < float("inf"):
        fail(f"--n-effective: above 0, not {n_effective:g}")
    try:
        if data is not None:
            whole = loaded(
                data, format=format, prices=prices, trust_pickle=trust_pickle, estimate_costs=False
            )
            prior, means = _from_data(
                rows(whole, split, without or []),
                embedder,
                task or [],
                prices,
                clusters,
                n_effective,
            )
        else:
            prior, means = _from_log(str(log), pool, clusters, n_effective)
        prior.write(out)
    except (ValueError, ImportError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"--out: {out}: {error.strerror or error}")
    _show(out, prior, means)


def rows(dataset: Dataset, split: str | None, without: list[str]) -> Dataset:
    """Return the rows of a data set, of one split and without some models."""
    import numpy as np

    from sim.errors import InputError

    dataset = dataset.restrict(without=without)
    if split is None:
        return dataset
    kept = np.flatnonzero(np.array(dataset.split) == split)
    if not len(kept):
        raise InputError(f"--split: {dataset.name} has no split {split!r}")
    return dataset.take(kept)


def _from_data(
    dataset: Dataset,
    embedder: str,
    tasks: list[str],
    prices: Path | None,
    groups: int | None,
    n_effective: float,
) -> tuple[Prior, dict[str, Float64]]:
    import numpy as np

    from banditroute.features.tasks import identity, widen
    from banditroute.fitting.warm_start import clusters, fit, log_ratios
    from banditroute.learn.prior import Prior
    from sim.data.prices import estimate_input_tokens, read_prices
    from sim.errors import InputError

    specs = None if prices is None else read_prices(prices, dataset.models)
    made, x, basis = features(embedder, dataset.prompts)
    x = widen(x, dataset.task, tasks)
    tokens = estimate_input_tokens(dataset.prompts)
    quality = dict(zip(dataset.models, dataset.quality.T, strict=True))
    ratios = None
    if specs is not None:
        ratios = {
            spec.name: log_ratios(dataset.cost_usd[:, k], spec=spec, tokens=tokens)
            for k, spec in enumerate(specs)
        }
    labels = [*quality.values(), *(ratios or {}).values()]
    if all(np.isnan(values).all() for values in labels):
        raise InputError(
            f"{dataset.name}: no answer is judged, nor has a cost with a price of --prices: "
            "nothing to fit"
        )
    cluster = clusters(x, groups) if groups else None
    arrays = fit(x, quality, n_effective=n_effective, ratios=ratios, cluster=cluster)
    own: Arrays = {} if basis is None else {"basis_mean": basis.mean, "basis_matrix": basis.matrix}
    return Prior("sums", identity(made.identity, tasks), arrays | own), quality


def features(kind: str, prompts: Sequence[str]) -> tuple[Embedder, Float32, Basis | None]:
    """Return the embedder, its features of all prompts, and its basis if that is fitted to them."""
    import numpy as np

    from banditroute.features.basis import COORDINATES
    from banditroute.features.embedding import make_embedder
    from banditroute.features.fit_basis import fit_principal
    from sim.commands.terminal import progress
    from sim.errors import InputError

    if kind == "precomputed":
        raise InputError("--embedder: there are no vectors in DATA; --log has them")
    made = make_embedder(kind)
    parts = [prompts[i : i + AT_ONCE] for i in range(0, len(prompts), AT_ONCE)]
    with progress(len(prompts), "embedding") as advance:
        if not made.slow:
            return made, np.concatenate([made.features(one) for one in parts]), None
        if len(prompts) <= COORDINATES:
            raise InputError(f"a basis takes over {COORDINATES} prompts, not {len(prompts)}")
        vectors = []
        for part in parts:
            vectors.append(made.vectors(part))
            advance(len(part))
    whole = np.concatenate(vectors)
    basis = fit_principal(whole)
    made = make_embedder(kind, basis=basis)
    return made, made.features(prompts, whole), basis


def _from_log(
    url: str, pool: str, groups: int | None, n_effective: float
) -> tuple[Prior, dict[str, Float64]]:
    from banditroute.fitting.warm_start import basis_arrays, clusters, fit, labels_of_log
    from banditroute.learn.prior import Prior
    from sim.data.database import open_log

    with open_log(url) as log:
        policy_identity, x, quality, ratios = labels_of_log(log, pool)
    cluster = clusters(x, groups) if groups else None
    arrays = fit(x, quality, n_effective=n_effective, ratios=ratios, cluster=cluster)
    return Prior("sums", policy_identity.embedder, arrays | basis_arrays(policy_identity)), quality


def _show(out: Path, prior: Prior, quality: dict[str, Float64]) -> None:
    import numpy as np
    from rich.table import Table

    from banditroute.core.policy_identity import digest
    from policies.base import sums_of
    from sim.commands.terminal import console

    known = sums_of(prior.arrays)
    costs = sums_of(prior.arrays, prefix="cost_")
    table = Table("model", "outcomes", "mean quality", "prior mean", "worth", "worth of costs")
    for name, values in quality.items():
        seen = values[~np.isnan(values)]
        if name not in known:
            table.add_row(name, "0", "left out")
            continue
        one = known[name]
        worth = f"{costs[name].count:g}" if costs else "none: no --prices"
        means = "none", "none"
        if len(seen):
            means = f"{seen.mean():.4f}", f"{one.moment[-1] / one.count:.4f}"
        numbers = *means, f"{one.count:g}"
        table.add_row(name, f"{len(seen):,}", *numbers, worth)
    shown = console()
    shown.print(table)
    basis = ", with a basis of its own" if prior.basis else ""
    shown.print(f"{out}: prior {digest(prior.text())}, embedder {prior.embedder}{basis}")


def fail(message: str) -> NoReturn:
    """Tell what is wrong in one line, and end with status 2."""
    typer.echo(f"banditroute: {message}", err=True)
    raise typer.Exit(2)

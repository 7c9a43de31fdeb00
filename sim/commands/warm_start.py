"""`banditroute warm-start`: a fitted prior from labelled data, or from the log of a daemon.

It is a command of `banditroute` by its entry point: it reads the simulator's data sets, of which
the daemon must know nothing. The same input gives the same bytes. Heavy imports wait inside the
functions, so that ``--help`` is quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.commands import prior_data
from sim.errors import InputError
from sim.options import Format, TrustPickle, with_notes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from banditroute.learn.prior import Prior
    from policies.base import Arrays, Float32, Float64
    from sim.data.dataset import Dataset


def command(
    data: prior_data.Data = None,
    *,
    n_effective: Annotated[
        float,
        typer.Option(
            help="How many outcomes of a model the prior is worth; never more than there are."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    embedder: prior_data.EmbedderKind = "hashing",
    task: prior_data.Tasks = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            help="CSV of model,input_price,output_price in USD per million: fits DATA's costs too, "
            "with bytes / 4 input tokens and against 512 output tokens."
        ),
    ] = None,
    clusters: Annotated[
        int | None, typer.Option(min=1, help="Keep only mean qualities of this many clusters.")
    ] = None,
    format: Format = None,
    trust_pickle: TrustPickle = False,
    split: prior_data.Split = None,
    without: prior_data.Without = None,
    log: Annotated[
        str | None,
        typer.Option(
            help="In place of DATA, the URL of a daemon's database; for another pool, since a pool "
            "learns its own log anyway."
        ),
    ] = None,
    pool: prior_data.LogPool = "default",
) -> None:
    """Fit a prior that pools can start from, see their key `prior`."""
    tasks = task or []
    prior_data.check_source(
        data, log, embedder=embedder, tasks=tasks, prices=prices, split=split, without=without
    )
    if not 0.0 < n_effective < float("inf"):
        prior_data.fail(f"--n-effective: above 0, not {n_effective:g}")
    from sim.data.formats import load

    with prior_data.failing_in_one_line(out):
        if data is None:
            labels = _labels_of_log(str(log), pool)
        else:
            loaded = load(
                data, format=format, prices=prices, trust_pickle=trust_pickle, estimate_costs=False
            )
            dataset = prior_data.select_rows(with_notes(loaded), split, without or [])
            labels = _labels_of_data(dataset, embedder, tasks, prices)
        prior = labels.fit(n_effective, clusters)
        prior.write(out)
    _show(out, prior, labels.quality)


@dataclass(frozen=True, slots=True)
class _Labels:
    """Labelled prompts.

    Attributes
    ----------
    embedder : str
        Identity of what made the features.
    x : float32[n, d]
        The features.
    quality : dict of str to float64[n]
        By model, NaN where an answer is not judged.
    ratios : dict of str to float64[n] or None
        By model, see `banditroute.fitting.warm_start.log_ratios`; None for no costs.
    basis : dict of str to ndarray
        Arrays of the prior that hold the basis of the features.
    """

    embedder: str
    x: Float32
    quality: dict[str, Float64]
    ratios: dict[str, Float64] | None
    basis: Arrays

    def fit(self, n_effective: float, cluster_count: int | None) -> Prior:
        from banditroute.fitting.warm_start import clusters, fit
        from banditroute.learn.prior import Prior

        cluster = clusters(self.x, cluster_count) if cluster_count else None
        arrays = fit(
            self.x, self.quality, n_effective=n_effective, ratios=self.ratios, cluster=cluster
        )
        return Prior("sums", self.embedder, arrays | self.basis)


def _labels_of_data(
    dataset: Dataset, embedder: str, tasks: Sequence[str], prices: Path | None
) -> _Labels:
    import numpy as np

    from banditroute.fitting.warm_start import log_ratios
    from sim.data.prices import estimate_input_tokens, read_prices

    specs = None if prices is None else read_prices(prices, dataset.models)
    identity, x, basis = prior_data.embed(dataset, embedder, tasks)
    quality = dict(zip(dataset.models, dataset.quality.T, strict=True))
    ratios = None
    if specs is not None:
        tokens = estimate_input_tokens(dataset.prompts)
        ratios = {
            spec.name: log_ratios(dataset.cost_usd[:, k], spec=spec, tokens=tokens)
            for k, spec in enumerate(specs)
        }
    if all(np.isnan(values).all() for values in [*quality.values(), *(ratios or {}).values()]):
        raise InputError(
            f"{dataset.name}: no answer is judged, nor has a cost with a price of --prices: "
            "nothing to fit"
        )
    return _Labels(identity, x, quality, ratios, basis)


def _labels_of_log(url: str, pool: str) -> _Labels:
    from banditroute.fitting.warm_start import basis_arrays, labels_of_log
    from sim.data.database import open_log

    with open_log(url) as log:
        policy_identity, x, quality, ratios = labels_of_log(log, pool)
    return _Labels(policy_identity.embedder, x, quality, ratios, basis_arrays(policy_identity))


def _show(out: Path, prior: Prior, quality: dict[str, Float64]) -> None:
    import numpy as np
    from rich.table import Table

    from banditroute.core.policy_identity import digest
    from policies.base import sums_of
    from sim.commands.terminal import console

    sums_by_model = sums_of(prior.arrays)
    costs = sums_of(prior.arrays, prefix="cost_")
    table = Table("model", "outcomes", "mean quality", "prior mean", "worth", "worth of costs")
    for name, values in quality.items():
        judged = values[~np.isnan(values)]
        if name not in sums_by_model:
            table.add_row(name, "0", "left out")
            continue
        sums = sums_by_model[name]
        means = "none", "none"
        if len(judged):
            means = f"{judged.mean():.4f}", f"{sums.moment[-1] / sums.count:.4f}"
        cost_worth = f"{costs[name].count:g}" if costs else "none: no --prices"
        table.add_row(name, f"{len(judged):,}", *means, f"{sums.count:g}", cost_worth)
    to = console()
    to.print(table)
    basis = ", with a basis of its own" if prior.basis else ""
    to.print(f"{out}: prior {digest(prior.text())}, embedder {prior.embedder}{basis}")

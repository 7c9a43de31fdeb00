"""``banditroute prior``: priors that a policy starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from banditroute.cli.console import failing

prior_app = typer.Typer(help="Priors that a policy starts from.", no_args_is_help=True)


@prior_app.command("fit")
def prior_fit(
    pairs: Annotated[
        Path, typer.Argument(help="Parquet with columns prompt, model_a, model_b and winner.")
    ],
    out: Annotated[Path, typer.Option(help="File to write the prior to.")],
    embedder: Annotated[str, typer.Option(help="Embedder of the pool.")] = "hashing",
    dims: Annotated[int, typer.Option(help="Coordinates of a mapped prompt.")] = 16,
    margin: Annotated[float, typer.Option(help="Margin of the triplet loss, in cosines.")] = 0.2,
    epochs: Annotated[int, typer.Option(help="Passes over the prompts that each model won.")] = 20,
    seed: Annotated[
        int, typer.Option(help="Seed of all draws; the same seed gives the same bytes.")
    ] = 0,
) -> None:
    """Fit the prior of policy pilot to pairs of answers and which won: a, b or tie. Needs torch."""
    import numpy as np
    from rich.progress import Progress

    from banditroute.features.embedding import make_embedder, require
    from banditroute.fitting import pairwise
    from banditroute.fitting.autograd import require_torch
    from banditroute.fitting.pairs import read_pairs
    from banditroute.learn.prior import Prior

    with failing(ValueError, ImportError, OSError):
        options = pairwise.PairwiseOptions(dims=dims, margin=margin, epochs=epochs, seed=seed)
        if not out.parent.is_dir():
            raise ValueError(f"--out: there is no directory {out.parent}")
        comparisons = read_pairs(pairs)
        require_torch()
        require(embedder)
        maker = make_embedder(embedder)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("fitting", total=pairwise.rounds(options))
            x = maker.features(list(comparisons.prompts)).astype(np.float64)
            fitted = pairwise.fit(comparisons, x, options, tick=lambda: progress.advance(task))
        Prior("pilot", maker.identity, fitted.arrays).write(out)
    typer.echo(
        f"{out}: {len(comparisons):,} pairs of {len(comparisons.prompts):,} prompts, "
        f"{len(comparisons.models)} models, embedder {maker.identity}"
    )
    typer.echo(
        f"log loss outside the fit {fitted.loss:.4f}, "
        f"of models' levels alone {fitted.loss_of_levels:.4f}, of nothing 0.6931; "
        f"{float(fitted.arrays['context']):.0%} of the context is kept"
    )

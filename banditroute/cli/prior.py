"""``banditroute prior``: priors that a policy starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from banditroute.cli.console import fail

prior_app = typer.Typer(help="What a policy starts from.", no_args_is_help=True)


@prior_app.command("fit")
def prior_fit(
    pairs: Annotated[Path, typer.Argument(help="Parquet: prompt, model_a, model_b, winner.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    embedder: Annotated[str, typer.Option(help="The embedder of the pool.")] = "hashing",
    dims: Annotated[int, typer.Option(help="Coordinates of a prompt.")] = 16,
    margin: Annotated[float, typer.Option(help="Of the triplet loss, in cosines.")] = 0.2,
    epochs: Annotated[int, typer.Option(help="Passes over the triplets.")] = 20,
    seed: Annotated[int, typer.Option(help="The same seed, the same bytes.")] = 0,
) -> None:
    """Fit policy pilot's prior to pairs of answers: who won, a, b or tie. Needs torch."""
    import numpy as np
    from rich.progress import Progress

    from banditroute.features.embedding import make_embedder, require
    from banditroute.fitting import pairwise as preferences
    from banditroute.fitting.autograd import require_torch
    from banditroute.fitting.pairs import read
    from banditroute.learn.prior import Prior

    try:
        options = preferences.PairwiseOptions(dims=dims, margin=margin, epochs=epochs, seed=seed)
        if not out.parent.is_dir():
            raise ValueError(f"--out: there is no directory {out.parent}")
        known = read(pairs)
        require_torch()
        require(embedder)
        maker = make_embedder(embedder)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("fitting", total=preferences.rounds(options))
            x = maker.features(list(known.prompts)).astype(np.float64)
            fitted = preferences.fit(known, x, options, tick=lambda: progress.advance(task))
        Prior("pilot", maker.identity, fitted.arrays).write(out)
    except (ValueError, ImportError, OSError) as error:
        fail(str(error))
    typer.echo(
        f"{out}: {len(known):,} pairs of {len(known.prompts):,} prompts, "
        f"{len(known.models)} models, embedder {maker.identity}"
    )
    typer.echo(
        f"log loss outside the fit {fitted.loss:.4f}, of models' levels alone {fitted.plain:.4f}, "
        f"of nothing 0.6931; {float(fitted.arrays['context']):.0%} of the context is kept"
    )

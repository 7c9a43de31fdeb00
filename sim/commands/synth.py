"""`sim synth`: a stream whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim import options


def command(
    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="File to write.")],
    rows: Annotated[int, typer.Option(min=1, help="Number of prompts.")] = 2_000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same file.")] = 0,
) -> None:
    """Write a stream with a planted context effect, to try things on."""
    from sim.data.dataset import save
    from sim.data.synthetic import generate

    options.check_parquet_name(out)
    options.check_writable("OUT.parquet", out)
    save(generate(rows=rows, seed=seed).dataset, out)
    print(f"{out}: {rows} rows")

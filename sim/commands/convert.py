"""`sim convert`: any format into the canonical parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim import options
from sim.errors import InputError


def command(
    data: options.Data,
    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="File to write.")],
    format: options.Format = None,
    prices: options.Prices = None,
    trust_pickle: options.TrustPickle = False,
    pool: Annotated[str | None, typer.Option(help="Pool of a daemon's log.")] = None,
) -> None:
    """Write a data set as the canonical parquet, notes and all."""
    from sim.data.dataset import save
    from sim.data.formats import load

    options.check_parquet_name(out)
    options.check_writable("OUT.parquet", out)
    dataset = options.with_notes(
        load(data, format=format, prices=prices, trust_pickle=trust_pickle, pool=pool)
    )
    if out.exists() and Path(data).exists() and out.samefile(data):
        raise InputError("OUT.parquet: it is the file that is read")
    save(dataset, out)
    typer.echo(f"{out}: {len(dataset)} rows, {len(dataset.models)} models")

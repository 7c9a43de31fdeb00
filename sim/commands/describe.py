"""`sim describe`: what is in a data set, and what is suspicious about it."""

from __future__ import annotations

from typing import Annotated

import typer

from sim import options


def command(
    data: options.Data,
    format: options.Format = None,
    prices: options.Prices = None,
    trust_pickle: options.TrustPickle = False,
    pool: Annotated[str | None, typer.Option(help="Pool of a daemon's log.")] = None,
    json_path: options.Json = None,
) -> None:
    """Show quality, cost and references of a data set, and warn of what looks wrong."""
    from sim.commands.terminal import console
    from sim.data.formats import load
    from sim.report.describe import as_json, describe, show

    options.check_writable("--json", json_path)
    dataset = options.with_notes(
        load(data, format=format, prices=prices, trust_pickle=trust_pickle, pool=pool)
    )
    description = describe(dataset)
    show(console(), description)
    if json_path is not None:
        options.write_json(json_path, as_json(description) | {"digest": dataset.digest()})

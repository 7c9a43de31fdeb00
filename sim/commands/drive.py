"""`sim drive`: logged data over HTTP against a running daemon."""

from __future__ import annotations

import typer

from sim import options
from sim.commands.interrupts import left_to_asyncio
from sim.options import DriveOptions


@options.command_of(DriveOptions)
def command(asked: DriveOptions) -> None:
    """Replay logged data over HTTP against a running daemon."""
    from sim.commands.terminal import console, progress
    from sim.data.formats import load
    from sim.data.prices import draw_prices, read_prices
    from sim.drive import Drive, run_drive, show
    from sim.play.candidate import parse_preference

    options.check_writable("--json", asked.json_path)
    weights = parse_preference(asked.preference) if asked.preference else None
    prices, names = asked.prices, options.split_names(asked.models)
    loaded = options.with_notes(
        load(asked.data, format=asked.format, prices=prices, trust_pickle=asked.trust_pickle)
    )
    data = loaded.restrict(models=names, without=asked.without or []).complete()
    specs = read_prices(prices, data.models) if prices else draw_prices(data, seed=asked.seed)
    plan = Drive(data, specs, asked, weights)
    with left_to_asyncio(), progress(min(asked.limit or len(data), len(data))) as advance:
        report = run_drive(plan, on_done=advance)
    show(console(), report)
    if asked.json_path is not None:
        options.write_json(asked.json_path, report)
    if report["errors"]:
        raise typer.Exit(1)

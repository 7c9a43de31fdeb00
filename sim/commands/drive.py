"""`sim drive`: logged data over HTTP against a running daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim import options
from sim.commands.interrupts import left_to_asyncio


def command(
    data: options.Data,
    url: Annotated[str, typer.Option(help="Where the daemon listens.")] = "http://127.0.0.1:8000",
    pool: Annotated[str | None, typer.Option(help="Pool (default: the file's stem).")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many rows.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the shuffle and the prices.")] = 0,
    prices: options.Prices = None,
    format: options.Format = None,
    trust_pickle: options.TrustPickle = False,
    models: options.Models = "",
    without: options.Without = None,
    preference: Annotated[
        str | None, typer.Option(help="quality,cost,latency (default: the pool's).")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="BANDITROUTE_API_KEY", help="Bearer key.")
    ] = None,
    retry_for: Annotated[
        float | None, typer.Option(min=0.0, help="Seconds to ride out a restart.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds per attempt.")] = 10.0,
    acked: Annotated[
        Path | None, typer.Option(help="Write the decision ids of acknowledged feedback.")
    ] = None,
    json_path: options.Json = None,
) -> None:
    """Replay logged data over HTTP against a running daemon."""
    from sim.commands.terminal import console, progress
    from sim.data.formats import load
    from sim.data.prices import draw_prices, read_prices
    from sim.drive import Drive, run_drive, show
    from sim.play.candidate import parse_preference

    options.check_writable("--json", json_path)
    weights = parse_preference(preference) if preference else None
    loaded = load(data, format=format, prices=prices, trust_pickle=trust_pickle)
    names = options.split_names(models)
    dataset = options.with_notes(loaded).restrict(models=names, without=without or []).complete()
    if prices is None:
        specs = draw_prices(dataset, seed=seed)
    else:
        specs = read_prices(prices, dataset.models)
    plan = Drive(
        dataset=dataset,
        specs=specs,
        url=url,
        pool=pool or Path(data).stem,
        concurrency=concurrency,
        limit=limit,
        seed=seed,
        preference=weights,
        api_key=api_key,
        retry_for_s=retry_for,
        timeout_s=timeout,
        acked=acked,
    )
    with left_to_asyncio(), progress(min(limit or len(dataset), len(dataset))) as advance:
        report = run_drive(plan, on_done=advance)
    show(console(), report)
    if json_path is not None:
        options.write_json(json_path, report)
    if report["errors"]:
        raise typer.Exit(1)

"""The command line. Heavy imports wait inside the commands, so that --help is quick."""

from __future__ import annotations

import json
import logging
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from banditroute import __version__
from banditroute.cli_budgets import app as budgets_app
from banditroute.console import DEFAULT_URL, PoolName, Url, call, fail

app = typer.Typer(
    help="Pick the LLM for each prompt, and learn from the answers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
db_app = typer.Typer(help="The database schema.", no_args_is_help=True)
models_app = typer.Typer(help="The models of a running daemon.", no_args_is_help=True)
decisions_app = typer.Typer(help="The decisions of a running daemon.", no_args_is_help=True)
app.add_typer(db_app, name="db")
app.add_typer(models_app, name="models")
app.add_typer(decisions_app, name="decisions")
app.add_typer(budgets_app, name="budget")
prior_app = typer.Typer(help="What a policy starts from.", no_args_is_help=True)
app.add_typer(prior_app, name="prior")

Config = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Database = Annotated[str | None, typer.Option("--db", help="SQLAlchemy URL.")]
EMBEDDING_S = 120.0


@app.command()
def serve(
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    db: Database = None,
    replicas: Annotated[int | None, typer.Option(help="Ray Serve replicas.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="One process without Ray: up in a second.")
    ] = False,
) -> None:
    """Run the daemon until Ctrl-C."""
    from banditroute import daemon

    settings = _settings(config, host=host, port=port, database=db, replicas=replicas)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("banditroute").setLevel(logging.INFO)
    try:
        (daemon.run_local if local else daemon.run_ray)(settings)
    except daemon.StartError as error:
        fail(str(error))


@app.command()
def check(file: Annotated[Path, typer.Argument(help="YAML file of settings.")]) -> None:
    """Check a settings file and say what is wrong with it."""
    from banditroute.serve import check_replicas
    from banditroute.store.engine import open_engine

    settings = _settings(file)
    try:
        check_replicas(settings)
        open_engine(settings.database)
    except ValueError as error:
        fail(str(error))
    for name, pool in settings.pools.items():
        options = settings.options_of(name)
        typer.echo(
            f"pool {name}: policy {options.policy.name}, embedder {options.embedder}, "
            f"{len(pool.models)} models"
        )
    typer.echo("ok")


@app.command()
def verify(
    config: Config = None,
    db: Database = None,
    pool: PoolName = "default",
) -> None:
    """Recompute every decision and the whole fold from the log, and compare."""
    from sqlalchemy.exc import SQLAlchemyError

    from banditroute.store.engine import open_engine
    from banditroute.store.log import Log
    from banditroute.store.verify import audit

    settings = _settings(config, database=db)
    try:
        engine = open_engine(settings.database)
        if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
            raise ValueError(f"database: there is no file {engine.url.database}")
        try:
            found = audit(Log(engine), pool)
        finally:
            engine.dispose()
    except (ValueError, SQLAlchemyError) as error:
        fail(str(error))
    for name, value in found.lines().items():
        typer.echo(f"{name:36} {value}")
    if not found.sound():
        raise typer.Exit(1)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"banditroute {__version__}")


@db_app.command("upgrade")
def db_upgrade(config: Config = None, db: Database = None) -> None:
    """Bring the database to the schema of this version."""
    from banditroute.store.engine import HEAD, open_engine, shown, upgrade

    settings = _settings(config, database=db)
    try:
        engine = open_engine(settings.database)
        try:
            upgrade(engine)
        finally:
            engine.dispose()
    except Exception as error:
        fail(f"database: {str(error).removeprefix('database: ')}")
    typer.echo(f"{shown(engine.url)} is at revision {HEAD}")


@models_app.command("list")
def models_list(pool: PoolName = "default", url: Url = DEFAULT_URL) -> None:
    """List the models of a pool with the prices in force."""
    table = Table("model", "input $/M", "output $/M", "max output", "state")
    for model in call(url, "models", pool=pool):
        state = "draining" if model["draining"] else "active"
        limit = model["max_output_tokens"]
        prices = f"{model['input_price']:g}", f"{model['output_price']:g}"
        table.add_row(model["name"], *prices, str(limit or ""), state)
    Console().print(table)


@models_app.command("add")
def models_add(
    name: str,
    input_price: Annotated[float, typer.Option(help="US dollars per million tokens.")],
    output_price: Annotated[float, typer.Option(help="US dollars per million tokens.")],
    max_output_tokens: Annotated[int | None, typer.Option(help="Limit of an answer.")] = None,
    context_length: Annotated[int | None, typer.Option(help="Limit of a prompt.")] = None,
    capability: Annotated[list[str] | None, typer.Option(help="E.g. tools; repeatable.")] = None,
    scored: Annotated[
        Path | None, typer.Option(help="JSON lines of prompt (or embedding) and quality.")
    ] = None,
    n_effective: Annotated[
        float | None, typer.Option(help="Outcomes that the scored prompts are worth (50).")
    ] = None,
    pool: PoolName = "default",
    url: Url = DEFAULT_URL,
) -> None:
    """Add a model while the daemon runs; a missing pool is made."""
    if n_effective is not None and scored is None:
        fail("--n-effective goes with --scored")
    fields: dict[str, Any] = {
        "input_price": input_price,
        "output_price": output_price,
        "max_output_tokens": max_output_tokens,
        "context_length": context_length,
        "capabilities": capability or [],
    }
    if scored is not None:
        fields |= {"scored": _json_lines(scored), "n_effective": n_effective}
    answer = call(url, "add_model", name, pool=pool, timeout=EMBEDDING_S, **fields)
    typer.echo(f"added {name} to pool {pool}")
    if prior := answer["prior"]:
        typer.echo(
            f"{prior['outcomes']} scored prompts in {prior['clusters']} clusters, worth "
            f"{prior['n_effective']:g} outcomes"
        )


@models_app.command("price")
def models_price(
    name: str,
    input_price: Annotated[
        float | None, typer.Option(help="US dollars per million tokens.")
    ] = None,
    output_price: Annotated[
        float | None, typer.Option(help="US dollars per million tokens.")
    ] = None,
    pool: PoolName = "default",
    url: Url = DEFAULT_URL,
) -> None:
    """Change a price; the next decision uses it and nothing is learned again."""
    if input_price is None and output_price is None:
        fail("--input-price or --output-price is required")
    model = call(
        url, "set_price", name, pool=pool, input_price=input_price, output_price=output_price
    )
    typer.echo(f"{name}: {model['input_price']:g} in, {model['output_price']:g} out, $/M tokens")


@models_app.command("drain")
def models_drain(name: str, pool: PoolName = "default", url: Url = DEFAULT_URL) -> None:
    """Choose a model no more; what it has taught stays."""
    call(url, "drain_model", name, pool=pool)
    typer.echo(f"{name} drains")


@decisions_app.command("show")
def decisions_show(decision_id: str, url: Url = DEFAULT_URL) -> None:
    """Show why a model was chosen."""
    typer.echo(json.dumps(call(url, "decision", decision_id), indent=2))


@decisions_app.command("cancel")
def decisions_cancel(decision_id: str, url: Url = DEFAULT_URL) -> None:
    """Give back what a decision reserved that was never used."""
    typer.echo(call(url, "cancel", decision_id))


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
        options = preferences.Options(dims=dims, margin=margin, epochs=epochs, seed=seed)
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


def _settings(config: Path | None, **flags: Any) -> Any:
    from banditroute.settings import SettingsError, load_settings

    try:
        return load_settings(config, **flags)
    except SettingsError as error:
        fail(str(error))


def _json_lines(path: Path) -> list[Any]:
    try:
        # Not splitlines(): U+2028 and its kin may stand inside a string.
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        fail(f"--scored: {path}: {error.strerror}")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            fail(f"--scored: {path}: line {number}: {error}")
        if not isinstance(row, dict | None):
            fail(f"--scored: {path}: line {number}: an object is expected")
        rows += [] if row is None else [row]
    return rows


# Commands that need more than the daemon may import come from whoever has it.
for found in entry_points(group="banditroute.commands"):
    app.command(found.name)(found.load())


def main() -> None:
    """Run the command line."""
    # Matrices this small gain nothing from threads, and the fold's bytes must not depend on them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(app())

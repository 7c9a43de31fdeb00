"""The program, and the commands that need no running daemon."""

from __future__ import annotations

import json
import logging
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from banditroute import __version__
from banditroute.cli.budgets import budgets_app
from banditroute.cli.console import DEFAULT_URL, PoolName, Url, call, fail
from banditroute.cli.models import models_app
from banditroute.cli.prior import prior_app

app = typer.Typer(
    help="Pick the LLM for each prompt, and learn from the answers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
db_app = typer.Typer(help="The database schema.", no_args_is_help=True)
decisions_app = typer.Typer(help="The decisions of a running daemon.", no_args_is_help=True)
app.add_typer(db_app, name="db")
app.add_typer(models_app, name="models")
app.add_typer(decisions_app, name="decisions")
app.add_typer(budgets_app, name="budget")
app.add_typer(prior_app, name="prior")

Config = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Database = Annotated[str | None, typer.Option("--db", help="SQLAlchemy URL.")]


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
    from banditroute.serve import foreground

    settings = _settings(config, host=host, port=port, database=db, replicas=replicas)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("banditroute").setLevel(logging.INFO)
    try:
        (foreground.run_local if local else foreground.run_ray)(settings)
    except foreground.StartError as error:
        fail(str(error))


@app.command()
def check(file: Annotated[Path, typer.Argument(help="YAML file of settings.")]) -> None:
    """Check a settings file and say what is wrong with it."""
    from banditroute.serve.compose import check_replicas
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


@decisions_app.command("show")
def decisions_show(decision_id: str, url: Url = DEFAULT_URL) -> None:
    """Show why a model was chosen."""
    typer.echo(json.dumps(call(url, "decision", decision_id), indent=2))


@decisions_app.command("cancel")
def decisions_cancel(decision_id: str, url: Url = DEFAULT_URL) -> None:
    """Give back what a decision reserved that was never used."""
    typer.echo(call(url, "cancel", decision_id))


def _settings(config: Path | None, **flags: Any) -> Any:
    from banditroute.settings import SettingsError, load_settings

    try:
        return load_settings(config, **flags)
    except SettingsError as error:
        fail(str(error))


# Commands that need more than the daemon may import come from whoever has it.
for found in entry_points(group="banditroute.commands"):
    app.command(found.name)(found.load())


def main() -> None:
    """Run the command line."""
    # Matrices this small gain nothing from threads, and the fold's bytes must not depend on them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(app())

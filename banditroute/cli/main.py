"""The program, and the commands that are not about models, budgets or priors."""

from __future__ import annotations

import json
import logging
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from banditroute import __version__
from banditroute.cli.budgets import budgets_app
from banditroute.cli.console import DEFAULT_URL, PoolName, Url, call, fail, failing
from banditroute.cli.models import models_app
from banditroute.cli.prior import prior_app

if TYPE_CHECKING:
    from banditroute.settings import Settings

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

Config = Annotated[Path | None, typer.Option("--config", help="YAML file with the settings.")]
Database = Annotated[str | None, typer.Option("--db", help="SQLAlchemy URL of the database.")]


@app.command()
def serve(
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    db: Database = None,
    replicas: Annotated[int | None, typer.Option(help="Number of Ray Serve replicas.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="One process without Ray, which starts in a second.")
    ] = False,
) -> None:
    """Run the daemon until Ctrl-C."""
    from banditroute.serve import foreground

    settings = _settings(config, host=host, port=port, database=db, replicas=replicas)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("banditroute").setLevel(logging.INFO)
    with failing(foreground.StartError):
        (foreground.run_local if local else foreground.run_ray)(settings)


@app.command()
def check(file: Annotated[Path, typer.Argument(help="YAML file with the settings.")]) -> None:
    """Check a file of settings and report its mistakes, without starting anything."""
    from banditroute.serve.compose import check_replicas
    from banditroute.store.engine import open_engine

    settings = _settings(file)
    with failing(ValueError):
        check_replicas(settings)
        open_engine(settings.database)
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
    """Recompute all decisions and the whole state from the log, and compare; 1 if they differ."""
    from sqlalchemy.exc import SQLAlchemyError

    from banditroute.store.engine import opened
    from banditroute.store.log import Log
    from banditroute.store.verify import audit

    settings = _settings(config, database=db)
    with failing(ValueError, SQLAlchemyError), opened(settings.database) as engine:
        if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
            raise ValueError(f"database: there is no file {engine.url.database}")
        report = audit(Log(engine), pool)
    for name, value in report.lines().items():
        typer.echo(f"{name:36} {value}")
    if not report.sound():
        raise typer.Exit(1)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"banditroute {__version__}")


@db_app.command("upgrade")
def db_upgrade(config: Config = None, db: Database = None) -> None:
    """Upgrade the database to the schema of this version."""
    from banditroute.store.engine import HEAD, opened, shown, upgrade

    settings = _settings(config, database=db)
    try:
        with opened(settings.database) as engine:
            upgrade(engine)
    except Exception as error:
        fail(f"database: {str(error).removeprefix('database: ')}")
    typer.echo(f"{shown(engine.url)} is at revision {HEAD}")


@decisions_app.command("show")
def decisions_show(decision_id: str, url: Url = DEFAULT_URL) -> None:
    """Show a decision as JSON: every model with its estimates and why it was or was not chosen."""
    typer.echo(json.dumps(call(url, "decision", decision_id), indent=2))


@decisions_app.command("cancel")
def decisions_cancel(decision_id: str, url: Url = DEFAULT_URL) -> None:
    """Release what was reserved for a decision that will not be used."""
    typer.echo(call(url, "cancel", decision_id))


def _settings(config: Path | None, **flags: Any) -> Settings:
    """Return the settings; end the program if they have mistakes."""
    from banditroute.settings import SettingsError, load_settings

    with failing(SettingsError):
        return load_settings(config, **flags)


# Commands that import what the daemon must not import are found by their entry points.
for command in entry_points(group="banditroute.commands"):
    app.command(command.name)(command.load())


def main() -> None:
    """Run the command line."""
    # Threads do not speed up matrices this small, and the bytes of a fold must not depend on them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(app())

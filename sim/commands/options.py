"""What several commands take and write: options, price lists, preferences, JSON files.

Heavy imports wait inside the functions, so that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from banditroute.core.pool import ModelSpec
    from sim.data.dataset import Dataset

FORMATS = "canonical, routerbench, sprout, paretobandit, routellm, llmrouter, routerdc, routerarena"
"""Without LiteLLM's, which is named last in the help."""

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="A file of any format below, or the URL of a daemon's log."
    ),
]
Format = Annotated[
    str | None, typer.Option(help=f"Of DATA: {FORMATS} or litellm (default: by its content).")
]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Open DATA if it is a pickle, which runs its code.")
]
Models = Annotated[str, typer.Option(help="Only these models, separated by commas.")]
Without = Annotated[list[str] | None, typer.Option(help="Leave out a model; may be repeated.")]
Prices = Annotated[
    Path | None, typer.Option(help="CSV of model,input_price,output_price in USD per million.")
]
Json = Annotated[Path | None, typer.Option("--json", help="Write the report to this file.")]

Full = Annotated[
    bool,
    typer.Option("--full", help="Print all tables of a run of many stages, not their results."),
]


def loaded(
    data: str | Path,
    *,
    format: str | None = None,
    prices: Path | None = None,
    trust_pickle: bool = False,
    pool: str | None = None,
    estimate_costs: bool = True,
) -> Dataset:
    """Load a data set, see `sim.data.formats.load`, and say on stderr what must be known of it."""
    from sim.data.formats import load

    dataset = load(
        data,
        format=format,
        prices=prices,
        trust_pickle=trust_pickle,
        pool=pool,
        estimate_costs=estimate_costs,
    )
    for note in dataset.notes:
        typer.echo(f"{dataset.name}: {note}", err=True)
    return dataset


def parquet(out: Path) -> None:
    """Refuse the name of a canonical parquet to write if it would not be read as one."""
    from sim.errors import InputError

    if out.suffix != ".parquet":
        raise InputError(f"OUT.parquet: the name must end in .parquet, not {out.name!r}")


def names(text: str) -> list[str]:
    """Return the parts of a list separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def specs(path: Path | None, dataset: Dataset) -> list[ModelSpec] | None:
    """Return the price list at `path` for the models of the data, None without one."""
    from sim.data.prices import read_prices

    return None if path is None else read_prices(path, dataset.models)


def writable(option: str, path: Path | None) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold."""
    import os

    from sim.errors import InputError

    if path is None:
        return
    if not path.parent.is_dir():
        raise InputError(f"{option}: {path}: no such folder")
    if path.is_dir():
        raise InputError(f"{option}: {path}: a folder, not a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{option}: {path}: may not be written")


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write a report; what the system says against it is an InputError."""
    import json

    from sim.errors import InputError

    try:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--json: {path}: {error.strerror}") from error

"""What several commands share: their options, loading of DATA, checks and writing of files.

Heavy imports wait inside the functions, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.errors import InputError

if TYPE_CHECKING:
    from sim.data.dataset import Dataset

FORMATS = "canonical, routerbench, sprout, paretobandit, routellm, llmrouter, routerdc, routerarena"
"""All but LiteLLM's, which is named last in the help."""

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="A file of any format below, or the URL of a daemon's log."
    ),
]
Format = Annotated[
    str | None,
    typer.Option(help=f"Format of DATA: {FORMATS} or litellm (default: by its content)."),
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


def load_data(
    data: str | Path,
    *,
    format: str | None = None,
    prices: Path | None = None,
    trust_pickle: bool = False,
    pool: str | None = None,
    estimate_costs: bool = True,
) -> Dataset:
    """Load a data set and print its notes on stderr.

    Parameters
    ----------
    data, format, prices, trust_pickle, pool, estimate_costs : Any
        See `sim.data.formats.load`.

    Raises
    ------
    InputError
        Naming the file, and the row and column where there is one.
    """
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


def split_names(text: str) -> list[str]:
    """Return the names of a list separated by commas, without spaces around them.

    Parameters
    ----------
    text : str
        May be empty.
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def check_parquet_name(out: Path) -> None:
    """Check that a parquet file to write will be read as one.

    Parameters
    ----------
    out : Path
        The file.

    Raises
    ------
    InputError
        If its name does not end in ``.parquet``.
    """
    if out.suffix != ".parquet":
        raise InputError(f"OUT.parquet: the name must end in .parquet, not {out.name!r}")


def check_writable(option: str, path: Path | None) -> None:
    """Check that a file can be written, before the work whose result it is to hold.

    Parameters
    ----------
    option : str
        Named in the error.
    path : Path or None
        The file, None for no file.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise InputError(f"{option}: {path}: no such folder")
    if path.is_dir():
        raise InputError(f"{option}: {path}: a folder, not a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{option}: {path}: may not be written")


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON.

    Parameters
    ----------
    path : Path
        Value of ``--json``.
    report : dict of str to Any
        Plain values.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    try:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--json: {path}: {error.strerror}") from error

"""What several commands share: options, a command from a dataclass of them, checks and files.

The options that `sim.plan` and `sim.drive` read are here, since these are too heavy to import for
``--help``. Heavy imports wait inside the functions for the same reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from sim.errors import InputError, input_errors

if TYPE_CHECKING:
    from sim.data.dataset import Dataset

Asked = TypeVar("Asked")

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


def command_of(kind: type[Asked]) -> Callable[[Callable[[Asked], None]], Callable[..., None]]:
    """Make a command of a function that takes one value, with an option for each of its fields.

    Parameters
    ----------
    kind : type
        A dataclass of keyword arguments, whose annotations are typer's.
    """

    def decorate(function: Callable[[Asked], None]) -> Callable[..., None]:
        def command(**values: Any) -> None:
            function(kind(**values))

        hints = get_type_hints(kind, include_extras=True)
        fields = signature(kind).parameters.values()
        parameters = [field.replace(annotation=hints[field.name]) for field in fields]
        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        command.__doc__ = function.__doc__
        return command

    return decorate


def with_notes(dataset: Dataset) -> Dataset:
    """Print the notes of a data set on stderr, and return it.

    Parameters
    ----------
    dataset : Dataset
        The data.
    """
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
    with input_errors(f"--json: {path}", OSError):
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """The options of `sim replay`."""

    data: Data
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME, NAME:key=value,.., NAME@PRIOR_FILE:.. or FILE.yaml with keys of a pool; "
            "paretobandit and mabwiser are the packages; may be repeated."
        ),
    ] = None
    scenario: Annotated[
        list[str] | None,
        typer.Option(help="A name of `sim scenarios`, or a file; each is played; may be repeated."),
    ] = None
    seeds: Annotated[int, typer.Option(min=1, help="Number of shuffles.")] = 10
    learn_split: Annotated[str | None, typer.Option(help="Split to learn from first.")] = None
    test_split: Annotated[str | None, typer.Option(help="Split to score.")] = None
    learn_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of rows before the scored ones (default 0.5, in a scenario 0).",
            show_default=False,
        ),
    ] = None
    budget_rate: Annotated[
        list[float] | None,
        typer.Option(help="Spend at most this many USD per request; each is played."),
    ] = None
    pacing: Annotated[
        str, typer.Option(help="What sets the price of a budget's money: history, zcl or pacer.")
    ] = "history"
    delay: Annotated[
        str | None,
        typer.Option(help="Feedback after SECONDS, exponential:SECONDS, or as in log:URL."),
    ] = None
    missing: Annotated[
        float | None, typer.Option(help="Share of the feedback that never comes.")
    ] = None
    judge_noise: Annotated[
        float | None, typer.Option(help="Standard deviation of the judge's error.")
    ] = None
    batch: Annotated[
        int, typer.Option(min=1, help="Decide this many requests before learning from any of them.")
    ] = 1
    prices: Prices = None
    format: Format = None
    trust_pickle: TrustPickle = False
    embedder: Annotated[str, typer.Option(help="hashing, minilm, ...")] = "hashing"
    tasks: Annotated[
        bool, typer.Option("--tasks", help="Give policies the data's task as columns.")
    ] = False
    reset_on_drift: Annotated[
        bool,
        typer.Option(
            "--reset-on-drift",
            help="Reset a model after its drift alarm, as a pool with this key does.",
        ),
    ] = False
    preference: Annotated[
        str | None,
        typer.Option(help="quality,cost,latency (default: the scenario's, or a pool's)."),
    ] = None
    models: Models = ""
    without: Without = None
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 is one per core.")] = 0
    ray: Annotated[bool, typer.Option("--ray", help="Run on Ray, started here.")] = False
    ray_address: Annotated[
        str | None, typer.Option(help="Run on this Ray cluster; auto finds a running one.")
    ] = None
    json_path: Json = None
    report: Annotated[
        Path | None, typer.Option(help="Write the run as one page that opens from disk.")
    ] = None
    full: Full = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveOptions:
    """The options of `sim drive`."""

    data: Data
    url: Annotated[str, typer.Option(help="Where the daemon listens.")] = "http://127.0.0.1:8000"
    pool: Annotated[str | None, typer.Option(help="Pool (default: the file's stem).")] = None
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 8
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many rows.")] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of the shuffle and the prices.")] = 0
    prices: Prices = None
    format: Format = None
    trust_pickle: TrustPickle = False
    models: Models = ""
    without: Without = None
    preference: Annotated[
        str | None, typer.Option(help="quality,cost,latency (default: the pool's).")
    ] = None
    api_key: Annotated[
        str | None, typer.Option(envvar="BANDITROUTE_API_KEY", help="Bearer key.")
    ] = None
    retry_for: Annotated[
        float | None, typer.Option(min=0.0, help="Seconds to ride out a restart.")
    ] = None
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds per attempt.")] = 10.0
    acked: Annotated[
        Path | None, typer.Option(help="Write the decision ids of acknowledged feedback.")
    ] = None
    json_path: Json = None

"""`sim report`: the file of a run as tables, as an HTML page and as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim import options
from sim.errors import InputError, input_errors

if TYPE_CHECKING:
    from sim.results import RunFile

FOR_FIGURES = ("matplotlib",)
FOR_PAGE = (*FOR_FIGURES, "jinja2")


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN.json", help="What a replay has written.")],
    out: Annotated[Path | None, typer.Option(help="Write one page that opens from disk.")] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write every figure as a PNG file.")
    ] = None,
    full: options.Full = False,
    tasks: Annotated[bool, typer.Option("--tasks", help="Print tables by task, too.")] = False,
) -> None:
    """Show a run: its tables here, or its page and pictures as files."""
    from sim.commands.terminal import console
    from sim.report.terminal import show
    from sim.results import RunFile

    read = RunFile.read(run)
    if out is None and png is None:
        show(console(), read.stages, full=full, tasks=tasks)
        return
    if out is not None:
        check_installed("--out", *FOR_PAGE)
    if png is not None:
        check_installed("--png", *FOR_FIGURES)
    from sim.report.figures import frontiers, pictures

    if out is not None:
        write_page(read, out, "--out")
        print(out)
    if png is not None:
        named = {
            f"frontier-{k}": figure for k, figure in enumerate(frontiers(read.stages), start=1)
        }
        for k, stage in enumerate(read.stages, start=1):
            named |= {f"{k}-{figure.name}": figure for figure in pictures(stage)}
        for name, picture in named.items():
            path = png / f"{name}.png"
            _write(path, picture.save("png"), "--png")
            print(path)


def check_installed(option: str, *packages: str) -> None:
    """Check that packages of the extra `report` are installed.

    Parameters
    ----------
    option : str
        The option that needs them.
    *packages : str
        Names to import.

    Raises
    ------
    InputError
        Naming the option and the packages that are not installed.
    """
    from importlib.util import find_spec

    lacking = [package for package in packages if find_spec(package) is None]
    if lacking:
        needed = " and ".join(lacking)
        raise InputError(f"{option}: needs {needed}: pip install 'banditroute[report]'")


def write_page(run: RunFile, path: Path, option: str) -> None:
    """Write a run as one HTML page.

    Parameters
    ----------
    run : RunFile
        The run.
    path : Path
        File to write; its folder is made where there is none.
    option : str
        Named in an error.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    from sim.report.html import page

    _write(path, page(run).encode("utf-8"), option)


def _write(path: Path, content: bytes, option: str) -> None:
    with input_errors(f"{option}: {path}", OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

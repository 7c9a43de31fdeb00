"""`sim report`: the file of a run as tables, as one page and as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN.json", help="What a replay has written.")],
    out: Annotated[Path | None, typer.Option(help="Write one page that opens from disk.")] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write every figure as a PNG file.")
    ] = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="Print tables by task, too.")] = False,
) -> None:
    """Show a run: its tables here, or its page and pictures as files."""
    from sim.errors import InputError
    from sim.report import show
    from sim.runfile import RunFile
    from sim.terminal import console

    read = RunFile.read(run)
    if out is None and png is None:
        for stage in read.stages:
            show(console(), stage, tasks=tasks)
        return
    try:
        from sim.page import page
        from sim.plots import pictures
    except ImportError as error:
        option = "--out" if out is not None else "--png"
        raise InputError(
            f"{option}: needs matplotlib: pip install 'banditroute[report]'"
        ) from error
    if out is not None:
        _write(out, page(read).encode("utf-8"), "--out")
        print(out)
    if png is not None:
        for k, stage in enumerate(read.stages, start=1):
            for picture in pictures(stage):
                path = png / f"{k}-{picture.name}.png"
                _write(path, picture.save("png"), "--png")
                print(path)


def _write(path: Path, content: bytes, option: str) -> None:
    from sim.errors import InputError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"{option}: {path}: {error.strerror}") from error

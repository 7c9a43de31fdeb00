"""The terminal of the commands: a console of the right width, and a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn


def console() -> Console:
    """Return the console for tables."""
    terminal = Console()
    # A pipe has no width of its own; 80 columns would fold the numbers.
    return terminal if terminal.is_terminal else Console(width=200)


@contextmanager
def progress(total: int, doing: str = "replaying") -> Iterator[Callable[..., None]]:
    """Show a bar on stderr during the body, if that is a terminal.

    Parameters
    ----------
    total : int
        Steps of the whole work.
    doing : str
        The text before the bar.

    Yields
    ------
    callable
        Moves the bar by one step, or by the number of steps that it gets.
    """
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    err = Console(stderr=True)
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(doing, total=total)

        def advance(count: int = 1) -> None:
            bar.advance(task, count)

        yield advance

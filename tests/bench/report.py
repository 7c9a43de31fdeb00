"""Tables of aim, measurement and verdict."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Return the median and, when there are several values, their range."""
    middle = format(statistics.median(values), form)
    if len(values) < 2:
        return middle
    return f"{middle} ({format(min(values), form)}..{format(max(values), form)})"


def at_least(measured: float, aim: float) -> tuple[str, str]:
    """Return how much of the aim was reached, and the verdict, where more is better."""
    return f"{measured / aim:.2f}", "pass" if measured >= aim else "MISS"


def at_most(measured: float, aim: float) -> tuple[str, str]:
    """Return the part of the allowance that was used, and the verdict, where less is better."""
    return f"{measured / aim:.2f}", "pass" if measured <= aim else "MISS"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> None:
    """Print a table; all columns but the first are numbers."""
    table = Table(title=title, title_justify="left", caption=note or None, caption_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    # A file has no width of its own; a table must not be folded for that.
    wide = console if console.is_terminal else Console(width=200)
    wide.print(table)

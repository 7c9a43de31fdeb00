"""A stage of a run on the terminal. Nothing here computes a figure, or runs a policy."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sim import tables
from sim.runfile import Stage


def show(console: Console, stage: Stage, *, tasks: bool = False) -> None:
    """Print the tables of a stage.

    Parameters
    ----------
    tasks : whether to print a table by task for every policy, too.
    """
    console.print(Text(stage.title, style="bold"))
    if stage.says:
        console.print(Text(stage.says))
    shown = [
        tables.results(stage),
        tables.utility(stage),
        tables.scores(stage),
        tables.exploration(stage),
        tables.adaptation(stage),
        tables.references(stage),
        tables.shares(stage),
    ]
    if tasks:
        shown += [tables.tasks(stage, one) for one in stage.contenders]
    for table in shown:
        if table is not None:
            console.print(_rich(table))


def _rich(of: tables.Table) -> Table:
    # Names come from files: as Text they are never read as markup.
    table = Table(
        title=Text(of.title),
        title_justify="left",
        caption=Text(of.caption) if of.caption else None,
        caption_justify="left",
        show_lines=False,
    )
    for k, heading in enumerate(of.columns):
        table.add_column(Text(heading), justify="right" if k else "left", overflow="fold")
    for row in of.rows:
        table.add_row(*map(Text, row))
    return table

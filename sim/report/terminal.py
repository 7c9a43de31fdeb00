"""Prints the tables of a run. Nothing here computes a number or runs a policy."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sim.report import tables
from sim.results import Stage

FEW_STAGES = 3
"""Up to that many stages, all tables are printed by default."""


def show(
    console: Console, stages: Sequence[Stage], *, full: bool = False, tasks: bool = False
) -> None:
    """Print the tables of a run, with the overview last, where it stays in view.

    Parameters
    ----------
    console : Console
        Where to print.
    stages : sequence of Stage
        The stages of the run.
    full : bool
        Print all tables of a run of more than `FEW_STAGES` stages, not their results alone.
    tasks : bool
        Print a table by task for every policy, too.
    """
    full = full or len(stages) <= FEW_STAGES
    for stage in stages:
        console.print(Text(stage.title, style="bold"))
        if stage.says:
            console.print(Text(stage.says))
        shown = [tables.results(stage)]
        if full:
            shown += _details(stage)
        if tasks:
            shown += tables.tasks(stage)
        for table in shown:
            console.print(_rich(table))
    overview = tables.overview(stages)
    if overview is not None:
        console.print(_rich(overview))
    console.print(Text(tables.errors(stages)))
    if not full:
        console.print(Text(f"Results alone of {len(stages)} stages; all tables: --full."))


def _details(stage: Stage) -> list[tables.Table]:
    """Return the tables of a stage other than its results."""
    details = [
        tables.utility(stage),
        tables.scores(stage),
        tables.exploration(stage),
        tables.adaptation(stage),
        tables.references(stage),
        tables.shares(stage),
    ]
    return [table for table in details if table is not None]


def _rich(table: tables.Table) -> Table:
    # Names come from files: as Text they are never read as markup.
    rich = Table(
        title=Text(table.title),
        title_justify="left",
        caption=Text(table.caption) if table.caption else None,
        caption_justify="left",
        show_lines=False,
    )
    for k, heading in enumerate(table.columns):
        rich.add_column(
            Text(heading), justify="left" if k < table.names else "right", overflow="fold"
        )
    for row in table.rows:
        rich.add_row(*map(Text, row))
    return rich

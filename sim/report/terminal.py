"""A run on the terminal. Nothing here computes a figure, or runs a policy."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sim.report import tables
from sim.results import Stage

FEW = 3
"""Stages of which all tables are printed without being asked for."""


def show(
    console: Console, stages: Sequence[Stage], *, full: bool = False, tasks: bool = False
) -> None:
    """Print the tables of a run, the one over all stages last, where a terminal stays.

    Parameters
    ----------
    full : whether to print all tables of more than `FEW` stages, else their results alone.
    tasks : whether to print a table by task for every policy, too.
    """
    full = full or len(stages) <= FEW
    for stage in stages:
        console.print(Text(stage.title, style="bold"))
        if stage.says:
            console.print(Text(stage.says))
        shown = [tables.results(stage)]
        if full:
            shown += _rest(stage)
        if tasks:
            shown += [one for policy in stage.contenders if (one := tables.tasks(stage, policy))]
        for table in shown:
            console.print(_rich(table))
    overview = tables.overview(stages)
    if overview is not None:
        console.print(_rich(overview))
    console.print(Text(tables.errors(stages)))
    if not full:
        console.print(Text(f"Results alone of {len(stages)} stages; all tables: --full."))


def _rest(stage: Stage) -> list[tables.Table]:
    found = [
        tables.utility(stage),
        tables.scores(stage),
        tables.exploration(stage),
        tables.adaptation(stage),
        tables.references(stage),
        tables.shares(stage),
    ]
    return [one for one in found if one is not None]


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
        table.add_column(
            Text(heading), justify="left" if k < of.names else "right", overflow="fold"
        )
    for row in of.rows:
        table.add_row(*map(Text, row))
    return table

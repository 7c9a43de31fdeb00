"""`sim scenarios`: what may happen to a world."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME|FILE|FOLDER", help="These only; files are checked."),
    ] = None,
) -> None:
    """List the shipped scenarios, or check your own."""
    from rich.table import Table

    from sim.commands.terminal import console
    from sim.worlds.scenario_files import load_scenarios, shipped

    table = Table("name", "title", "budgets", "what happens")
    for name in names or shipped():
        for scenario in load_scenarios(name):
            rates = ", ".join(f"{rate:.1e}" for rate in scenario.budget_rates_usd)
            table.add_row(scenario.name, scenario.title, rates, scenario.says)
    console().print(table)

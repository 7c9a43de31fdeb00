"""Command line of the simulator.

Wrong input ends with one line on stderr and status 2. A command must never change its input. Heavy
imports wait inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys

import typer

from sim.commands import convert, describe, drive, evaluate, replay, report, scenarios, synth
from sim.errors import InputError

app = typer.Typer(
    help="Judge routing policies on logged data, offline or against a running daemon.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name, _module in (
    ("describe", describe),
    ("convert", convert),
    ("replay", replay),
    ("evaluate", evaluate),
    ("report", report),
    ("scenarios", scenarios),
    ("drive", drive),
    ("synth", synth),
):
    app.command(_name)(_module.command)


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit with its status."""
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

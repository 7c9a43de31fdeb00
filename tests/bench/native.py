"""Load every file of a folder through its loader and print totals to check by hand.

Usage: python tests/bench/native.py DATA_DIR [--prices FILE], where DATA_DIR holds ``native/`` with
files as their makers publish them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.table import Table

from sim.commands.terminal import console
from sim.data.formats import detect, load
from sim.data.formats.source import Source
from sim.errors import InputError


def main() -> None:
    """Print a row for each file, and every note under the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prices", type=Path, default=None)
    given = parser.parse_args()
    headings = ("file", "format", "rows", "models", "sum of quality", "sum of cost")
    table = Table(*headings, "NaN quality", "NaN cost")
    notes = []
    for path in sorted((given.folder / "native").iterdir()):
        try:
            kind = detect(Source(path))
            data = load(path, prices=given.prices)
        except InputError as error:
            table.add_row(path.name, f"refused: {error}")
            continue
        costs = "-" if np.isnan(data.cost_usd).all() else f"{np.nansum(data.cost_usd):.10g}"
        table.add_row(
            path.name,
            kind,
            f"{len(data):,}",
            str(len(data.models)),
            f"{np.nansum(data.quality):.10g}",
            costs,
            f"{np.isnan(data.quality).sum():,}",
            f"{np.isnan(data.cost_usd).sum():,}",
        )
        notes += [f"{path.name}: {note}" for note in data.notes]
    shown = console()
    shown.print(table)
    for note in notes:
        shown.print(note, highlight=False)


if __name__ == "__main__":
    main()

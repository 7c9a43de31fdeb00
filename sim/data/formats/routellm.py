"""RouteLLM's csv: ``prompt``, then a column for each model that says whether it was right."""

from __future__ import annotations

from collections.abc import Set

from sim.data.dataset import Dataset
from sim.data.formats.cells import Cells
from sim.data.formats.source import Source
from sim.errors import InputError

CONTAINERS = ("csv",)
_RIGHT = {"true": 1.0, "false": 0.0}


def fits(names: Set[str]) -> bool:
    """Tell whether columns may be of this format: any csv with prompts may."""
    return "prompt" in names and len(names) > 1


def read(source: Source) -> Dataset:
    """Return the data set; its costs are estimates at the price list.

    Raises
    ------
    InputError
        Naming the file, row and column.
    """
    cells = Cells()
    for row in source.rows():
        if "prompt" not in row.values:
            raise InputError(f"{source.file}: column 'prompt' is missing")
        at = cells.prompt(row.text("prompt"))
        for model in row.values:
            # The index of whoever wrote the file with pandas.
            if model in ("prompt", "") or model.startswith("Unnamed:"):
                continue
            right = _RIGHT.get(row.text(model).strip().lower())
            cells.answer(at, model, quality=row.quality(model) if right is None else right)
    if not cells.models:
        raise InputError(f"{source.file}: no rows, or no column but 'prompt'")
    return cells.dataset(source)

"""ParetoBandit's jsonl: a prompt a line, with ``reward`` and ``cost`` per model in ``arms``."""

from __future__ import annotations

from collections.abc import Set

from sim.data.dataset import Dataset
from sim.data.formats.cells import Cells
from sim.data.formats.source import Source

CONTAINERS = ("json",)


def fits(names: Set[str]) -> bool:
    """Tell whether keys are of this format."""
    return "arms" in names


def read(source: Source) -> Dataset:
    """Return the data set.

    Raises
    ------
    InputError
        Naming the file, row and column.
    """
    cells = Cells()
    for row in source.rows():
        at = cells.prompt(row.text("prompt"), task=row.label("source"), split=row.label("split"))
        if row.missing("arms"):
            raise row.fault("arms", "missing")
        arms = row.part("arms")
        for model in arms.values:
            arm = arms.part(model)
            cells.answer(at, model, quality=arm.quality("reward"), cost=arm.cost("cost"))
    return cells.dataset(source)

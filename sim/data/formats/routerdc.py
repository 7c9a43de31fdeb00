"""RouterDC's json, which LLMRouter writes too: ``question`` and ``scores``, a score per model."""

from __future__ import annotations

from collections.abc import Set

from sim.data.dataset import Dataset
from sim.data.formats.cells import Cells
from sim.data.formats.rows import Row
from sim.data.formats.source import Source

CONTAINERS = ("json",)


def fits(names: Set[str]) -> bool:
    """Tell whether keys are of this format."""
    return names >= {"question", "scores"}


def read(source: Source) -> Dataset:
    """Return the data set; its costs are estimates at the price list.

    Raises
    ------
    InputError
        Naming the file, row and column.
    """
    cells = Cells()
    for row in source.rows():
        add_scores(cells, row)
    return cells.dataset(source)


def add_scores(cells: Cells, row: Row) -> None:
    """Add a question and the scores of its answers."""
    if row.missing("scores"):
        raise row.fault("scores", "missing")
    scores = row.part("scores")
    at = cells.prompt(row.text("question"))
    for model in scores.values:
        cells.answer(at, model, quality=scores.quality(model))

"""RouterDC's json, which LLMRouter writes too: ``question`` and ``scores``, a score per model."""

from __future__ import annotations

from collections.abc import Set

from sim.data.dataset import Dataset
from sim.data.formats.builder import DatasetBuilder
from sim.data.formats.rows import Row
from sim.data.formats.source import Source

CONTAINERS = ("json",)


def fits(names: Set[str]) -> bool:
    """See `Format.fits`."""
    return names >= {"question", "scores"}


def read(source: Source) -> Dataset:
    """See `Format.read`. Costs are estimates at the price list."""
    builder = DatasetBuilder()
    for row in source.rows():
        add_scores(builder, row)
    return builder.build(source)


def add_scores(builder: DatasetBuilder, row: Row) -> None:
    """Add the question of a row and the scores of its answers."""
    if row.missing("scores"):
        raise row.fault("scores", "missing")
    scores = row.part("scores")
    prompt = builder.add_prompt(row.text("question"))
    for model in scores.values:
        builder.add_answer(prompt, model, quality=scores.quality(model))

"""ParetoBandit's jsonl: a prompt a line, with ``reward`` and ``cost`` per model in ``arms``."""

from __future__ import annotations

from collections.abc import Set

from sim.data.dataset import Dataset
from sim.data.formats.builder import DatasetBuilder
from sim.data.formats.source import Source

CONTAINERS = ("json",)


def fits(names: Set[str]) -> bool:
    """See `Format.fits`."""
    return "arms" in names


def read(source: Source) -> Dataset:
    """See `Format.read`."""
    builder = DatasetBuilder()
    for row in source.rows():
        prompt = builder.add_prompt(
            row.text("prompt"), task=row.label("source"), split=row.label("split")
        )
        if row.missing("arms"):
            raise row.fault("arms", "missing")
        arms = row.part("arms")
        for model in arms.values:
            arm = arms.part(model)
            builder.add_answer(
                prompt, model, quality=arm.quality("reward"), cost_usd=arm.cost_usd("cost")
            )
    return builder.build(source)

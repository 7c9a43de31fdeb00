"""RouteLLM's csv: ``prompt``, then a column for each model that says whether it was right."""

from __future__ import annotations

from collections.abc import Set

from sim.data.dataset import Dataset
from sim.data.formats.builder import DatasetBuilder
from sim.data.formats.rows import require_columns
from sim.data.formats.source import Source
from sim.errors import InputError

CONTAINERS = ("csv",)
_RIGHT = {"true": 1.0, "false": 0.0}


def fits(names: Set[str]) -> bool:
    """See `Format.fits`. Any csv with prompts may be of this format."""
    return "prompt" in names and len(names) > 1


def read(source: Source) -> Dataset:
    """See `Format.read`. Costs are estimates at the price list."""
    builder = DatasetBuilder()
    for row in source.rows():
        require_columns(source.file, row.values, "prompt")
        prompt = builder.add_prompt(row.text("prompt"))
        for model in row.values:
            # pandas writes its index as a column without a name.
            if model in ("prompt", "") or model.startswith("Unnamed:"):
                continue
            right = _RIGHT.get(row.text(model).strip().lower())
            builder.add_answer(
                prompt, model, quality=row.quality(model) if right is None else right
            )
    if not builder.models:
        raise InputError(f"{source.file}: no rows, or no column but 'prompt'")
    return builder.build(source)

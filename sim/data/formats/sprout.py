"""SPROUT's parquet: token counts and a judge's score per model, without costs.

Columns are ``prompt``, ``dataset`` and others, then one for each model: a struct of ``score``,
``num_input_tokens`` and ``num_output_tokens``.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from sim.data.dataset import Dataset, check_range, checked_quality
from sim.data.formats.columns import numbers, texts
from sim.data.formats.costs import fill_costs
from sim.data.formats.rows import MAX_TOKENS
from sim.data.formats.source import Source
from sim.errors import InputError

CONTAINERS = ("parquet",)
_SCORE = "score"
_TOKENS = ("num_input_tokens", "num_output_tokens")


def fits(names: Set[str]) -> bool:
    """See `Format.fits`."""
    return any(name.endswith(f".{_SCORE}") for name in names)


def read(source: Source) -> Dataset:
    """See `Format.read`. Costs are token counts at the price list."""
    import pyarrow
    import pyarrow.compute

    table = source.table
    prompts = texts(source, "prompt", required=True)
    fields = {
        name: {field.name for field in kind}
        for name, kind in zip(table.column_names, table.schema.types, strict=True)
        if pyarrow.types.is_struct(kind)
    }
    models = [name for name, inner in fields.items() if _SCORE in inner]
    if not models:
        raise InputError(f"{source.file}: no column is a struct with a field {_SCORE!r}")
    if not prompts:
        raise InputError(f"{source.file}: no rows")
    arrays = []
    for field in (_SCORE, *_TOKENS):
        columns = []
        for name in models:
            if field not in fields[name]:
                raise InputError(f"{source.file}: column '{name}.{field}' is missing")
            part = pyarrow.compute.struct_field(table[name], field)
            columns.append(numbers(source, part, f"{name}.{field}"))
        arrays.append(np.column_stack(columns))
    quality, input_tokens, output_tokens = arrays
    for field, tokens in zip(_TOKENS, arrays[1:], strict=True):
        names = [f"{name}.{field}" for name in models]
        check_range(source.file, names, tokens, 0.0, MAX_TOKENS, "a count of tokens")
    cost_usd = np.full(quality.shape, np.nan)
    quality = checked_quality(source.file, models, quality, cost_usd)
    cost_usd, notes = fill_costs(
        source, models, prompts, quality, cost_usd, input_tokens, output_tokens
    )
    return Dataset(
        name=source.path.stem,
        prompts=tuple(prompts),
        task=tuple(texts(source, "dataset")),
        split=("",) * len(prompts),
        models=tuple(models),
        quality=quality,
        cost_usd=cost_usd,
        notes=tuple(notes),
    )

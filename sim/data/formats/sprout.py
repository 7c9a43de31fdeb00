"""SPROUT's parquet: token counts and a judge's score per model, and no costs.

Columns ``prompt``, ``dataset`` and more of that kind, then a column for each model: a struct of
``score``, ``num_input_tokens`` and ``num_output_tokens``.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from sim.data.dataset import Dataset, checked
from sim.data.formats.cells import charged
from sim.data.formats.columns import numbers, texts
from sim.data.formats.rows import MOST_TOKENS
from sim.data.formats.source import Source
from sim.errors import InputError

CONTAINERS = ("parquet",)
_SCORE = "score"
_TOKENS = ("num_input_tokens", "num_output_tokens")


def fits(names: Set[str]) -> bool:
    """Tell whether columns are of this format; a field of a struct has a dot before it."""
    return any(name.endswith(f".{_SCORE}") for name in names)


def read(source: Source) -> Dataset:
    """Return the data set; its costs are its token counts at the price list.

    Raises
    ------
    InputError
        Naming the file, and row and column where there are any.
    """
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
    quality, read_tokens, written_tokens = arrays
    for field, tokens in zip(_TOKENS, arrays[1:], strict=True):
        if ((tokens < 0.0) | (tokens > MOST_TOKENS)).any():
            row, k = np.argwhere((tokens < 0.0) | (tokens > MOST_TOKENS))[0].tolist()
            where = f"{source.file}: row {row + 1}, column '{models[k]}.{field}'"
            raise InputError(f"{where}: {tokens[row, k]:g} is not a count of tokens")
    cost = np.full(quality.shape, np.nan)
    quality = checked(source.file, models, quality, cost)
    cost, notes = charged(source, models, prompts, quality, cost, read_tokens, written_tokens)
    return Dataset(
        name=source.path.stem,
        prompts=tuple(prompts),
        task=tuple(texts(source, "dataset")),
        split=("",) * len(prompts),
        models=tuple(models),
        quality=quality,
        cost_usd=cost,
        notes=tuple(notes),
    )

"""The canonical format: the wide parquet file that `sim convert` writes.

Columns are ``prompt``, optionally ``task`` and ``split``, then ``quality:<model>`` in [0, 1] and
``cost:<model>`` in US dollars.
"""

from __future__ import annotations

import json
from collections.abc import Set

import numpy as np

from sim.data.dataset import NOTES, Dataset, checked_quality
from sim.data.formats.columns import numbers, texts
from sim.data.formats.rows import require_columns
from sim.data.formats.source import Source
from sim.errors import InputError

CONTAINERS = ("parquet",)
_QUALITY, _COST = "quality:", "cost:"


def fits(names: Set[str]) -> bool:
    """See `Format.fits`."""
    return any(name.startswith(_QUALITY) for name in names)


def read(source: Source) -> Dataset:
    """See `Format.read`. Notes in the metadata of the file become those of the dataset."""
    table = source.table
    names = table.column_names
    prompts = texts(source, "prompt", required=True)
    models = [name.removeprefix(_QUALITY) for name in names if name.startswith(_QUALITY)]
    if not models:
        raise InputError(f"{source.file}: no column 'quality:<model>'")
    if not prompts:
        raise InputError(f"{source.file}: no rows")
    require_columns(source.file, names, *(f"{_COST}{model}" for model in models))
    quality, cost_usd = (
        np.column_stack([numbers(source, table[kind + name], kind + name) for name in models])
        for kind in (_QUALITY, _COST)
    )
    return Dataset(
        name=source.path.stem,
        prompts=tuple(prompts),
        task=tuple(texts(source, "task")),
        split=tuple(texts(source, "split")),
        models=tuple(models),
        quality=checked_quality(source.file, models, quality, cost_usd),
        cost_usd=cost_usd,
        notes=_notes(table.schema.metadata or {}),
    )


def _notes(metadata: dict[bytes, bytes]) -> tuple[str, ...]:
    try:
        notes = json.loads(metadata.get(NOTES, b"[]"))
    except ValueError:
        return ()
    return tuple(str(note) for note in notes) if isinstance(notes, list) else ()

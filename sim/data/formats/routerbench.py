"""RouterBench's wide table, as csv, parquet or the published pickle.

Columns ``prompt`` (a Python list, written out), ``eval_name``, and per model ``<model>``, a score,
and ``<model>|total_cost``, US dollars. The oracle and the responses are not read.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Set

from sim.data.dataset import Dataset
from sim.data.formats.cells import Cells
from sim.data.formats.source import Source
from sim.errors import InputError

CONTAINERS = ("csv", "parquet", "pickle")
_COST = "|total_cost"


def fits(names: Set[str]) -> bool:
    """Tell whether columns are of this format."""
    return any(name.endswith(_COST) for name in names)


def read(source: Source) -> Dataset:
    """Return the data set.

    Raises
    ------
    InputError
        Naming the file, and row and column where there are any; for a pickle without
        `trust_pickle`.
    """
    models: list[str] = []
    cells = Cells()
    for row in source.rows():
        if not models:
            models = [name.removesuffix(_COST) for name in row.values if name.endswith(_COST)]
            for name in ("prompt", *models):
                if name not in row.values:
                    raise InputError(f"{source.file}: column {name!r} is missing")
            if not models:
                raise InputError(f"{source.file}: no column '<model>{_COST}'")
            order = list(row.values)
            models.sort(key=order.index)
        at = cells.prompt(unlisted(row.text("prompt")), task=row.label("eval_name"))
        for name in models:
            cells.answer(at, name, quality=row.quality(name), cost=row.cost(name + _COST))
    return cells.dataset(source)


def unlisted(text: str) -> str:
    """Return the turns of a written-out Python list, a blank line between; else the text itself.

    Examples
    --------
    >>> unlisted("['What is 2 + 2?']")
    'What is 2 + 2?'
    >>> unlisted("[1, 2] is a list")
    '[1, 2] is a list'
    """
    if not text.startswith("["):
        return text
    try:
        with warnings.catch_warnings():
            # An unknown escape inside somebody's prompt is no business of ours.
            warnings.simplefilter("ignore")
            turns = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    if isinstance(turns, list) and turns and all(isinstance(turn, str) for turn in turns):
        return "\n\n".join(turns)
    return text

"""RouterBench's wide table, as csv, parquet or the published pickle.

Columns are ``prompt`` (the text of a Python list), ``eval_name``, and per model ``<model>``, a
score, and ``<model>|total_cost``, US dollars. The oracle and the responses are not read.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Set

from sim.data.dataset import Dataset
from sim.data.formats.builder import DatasetBuilder
from sim.data.formats.rows import require_columns
from sim.data.formats.source import Source
from sim.errors import InputError

CONTAINERS = ("csv", "parquet", "pickle")
_COST = "|total_cost"


def fits(names: Set[str]) -> bool:
    """See `Format.fits`."""
    return any(name.endswith(_COST) for name in names)


def read(source: Source) -> Dataset:
    """See `Format.read`. A pickle without `Source.trust_pickle` is refused."""
    models: list[str] = []
    builder = DatasetBuilder()
    for row in source.rows():
        if not models:
            models = [name.removesuffix(_COST) for name in row.values if name.endswith(_COST)]
            require_columns(source.file, row.values, "prompt", *models)
            if not models:
                raise InputError(f"{source.file}: no column '<model>{_COST}'")
            order = list(row.values)
            models.sort(key=order.index)
        prompt = builder.add_prompt(join_turns(row.text("prompt")), task=row.label("eval_name"))
        for name in models:
            builder.add_answer(
                prompt, name, quality=row.quality(name), cost_usd=row.cost_usd(name + _COST)
            )
    return builder.build(source)


def join_turns(text: str) -> str:
    """Return the turns of a conversation as one text, with a blank line between them.

    Parameters
    ----------
    text : str
        A Python list of strings as text; any other text is returned as it is.

    Returns
    -------
    str
        The prompt.

    Examples
    --------
    >>> join_turns("['What is 2 + 2?']")
    'What is 2 + 2?'
    >>> join_turns("[1, 2] is a list")
    '[1, 2] is a list'
    """
    if not text.startswith("["):
        return text
    try:
        with warnings.catch_warnings():
            # A prompt may hold an unknown escape.
            warnings.simplefilter("ignore")
            turns = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    if isinstance(turns, list) and turns and all(isinstance(turn, str) for turn in turns):
        return "\n\n".join(turns)
    return text

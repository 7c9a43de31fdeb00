"""Read pairwise preferences: which of two models' answers to a prompt was preferred.

Nothing is guessed: a missing or impossible value is refused with the file, row and column.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("prompt", "model_a", "model_b", "winner")
WINNERS = {"a": 1.0, "b": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class Pairs:
    """n comparisons of M models on Q prompts.

    Attributes
    ----------
    prompts : tuple[str, ...]
        Q different prompts, in the order of the file.
    models : tuple[str, ...]
        M names, sorted.
    row : int[n]
        The prompt of each comparison.
    a : int[n]
        The first model.
    b : int[n]
        The second model.
    won : float64[n]
        1 where a won, 0 where b won, 0.5 for a tie.
    """

    prompts: tuple[str, ...]
    models: tuple[str, ...]
    row: NDArray[np.intp]
    a: NDArray[np.intp]
    b: NDArray[np.intp]
    won: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of comparisons."""
        return len(self.row)

    def take(self, chosen: NDArray[np.bool_]) -> Pairs:
        """Return some of the comparisons.

        Parameters
        ----------
        chosen : bool[n]
            True for those to keep.

        Returns
        -------
        Pairs
            Of the same prompts and models.
        """
        return replace(
            self, row=self.row[chosen], a=self.a[chosen], b=self.b[chosen], won=self.won[chosen]
        )

    def strength(self) -> NDArray[np.float64]:
        """Return the share of its comparisons that each model won.

        Returns
        -------
        float64[M]
            One more tie is counted, so that few comparisons are near 0.5.
        """
        size = len(self.models)
        wins = np.bincount(self.a, self.won, size) + np.bincount(self.b, 1.0 - self.won, size)
        count = np.bincount(self.a, minlength=size) + np.bincount(self.b, minlength=size)
        share: NDArray[np.float64] = (wins + 0.5) / (count + 1.0)
        return share


def read_pairs(path: Path) -> Pairs:
    """Read a parquet file with columns ``prompt, model_a, model_b, winner`` (a, b or tie).

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Pairs
        A comparison for each row.

    Raises
    ------
    ValueError
        Naming the file, and the row (from 1) and column where there is one.
    """
    import pyarrow
    from pyarrow import parquet

    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        names = parquet.read_schema(path).names
        for name in COLUMNS:
            if names.count(name) != 1:
                fault = "appears twice" if name in names else "is missing"
                raise ValueError(f"{path}: column {name!r} {fault}")
        table = parquet.read_table(path, columns=list(COLUMNS))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a parquet file ({str(error).splitlines()[0]})") from error
    if not table.num_rows:
        raise ValueError(f"{path}: no rows")
    columns = {name: table[name].to_pylist() for name in COLUMNS}
    for number, row in enumerate(zip(*columns.values(), strict=True), start=1):
        if fault := _fault(*row):
            raise ValueError(f"{path}: row {number}, column {fault}")
    first, second = columns["model_a"], columns["model_b"]
    if len(set(columns["prompt"])) < 2:
        raise ValueError(f"{path}: column 'prompt': at least 2 different prompts are needed")
    prompts = {prompt: i for i, prompt in enumerate(dict.fromkeys(columns["prompt"]))}
    models = {name: k for k, name in enumerate(sorted({*first, *second}))}
    return Pairs(
        prompts=tuple(prompts),
        models=tuple(models),
        row=np.array([prompts[prompt] for prompt in columns["prompt"]], dtype=np.intp),
        a=np.array([models[name] for name in first], dtype=np.intp),
        b=np.array([models[name] for name in second], dtype=np.intp),
        won=np.array([WINNERS[winner] for winner in columns["winner"]]),
    )


def _fault(prompt: Any, model_a: Any, model_b: Any, winner: Any) -> str:
    """Return the column of a row that is wrong and what is wrong with it, "" for nothing."""
    for name, value in zip(COLUMNS, (prompt, model_a, model_b, winner), strict=True):
        if not isinstance(value, str):
            return f"{name!r}: not a text"
        if not value and name != "prompt":
            return f"{name!r}: empty"
    if winner not in WINNERS:
        return f"'winner': {winner!r} is not {', '.join(WINNERS)}"
    return f"'model_b': {model_b!r} against itself" if model_a == model_b else ""

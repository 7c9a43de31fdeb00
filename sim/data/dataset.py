"""Routing data: prompts with the quality and cost of the models that answered them.

Every loader of `sim.data.formats` makes one frozen `Dataset`, and every command works on it. This
module says which values are possible and which rows can be replayed. A missing value is NaN, never
0. An impossible value is refused with the file, row and column.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.errors import InputError

Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Some metrics fall a little below 0 or above 1; further out the column holds something else.
QUALITY_SLACK = 0.1
# No request costs a million dollars: a larger value is in another unit.
MAX_COST_USD = 1e6
NOTES = b"banditroute:notes"
"""Key of the notes in the metadata of a canonical parquet."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """n prompts answered by K models.

    Attributes
    ----------
    name : str
        Where the data came from, for messages and reports.
    prompts : tuple[str, ...]
        n prompts; "" where they were not stored.
    task : tuple[str, ...]
        n tasks; "" for none.
    split : tuple[str, ...]
        n names of splits; "" for none.
    models : tuple[str, ...]
        K names, in the order of the file; none where there are prompts without outcomes.
    quality : float64[n, K]
        In [0, 1]; NaN where the answer was not judged.
    cost_usd : float64[n, K]
        US dollars per request; NaN where the cost is unknown.
    notes : tuple[str, ...]
        What a user must know of how the data came about, a sentence each.
    """

    name: str
    prompts: tuple[str, ...]
    task: tuple[str, ...]
    split: tuple[str, ...]
    models: tuple[str, ...]
    quality: Float64
    cost_usd: Float64
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.prompts)

    def digest(self) -> str:
        """Return a SHA-256 of everything but name and notes: equal digests, equal data."""
        sha = hashlib.sha256()
        sha.update(json.dumps([self.models, self.prompts, self.task, self.split]).encode())
        sha.update(np.ascontiguousarray(self.quality).tobytes())
        sha.update(np.ascontiguousarray(self.cost_usd).tobytes())
        return sha.hexdigest()

    def take(self, rows: NDArray[np.intp]) -> Dataset:
        """Return some rows.

        Parameters
        ----------
        rows : int[m]
            Positions, in the order of the result.

        Returns
        -------
        Dataset
            Of m prompts and the same models.
        """
        indices = rows.tolist()
        return replace(
            self,
            prompts=tuple(self.prompts[i] for i in indices),
            task=tuple(self.task[i] for i in indices),
            split=tuple(self.split[i] for i in indices),
            quality=self.quality[rows],
            cost_usd=self.cost_usd[rows],
        )

    def restrict(self, *, models: Sequence[str] = (), without: Sequence[str] = ()) -> Dataset:
        """Return the same rows with some of the models.

        Parameters
        ----------
        models : sequence of str
            Names to keep; empty keeps all.
        without : sequence of str
            Names to drop.

        Returns
        -------
        Dataset
            Models are in the same order.

        Raises
        ------
        InputError
            For a name that the data does not have, or when no model is left.
        """
        if not models and not without:
            return self
        for option, names in (("--models", models), ("--without", without)):
            for name in names:
                if name not in self.models:
                    raise InputError(
                        f"{option}: {self.name} has no model {name!r}; "
                        f"it has {', '.join(self.models)}"
                    )
        kept = [
            k
            for k, name in enumerate(self.models)
            if (not models or name in models) and name not in without
        ]
        if not kept:
            raise InputError(f"--without: no model of {self.name} is left")
        return replace(
            self,
            models=tuple(self.models[k] for k in kept),
            quality=self.quality[:, kept],
            cost_usd=self.cost_usd[:, kept],
        )

    def complete(self) -> Dataset:
        """Return the rows on which every model has both quality and cost.

        A policy and the mixes that it is compared with must be able to choose every model on every
        row, or the comparison favours those that avoid the gaps.

        Returns
        -------
        Dataset
            This one, where every row is complete.

        Raises
        ------
        InputError
            When no row is complete, with what is missing.
        """
        if not self.models:
            raise InputError(
                f"{self.name} holds prompts without outcomes: nothing to replay; "
                "`sim describe` shows them"
            )
        unjudged, unpriced = np.isnan(self.quality), np.isnan(self.cost_usd)
        rows = np.flatnonzero(~(unjudged | unpriced).any(axis=1))
        if len(rows) == 0:
            raise InputError(f"{self.name}: {self._why_incomplete(unjudged, unpriced)}")
        return self if len(rows) == len(self) else self.take(rows)

    def _why_incomplete(self, unjudged: Bools, unpriced: Bools) -> str:
        """Return why no row is complete."""
        if unjudged.all():
            return "no answer is judged: nothing to replay without quality"
        if unjudged.any(axis=1).all():
            rarest = self.models[int(unjudged.sum(axis=0).argmax())]
            return (
                "no row has the quality of every model: a partial log, where some models answered "
                f"each prompt; most often {rarest!r} is missing. `sim evaluate --learning` replays "
                "a log with propensities"
            )
        if unpriced.all():
            return "no answer has a cost; --prices FILE gives them one"
        rarest = self.models[int((unjudged | unpriced).sum(axis=0).argmax())]
        return f"no row has quality and cost of every model; most often {rarest!r} is missing"


def save(dataset: Dataset, path: Path) -> None:
    """Write the canonical wide parquet; its metadata holds the notes.

    Parameters
    ----------
    dataset : Dataset
        Data with at least one model.
    path : Path
        The file.

    Raises
    ------
    InputError
        Naming what cannot be written: prompts without outcomes, half a surrogate pair, or the file.
    """
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, Any] = {
        "prompt_id": [f"{dataset.name}-{i:06d}" for i in range(len(dataset))],
        "prompt": list(dataset.prompts),
        "task": list(dataset.task),
        "split": list(dataset.split),
    }
    for k, model in enumerate(dataset.models):
        columns[f"quality:{model}"] = dataset.quality[:, k]
        columns[f"cost:{model}"] = dataset.cost_usd[:, k]
    if not dataset.models:
        raise InputError(f"{dataset.name} holds prompts without outcomes: nothing to write")
    for row, prompt in enumerate(dataset.prompts, start=1):
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            half = f"{dataset.name}: row {row}, column 'prompt': half a surrogate pair"
            raise InputError(half) from error
    metadata = {NOTES: json.dumps(dataset.notes).encode()}
    try:
        table = pyarrow.table(columns).replace_schema_metadata(metadata)
        pyarrow.parquet.write_table(table, path)
    except (pyarrow.ArrowException, UnicodeEncodeError) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def checked_quality(
    file: str, models: Sequence[str], quality: Float64, cost_usd: Float64
) -> Float64:
    """Refuse impossible outcomes, and return the quality clipped to [0, 1].

    Parameters
    ----------
    file : str
        For messages; row i of the arrays is row i + 1 of the file.
    models : sequence of str
        K names.
    quality : float64[n, K]
        NaN where it is missing.
    cost_usd : float64[n, K]
        US dollars per request; NaN where it is missing.

    Returns
    -------
    float64[n, K]
        The quality.

    Raises
    ------
    InputError
        For a quality far out of [0, 1] and an impossible cost, naming row and column.
    """
    slack, columns = QUALITY_SLACK, [f"quality:{name}" for name in models]
    check_range(file, columns, quality, -slack, 1.0 + slack, "in [0, 1]")
    columns = [f"cost:{name}" for name in models]
    check_range(file, columns, cost_usd, 0.0, MAX_COST_USD, "a cost in US dollars")
    return np.clip(quality, 0.0, 1.0)


def check_range(
    file: str, columns: Sequence[str], values: Float64, low: float, high: float, expected: str
) -> None:
    """Check that no value of a table is outside a range; NaN is inside.

    Parameters
    ----------
    file : str
        Named in the error.
    columns : sequence of str
        K names.
    values : float64[n, K]
        The table.
    low, high : float
        The range, with its ends.
    expected : str
        What a value is that is inside.

    Raises
    ------
    InputError
        Naming the row and the column of the first value outside.
    """
    wrong = (values < low) | (values > high)
    if wrong.any():
        row, k = (int(i) for i in np.argwhere(wrong)[0])
        where = f"{file}: row {row + 1}, column '{columns[k]}'"
        raise InputError(f"{where}: {values[row, k]:g} is not {expected}")

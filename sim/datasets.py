"""Full-information routing data: every prompt with the quality and cost of every model.

Two formats come in, the canonical wide parquet and ParetoBandit's jsonl, and one frozen `Dataset`
goes out. A loader must never guess: what is missing stays NaN, what is impossible is refused with
the file, row and column, and nothing is ever fetched or written here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.errors import InputError

if TYPE_CHECKING:
    import pyarrow

Float64 = NDArray[np.float64]

# Some metrics dip a little below 0 or above 1; further out the column holds something else.
QUALITY_SLACK = 0.1


@dataclass(frozen=True, slots=True)
class Dataset:
    """n prompts answered by K models.

    Attributes
    ----------
    name : where it came from, for messages and reports.
    prompts, task, split : n strings each; task and split may be empty strings.
    models : K names, in the order of the file.
    quality : float64[n, K] in [0, 1]; NaN where the model was not judged on the prompt.
    cost : float64[n, K], US dollars per request; NaN where it is not known.
    """

    name: str
    prompts: tuple[str, ...]
    task: tuple[str, ...]
    split: tuple[str, ...]
    models: tuple[str, ...]
    quality: Float64
    cost: Float64

    def __len__(self) -> int:
        return len(self.prompts)

    def digest(self) -> str:
        """Return a SHA-256 of everything but the name: equal digests, equal data."""
        sha = hashlib.sha256()
        sha.update(json.dumps([self.models, self.prompts, self.task, self.split]).encode())
        sha.update(np.ascontiguousarray(self.quality).tobytes())
        sha.update(np.ascontiguousarray(self.cost).tobytes())
        return sha.hexdigest()

    def take(self, rows: NDArray[np.intp]) -> Dataset:
        """Return the given rows, in the given order."""
        at = rows.tolist()
        return replace(
            self,
            prompts=tuple(self.prompts[i] for i in at),
            task=tuple(self.task[i] for i in at),
            split=tuple(self.split[i] for i in at),
            quality=self.quality[rows],
            cost=self.cost[rows],
        )

    def restrict(self, *, models: Sequence[str] = (), without: Sequence[str] = ()) -> Dataset:
        """Return the same rows with some models only.

        Parameters
        ----------
        models : names to keep; empty keeps all.
        without : names to drop.

        Raises
        ------
        InputError
            For a name that the data does not have, or when no model is left.
        """
        for option, names in (("--models", models), ("--without", without)):
            for name in names:
                if name not in self.models:
                    known = ", ".join(self.models)
                    raise InputError(f"{option}: {self.name} has no model {name!r}; it has {known}")
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
            cost=self.cost[:, kept],
        )

    def complete(self) -> Dataset:
        """Return the rows on which every model has both quality and cost.

        A policy and the mixes that it is compared with must be able to play every model on every
        row, or the comparison favours whoever avoids the gaps.

        Raises
        ------
        InputError
            When no row is complete.
        """
        gaps = np.isnan(self.quality) | np.isnan(self.cost)
        rows = np.flatnonzero(~gaps.any(axis=1))
        if len(rows) == 0:
            worst = self.models[int(gaps.sum(axis=0).argmax())]
            raise InputError(f"{self.name}: no row has every model; most often {worst!r} lacks")
        return self if len(rows) == len(self) else self.take(rows)


def load(path: Path) -> Dataset:
    """Read a dataset; the format follows from the name of the file.

    Parameters
    ----------
    path : a ``.parquet`` in the canonical wide form (``prompt``, optional ``task`` and ``split``,
        then ``quality:<model>`` and ``cost:<model>``), or a ParetoBandit ``.jsonl``.

    Raises
    ------
    InputError
        Naming the file, and the row (from 1) and column where there is one.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".parquet":
        return _load_parquet(path)
    if path.suffix == ".jsonl":
        return _load_jsonl(path)
    raise InputError(f"{path}: unknown format {path.suffix!r}; valid: .parquet, .jsonl")


def save(dataset: Dataset, path: Path) -> None:
    """Write the canonical wide parquet."""
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
        columns[f"cost:{model}"] = dataset.cost[:, k]
    try:
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def _load_parquet(path: Path) -> Dataset:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a parquet file ({str(error).splitlines()[0]})") from error
    names = table.column_names
    models = [name.removeprefix("quality:") for name in names if name.startswith("quality:")]
    if "prompt" not in names:
        raise InputError(f"{path}: column 'prompt' is missing")
    if not models:
        raise InputError(f"{path}: no column 'quality:<model>'")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: column {name!r} appears twice")
    for model in models:
        if f"cost:{model}" not in names:
            raise InputError(f"{path}: column 'cost:{model}' is missing")
    quality = np.column_stack([_numbers(path, table, f"quality:{model}") for model in models])
    cost = np.column_stack([_numbers(path, table, f"cost:{model}") for model in models])
    return _checked(
        path,
        prompts=_texts(path, table, "prompt"),
        task=_texts(path, table, "task"),
        split=_texts(path, table, "split"),
        models=models,
        quality=quality,
        cost=cost,
    )


def _numbers(path: Path, table: pyarrow.Table, name: str) -> Float64:
    import pyarrow

    try:
        column = table[name].cast(pyarrow.float64())
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: column {name!r} is not numeric") from error
    values: Float64 = column.to_numpy()
    return values


def _texts(path: Path, table: pyarrow.Table, name: str) -> list[str]:
    if name not in table.column_names:
        return [""] * table.num_rows
    values = table[name].to_pylist()
    for row, value in enumerate(values, start=1):
        if name == "prompt" and not isinstance(value, str):
            raise InputError(f"{path}: row {row}, column 'prompt': not a text")
    return ["" if value is None else str(value) for value in values]


def _load_jsonl(path: Path) -> Dataset:
    rows: list[dict[str, Any]] = []
    # Not splitlines(): U+2028 and its kin may stand inside a string.
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            rows.append(_json_row(path, number, line))
    models = list(dict.fromkeys(model for row in rows for model in row["arms"]))
    position = {model: k for k, model in enumerate(models)}
    quality = np.full((len(rows), len(models)), np.nan)
    cost = np.full((len(rows), len(models)), np.nan)
    for i, row in enumerate(rows):
        for model, (reward, dollars) in row["arms"].items():
            quality[i, position[model]] = reward
            cost[i, position[model]] = dollars
    return _checked(
        path,
        prompts=[row["prompt"] for row in rows],
        task=[row["source"] for row in rows],
        split=[row["split"] for row in rows],
        models=models,
        quality=quality,
        cost=cost,
    )


def _json_row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    where = f"{path}: row {number}"
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: not an object")
    for field, kind in (("prompt", str), ("arms", dict)):
        if not isinstance(row.get(field), kind):
            raise InputError(f"{where}, column {field!r}: missing or of the wrong type")
    arms = {}
    for model, arm in row["arms"].items():
        if not isinstance(arm, dict):
            raise InputError(f"{where}, column 'arms.{model}': not an object")
        pair = []
        for field in ("reward", "cost"):
            value = arm.get(field, math.nan)
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                raise InputError(f"{where}, column 'arms.{model}.{field}': not a number")
            pair.append(math.nan if value is None else float(value))
        arms[model] = pair
    texts = {field: str(row.get(field) or "") for field in ("source", "split")}
    return {"prompt": row["prompt"], "arms": arms} | texts


def _checked(
    path: Path,
    *,
    prompts: Sequence[str],
    task: Sequence[str],
    split: Sequence[str],
    models: Sequence[str],
    quality: Float64,
    cost: Float64,
) -> Dataset:
    if not prompts:
        raise InputError(f"{path}: no rows")
    low, high = -QUALITY_SLACK, 1.0 + QUALITY_SLACK
    _refuse(path, models, "quality", quality, (quality < low) | (quality > high), "not in [0, 1]")
    _refuse(path, models, "cost", cost, (cost < 0.0) | np.isinf(cost), "not a cost in US dollars")
    return Dataset(
        name=path.stem,
        prompts=tuple(prompts),
        task=tuple(task),
        split=tuple(split),
        models=tuple(models),
        quality=np.clip(quality, 0.0, 1.0),
        cost=cost,
    )


def _refuse(
    path: Path,
    models: Sequence[str],
    field: str,
    values: Float64,
    bad: NDArray[np.bool_],
    reason: str,
) -> None:
    if bad.any():
        row, k = (int(i) for i in np.argwhere(bad)[0])
        at = f"{path}: row {row + 1}, column '{field}:{models[k]}'"
        raise InputError(f"{at}: {values[row, k]:g} is {reason}")

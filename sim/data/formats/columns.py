"""Columns of a parquet file as arrays and texts; another type is refused with row and column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.data.dataset import Float64
from sim.data.formats.source import Source
from sim.errors import InputError

if TYPE_CHECKING:
    import pyarrow


def numbers(source: Source, column: pyarrow.ChunkedArray, name: str) -> Float64:
    """Return float64[n], NaN where there is a null.

    Parameters
    ----------
    source : Source
        The file, for messages.
    column : pyarrow.ChunkedArray
        Of `source.table`, or a field of such a column.
    name : str
        The column, for messages.

    Returns
    -------
    float64[n]
        A copy.

    Raises
    ------
    InputError
        Naming the row of the first text that is not a number; only the column for other types.
    """
    import pyarrow

    try:
        values = column.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)
    except pyarrow.ArrowException as error:
        raise InputError(f"{source.file}: {_first_fault(column, name)} is not numeric") from error
    return np.array(values, dtype=np.float64)


def _first_fault(column: pyarrow.ChunkedArray, name: str) -> str:
    import pyarrow

    if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
        for row, value in enumerate(column.to_pylist(), start=1):
            try:
                float(value or "nan")
            except ValueError:
                return f"row {row}, column {name!r}: {value[:40]!r}"
    return f"column {name!r}"


def texts(source: Source, name: str, *, required: bool = False) -> list[str]:
    """Return the texts of a column, "" where there is a null or no such column.

    Parameters
    ----------
    source : Source
        The file.
    name : str
        The column.
    required : bool
        True if the column must be there and hold only texts.

    Returns
    -------
    list of str
        n texts.

    Raises
    ------
    InputError
        For a column that is required: where it is missing, and for the first row without a text.
    """
    table = source.table
    if name not in table.column_names:
        if required:
            raise InputError(f"{source.file}: column {name!r} is missing")
        return [""] * table.num_rows
    try:
        values = table[name].to_pylist()
    except ValueError as error:
        raise InputError(f"{source.file}: column {name!r}: not UTF-8 text") from error
    for row, value in enumerate(values, start=1):
        if required and not isinstance(value, str):
            raise InputError(f"{source.file}: row {row}, column {name!r}: not a text")
    return ["" if value is None else str(value) for value in values]

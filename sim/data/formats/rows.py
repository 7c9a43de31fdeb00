"""Rows of a text or JSON file. A row knows its position, for errors.

Every loader reads values through `Row`, so that the same fault has the same message everywhere. A
missing value is NaN or "", never 0.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from sim.data.dataset import MAX_COST_USD, QUALITY_SLACK
from sim.errors import InputError

# Far above any context, and small enough for exact floats.
MAX_TOKENS = 1e9
_LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file.

    Attributes
    ----------
    file : str
        The file, for messages.
    number : int
        From 1; for lines of text, the number of the line.
    values : mapping of str to object
        By column.
    inside : str
        Of a part of a row: the columns around it, each followed by a dot.
    typed : bool
        True where values have types; False where a text may be a number, as in CSV.
    """

    file: str
    number: int
    values: Mapping[str, Any]
    inside: str = ""
    typed: bool = True

    def fault(self, column: str, reason: str) -> InputError:
        """Return an error that names file, row and column."""
        where = f"{self.file}: row {self.number}, column {self.inside + column!r}"
        return InputError(f"{where}: {reason}")

    def missing(self, column: str) -> bool:
        """Tell whether there is no value: no such column, a null, NaN, or an empty text."""
        value = self.values.get(column)
        return value is None or value == "" or (isinstance(value, float) and math.isnan(value))

    def text(self, column: str) -> str:
        """Return a text that must be there; it may be empty."""
        value = self.values.get(column)
        if not isinstance(value, str):
            raise self.fault(column, "missing" if value is None else "not a text")
        return value

    def name(self, column: str) -> str:
        """Return a text that must be there and may not be empty."""
        text = self.text(column)
        if not text:
            raise self.fault(column, "empty")
        return text

    def label(self, column: str) -> str:
        """Return a text, or a number as text; "" where there is no value."""
        value = self.values.get(column)
        if self.missing(column):
            return ""
        if not isinstance(value, str | int | float):
            raise self.fault(column, "not a text")
        return str(value)

    def finite(self, column: str) -> float:
        """Return a finite number; NaN where there is no value."""
        value = self.values.get(column)
        if self.missing(column):
            return math.nan
        if isinstance(value, bool) or not isinstance(value, Real if self.typed else Real | str):
            raise self.fault(column, "not a number")
        try:
            number = float(value)
        except (ValueError, OverflowError) as error:
            raise self.fault(column, f"{str(value)[:40]!r} is not a number") from error
        if math.isinf(number):
            raise self.fault(column, f"{number:g} is not a finite number")
        return number

    def _within(self, column: str, low: float, high: float, expected: str) -> float:
        value = self.finite(column)
        if not (math.isnan(value) or low <= value <= high):
            raise self.fault(column, f"{value:g} is not {expected}")
        return value

    def quality(self, column: str) -> float:
        """Return a quality, clipped to [0, 1]; NaN where there is no value."""
        value = self._within(column, -QUALITY_SLACK, 1.0 + QUALITY_SLACK, "in [0, 1]")
        return value if math.isnan(value) else min(max(value, 0.0), 1.0)

    def cost_usd(self, column: str) -> float:
        """Return a cost in US dollars; NaN where there is no value."""
        return self._within(column, 0.0, MAX_COST_USD, "a cost in US dollars")

    def tokens(self, column: str) -> float:
        """Return a count of tokens; NaN where there is no value."""
        return self._within(column, 0.0, MAX_TOKENS, "a count of tokens")

    def part(self, column: str) -> Row:
        """Return the object in a column as a row of its own; a null is an empty object."""
        value = self.values.get(column)
        if value is not None and not isinstance(value, Mapping):
            raise self.fault(column, "not an object")
        return replace(self, values=value or {}, inside=f"{self.inside}{column}.")

    def items(self, column: str) -> list[Any]:
        """Return the list in a column, which must be there."""
        value = self.values.get(column)
        if not isinstance(value, list):
            raise self.fault(column, "missing" if value is None else "not a list")
        return value


def columns_once(file: str, names: Sequence[str]) -> None:
    """Refuse two columns of the same name."""
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{file}: column {name!r} appears twice")


def require_columns(file: str, names: Container[str], *expected: str) -> None:
    """Raise InputError, naming the column, for an expected column that is not there."""
    for name in expected:
        if name not in names:
            raise InputError(f"{file}: column {name!r} is missing")


def line_rows(file: str, text: str) -> Iterator[Row]:
    """Yield a row for each line that is not blank; each must be a JSON object."""
    # Not splitlines(): a string may hold U+2028 and other separators.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _object(file, number, _parsed(file, number, line, 0, whole=True)[0])


def array_rows(file: str, text: str) -> Iterator[Row]:
    """Yield a row for each object of a JSON array.

    The array is decoded one object at a time, so that an error names its row.
    """
    position, number = _after_space(text, text.index("[") + 1), 0
    more = text[position : position + 1] != "]"
    while more:
        number += 1
        value, position = _parsed(file, number, text, position, whole=False)
        yield _object(file, number, value)
        position = _after_space(text, position)
        more = text[position : position + 1] == ","
        if more:
            position = _after_space(text, position + 1)
    if text[position : position + 1] != "]" or text[position + 1 :].strip():
        raise InputError(f"{file}: row {number}: the array does not end after it")


def _after_space(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\r", "\n"):
        position += 1
    return position


def _parsed(file: str, number: int, text: str, position: int, *, whole: bool) -> tuple[Any, int]:
    """Return the JSON value at a position of a text, and the position after it."""
    where = f"{file}: row {number}"

    def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values:
                raise InputError(f"{where}, column {key!r}: appears twice")
            values[key] = value
        return values

    decoder = json.JSONDecoder(object_pairs_hook=unique)
    try:
        if whole:
            return decoder.decode(text), len(text)
        return decoder.raw_decode(text, position)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON") from error


def _object(file: str, number: int, value: object) -> Row:
    if not isinstance(value, dict):
        raise InputError(f"{file}: row {number}: not an object")
    return Row(file, number, value)


def csv_rows(file: str, text: str) -> Iterator[Row]:
    """Yield a row for each record of a CSV text after the header."""
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number, names = -1, list[str]()
    try:
        for record in reader:
            if not record:
                continue
            number += 1
            if number == 0:
                names = record
                columns_once(file, names)
                continue
            if len(record) != len(names):
                fields = f"{len(record)} fields where the header has {len(names)}"
                raise InputError(f"{file}: row {number}: {fields}")
            yield Row(file, number, dict(zip(names, record, strict=True)), typed=False)
    except csv.Error as error:
        raise InputError(f"{file}: row {number + 1}: not CSV ({error})") from error

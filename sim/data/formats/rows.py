"""Rows of a file, each of which knows where it stands and says so when a value is not right.

Every way to read a row goes through `Row`, so that every loader complains in the same words about
the same things. A value that is missing is NaN or "" if the loader allows for that, never 0.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from sim.data.dataset import MOST_COST, QUALITY_SLACK
from sim.errors import InputError

# Far over any context, and far under what no float can hold.
MOST_TOKENS = 1e9
_LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file.

    Attributes
    ----------
    file : as messages name it.
    number : from 1; of a text by lines, that of the line.
    values : by column.
    inside : of a part of a row, the columns around it, each with a dot.
    typed : whether values have types; where they have not, a text is read as a number.
    """

    file: str
    number: int
    values: Mapping[str, Any]
    inside: str = ""
    typed: bool = True

    def fault(self, column: str, reason: str) -> InputError:
        """Return the error that names file, row and column."""
        where = f"{self.file}: row {self.number}, column {self.inside + column!r}"
        return InputError(f"{where}: {reason}")

    def missing(self, column: str) -> bool:
        """Tell whether there is no value: no such column, a null, NaN, or an empty text."""
        value = self.values.get(column)
        return value is None or value == "" or (isinstance(value, float) and math.isnan(value))

    def text(self, column: str) -> str:
        """Return a text that must be there, though it may be empty."""
        value = self.values.get(column)
        if not isinstance(value, str):
            raise self.fault(column, "missing" if value is None else "not a text")
        return value

    def name(self, column: str) -> str:
        """Return a text that must be there and not be empty."""
        text = self.text(column)
        if not text:
            raise self.fault(column, "empty")
        return text

    def label(self, column: str) -> str:
        """Return a text or a number as a text, "" where there is none."""
        value = self.values.get(column)
        if self.missing(column):
            return ""
        if not isinstance(value, str | int | float):
            raise self.fault(column, "not a text")
        return str(value)

    def number_at(self, column: str) -> float:
        """Return a finite number, NaN where there is none."""
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

    def quality(self, column: str) -> float:
        """Return a quality, clipped to [0, 1]; NaN where there is none."""
        value = self.number_at(column)
        if not (math.isnan(value) or -QUALITY_SLACK <= value <= 1.0 + QUALITY_SLACK):
            raise self.fault(column, f"{value:g} is not in [0, 1]")
        return value if math.isnan(value) else min(max(value, 0.0), 1.0)

    def cost(self, column: str) -> float:
        """Return a cost in US dollars; NaN where there is none."""
        value = self.number_at(column)
        if not (math.isnan(value) or 0.0 <= value <= MOST_COST):
            raise self.fault(column, f"{value:g} is not a cost in US dollars")
        return value

    def tokens(self, column: str) -> float:
        """Return a count of tokens; NaN where there is none."""
        value = self.number_at(column)
        if not (math.isnan(value) or 0.0 <= value <= MOST_TOKENS):
            raise self.fault(column, f"{value:g} is not a count of tokens")
        return value

    def part(self, column: str) -> Row:
        """Return the object in a column as a row of its own; an empty one where there is a null."""
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
    """Refuse columns of which two have the same name."""
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{file}: column {name!r} appears twice")


def line_rows(file: str, text: str) -> Iterator[Row]:
    """Yield a row for each line that is not blank; each must be a JSON object."""
    # Not splitlines(): U+2028 and its kin may stand inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _object(file, number, _parsed(file, number, line, 0, whole=True)[0])


def array_rows(file: str, text: str) -> Iterator[Row]:
    """Yield a row for each object of a JSON array."""
    at, number = _skip(text, text.index("[") + 1), 0
    more = text[at : at + 1] != "]"
    while more:
        number += 1
        value, at = _parsed(file, number, text, at, whole=False)
        yield _object(file, number, value)
        at = _skip(text, at)
        more = text[at : at + 1] == ","
        if more:
            at = _skip(text, at + 1)
    if text[at : at + 1] != "]" or text[at + 1 :].strip():
        raise InputError(f"{file}: row {number}: the array does not end after it")


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at


def _parsed(file: str, number: int, text: str, at: int, *, whole: bool) -> tuple[Any, int]:
    where = f"{file}: row {number}"

    def once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if key in made:
                raise InputError(f"{where}, column {key!r}: appears twice")
            made[key] = value
        return made

    decoder = json.JSONDecoder(object_pairs_hook=once)
    try:
        if whole:
            return decoder.decode(text), len(text)
        return decoder.raw_decode(text, at)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON") from error


def _object(file: str, number: int, value: object) -> Row:
    if not isinstance(value, dict):
        raise InputError(f"{file}: row {number}: not an object")
    return Row(file, number, value)


def csv_rows(file: str, text: str) -> Iterator[Row]:
    """Yield a row for each record of a CSV text; the header is not one of them."""
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

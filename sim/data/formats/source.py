"""A file on its way into a data set: what it is made of, and its rows or columns.

The container (parquet, pickle, JSON, CSV) is read off the content here; what the columns mean is
the business of the format that they belong to. Nothing is ever fetched, and a pickle, which runs
code, is only opened for who asked for it by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.data.formats.rows import Row, array_rows, columns_once, csv_rows, line_rows
from sim.errors import InputError

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Source:
    """A file, and what was said about how to read it.

    Attributes
    ----------
    path : the file.
    prices : a price list, for answers whose cost the file does not hold.
    trust_pickle : whether a pickle may be opened.
    estimates : whether prices are applied to answers whose tokens nobody counted.
    """

    path: Path
    prices: Path | None = None
    trust_pickle: bool = False
    estimates: bool = True

    @property
    def file(self) -> str:
        """The file as messages name it."""
        return str(self.path)

    @cached_property
    def content(self) -> bytes:
        """All bytes of the file."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise InputError(f"{self.file}: {error.strerror or 'cannot be read'}") from error

    @cached_property
    def container(self) -> str:
        """One of parquet, pickle, json, csv; by content first, since names are given by hand."""
        suffix, start = self.path.suffix.lower(), self.content[:4096].lstrip()
        if start.startswith(b"PAR1") or suffix == ".parquet":
            return "parquet"
        # The first two bytes of protocol 2 and above; the older ones have no mark.
        if suffix in (".pkl", ".pickle") or (
            self.content[:1] == b"\x80" and self.content[1:2] <= b"\x05"
        ):
            return "pickle"
        plain = start.removeprefix(b"\xef\xbb\xbf").lstrip()
        if suffix != ".csv" and (plain[:1] in (b"[", b"{") or suffix in (".json", ".jsonl")):
            return "json"
        return "csv"

    @cached_property
    def text(self) -> str:
        """The content as text, without a byte order mark."""
        try:
            return self.content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = self.content.count(b"\n", 0, error.start) + 1
            raise InputError(f"{self.file}: line {line}: not UTF-8 text") from error

    def rows(self) -> Iterator[Row]:
        """Yield the rows of JSON (an array, or an object on each line), CSV or a pickled table."""
        if self.container == "pickle":
            yield from self._pickled()
        elif self.container == "parquet":
            yield from self._parquet_rows()
        elif self.container == "csv":
            yield from csv_rows(self.file, self.text)
        elif self.text.lstrip().startswith("["):
            yield from array_rows(self.file, self.text)
        else:
            yield from line_rows(self.file, self.text)

    @cached_property
    def table(self) -> pyarrow.Table:
        """The table of a parquet file."""
        import pyarrow
        import pyarrow.parquet

        try:
            file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(self.content))
            columns_once(self.file, file.schema_arrow.names)
            return file.read()
        except InputError:
            raise
        # A name that is not UTF-8 is a ValueError.
        except (pyarrow.ArrowException, ValueError, OSError) as error:
            reason = (str(error) or "empty").splitlines()[0]
            raise InputError(f"{self.file}: not a parquet file ({reason})") from error

    def _parquet_rows(self) -> Iterator[Row]:
        import pyarrow

        number = 0
        for batch in self.table.to_batches(max_chunksize=256):
            try:
                records = batch.to_pylist()
            except (pyarrow.ArrowException, ValueError, OverflowError) as error:
                reason = f"row {number + 1} or soon after it: not to be read"
                raise InputError(f"{self.file}: {reason} ({str(error)[:80]!r})") from error
            for values in records:
                number += 1
                yield Row(self.file, number, values, typed=False)

    def _pickled(self) -> Iterator[Row]:
        if not self.trust_pickle:
            raise InputError(
                f"{self.file}: opening a pickle runs whatever code is in it; "
                "--trust-pickle opens it, for a file whose origin you trust"
            )
        try:
            import pandas
        except ImportError as error:
            raise InputError(
                f"{self.file}: a pickle needs pandas: pip install 'banditroute[pickle]'"
            ) from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                frame: Any = pandas.read_pickle(self.path)
        # A pickle may raise anything at all.
        except Exception as error:
            raise InputError(f"{self.file}: not a pickle that opens ({error!r})") from error
        if not isinstance(frame, pandas.DataFrame):
            raise InputError(f"{self.file}: not a table but a {type(frame).__name__}")
        names = [str(name) for name in frame.columns]
        columns_once(self.file, names)
        for number, values in enumerate(frame.itertuples(index=False, name=None), start=1):
            yield Row(self.file, number, dict(zip(names, values, strict=True)), typed=False)

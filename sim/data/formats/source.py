"""A file to load a dataset from: its container, and its rows or columns.

The content says here whether a file is parquet, pickle, JSON or CSV; what the columns mean is known
to the format alone. Nothing may be fetched from a network. A pickle runs code: it is opened only if
the user trusts it.
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
    """A file, and how to read it.

    Attributes
    ----------
    path : Path
        The file.
    prices : Path, optional
        A price list, for answers whose cost the file does not hold.
    trust_pickle : bool
        True if a pickle may be opened.
    estimate_costs : bool
        True if answers whose tokens were not counted get an estimated cost.
    """

    path: Path
    prices: Path | None = None
    trust_pickle: bool = False
    estimate_costs: bool = True

    @property
    def file(self) -> str:
        """Return the file, for messages."""
        return str(self.path)

    @cached_property
    def content(self) -> bytes:
        """Return all bytes of the file."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise InputError(f"{self.file}: {error.strerror or 'cannot be read'}") from error

    @cached_property
    def container(self) -> str:
        """Return "parquet", "pickle", "json" or "csv".

        The content decides before the suffix, since names are given by hand.
        """
        suffix, start = self.path.suffix.lower(), self.content[:4096].lstrip()
        if start.startswith(b"PAR1") or suffix == ".parquet":
            return "parquet"
        # The first two bytes of protocol 2 and above; older protocols have no mark.
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
        """Return the content as text, without a byte order mark."""
        try:
            return self.content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = self.content.count(b"\n", 0, error.start) + 1
            raise InputError(f"{self.file}: line {line}: not UTF-8 text") from error

    def rows(self) -> Iterator[Row]:
        """Yield the rows of any container; JSON is an array, or an object on each line."""
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
        """Return the table of a parquet file."""
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
                f"{self.file}: opening a pickle runs the code in it; "
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
        # A pickle may raise any error.
        except Exception as error:
            raise InputError(f"{self.file}: not a pickle that opens ({error!r})") from error
        if not isinstance(frame, pandas.DataFrame):
            raise InputError(f"{self.file}: not a table but a {type(frame).__name__}")
        names = [str(name) for name in frame.columns]
        columns_once(self.file, names)
        for number, values in enumerate(frame.itertuples(index=False, name=None), start=1):
            yield Row(self.file, number, dict(zip(names, values, strict=True)), typed=False)

"""From files to data sets: one small module for each format that routing data comes in.

A format is told by the content of the file, since names are given by hand. A loader must never
guess at a value: what is missing stays NaN, what is impossible is refused with the file, row and
column.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sim.data.dataset import Dataset
from sim.data.formats import (
    canonical,
    litellm,
    llmrouter,
    paretobandit,
    routellm,
    routerarena,
    routerbench,
    routerdc,
    sprout,
)
from sim.data.formats.source import Source
from sim.errors import InputError

if TYPE_CHECKING:
    import pyarrow


class Format(Protocol):
    """What a module of a format has: its containers, a look at the columns, and a reader."""

    @property
    def CONTAINERS(self) -> tuple[str, ...]: ...

    def fits(self, names: Set[str]) -> bool: ...

    def read(self, source: Source) -> Dataset: ...


# RouteLLM's comes last: it has hardly a mark of its own.
FORMATS: dict[str, Format] = {
    "canonical": canonical,
    "routerbench": routerbench,
    "sprout": sprout,
    "paretobandit": paretobandit,
    "llmrouter": llmrouter,
    "routerarena": routerarena,
    "routerdc": routerdc,
    "litellm": litellm,
    "routellm": routellm,
}


def load(
    path_or_url: str | Path,
    *,
    format: str | None = None,
    prices: Path | None = None,
    trust_pickle: bool = False,
    pool: str | None = None,
    estimates: bool = True,
) -> Dataset:
    """Read a data set.

    Parameters
    ----------
    path_or_url : a file in one of `FORMATS`, or the URL of a daemon's database.
    format : one of `FORMATS`; None tells it by the content.
    prices : for answers whose cost the file does not hold, see `sim.data.prices.table`.
    trust_pickle : open a pickle, which runs the code in it.
    pool : of a daemon's log, which pool; None where it has only one.
    estimates : take 512 output tokens for an answer that nobody counted; False leaves its cost NaN.

    Raises
    ------
    InputError
        Naming the file, and the row (from 1) and column where there are any.
    """
    if "://" in str(path_or_url):
        from sim.data.formats import daemon

        if format is not None:
            raise InputError("--format: of a file; a database has only one")
        return daemon.read(str(path_or_url), pool)
    if format is not None and format not in FORMATS:
        raise InputError(f"--format: unknown format {format!r}; valid: {', '.join(FORMATS)}")
    if pool is not None:
        raise InputError("--pool: of the URL of a daemon's database; this is a file")
    source = Source(Path(path_or_url), prices, trust_pickle, estimates)
    if not source.path.is_file():
        raise InputError(f"{source.file}: no such file")
    return _of(source, format or detect(source), forced=format is not None)


def detect(source: Source) -> str:
    """Return the name of a file's format.

    Raises
    ------
    InputError
        For a file that cannot be read as far as its first row, or is in none of the formats.
    """
    names = _names(source)
    for name, module in FORMATS.items():
        if source.container in module.CONTAINERS and (names is None or module.fits(names)):
            return name
    found = ", ".join(sorted(names or ())[:8]) or "none"
    raise InputError(
        f"{source.file}: unknown format: {source.container} with the columns {found}; "
        f"--format forces one of {', '.join(FORMATS)}"
    )


def _names(source: Source) -> set[str] | None:
    """Return columns, or keys of the first row; None for a pickle, which is not opened to look."""
    if source.container == "pickle":
        return None
    if source.container == "parquet":
        schema = source.table.schema
        inner = {f"{one.name}.{field.name}" for one in schema for field in _fields(one.type)}
        return {*schema.names, *inner}
    for row in source.rows():
        return set(row.values)
    raise InputError(f"{source.file}: no rows")


def _fields(kind: pyarrow.DataType) -> list[pyarrow.Field]:
    import pyarrow

    return list(kind) if pyarrow.types.is_struct(kind) else []


def _of(source: Source, name: str, *, forced: bool) -> Dataset:
    module = FORMATS[name]
    if source.container not in module.CONTAINERS:
        expected = " or ".join(module.CONTAINERS)
        told = f"{source.file} is {source.container}, not {expected}"
        raise InputError(f"--format {name}: {told}" if forced else told)
    return module.read(source)

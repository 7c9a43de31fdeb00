"""From files to datasets: one small module for each format that routing data comes in.

The content of a file says which format it is, since names are given by hand. A loader must never
guess a value: what is missing stays NaN, what is impossible is refused with file, row and column.
To add a format, write its module and name it in `FORMATS`.
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
    """What the module of a format has."""

    @property
    def CONTAINERS(self) -> tuple[str, ...]:
        """Containers that the format comes in, see `Source.container`."""

    def fits(self, names: Set[str]) -> bool:
        """Tell whether columns are of the format.

        Parameters
        ----------
        names : set of str
            Columns of a table, or keys of the first row; ``column.field`` for a field of a struct.

        Returns
        -------
        bool
            True if they are.
        """

    def read(self, source: Source) -> Dataset:
        """Read a file of the format.

        Parameters
        ----------
        source : Source
            The file, in one of `CONTAINERS`.

        Returns
        -------
        Dataset
            At least one prompt.

        Raises
        ------
        InputError
            Naming the file, and row and column where there are any.
        """


# RouteLLM's comes last: any CSV with prompts fits it.
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
    estimate_costs: bool = True,
) -> Dataset:
    """Read a dataset.

    Parameters
    ----------
    path_or_url : str or Path
        A file in one of `FORMATS`, or the URL of a daemon's database.
    format : str, optional
        One of `FORMATS`; without it the content decides.
    prices : Path, optional
        A price list for answers whose cost the file does not hold, see
        `sim.data.prices.read_price_list`.
    trust_pickle : bool
        True opens a pickle, which runs the code in it.
    pool : str, optional
        Pool of a daemon's log; not needed where the log has only one.
    estimate_costs : bool
        For an answer whose tokens were not counted, True estimates 512 output tokens, False leaves
        the cost NaN.

    Returns
    -------
    Dataset
        At least one prompt.

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
    source = Source(Path(path_or_url), prices, trust_pickle, estimate_costs)
    if not source.path.is_file():
        raise InputError(f"{source.file}: no such file")
    return _read(source, format or detect(source), forced=format is not None)


def detect(source: Source) -> str:
    """Return the name of a file's format.

    Parameters
    ----------
    source : Source
        The file.

    Returns
    -------
    str
        One of `FORMATS`.

    Raises
    ------
    InputError
        For a file that cannot be read as far as its first row, or is in none of the formats.
    """
    names = _names(source)
    for name, module in FORMATS.items():
        if source.container in module.CONTAINERS and (names is None or module.fits(names)):
            return name
    columns = ", ".join(sorted(names or ())[:8]) or "none"
    raise InputError(
        f"{source.file}: unknown format: {source.container} with the columns {columns}; "
        f"--format forces one of {', '.join(FORMATS)}"
    )


def _names(source: Source) -> set[str] | None:
    """Return columns, or keys of the first row; None for a pickle, which is not opened to look."""
    if source.container == "pickle":
        return None
    if source.container == "parquet":
        schema = source.table.schema
        inner = (f"{column.name}.{field}" for column in schema for field in _fields(column.type))
        return {*schema.names, *inner}
    for row in source.rows():
        return set(row.values)
    raise InputError(f"{source.file}: no rows")


def _fields(kind: pyarrow.DataType) -> list[str]:
    import pyarrow

    return [field.name for field in kind] if pyarrow.types.is_struct(kind) else []


def _read(source: Source, name: str, *, forced: bool) -> Dataset:
    module = FORMATS[name]
    if source.container not in module.CONTAINERS:
        expected = " or ".join(module.CONTAINERS)
        fault = f"{source.file} is {source.container}, not {expected}"
        raise InputError(f"--format {name}: {fault}" if forced else fault)
    return module.read(source)

"""A run as one HTML page that opens from disk and loads nothing.

Jinja2 escapes all text of the run file. The same file gives the same page. Tables can be read and
selected without scripts: the script only copies them to the clipboard. Needs matplotlib and Jinja2,
the extra `report`.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from sim.report import tables
from sim.report.figures import Picture, frontiers, pictures
from sim.results import RunFile, Stage, by_scenario

NAME_WIDTH = 40
"""Characters of a name that a wide window has room for."""


@dataclass(frozen=True, slots=True)
class TableBlock:
    """A table with the id of its element; `name_width` is in characters."""

    id: str
    table: tables.Table
    name_width: int


@dataclass(frozen=True, slots=True)
class FigureBlock:
    """A figure; `source` is a data URL."""

    title: str
    alt: str
    source: str


@dataclass(frozen=True, slots=True)
class ContentsLine:
    """One line of the table of contents.

    Attributes
    ----------
    scenario : str
        Name of the scenario, "" for a stage that stands alone.
    says : str
        What happens in the scenario, in one sentence; may be "".
    links : list of (str, str)
        Id and text of each stage.
    """

    scenario: str
    says: str
    links: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class StageSection:
    """One stage on the page, in the order in which its parts are shown."""

    id: str
    title: str
    says: str
    results: list[TableBlock]
    figures: list[FigureBlock]
    details: list[TableBlock]
    tasks: list[TableBlock]


def page(run: RunFile) -> str:
    """Return the HTML of a run."""
    environment = Environment(
        loader=PackageLoader("sim", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    overview = tables.overview(run.stages)
    return environment.get_template("page.html").render(
        title=run.title,
        command=shlex.join(run.command),
        facts=_facts(run),
        errors=tables.errors(run.stages),
        contents=_contents(run.stages),
        overview=None if overview is None else _table("table-overview", overview),
        frontiers=[_figure(picture) for picture in frontiers(run.stages)],
        stages=[_section(k, stage) for k, stage in enumerate(run.stages, start=1)],
    )


def _facts(run: RunFile) -> list[tuple[str, str]]:
    """Return (name, value) of the data, the settings and the versions of a run."""
    facts = [(f"data: {name}", _text(value)) for name, value in run.data.items()]
    facts += [(name, _text(value)) for name, value in run.settings.items() if value is not None]
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    return [*facts, ("versions", versions)]


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _contents(stages: Sequence[Stage]) -> list[ContentsLine]:
    """Return a line for each scenario; none for a page of one stage."""
    if len(stages) < 2:
        return []
    lines, k = [], 0
    for group in by_scenario(stages):
        first, alone = group[0], len(group) == 1
        links = [
            (f"stage-{i}", stage.title if alone else tables.budget(stage))
            for i, stage in enumerate(group, start=k + 1)
        ]
        k += len(group)
        lines.append(ContentsLine("" if alone else first.scenario, first.says, links))
    return lines


def _section(k: int, stage: Stage) -> StageSection:
    """Return the section of the k-th stage, with a table by task for each policy."""
    results = [tables.results(stage), tables.adaptation(stage)]
    details = [
        tables.utility(stage),
        tables.scores(stage),
        tables.exploration(stage),
        tables.references(stage),
        tables.models(stage),
        tables.shares(stage),
    ]
    blocks = [
        None if table is None else _table(f"table-{k}-{i}", table)
        for i, table in enumerate([*results, *details])
    ]
    return StageSection(
        id=f"stage-{k}",
        title=stage.title,
        says=stage.says,
        results=[block for block in blocks[: len(results)] if block],
        figures=[_figure(picture) for picture in pictures(stage)],
        details=[block for block in blocks[len(results) :] if block],
        tasks=[_table(f"table-{k}-task-{i}", table) for i, table in enumerate(tables.tasks(stage))],
    )


def _table(id: str, table: tables.Table) -> TableBlock:
    longest = max(len(row[0]) for row in [table.columns, *table.rows])
    return TableBlock(id, table, min(longest, NAME_WIDTH))


def _figure(picture: Picture) -> FigureBlock:
    svg = base64.b64encode(picture.save("svg")).decode("ascii")
    return FigureBlock(picture.title, picture.alt, f"data:image/svg+xml;base64,{svg}")

"""A run as one page that opens from disk: nothing in it is loaded from anywhere else.

All text of the run's file is escaped. The same file gives the same page. Tables can be read and
selected without scripts, which only put them on the clipboard.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from sim.report import tables
from sim.report.figures import Picture, frontiers, pictures
from sim.results import RunFile, Stage, by_scenario

NAME = 40
"""Characters of a name that a wide window has room for."""


def page(run: RunFile) -> str:
    """Return the HTML of a run."""
    template = Template(files("sim.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(run.title),
        command=escape(shlex.join(run.command)),
        facts="\n".join(
            f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(run)
        ),
        errors=escape(tables.errors(run.stages)),
        contents=_contents(run.stages),
        overview=_overview(run.stages),
        stages="\n".join(_stage(k, stage) for k, stage in enumerate(run.stages, start=1)),
    )


def _facts(run: RunFile) -> list[tuple[str, str]]:
    """Return what stands at the head of a page, by name."""
    said = [(f"data: {name}", _text(value)) for name, value in run.data.items()]
    said += [(name, _text(value)) for name, value in run.settings.items() if value is not None]
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    return [*said, ("versions", versions)]


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _contents(stages: Sequence[Stage]) -> str:
    """Return links to all stages, those of one scenario in a line."""
    if len(stages) < 2:
        return ""
    lines, k = [], 0
    for group in by_scenario(stages):
        first, alone = group[0], len(group) == 1
        links = []
        for stage in group:
            k += 1
            text = stage.title if alone else tables.budget(stage)
            links.append(f'<a href="#stage-{k}">{escape(text)}</a>')
        found = ", ".join(links)
        if not alone:
            found = f"{escape(first.scenario)}, at $ per 1k: {found}"
        says = f' <span class="says">{escape(first.says)}</span>' if first.says else ""
        lines.append(f"<li>{found}{says}</li>")
    return '<nav aria-label="Stages"><ul>\n' + "\n".join(lines) + "\n</ul></nav>"


def _overview(stages: Sequence[Stage]) -> str:
    table = tables.overview(stages)
    if table is None:
        return ""
    parts = ['<section id="overview">', "<h2>Overview</h2>", _table("table-overview", table)]
    return "\n".join([*parts, *map(_figure, frontiers(stages)), "</section>"])


def _stage(k: int, stage: Stage) -> str:
    parts = [f'<section id="stage-{k}">', f"<h2>{escape(stage.title)}</h2>"]
    if stage.says:
        parts.append(f'<p class="says">{escape(stage.says)}</p>')
    first = [tables.results(stage), tables.adaptation(stage)]
    rest = [tables.utility(stage), tables.scores(stage), tables.exploration(stage)]
    rest += [tables.references(stage), tables.models(stage), tables.shares(stage)]
    shown = [_table(f"table-{k}-{i}", one) for i, one in enumerate([*first, *rest]) if one]
    drawn = [_figure(one) for one in pictures(stage)]
    cut = sum(one is not None for one in first)
    parts += [*shown[:cut], *drawn, *shown[cut:]]
    by_task = [tables.tasks(stage, one) for one in stage.contenders]
    found = [one for one in by_task if one is not None]
    if found:
        ids = [f"table-{k}-task-{i}" for i in range(len(found))]
        inside = "\n".join(_table(name, one) for name, one in zip(ids, found, strict=True))
        parts.append(f"<details><summary>By task</summary>\n{inside}\n</details>")
    return "\n".join([*parts, "</section>"])


def _figure(picture: Picture) -> str:
    source = base64.b64encode(picture.save("svg")).decode("ascii")
    return (
        f'<div class="block"><h3>{escape(picture.title)}</h3>\n'
        f'<figure tabindex="0"><img alt="{escape(picture.alt)}" '
        f'src="data:image/svg+xml;base64,{source}"></figure></div>'
    )


def _table(name: str, table: tables.Table) -> str:
    cut = table.names
    named, numbers = table.columns[:cut], table.columns[cut:]
    heads = _cells('th scope="col" class="name"', named) + _cells('th scope="col"', numbers)
    rows = [
        "<tr>"
        + _cells('th scope="row" class="name"', row[:cut])
        + _cells("td", row[cut:])
        + "</tr>"
        for row in table.rows
    ]
    longest = max(len(row[0]) for row in [table.columns, *table.rows])
    caption = f'<p class="caption">{escape(table.caption)}</p>' if table.caption else ""
    kind = ' class="wide"' if cut > 1 else ""
    return (
        f'<div class="block"><div class="head"><h3 id="{name}-title">{escape(table.title)}</h3>'
        f'<button type="button" data-copies="{name}" hidden>copy as TSV</button></div>\n'
        f'<div class="table" tabindex="0"><table{kind} id="{name}" aria-labelledby="{name}-title" '
        f'style="--name: {min(longest, NAME)}ch">'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table>"
        f"</div>{caption}</div>"
    )


def _cells(tag: str, texts: Sequence[str]) -> str:
    end = tag.partition(" ")[0]
    return "".join(f"<{tag}>{escape(text)}</{end}>" for text in texts)

"""LLMRouter's jsonl and json: ``query`` and what became of it.

There are four kinds: routing data, an answer of one model a row (``model_name``, ``performance``,
token counts); score lists, a prompt a row (``llm_name_list``, ``perf_list``); what it makes of
those for RouterDC, which is that router's own format; and query data, which holds prompts and no
outcomes.
"""

from __future__ import annotations

from collections.abc import Set

from sim.data.dataset import Dataset
from sim.data.formats.cells import Cells
from sim.data.formats.routerdc import add_scores
from sim.data.formats.rows import Row
from sim.data.formats.source import Source

CONTAINERS = ("json",)
_KINDS = ("model_name", "llm_name_list", "scores")


def fits(names: Set[str]) -> bool:
    """Tell whether keys are of this format."""
    return "query" in names


def read(source: Source) -> Dataset:
    """Return the data set; of query data one without models.

    Raises
    ------
    InputError
        Naming the file, row and column.
    """
    cells = Cells()
    kind = ""
    for row in source.rows():
        if not kind:
            kind = next((one for one in _KINDS if one in row.values), "query")
        if kind == "model_name":
            _routed(cells, row)
        elif kind == "scores":
            add_scores(cells, row)
        elif kind == "llm_name_list":
            _scored(cells, row)
        else:
            for column in _KINDS:
                if column in row.values:
                    raise row.fault(column, "an outcome, where the rows before have none")
            cells.prompt(row.text("query"), task=row.label("task_name"))
    return cells.dataset(source)


def _routed(cells: Cells, row: Row) -> None:
    query, task, model = row.text("query"), row.label("task_name"), row.name("model_name")
    if "performance" not in row.values:
        raise row.fault("performance", "missing")
    at = cells.place((task, query), model, query, task=task)
    cells.answer(
        at,
        model,
        quality=row.quality("performance"),
        cost=row.cost("cost"),
        input_tokens=row.tokens("input_tokens"),
        output_tokens=row.tokens("output_tokens"),
    )


def _scored(cells: Cells, row: Row) -> None:
    names, scores = row.items("llm_name_list"), row.items("perf_list")
    if len(names) != len(scores):
        raise row.fault("perf_list", f"{len(scores)} scores for {len(names)} models")
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise row.fault(f"llm_name_list.{i}", "not the name of a model")
        if name in names[:i]:
            raise row.fault(f"llm_name_list.{i}", f"{name!r} appears twice")
    at = cells.prompt(row.text("query"), task=row.label("task_name"))
    listed = Row(row.file, row.number, dict(zip(names, scores, strict=True)), "perf_list.")
    for name in names:
        cells.answer(at, name, quality=listed.quality(name))

"""LLMRouter's jsonl and json, where ``query`` is the prompt.

There are four kinds:

- routing data: a row is one model's answer (``model_name``, ``performance``, token counts);
- score lists: a row is a prompt (``llm_name_list``, ``perf_list``);
- score lists that it wrote for RouterDC, in the format of that router (``scores``);
- query data: prompts without outcomes.
"""

from __future__ import annotations

from collections.abc import Set

from sim.data.dataset import Dataset
from sim.data.formats.builder import DatasetBuilder
from sim.data.formats.routerdc import add_scores
from sim.data.formats.rows import Row
from sim.data.formats.source import Source

CONTAINERS = ("json",)
_KINDS = ("model_name", "llm_name_list", "scores")


def fits(names: Set[str]) -> bool:
    """See `Format.fits`."""
    return "query" in names


def read(source: Source) -> Dataset:
    """See `Format.read`. The dataset of query data has no models."""
    builder = DatasetBuilder()
    kind = ""
    for row in source.rows():
        if not kind:
            kind = next((column for column in _KINDS if column in row.values), "query")
        if kind == "model_name":
            _add_routed(builder, row)
        elif kind == "scores":
            add_scores(builder, row)
        elif kind == "llm_name_list":
            _add_scored(builder, row)
        else:
            for column in _KINDS:
                if column in row.values:
                    raise row.fault(column, "an outcome, where the rows before have none")
            builder.add_prompt(row.text("query"), task=row.label("task_name"))
    return builder.build(source)


def _add_routed(builder: DatasetBuilder, row: Row) -> None:
    query, task, model = row.text("query"), row.label("task_name"), row.name("model_name")
    if "performance" not in row.values:
        raise row.fault("performance", "missing")
    prompt = builder.row_for((task, query), model, query, task=task)
    builder.add_answer(
        prompt,
        model,
        quality=row.quality("performance"),
        cost_usd=row.cost_usd("cost"),
        input_tokens=row.tokens("input_tokens"),
        output_tokens=row.tokens("output_tokens"),
    )


def _add_scored(builder: DatasetBuilder, row: Row) -> None:
    names, scores = row.items("llm_name_list"), row.items("perf_list")
    if len(names) != len(scores):
        raise row.fault("perf_list", f"{len(scores)} scores for {len(names)} models")
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise row.fault(f"llm_name_list.{i}", "not the name of a model")
        if name in names[:i]:
            raise row.fault(f"llm_name_list.{i}", f"{name!r} appears twice")
    prompt = builder.add_prompt(row.text("query"), task=row.label("task_name"))
    by_model = Row(row.file, row.number, dict(zip(names, scores, strict=True)), "perf_list.")
    for name in names:
        builder.add_answer(prompt, name, quality=by_model.quality(name))

"""RouterArena's cached results: each row is one model's answer with its score and token counts."""

from __future__ import annotations

from collections.abc import Set

from sim.data.dataset import Dataset
from sim.data.formats.builder import NO_PROPENSITIES, DatasetBuilder
from sim.data.formats.source import Source
from sim.errors import InputError

CONTAINERS = ("json",)


def fits(names: Set[str]) -> bool:
    """See `Format.fits`."""
    return "llm_selected" in names


def read(source: Source) -> Dataset:
    """See `Format.read`. Calls that failed are left out, and a note says how many."""
    builder = DatasetBuilder()
    failed = 0
    for row in source.rows():
        success = row.values.get("success", True)
        if not isinstance(success, bool):
            raise row.fault("success", "neither true nor false")
        if not success:
            failed += 1
            continue
        question, model = row.text("question"), row.name("llm_selected")
        index = row.name("global_index")
        evaluation, usage = row.part("evaluation_result"), row.part("token_usage")
        task = index.rpartition("_")[0]
        prompt = builder.row_for((index, question), model, question, task=task)
        builder.add_answer(
            prompt,
            model,
            quality=evaluation.quality("score"),
            cost_usd=evaluation.cost_usd("inference_cost"),
            input_tokens=usage.tokens("input_tokens"),
            output_tokens=usage.tokens("output_tokens"),
        )
    if failed and not builder.prompts:
        raise InputError(f"{source.file}: every one of its {failed} calls failed")
    left_out = [f"{failed} failed calls left out"] if failed else []
    return builder.build(source, notes=[*left_out, f"one model per row; {NO_PROPENSITIES}"])

"""RouterArena's cached results: one model's answer a row, judged and with its tokens counted."""

from __future__ import annotations

from collections.abc import Set

from sim.data.dataset import Dataset
from sim.data.formats.cells import PARTIAL, Cells
from sim.data.formats.source import Source
from sim.errors import InputError

CONTAINERS = ("json",)


def fits(names: Set[str]) -> bool:
    """Tell whether keys are of this format."""
    return "llm_selected" in names


def read(source: Source) -> Dataset:
    """Return the data set; calls that failed are left out, and a note says how many.

    Raises
    ------
    InputError
        Naming the file, row and column; when every call failed.
    """
    cells = Cells()
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
        judged, usage = row.part("evaluation_result"), row.part("token_usage")
        at = cells.place((index, question), model, question, task=index.rpartition("_")[0])
        cells.answer(
            at,
            model,
            quality=judged.quality("score"),
            cost=judged.cost("inference_cost"),
            input_tokens=usage.tokens("input_tokens"),
            output_tokens=usage.tokens("output_tokens"),
        )
    if failed and not cells.prompts:
        raise InputError(f"{source.file}: every one of its {failed} calls failed")
    dropped = [f"{failed} failed calls left out"] if failed else []
    return cells.dataset(source, notes=[*dropped, f"one model a row; {PARTIAL}"])

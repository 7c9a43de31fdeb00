"""Answers, collected one by one from the rows of a file, and made into a data set.

Costs are decided here and nowhere else: what the file says, else tokens that were counted at the
prices given, else an estimate from the length of the prompt, which a note then says. Without a
price a cost is NaN, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from banditroute.core.pool import PRIOR_OUTPUT_TOKENS
from sim.data.dataset import Dataset, Float64
from sim.data.formats.source import Source
from sim.data.prices import input_tokens, table
from sim.errors import InputError

PARTIAL = "no propensities are in it: for a warm start and the direct method only"


class Cells:
    """Prompts and the answers to them, in the order in which they come."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.task: list[str] = []
        self.split: list[str] = []
        self.models: dict[str, int] = {}
        self._answers: list[tuple[int, int, float, float, float, float]] = []
        self._rows: dict[Hashable, list[int]] = {}
        self._taken: set[tuple[int, int]] = set()

    def prompt(self, text: str, *, task: str = "", split: str = "") -> int:
        """Add a prompt and return its row, from 0."""
        self.prompts.append(text)
        self.task.append(task)
        self.split.append(split)
        return len(self.prompts) - 1

    def place(self, key: Hashable, model: str, text: str, *, task: str = "") -> int:
        """Return the first row of a prompt that lacks an answer of the model, adding one if needed.

        Parameters
        ----------
        key : what tells prompts apart; a prompt that a model answered twice has two rows.
        """
        k = self.models.setdefault(model, len(self.models))
        rows = self._rows.setdefault(key, [])
        for row in rows:
            if (row, k) not in self._taken:
                break
        else:
            row = self.prompt(text, task=task)
            rows.append(row)
        self._taken.add((row, k))
        return row

    def answer(
        self,
        row: int,
        model: str,
        *,
        quality: float = math.nan,
        cost: float = math.nan,
        input_tokens: float = math.nan,
        output_tokens: float = math.nan,
    ) -> None:
        """Add a model's answer to the prompt of a row; NaN is what is not known of it."""
        k = self.models.setdefault(model, len(self.models))
        self._answers.append((row, k, quality, cost, input_tokens, output_tokens))

    def dataset(self, source: Source, *, notes: Sequence[str] = ()) -> Dataset:
        """Return everything as a data set.

        Raises
        ------
        InputError
            When there are no rows, or the price list cannot be read.
        """
        if not self.prompts:
            raise InputError(f"{source.file}: no rows")
        shape = len(self.prompts), len(self.models)
        quality, cost, read, written = (np.full(shape, np.nan) for _ in range(4))
        if self._answers:
            answers = np.array(self._answers)
            at = answers[:, 0].astype(np.intp), answers[:, 1].astype(np.intp)
            for values, column in zip((quality, cost, read, written), answers.T[2:], strict=True):
                values[at] = column
        models = tuple(self.models)
        cost, told = charged(source, models, self.prompts, quality, cost, read, written)
        return Dataset(
            name=source.path.stem,
            prompts=tuple(self.prompts),
            task=tuple(self.task),
            split=tuple(self.split),
            models=models,
            quality=quality,
            cost_usd=cost,
            notes=(*notes, *told),
        )


def charged(
    source: Source,
    models: Sequence[str],
    prompts: Sequence[str],
    quality: Float64,
    cost: Float64,
    read: Float64,
    written: Float64,
) -> tuple[Float64, list[str]]:
    """Return cost[n, K] filled in from the price list, and notes on how.

    Parameters
    ----------
    models, prompts : K names and n texts.
    quality, cost, read, written : float64[n, K], what the file says of each answer, NaN where it
        does not; the last two are input and output tokens. A cell that is NaN in all but `read`
        is no answer.

    Raises
    ------
    InputError
        When the price list cannot be read.
    """
    lacking = np.isnan(cost) & ~(np.isnan(quality) & np.isnan(written))
    if not lacking.any():
        return cost, []
    if source.prices is None:
        answers = int((lacking | ~np.isnan(cost)).sum())
        return cost, [
            f"{int(lacking.sum())} of {answers} answers have no cost: --prices gives them one"
        ]
    listed = table(source.prices)
    notes = [
        f"{source.prices} has no price for {name!r}: its costs are missing"
        for name, some in zip(models, lacking.T, strict=True)
        if some.any() and name not in listed
    ]
    priced = np.array([name in listed for name in models])
    prices = np.array(
        [
            (listed[name].input_price, listed[name].output_price) if name in listed else (0.0, 0.0)
            for name in models
        ]
    )
    counted = ~(np.isnan(read) | np.isnan(written))
    for kind, read_tokens, written_tokens, says in (
        (counted, read, written, "are token counts at"),
        (
            ~counted,
            input_tokens(prompts)[:, None],
            np.float64(PRIOR_OUTPUT_TOKENS),
            f"are estimates, bytes / 4 input and {PRIOR_OUTPUT_TOKENS} output tokens at",
        ),
    ):
        now = lacking & kind & priced
        if now.any() and kind is not counted and not source.estimates:
            notes.append(f"the costs of {int(now.sum())} answers are missing: no tokens counted")
        elif now.any():
            dollars = (read_tokens * prices[:, 0] + written_tokens * prices[:, 1]) / 1e6
            cost = np.where(now, dollars, cost)
            notes.append(f"the costs of {int(now.sum())} answers {says} {source.prices}'s prices")
    return cost, notes

"""Build a dataset from the rows of a file, answer by answer."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from sim.data.dataset import Dataset
from sim.data.formats.costs import fill_costs
from sim.data.formats.source import Source
from sim.errors import InputError

NO_PROPENSITIES = "no propensities: only for a warm start and the direct method"


class DatasetBuilder:
    """Collects prompts and answers in the order of the file, and makes a dataset of them.

    Attributes
    ----------
    prompts : list of str
        The prompt of each row.
    models : dict of str to int
        The column of each model that has an answer.
    """

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self._task: list[str] = []
        self._split: list[str] = []
        self.models: dict[str, int] = {}
        self._answers: list[tuple[int, int, float, float, float, float]] = []
        self._rows_of_key: dict[Hashable, list[int]] = {}
        self._taken: set[tuple[int, int]] = set()

    def add_prompt(self, text: str, *, task: str = "", split: str = "") -> int:
        """Add a prompt and return its row, from 0.

        Parameters
        ----------
        text : str
            The prompt.
        task : str
            Its task.
        split : str
            Its split.

        Returns
        -------
        int
            The row.
        """
        self.prompts.append(text)
        self._task.append(task)
        self._split.append(split)
        return len(self.prompts) - 1

    def row_for(self, key: Hashable, model: str, text: str, *, task: str = "") -> int:
        """Return the first row of a prompt in which the model has no answer yet.

        If the model has an answer in every row of the prompt, a row is added. So a prompt that a
        model answered twice has two rows.

        Parameters
        ----------
        key : hashable
            Identifies the prompt: equal for equal prompts.
        model : str
            Name of the model.
        text : str
            The prompt.
        task : str
            Its task.

        Returns
        -------
        int
            The row. It is reserved: the next call for the same prompt and model returns another.
        """
        k = self.models.setdefault(model, len(self.models))
        rows = self._rows_of_key.setdefault(key, [])
        for row in rows:
            if (row, k) not in self._taken:
                break
        else:
            row = self.add_prompt(text, task=task)
            rows.append(row)
        self._taken.add((row, k))
        return row

    def add_answer(
        self,
        row: int,
        model: str,
        *,
        quality: float = math.nan,
        cost_usd: float = math.nan,
        input_tokens: float = math.nan,
        output_tokens: float = math.nan,
    ) -> None:
        """Add a model's answer to the prompt of a row; NaN means that a value is unknown.

        Parameters
        ----------
        row : int
            What `add_prompt` or `row_for` returned.
        model : str
            Name of the model.
        quality : float
            Quality in [0, 1].
        cost_usd : float
            Cost in US dollars.
        input_tokens : float
            Number of input tokens.
        output_tokens : float
            Number of output tokens.
        """
        k = self.models.setdefault(model, len(self.models))
        self._answers.append((row, k, quality, cost_usd, input_tokens, output_tokens))

    def build(self, source: Source, *, notes: Sequence[str] = ()) -> Dataset:
        """Return all prompts and answers as a dataset.

        Parameters
        ----------
        source : Source
            The file that the prompts and answers came from.
        notes : sequence of str
            What a user must know about the data. Notes on costs are added after them.

        Returns
        -------
        Dataset
            Its models are in the order in which they were added.

        Raises
        ------
        InputError
            When there are no rows, or the price list cannot be read.
        """
        if not self.prompts:
            raise InputError(f"{source.file}: no rows")
        shape = len(self.prompts), len(self.models)
        quality, cost_usd, input_tokens, output_tokens = (np.full(shape, np.nan) for _ in range(4))
        if self._answers:
            answers = np.array(self._answers)
            cells = answers[:, 0].astype(np.intp), answers[:, 1].astype(np.intp)
            arrays = quality, cost_usd, input_tokens, output_tokens
            for values, column in zip(arrays, answers.T[2:], strict=True):
                values[cells] = column
        models = tuple(self.models)
        cost_usd, cost_notes = fill_costs(
            source, models, self.prompts, quality, cost_usd, input_tokens, output_tokens
        )
        return Dataset(
            name=source.path.stem,
            prompts=tuple(self.prompts),
            task=tuple(self._task),
            split=tuple(self._split),
            models=models,
            quality=quality,
            cost_usd=cost_usd,
            notes=(*notes, *cost_notes),
        )

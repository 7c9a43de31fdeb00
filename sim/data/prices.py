"""Prices of models: what a router may know of cost before it sees an answer.

Logged data holds what each answer cost, not the price list. Prices drawn here give a router a cost
prior that is right up to a factor, as if it knew prices but not output lengths. They must never
depend on more of the data than each model's mean cost. A price list can be read instead.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from banditroute.core.mistakes import mistakes
from banditroute.core.pool import PRIOR_OUTPUT_TOKENS, ModelSpec
from sim.data.dataset import Dataset, Float64
from sim.errors import InputError

PRIOR_SD = 0.5
_COLUMNS = ("model", "input_price", "output_price")
_STREAM = 2


def draw_prices(dataset: Dataset, *, seed: int) -> list[ModelSpec]:
    """Draw a price for each model: its cost prior is its mean cost times a lognormal error.

    Parameters
    ----------
    dataset : Dataset
        Data without NaN.
    seed : int
        The same seed gives the same prices.

    Returns
    -------
    list of ModelSpec
        In the order of the models.

    Notes
    -----
    Input is free and output costs ``mean cost x lognormal(0, 0.5) / 512`` per token, so that the
    prior's 512 output tokens cost the mean up to the error.
    """
    errors = np.random.default_rng([seed, _STREAM]).lognormal(0.0, PRIOR_SD, len(dataset.models))
    prior_usd = dataset.cost_usd.mean(axis=0) * errors
    per_million = prior_usd / PRIOR_OUTPUT_TOKENS * 1e6
    return [
        _spec(name, {"input_price": 0.0, "output_price": float(price)})
        for name, price in zip(dataset.models, per_million, strict=True)
    ]


def read_prices(path: Path, models: Sequence[str]) -> list[ModelSpec]:
    """Read the prices of some models.

    Parameters
    ----------
    path : Path
        See `read_price_list`; it may have other models too.
    models : sequence of str
        Models that need a price.

    Returns
    -------
    list of ModelSpec
        In the order of `models`.

    Raises
    ------
    InputError
        Naming the file, row and column, or the model that has no price.
    """
    price_list = read_price_list(path)
    for model in models:
        if model not in price_list:
            raise InputError(f"--prices: {path}: no price for model {model!r}")
    return [price_list[model] for model in models]


def read_price_list(path: Path) -> dict[str, ModelSpec]:
    """Read a price list: CSV with the columns model, input_price, output_price.

    Parameters
    ----------
    path : Path
        The file; prices are US dollars per million tokens.

    Returns
    -------
    dict of str to ModelSpec
        By model.

    Raises
    ------
    InputError
        Naming the file, row and column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--prices: {path}: cannot be read") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    specs: dict[str, ModelSpec] = {}
    try:
        for column in _COLUMNS:
            if column not in (reader.fieldnames or ()):
                raise InputError(f"--prices: {path}: column {column!r} is missing")
        for number, row in enumerate(reader, start=1):
            where = f"--prices: {path}: row {number}"
            if row["model"] in specs:
                raise InputError(f"{where}, column 'model': {row['model']!r} appears twice")
            prices = {column: _price(where, column, row[column]) for column in _COLUMNS[1:]}
            if row["model"]:
                specs[row["model"]] = _spec(row["model"], prices)
    except csv.Error as error:
        raise InputError(f"--prices: {path}: not CSV ({error})") from error
    except ValidationError as error:
        first = next(mistakes(error))
        column = "model" if first.location == ("name",) else str(first.location[0])
        raise InputError(f"{where}, column {column!r}: {first.reason}") from error
    return specs


def estimate_input_tokens(prompts: Sequence[str]) -> Float64:
    """Return an estimate of input tokens, for prompts whose tokens were not counted.

    Parameters
    ----------
    prompts : sequence of str
        n prompts.

    Returns
    -------
    float64[n]
        UTF-8 bytes / 4.
    """
    return np.array([len(prompt.encode("utf-8", "surrogatepass")) / 4.0 for prompt in prompts])


def _spec(name: str, prices: Mapping[str, float]) -> ModelSpec:
    return ModelSpec.model_validate({"name": name, **prices})


def _price(where: str, column: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0.0):
        raise InputError(f"{where}, column {column!r}: {text!r} is not a price")
    return value

"""Costs of answers whose cost the file does not hold, from a price list.

Tokens that were counted come first, then an estimate from the length of the prompt; a note says
which. Without a price a cost is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from banditroute.core.pool import PRIOR_OUTPUT_TOKENS
from sim.data.dataset import Float64
from sim.data.formats.source import Source
from sim.data.prices import estimate_input_tokens, read_price_list


def fill_costs(
    source: Source,
    models: Sequence[str],
    prompts: Sequence[str],
    quality: Float64,
    cost_usd: Float64,
    input_tokens: Float64,
    output_tokens: Float64,
) -> tuple[Float64, list[str]]:
    """Return costs with the missing ones filled in, and notes on them.

    Parameters
    ----------
    source : Source
        The file and its price list.
    models : sequence of str
        K names.
    prompts : sequence of str
        n texts.
    quality : float64[n, K]
        NaN where the file has none. A cell that is NaN in quality, cost and output tokens is not
        an answer.
    cost_usd : float64[n, K]
        US dollars, as the file says; NaN where it has none.
    input_tokens : float64[n, K]
        NaN where they were not counted.
    output_tokens : float64[n, K]
        NaN where they were not counted.

    Returns
    -------
    cost_usd : float64[n, K]
        US dollars; NaN where there is no price.
    notes : list of str
        A sentence each.

    Raises
    ------
    InputError
        When the price list cannot be read.
    """
    missing = np.isnan(cost_usd) & ~(np.isnan(quality) & np.isnan(output_tokens))
    if not missing.any():
        return cost_usd, []
    if source.prices is None:
        answers = int((missing | ~np.isnan(cost_usd)).sum())
        return cost_usd, [
            f"{int(missing.sum())} of {answers} answers have no cost: --prices gives them one"
        ]
    price_list = read_price_list(source.prices)
    notes = [
        f"{source.prices} has no price for {name!r}: its costs are missing"
        for name, of_model in zip(models, missing.T, strict=True)
        if of_model.any() and name not in price_list
    ]
    specs = [price_list.get(name) for name in models]
    priced = np.array([spec is not None for spec in specs])
    per_million_usd = np.array(
        [(spec.input_price, spec.output_price) if spec else (0.0, 0.0) for spec in specs]
    )
    counted = missing & priced & ~(np.isnan(input_tokens) | np.isnan(output_tokens))
    if counted.any():
        charge_usd = _charge_usd(input_tokens, output_tokens, per_million_usd)
        cost_usd = np.where(counted, charge_usd, cost_usd)
        count = int(counted.sum())
        notes.append(f"the costs of {count} answers are token counts at {source.prices}'s prices")
    uncounted = missing & priced & ~counted
    if uncounted.any() and not source.estimate_costs:
        count = int(uncounted.sum())
        notes.append(f"the costs of {count} answers are missing: no tokens counted")
    elif uncounted.any():
        input_estimate = estimate_input_tokens(prompts)[:, None]
        charge_usd = _charge_usd(input_estimate, np.float64(PRIOR_OUTPUT_TOKENS), per_million_usd)
        cost_usd = np.where(uncounted, charge_usd, cost_usd)
        notes.append(
            f"the costs of {int(uncounted.sum())} answers are estimates, bytes / 4 input and "
            f"{PRIOR_OUTPUT_TOKENS} output tokens at {source.prices}'s prices"
        )
    return cost_usd, notes


def _charge_usd(
    input_tokens: Float64, output_tokens: Float64 | np.float64, per_million_usd: Float64
) -> Float64:
    prices = per_million_usd.T
    cost_usd: Float64 = (input_tokens * prices[0] + output_tokens * prices[1]) / 1e6
    return cost_usd

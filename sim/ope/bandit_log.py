"""A bandit log as columns: which model was chosen, with which probability, and what came of it.

A reader of logs must leave out, and count, the decisions that say nothing about a policy: pinned,
overridden or cancelled ones. Nothing here knows where a log comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.base import Float32, Float64


@dataclass(frozen=True, slots=True)
class BanditLog:
    """n decisions over K models, in the order in which they were made.

    Attributes
    ----------
    name : str
        For messages.
    models : tuple of str
        K names.
    features : float32[n, d]
        The contexts; the last column is the intercept.
    chosen : int[n]
        Column of the chosen model.
    propensity : float64[n]
        The probability with which it was chosen; NaN where it was not logged.
    action_dist : float64[n, K] or None
        The whole pmf of the choice; None if only the propensity was logged.
    quality : float64[n]
        In [0, 1]; NaN where it was not observed.
    cost_usd : float64[n]
        NaN where it was not observed.
    preference : float64[n, 3]
        Weights of quality, cost and latency; their sum is 1.
    tau_cost_usd : float64[n]
        The cost that counts as 1 in the utility.
    session : int[n]
        The session of each row, numbered from 0 without gaps.
    left_out : mapping of str to int
        How many decisions were left out, by reason.
    notes : sequence of str
        What a reader of the results should know about the log.
    """

    name: str
    models: tuple[str, ...]
    features: Float32
    chosen: NDArray[np.intp]
    propensity: Float64
    action_dist: Float64 | None
    quality: Float64
    cost_usd: Float64
    preference: Float64
    tau_cost_usd: Float64
    session: NDArray[np.intp]
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        """Return the number of decisions."""
        return len(self.chosen)

    def rows(self, selected: slice | NDArray[np.intp]) -> BanditLog:
        """Return some of the decisions; their sessions are numbered again."""
        columns: dict[str, Any] = {
            column.name: getattr(self, column.name)[selected]
            for column in fields(self)
            if isinstance(getattr(self, column.name), np.ndarray)
        }
        columns["session"] = np.unique(columns["session"], return_inverse=True)[1]
        return replace(self, **columns)

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures of this log: names that `measure` takes."""
        return ("quality",) if np.isnan(self.cost_usd).all() else ("quality", "cost", "utility")

    def measure(self, name: str) -> Float64:
        """Return an outcome by its name, float64[n], NaN where it was not observed.

        Parameters
        ----------
        name : str
            ``quality``; ``cost`` in US dollars; or ``utility``, which is
            w_quality quality - w_cost min(cost / tau_cost, 1). Latency is not part of the utility:
            it says nothing about the worth of an answer.
        """
        if name == "quality":
            return self.quality
        if name == "cost":
            return self.cost_usd
        w_quality, w_cost = self.preference[:, 0], self.preference[:, 1]
        scaled_cost = np.minimum(self.cost_usd / self.tau_cost_usd, 1.0)
        # Where cost does not matter it need not be observed.
        penalty = np.where(w_cost > 0.0, w_cost * scaled_cost, 0.0)
        utility: Float64 = w_quality * self.quality - penalty
        return utility


def number_sessions(names: Sequence[object]) -> NDArray[np.intp]:
    """Return the number of each row's session, from 0; a row without a name is a session alone."""
    keys = [f"row {i}" if name is None else f"session {name}" for i, name in enumerate(names)]
    numbers: NDArray[np.intp] = np.unique(keys, return_inverse=True)[1].astype(np.intp)
    return numbers

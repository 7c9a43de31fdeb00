"""A bandit log as columns: what was chosen with which probability, and what came of it.

Whoever reads one leaves out the decisions that say nothing of a policy (pinned, overridden,
cancelled) and counts them; nothing here knows where a log comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.base import Bools, Float32, Float64


@dataclass(frozen=True, slots=True)
class BanditLog:
    """n decisions over K models, in the order in which they were made.

    Attributes
    ----------
    name : for messages.
    models : K names.
    features : float32[n, d], the last column the intercept.
    chosen : int[n], column of the model that answered.
    propensity : float64[n], probability of that choice.
    action_dist : float64[n, K], the whole pmf; None where only the propensity was logged.
    open : bool[n, K], the models that any policy could have chosen.
    quality : float64[n] in [0, 1], NaN where nobody said.
    cost_usd : float64[n], US dollars; NaN where nobody said.
    preference : float64[n, 3], weights of (quality, cost, latency), sum 1.
    tau_cost_usd : float64[n], US dollars that count as cost 1.
    session : int[n], from 0.
    left_out : how many decisions were left out, by reason.
    notes : what a reader of the results should know of the log.
    """

    name: str
    models: tuple[str, ...]
    features: Float32
    chosen: NDArray[np.intp]
    propensity: Float64
    action_dist: Float64 | None
    open: Bools
    quality: Float64
    cost_usd: Float64
    preference: Float64
    tau_cost_usd: Float64
    session: NDArray[np.intp]
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.chosen)

    def rows(self, at: slice) -> BanditLog:
        """Return some of the decisions; sessions are numbered anew."""
        columns: dict[str, Any] = {
            one.name: getattr(self, one.name)[at]
            for one in fields(self)
            if isinstance(getattr(self, one.name), np.ndarray)
        }
        columns["session"] = np.unique(columns["session"], return_inverse=True)[1]
        return replace(self, **columns)

    @property
    def measures(self) -> tuple[str, ...]:
        """Names for `measure` of what somebody said something about."""
        known = ("quality", "cost", "utility")
        return known if not np.isnan(self.cost_usd).all() else known[:1]

    def measure(self, name: str) -> Float64:
        """Return an outcome by name, float64[n], NaN where it is not known.

        Parameters
        ----------
        name : ``quality``, ``cost`` or ``utility``, w_q quality - w_c min(cost / tau, 1): latency
            is left out, since a preference for it is not a matter of the answer's worth.
        """
        if name == "quality":
            return self.quality
        if name == "cost":
            return self.cost_usd
        fine = np.minimum(self.cost_usd / self.tau_cost_usd, 1.0)
        paid = np.where(self.preference[:, 1] > 0.0, self.preference[:, 1] * fine, 0.0)
        worth: Float64 = self.preference[:, 0] * self.quality - paid
        return worth


def sessions(names: Sequence[str | None]) -> NDArray[np.intp]:
    """Return a number for each row, the same for rows of one session; None is one of its own."""
    keys = [f"row {i}" if name is None else f"session {name}" for i, name in enumerate(names)]
    numbers: NDArray[np.intp] = np.unique(keys, return_inverse=True)[1].astype(np.intp)
    return numbers

"""The world as it is at each request of a replay: who answers how well, at what price, when.

A world is columns and nothing else. Scenarios change it before anything is played; a policy is
shown the features of the request, the models on offer and their price list, and later what the
judge says. `quality` and `cost` are what results are measured by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from policies.base import Bools, Float64
from sim.data.dataset import Dataset


@dataclass(frozen=True, slots=True)
class WorldChange:
    """Something that happens at a request, in words for reports."""

    request: int
    label: str


@dataclass(frozen=True, slots=True)
class World:
    """n requests over K models, in the order in which they come.

    Attributes
    ----------
    models : K names.
    rows : int[n], rows of the data set.
    task : n strings.
    quality : float64[n, K], how good each answer is.
    judged : float64[n, K], what feedback says of it.
    cost_usd : float64[n, K], US dollars that each answer costs.
    price_factor : float64[n, K], what the price list says, relative to its first state.
    offered : bool[n, K], whether the model is in the pool and not drained.
    time_s : float64[n], seconds at which the requests come, ascending from 0.
    delay_s : float64[n, K], seconds until the feedback on each answer comes; inf where it never
        does.
    changes : what happens when, in order.
    """

    models: tuple[str, ...]
    rows: NDArray[np.intp]
    task: tuple[str, ...]
    quality: Float64
    judged: Float64
    cost_usd: Float64
    price_factor: Float64
    offered: Bools
    time_s: Float64
    delay_s: Float64
    changes: Sequence[WorldChange] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def still(cls, dataset: Dataset, rows: NDArray[np.intp]) -> World:
        """Return the rows one second apart, judged at once by what the data says.

        Parameters
        ----------
        dataset : complete data, without NaN.
        rows : int[n], in the order in which they come.
        """
        quality, cost = dataset.quality[rows], dataset.cost_usd[rows]
        return cls(
            models=dataset.models,
            rows=rows,
            task=tuple(dataset.task[i] for i in rows.tolist()),
            quality=quality,
            judged=quality,
            cost_usd=cost,
            price_factor=np.ones(cost.shape),
            offered=np.ones(cost.shape, dtype=np.bool_),
            time_s=np.arange(len(rows), dtype=np.float64),
            delay_s=np.zeros(cost.shape),
        )


class Staging(Protocol):
    """What makes a world of rows; a scenario is one."""

    def stage(self, dataset: Dataset, rows: NDArray[np.intp], rng: np.random.Generator) -> World:
        """Return the rows of the data as they come; the same generator gives the same world."""

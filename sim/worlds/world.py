"""The world at each request of a replay: the quality, price and time of every possible answer.

A world is columns and nothing else. Scenarios change it before anything is played. A policy sees
the features of the request, the models on offer and their price list, and later the feedback.
Results are measured by `quality` and `cost_usd`, which feedback may differ from.
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
    """What happens at a request, in words for reports.

    Attributes
    ----------
    request : int
        Position in the world.
    label : str
        What happens.
    """

    request: int
    label: str


@dataclass(frozen=True, slots=True)
class World:
    """n requests over K models, in the order in which they come.

    Attributes
    ----------
    models : tuple[str, ...]
        K names.
    rows : int[n]
        Rows of the dataset.
    task : tuple[str, ...]
        n tasks.
    quality : float64[n, K]
        True quality of each answer.
    judged : float64[n, K]
        Quality that feedback gives to it.
    cost_usd : float64[n, K]
        US dollars that it costs.
    price_factor : float64[n, K]
        The price list, relative to its first state.
    offered : bool[n, K]
        True while the model is in the pool and not drained.
    time_s : float64[n]
        Seconds at which the requests come, ascending from 0.
    delay_s : float64[n, K]
        Seconds until the feedback on each answer comes; inf where it never comes.
    changes : sequence of WorldChange
        What happens when, in order.
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
        """Return the number of requests."""
        return len(self.rows)

    @classmethod
    def from_dataset(cls, dataset: Dataset, rows: NDArray[np.intp]) -> World:
        """Return the world in which nothing changes.

        Requests come one second apart, and feedback comes at once and is true.

        Parameters
        ----------
        dataset : Dataset
            Complete data, without NaN.
        rows : int[n]
            Its rows, in the order in which they come.

        Returns
        -------
        World
            Of n requests.
        """
        quality, cost_usd = dataset.quality[rows], dataset.cost_usd[rows]
        return cls(
            models=dataset.models,
            rows=rows,
            task=tuple(dataset.task[i] for i in rows.tolist()),
            quality=quality,
            judged=quality,
            cost_usd=cost_usd,
            price_factor=np.ones(cost_usd.shape),
            offered=np.ones(cost_usd.shape, dtype=np.bool_),
            time_s=np.arange(len(rows), dtype=np.float64),
            delay_s=np.zeros(cost_usd.shape),
        )


class Staging(Protocol):
    """What makes a world of rows; a scenario is one."""

    def stage(self, dataset: Dataset, rows: NDArray[np.intp], rng: np.random.Generator) -> World:
        """Return the world of some rows; the same generator state gives the same world."""

"""Roles: names such as "dearest" or "easy" for the models and tasks of some data.

An event that uses roles names nothing of the data, so the same scenario fits any dataset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.base import Float64
from sim.data.dataset import Dataset
from sim.errors import InputError
from sim.worlds.world import World

_BY_QUALITY = ("best", "second", "third")
_BY_EASE = ("easy", "hard")


@dataclass(frozen=True, slots=True)
class Roles:
    """The values that decide roles: mean quality and cost of models, and difficulty of tasks.

    Attributes
    ----------
    models : tuple[str, ...]
        K names.
    quality : float64[K]
        Mean quality of each model.
    cost_usd : float64[K]
        Mean cost of each model in US dollars per request.
    tasks : tuple[str, ...]
        Names, from the easiest to the hardest by mean quality over all models.
    counts : tuple[int, ...]
        Rows of each task.
    """

    models: tuple[str, ...]
    quality: Float64
    cost_usd: Float64
    tasks: tuple[str, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, data: Dataset | World) -> Roles:
        """Return the roles in complete data or in a world.

        Parameters
        ----------
        data : Dataset or World
            At least one row, without NaN.

        Returns
        -------
        Roles
            Roles that the means over all rows decide.
        """
        names, task, counts = np.unique(
            np.array(data.task, dtype=object), return_inverse=True, return_counts=True
        )
        ease = np.bincount(task, weights=data.quality.mean(axis=1), minlength=len(names)) / counts
        order = np.argsort(-ease, kind="stable")
        return cls(
            models=data.models,
            quality=data.quality.mean(axis=0),
            cost_usd=data.cost_usd.mean(axis=0),
            tasks=tuple(names[order].tolist()),
            counts=tuple(counts[order].tolist()),
        )

    def model(self, name: str, field: str) -> str:
        """Return the model that a name or role means. The name of a model wins over an equal role.

        Parameters
        ----------
        name : str
            A model, or "best", "second", "third", "worst", "cheapest" or "dearest".
        field : str
            Name of the field that holds `name`, for messages.

        Returns
        -------
        str
            A name of `models`.

        Raises
        ------
        InputError
            If there is no such model. The message names `field`.
        """
        if name in self.models:
            return name
        by_quality: list[int] = np.argsort(-self.quality, kind="stable").tolist()
        by_cost: list[int] = np.argsort(self.cost_usd, kind="stable").tolist()
        roles = dict(zip(_BY_QUALITY, by_quality, strict=False))
        roles |= {"worst": by_quality[-1], "cheapest": by_cost[0], "dearest": by_cost[-1]}
        if name in roles:
            return self.models[roles[name]]
        raise InputError(
            f"{field}: no model {name!r}; the data has {', '.join(self.models)}; "
            f"roles: {', '.join(roles)}"
        )

    def select_tasks(self, names: list[str], field: str) -> list[str]:
        """Return the tasks of some names or roles.

        The easy tasks are the easiest tasks that together have at least half of the rows. If that
        would be all tasks, the hardest task still counts as hard.

        Parameters
        ----------
        names : list of str
            Tasks, or "easy" or "hard"; the name of a task wins over an equal role.
        field : str
            Name of the field that holds `names`, for messages.

        Returns
        -------
        list of str
            Names of `tasks`.

        Raises
        ------
        InputError
            If there is no such task. The message names `field`.
        """
        halves = np.flatnonzero(np.cumsum(self.counts) * 2 >= sum(self.counts))
        easy = min(int(halves[0]) + 1, len(self.tasks) - 1)
        selected: list[str] = []
        for name in names:
            if name in self.tasks:
                selected.append(name)
            elif name in _BY_EASE and easy > 0:
                selected.extend(self.tasks[:easy] if name == "easy" else self.tasks[easy:])
            elif name in _BY_EASE:
                raise InputError(f"{field}: {name!r} needs two tasks, and the data has one")
            else:
                tasks = ", ".join(sorted(self.tasks))
                raise InputError(f"{field}: no task {name!r}; the data has {tasks}; or easy, hard")
        return selected

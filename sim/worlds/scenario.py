"""A scenario: what happens to a world, as events in order.

Staging a scenario on rows of a dataset gives the world that every policy plays: the same scenario,
rows and seed give the same world. Nothing here plays anything or reads a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from banditroute.core.pool import Preference
from sim.data.dataset import Dataset
from sim.errors import InputError
from sim.worlds.event import WorldEvent
from sim.worlds.roles import Roles
from sim.worlds.traffic_events import Mix
from sim.worlds.world import World


@dataclass(frozen=True, slots=True)
class ScenarioEvent:
    """An event of a scenario.

    Attributes
    ----------
    event : WorldEvent
        What happens.
    source : str
        File and path in it, or the option, that the event comes from; for messages.
    """

    event: WorldEvent
    source: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """Events, and the data and requests that they are about.

    Attributes
    ----------
    name : str
        Shipped name, or path of the file.
    title : str
        A few words.
    says : str
        One sentence on what happens.
    models : tuple[str, ...]
        Models to keep of the data; empty keeps all.
    without : tuple[str, ...]
        Models to leave out of the data.
    budget_rates_usd : tuple[float, ...]
        US dollars per request, each a world of its own; empty for no budget.
    preference : Preference, optional
        Weights of requests, where they are part of the scenario.
    events : tuple[ScenarioEvent, ...]
        In the order in which they are applied.
    """

    name: str
    title: str
    says: str = ""
    models: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    budget_rates_usd: tuple[float, ...] = ()
    preference: Preference | None = None
    events: tuple[ScenarioEvent, ...] = ()

    def then(self, event: WorldEvent, source: str) -> Scenario:
        """Return this scenario with one event more, at the end.

        Parameters
        ----------
        event : WorldEvent
            What happens.
        source : str
            See `ScenarioEvent`.

        Returns
        -------
        Scenario
            The other fields are the same.
        """
        return replace(self, events=(*self.events, ScenarioEvent(event, source)))

    def restrict(self, dataset: Dataset) -> Dataset:
        """Return the data that the scenario is about.

        Parameters
        ----------
        dataset : Dataset
            Any data.

        Returns
        -------
        Dataset
            The models of the scenario, and the rows that have quality and cost of them all.

        Raises
        ------
        InputError
            Naming the scenario, for a model that the data does not have.
        """
        for field, names in (("models", self.models), ("without", self.without)):
            for i, name in enumerate(names):
                if name not in dataset.models:
                    raise InputError(
                        f"{self.name}: {field}[{i}]: {dataset.name} has no model {name!r}; "
                        f"it has {', '.join(dataset.models)}"
                    )
        return dataset.restrict(models=self.models, without=self.without).complete()

    def stage(self, dataset: Dataset, rows: NDArray[np.intp], rng: np.random.Generator) -> World:
        """Return the world of some rows.

        Parameters
        ----------
        dataset : Dataset
            What `restrict` returned; roles are those of all its rows.
        rows : int[n]
            In the order in which they come; mixes change it.
        rng : numpy.random.Generator
            Each event draws from a child of its own: what an event draws does not depend on the
            others.

        Returns
        -------
        World
            Of n requests.

        Raises
        ------
        InputError
            Naming the scenario and the field, for an event that does not fit the data.
        """
        self._require_restricted(dataset)
        roles, world = Roles.of(dataset), World.from_dataset(dataset, rows)
        free = np.ones(len(world), dtype=np.bool_)
        later: list[tuple[WorldEvent, str, np.random.Generator]] = []
        for item, child in zip(self.events, rng.spawn(len(self.events)), strict=True):
            with _errors_name(item.source):
                event = item.event.resolve(roles)
                if isinstance(event, Mix):
                    world = event.arrange(world, child, free)
                    free[event.part(world)] = False
                else:
                    later.append((event, item.source, child))
        for event, source, child in later:
            with _errors_name(source):
                world = event.apply(world, child)
        without_model = np.flatnonzero(~world.offered.any(axis=1))
        if len(without_model):
            raise InputError(f"{self.name}: no model is offered at request {without_model[0]}")
        return world

    def _require_restricted(self, dataset: Dataset) -> None:
        kept = set(self.models) or set(dataset.models)
        if set(dataset.models) != kept - set(self.without):
            raise ValueError(f"{self.name}: stage takes the data that restrict returned")


@contextmanager
def _errors_name(source: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{source}.{error}") from error

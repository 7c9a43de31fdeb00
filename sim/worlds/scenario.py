"""A scenario: the events that change a world, in order.

Staging a scenario on rows of a dataset gives a world. Every policy plays that same world. Equal
scenarios, rows and seeds give equal worlds. This module must never play a policy or read a file.
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
        Where the event comes from, for messages: a file and the path in it, or an option.
    """

    event: WorldEvent
    source: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """Events, and the models, budgets and preference of the worlds that they change.

    Attributes
    ----------
    name : str
        Name of a shipped scenario, or path of the file.
    title : str
        Title of a few words.
    says : str
        One sentence that says what the events do.
    models : tuple[str, ...]
        Models of the data to keep; empty keeps all.
    without : tuple[str, ...]
        Models of the data to leave out.
    budget_rates_usd : tuple[float, ...]
        Budgets in US dollars per request; each is played separately. Empty for no budget.
    preference : Preference, optional
        Preference of all requests; None if the scenario does not set it.
    events : tuple[ScenarioEvent, ...]
        Events in order; but `Mix` events are applied before all others.
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
        """Return a copy of this scenario with an event added at the end.

        Parameters
        ----------
        event : WorldEvent
            What happens.
        source : str
            See `ScenarioEvent`.

        Returns
        -------
        Scenario
            The copy; its other fields are the same.
        """
        return replace(self, events=(*self.events, ScenarioEvent(event, source)))

    def restrict(self, dataset: Dataset) -> Dataset:
        """Return the part of some data that the scenario uses.

        Parameters
        ----------
        dataset : Dataset
            All models and rows.

        Returns
        -------
        Dataset
            The models of the scenario, in the rows that have quality and cost for all of them.

        Raises
        ------
        InputError
            If the data lacks a model of the scenario. The message names the scenario.
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
        """Return the world that the events make of some rows.

        Parameters
        ----------
        dataset : Dataset
            The result of `restrict`. Roles are decided by all its rows.
        rows : int[n]
            Rows of `dataset`, in the order of the requests; `Mix` events change the order.
        rng : numpy.random.Generator
            Each event draws from a separate child generator. So the draws of an event do not
            depend on the other events.

        Returns
        -------
        World
            A world of n requests.

        Raises
        ------
        InputError
            If an event does not fit the data; the message names the source and the field. If no
            model is on offer at some request; the message names the scenario.
        """
        self._require_restricted(dataset)
        roles, world = Roles.of(dataset), World.from_dataset(dataset, rows)
        unmixed = np.ones(len(world), dtype=np.bool_)
        not_mixes: list[tuple[WorldEvent, str, np.random.Generator]] = []
        event_rngs = rng.spawn(len(self.events))
        for scenario_event, event_rng in zip(self.events, event_rngs, strict=True):
            source = scenario_event.source
            with _errors_name(source):
                event = scenario_event.event.resolve(roles)
                if isinstance(event, Mix):
                    world = event.arrange(world, event_rng, unmixed)
                    unmixed[event.part(world)] = False
                else:
                    not_mixes.append((event, source, event_rng))
        for event, source, event_rng in not_mixes:
            with _errors_name(source):
                world = event.apply(world, event_rng)
        without_model = np.flatnonzero(~world.offered.any(axis=1))
        if len(without_model):
            raise InputError(f"{self.name}: no model is offered at request {without_model[0]}")
        return world

    def _require_restricted(self, dataset: Dataset) -> None:
        kept = set(self.models) or set(dataset.models)
        if set(dataset.models) != kept - set(self.without):
            raise ValueError(f"{self.name}: stage needs the data that restrict returned")


@contextmanager
def _errors_name(source: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{source}.{error}") from error

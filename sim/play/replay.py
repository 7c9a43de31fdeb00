"""Replay: worlds of full information, of which each player sees the answers that it chose.

There is one loop for everybody. What was not chosen is never shown to a player; it serves the
references alone.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from banditroute.core.pool import ModelSpec
from policies.base import Float32
from sim.data.dataset import Dataset
from sim.data.prices import draw_prices
from sim.errors import InputError
from sim.play import libraries
from sim.play.candidate import Candidate
from sim.play.player import Choice, Player
from sim.play.router_player import Replayer
from sim.play.trace import Trace
from sim.worlds.world import Staging, World

_SHUFFLE, _DRAWS, _STAGING = 0, 1, 3


@dataclass(frozen=True, slots=True)
class Split:
    """Which rows are learned from first, and which are then scored while learning goes on.

    Attributes
    ----------
    learn, test : names of splits in the data; both or none.
    fraction : without names, the share of the shuffled rows that come before the scored ones.
    """

    learn: str | None = None
    test: str | None = None
    fraction: float = 0.5

    def rows(
        self, dataset: Dataset, rng: np.random.Generator
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return (learned, scored) rows in shuffled order.

        Raises
        ------
        InputError
            For a split that the data does not have, or when no row is left to score.
        """
        if self.learn is None or self.test is None:
            order = rng.permutation(len(dataset))
            cut = round(self.fraction * len(dataset))
            if cut == len(dataset):
                raise InputError(f"--learn-fraction: {self.fraction:g} leaves no row to score")
            return order[:cut], order[cut:]
        parts = []
        for option, name in (("--learn-split", self.learn), ("--test-split", self.test)):
            rows = np.flatnonzero(np.array(dataset.split) == name)
            if len(rows) == 0:
                known = ", ".join(repr(one) for one in sorted(set(dataset.split)))
                raise InputError(f"{option}: {dataset.name} has no split {name!r}; it has {known}")
            parts.append(rng.permutation(rows))
        return parts[0], parts[1]


@dataclass(frozen=True, slots=True)
class Experiment:
    """Everything about a replay but the policy and the seed.

    Attributes
    ----------
    dataset : complete data, without NaN.
    features : float32[n, d], computed once by the embedder.
    embedder : identity of that embedder.
    split : which rows are learned from and which are scored.
    preference : weights of (quality, cost, latency), sum 1.
    prices : one spec per model, or None to draw a cost prior for every seed.
    budget_rate : US dollars per request, or None. Learned and scored rows are a budget each, of
        the rate times their number; what a model may have to be paid is its largest cost in the
        data, and a request that finds no money for any is refused and scores 0.
    scenario : what happens to the scored rows.
    batch : so many requests are decided before anything is learned of them.
    advance : see `Replayer`.
    """

    dataset: Dataset
    features: Float32
    embedder: str
    split: Split
    preference: tuple[float, float, float]
    prices: Sequence[ModelSpec] | None = None
    budget_rate: float | None = None
    scenario: Staging | None = None
    batch: int = 1
    advance: float | None = None

    def worlds(self, seed: int) -> tuple[World | None, World]:
        """Return what is learned from first, if anything is, and what is scored.

        The models on offer at the first scored request are those to learn of before.
        """
        learned, scored = self._rows(seed)
        if self.scenario is None:
            world = World.from_dataset(self.dataset, scored)
        else:
            rng = np.random.default_rng([seed, _STAGING])
            world = self.scenario.stage(self.dataset, scored, rng)
        if len(learned) == 0:
            return None, world
        before = World.from_dataset(self.dataset, learned)
        before.offered[:] = world.offered[0]
        return before, world

    def learned(self, seed: int) -> NDArray[np.intp]:
        """Return the rows that are learned from first, in their order."""
        return self._rows(seed)[0]

    def _rows(self, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        return self.split.rows(self.dataset, np.random.default_rng([seed, _SHUFFLE]))

    def specs(self, seed: int) -> Sequence[ModelSpec]:
        """Return the models at their first prices."""
        return self.prices or draw_prices(self.dataset, seed=seed)


class Replaying:
    """One contender on its way through worlds under one seed.

    Parameters
    ----------
    experiment, contender, seed : the same arguments give the same bits.
    """

    def __init__(self, experiment: Experiment, contender: Candidate, seed: int) -> None:
        data = experiment.dataset
        self._experiment, self._contender, self._seed = experiment, contender, seed
        self._specs = experiment.specs(seed)
        self._worst = data.cost_usd.max(axis=0)
        self._tokens = np.array(
            [len(prompt.encode("utf-8", "surrogatepass")) for prompt in data.prompts], dtype=float
        )
        self._met: set[str] = set()
        self._on_offer: tuple[list[bool], list[float]] | None = None
        self._player: Player | None = None

    def play(self, world: World) -> Trace:
        """Play a world, going on from what was learned; return what was done.

        Feedback is learned before the first request that comes when it is there, or later; in
        order of arrival. What comes after the last request is learned at the end.
        """
        count, features = len(world), self._experiment.features
        column = {name: k for k, name in enumerate(world.models)}
        chosen = np.full(count, -1, dtype=np.intp)
        propensity, entropy = np.full(count, math.nan), np.full(count, math.nan)
        due: list[tuple[float, int, Choice]] = []
        player = self._offered(world, 0)
        player.begin(count)

        def learn(until: float) -> None:
            while due and due[0][0] <= until:
                _, t, choice = heapq.heappop(due)
                judged, cost = world.judged[t, chosen[t]], world.cost_usd[t, chosen[t]]
                player.feed(choice, quality=float(judged), cost=float(cost))

        for start, stop in _batches(world, self._experiment.batch):
            learn(float(world.time_s[start]))
            self._offered(world, start)
            rows = world.rows[start:stop]
            made = player.decide(features[rows], self._tokens[rows])
            for t, choice in enumerate(made, start):
                if choice.model is None:
                    continue
                arm = chosen[t] = column[choice.model]
                propensity[t], entropy[t] = choice.propensity, choice.entropy
                player.bill(choice, float(world.cost_usd[t, arm]))
                arrives = float(world.time_s[t] + world.delay_s[t, arm])
                if math.isfinite(arrives):
                    heapq.heappush(due, (arrives, t, choice))
        learn(math.inf)
        return Trace(
            label=self._contender.label,
            seed=self._seed,
            world=world,
            chosen=chosen,
            propensity=propensity,
            entropy=entropy,
            digest=player.digest(),
        )

    def _offered(self, world: World, t: int) -> Player:
        """Return the player, told what is on offer at request t if it does not know."""
        here, factor = world.offered[t], world.price_factor[t]
        now = (here.tolist(), factor.tolist())
        if now == self._on_offer and self._player is not None:
            return self._player
        self._on_offer = now
        self._met.update(spec.name for spec, on in zip(self._specs, here, strict=True) if on)
        priced = [_priced(spec, by) for spec, by in zip(self._specs, now[1], strict=True)]
        known = [spec for spec in priced if spec.name in self._met]
        away = {spec.name for spec, on in zip(self._specs, here, strict=True) if not on}
        worst = dict(zip(world.models, (self._worst * factor).tolist(), strict=True))
        if self._player is None:
            self._player = self._make(known)
        self._player.offer(known, draining=away & self._met, worst=worst)
        return self._player

    def _make(self, specs: Sequence[ModelSpec]) -> Player:
        plan, contender = self._experiment, self._contender
        if contender.name in libraries.LIBRARIES:
            return libraries.make(
                contender.name,
                specs,
                params=contender.params,
                dim=plan.features.shape[1],
                preference=plan.preference,
                rate=plan.budget_rate,
                seed=self._seed,
            )
        return Replayer(
            specs=specs,
            contender=contender,
            dim=plan.features.shape[1],
            embedder=plan.embedder,
            preference=plan.preference,
            rng=np.random.default_rng([self._seed, _DRAWS]),
            rate=plan.budget_rate,
            advance=plan.advance,
        )


def run(experiment: Experiment, contender: Candidate, seed: int) -> Trace:
    """Play what is learned from and what is scored; the same arguments give the same bits."""
    before, scored = experiment.worlds(seed)
    course = Replaying(experiment, contender, seed)
    if before is not None:
        course.play(before)
    return course.play(scored)


def _priced(spec: ModelSpec, factor: float) -> ModelSpec:
    prices = {"input_price": spec.input_price * factor, "output_price": spec.output_price * factor}
    return spec if factor == 1.0 else spec.model_copy(update=prices)


def _batches(world: World, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of requests that are decided together, under one offer."""
    offered, factor = world.offered, world.price_factor
    changed = (offered[1:] != offered[:-1]).any(axis=1) | (factor[1:] != factor[:-1]).any(axis=1)
    start, count = 0, len(world)
    for stop in [*(np.flatnonzero(changed) + 1).tolist(), count]:
        while start < stop:
            yield start, min(start + size, stop)
            start = min(start + size, stop)

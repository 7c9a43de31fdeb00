"""Replay: worlds of full information, of which each player sees only the answers that it chose.

There is one loop for all players. It must never show a player the outcome of a model that the
player did not choose; these outcomes serve the baselines alone.
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
from sim.play.player import Choice, ModelsOnOffer, Player
from sim.play.router_player import RouterPlayer
from sim.play.trace import Trace
from sim.worlds.world import Staging, World

_SHUFFLE, _DRAWS, _STAGING = 0, 1, 3


@dataclass(frozen=True, slots=True)
class Split:
    """Which rows are learned from first, and which are then scored while learning goes on.

    Attributes
    ----------
    learn, test : str or None
        Names of splits in the data; both or none.
    fraction : float
        Without names, the share of the shuffled rows that come before the scored ones.
    """

    learn: str | None = None
    test: str | None = None
    fraction: float = 0.5

    def rows(
        self, dataset: Dataset, rng: np.random.Generator
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the rows to learn from and the rows to score, each in shuffled order.

        Parameters
        ----------
        dataset : Dataset
            The data.
        rng : numpy.random.Generator
            Shuffles.

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
                names = ", ".join(map(repr, sorted(set(dataset.split))))
                raise InputError(f"{option}: {dataset.name} has no split {name!r}; it has {names}")
            parts.append(rng.permutation(rows))
        return parts[0], parts[1]


@dataclass(frozen=True, slots=True)
class Experiment:
    """Everything about a replay but the policy and the seed.

    Attributes
    ----------
    dataset : Dataset
        Complete data, without NaN.
    features : float32[n, d]
        Of its prompts, computed once by the embedder.
    embedder : str
        Identity of that embedder.
    split : Split
        Which rows are learned from and which are scored.
    preference : tuple of float
        Weights of (quality, cost, latency), which sum to 1.
    prices : sequence of ModelSpec or None
        One for each model; None draws prices for each seed.
    budget_rate_usd : float or None
        US dollars per request, None for no budget. The learned and the scored rows are a budget
        each, of the rate times their number. A model reserves its largest cost in the data. A
        request that finds no money for any model is refused and scores 0.
    scenario : Staging or None
        What happens to the scored rows; None for nothing.
    batch : int
        How many requests are decided before anything is learned of them.
    advance_usd : float or None
        See `RouterPlayer`.
    """

    dataset: Dataset
    features: Float32
    embedder: str
    split: Split
    preference: tuple[float, float, float]
    prices: Sequence[ModelSpec] | None = None
    budget_rate_usd: float | None = None
    scenario: Staging | None = None
    batch: int = 1
    advance_usd: float | None = None

    def worlds(self, seed: int) -> tuple[World | None, World]:
        """Return the world to learn from first, None if there is none, and the world to score.

        Before the first scored request the models on offer are those at that request.
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

    def learned_rows(self, seed: int) -> NDArray[np.intp]:
        """Return the rows of the data that are learned from first, int[m], in their order."""
        return self._rows(seed)[0]

    def _rows(self, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        return self.split.rows(self.dataset, np.random.default_rng([seed, _SHUFFLE]))

    def specs(self, seed: int) -> Sequence[ModelSpec]:
        """Return the models at their first prices."""
        return self.prices or draw_prices(self.dataset, seed=seed)


class CandidateReplay:
    """The replay of one candidate under one seed, from world to world.

    Parameters
    ----------
    experiment, candidate, seed : Experiment, Candidate, int
        The same arguments give the same bits.
    """

    def __init__(self, experiment: Experiment, candidate: Candidate, seed: int) -> None:
        data = experiment.dataset
        self._experiment, self._candidate, self._seed = experiment, candidate, seed
        self._specs = experiment.specs(seed)
        self._largest_cost_usd = data.cost_usd.max(axis=0)
        self._prompt_bytes = np.array(
            [len(prompt.encode("utf-8", "surrogatepass")) for prompt in data.prompts], dtype=float
        )
        self._ever_offered: set[str] = set()
        self._offer: tuple[list[bool], list[float]] | None = None
        self._player: Player | None = None

    def play(self, world: World) -> Trace:
        """Play a world, going on from what was learned before, and return the choices.

        Feedback is learned in the order of its arrival, before the first request that comes at
        that time or later. Feedback that arrives after the last request is learned at the end.

        Parameters
        ----------
        world : World
            Of the data of the experiment.
        """
        count, features = len(world), self._experiment.features
        column = {name: k for k, name in enumerate(world.models)}
        chosen = np.full(count, -1, dtype=np.intp)
        propensity, entropy = np.full(count, math.nan), np.full(count, math.nan)
        due: list[tuple[float, int, Choice]] = []
        player = self._player_at(world, 0)
        player.begin(count)

        def learn(until_s: float) -> None:
            while due and due[0][0] <= until_s:
                _, t, choice = heapq.heappop(due)
                judged, cost_usd = world.judged[t, chosen[t]], world.cost_usd[t, chosen[t]]
                player.feed(choice, quality=float(judged), cost_usd=float(cost_usd))

        for start, stop in _batches(world, self._experiment.batch):
            learn(float(world.time_s[start]))
            self._player_at(world, start)
            rows = world.rows[start:stop]
            choices = player.decide(features[rows], self._prompt_bytes[rows])
            for t, choice in enumerate(choices, start):
                if choice.model is None:
                    continue
                arm = chosen[t] = column[choice.model]
                propensity[t], entropy[t] = choice.propensity, choice.entropy
                player.bill(choice, float(world.cost_usd[t, arm]))
                arrives_s = float(world.time_s[t] + world.delay_s[t, arm])
                if math.isfinite(arrives_s):
                    heapq.heappush(due, (arrives_s, t, choice))
        learn(math.inf)
        return Trace(
            label=self._candidate.label,
            seed=self._seed,
            world=world,
            chosen=chosen,
            propensity=propensity,
            entropy=entropy,
            digest=player.digest(),
        )

    def _player_at(self, world: World, t: int) -> Player:
        """Return the player, after an offer if that of request t differs from the last one."""
        offered, factor = world.offered[t], world.price_factor[t]
        offer = (offered.tolist(), factor.tolist())
        if offer == self._offer and self._player is not None:
            return self._player
        self._offer = offer
        pairs = list(zip(self._specs, offer[0], strict=True))
        self._ever_offered.update(spec.name for spec, is_offered in pairs if is_offered)
        withdrawn = {spec.name for spec, is_offered in pairs if not is_offered}
        priced = [_priced(spec, by) for spec, by in zip(self._specs, offer[1], strict=True)]
        specs = [spec for spec in priced if spec.name in self._ever_offered]
        largest_usd = (self._largest_cost_usd * factor).tolist()
        reservation_usd = dict(zip(world.models, largest_usd, strict=True))
        if self._player is None:
            self._player = self._make_player(specs)
        draining = withdrawn & self._ever_offered
        self._player.offer(ModelsOnOffer(specs, draining, reservation_usd))
        return self._player

    def _make_player(self, specs: Sequence[ModelSpec]) -> Player:
        experiment, candidate = self._experiment, self._candidate
        if candidate.name in libraries.LIBRARIES:
            return libraries.LIBRARIES[candidate.name](
                specs,
                params=candidate.params,
                dim=experiment.features.shape[1],
                preference=experiment.preference,
                rate_usd=experiment.budget_rate_usd,
                seed=self._seed,
            )
        return RouterPlayer(
            specs=specs,
            candidate=candidate,
            dim=experiment.features.shape[1],
            embedder=experiment.embedder,
            preference=experiment.preference,
            rng=np.random.default_rng([self._seed, _DRAWS]),
            rate_usd=experiment.budget_rate_usd,
            advance_usd=experiment.advance_usd,
        )


def run(experiment: Experiment, candidate: Candidate, seed: int) -> Trace:
    """Play the world to learn from and then the world to score; return the trace of the latter.

    Parameters
    ----------
    experiment, candidate, seed : Experiment, Candidate, int
        The same arguments give the same bits.
    """
    before, scored = experiment.worlds(seed)
    replay = CandidateReplay(experiment, candidate, seed)
    if before is not None:
        replay.play(before)
    return replay.play(scored)


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

"""Staging a storm, and judging the choices that a router made in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from banditroute.embedding import make_embedder
from banditroute.pool import ModelSpec, PoolOptions, default_tau_cost
from policies.base import Float32, Float64
from sim.datasets import Dataset
from sim.formats import load
from sim.prices import drawn

CHEAP, GOOD, DEAR, NEW = (
    "meta-llama/llama-3.1-8b-instruct",
    "mistralai/mistral-large-2512",
    "google/gemini-2.5-pro",
    "google/gemini-2.5-flash",
)
WATCHED = {"still": GOOD, "drop": GOOD, "price": DEAR, "pool": NEW, "mix": GOOD}
"""The storms, and the model whose share of the requests is printed for each."""

SAYS = {
    "still": "nothing changes",
    "drop": "quality of mistral-large is 0.75 in the middle third",
    "price": "price and cost of gemini-2.5-pro x 0.0178 in the middle third, and announced",
    "pool": "gemini-2.5-flash comes at one third, mistral-large is drained at two",
    "mix": "gsm8k, arc and mmlu in the first and last third, all other tasks in the middle",
}
BROKEN, CUT = 0.75, 0.0178
EASY = ("gsm8k", "arc_challenge", "mmlu")
WINDOW = 40
ADAPTED = 0.9


@dataclass(frozen=True, slots=True)
class Stage:
    """The prompts of one storm, with what routers see of them."""

    dataset: Dataset
    features: Float32
    embedder: str
    preference: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Storm:
    """One storm in one order of the rows, as the world is at each of n requests.

    Attributes
    ----------
    rows : int[n], into the dataset.
    quality, cost : float64[n, K]; NaN where a model is not to be had.
    factor : float64[n, K], of the price list.
    specs : K models at their first prices.
    """

    rows: np.ndarray
    quality: Float64
    cost: Float64
    factor: Float64
    specs: Sequence[ModelSpec]

    @classmethod
    def of(cls, dataset: Dataset, name: str, order: int) -> Storm:
        """Stage storm `name`; the same order gives the same rows and prices for everybody."""
        rng = np.random.default_rng([order, 0])
        specs = drawn(dataset, seed=order)
        rows = rng.permutation(len(dataset))
        if name == "mix":
            easy = np.isin(np.array(dataset.task)[rows], EASY)
            third = min(int(easy.sum()) // 2, int((~easy).sum()))
            first, last = np.split(rows[easy][: 2 * third], 2)
            rows = np.concatenate([first, rows[~easy][:third], last])
        rows = rows[: len(rows) // 3 * 3]
        quality, cost = dataset.quality[rows].copy(), dataset.cost[rows].copy()
        factor = np.ones(quality.shape)
        first, middle, last = thirds(len(rows))
        at = dataset.models.index
        if name == "drop":
            quality[middle, at(GOOD)] = BROKEN
        elif name == "price":
            factor[middle, at(DEAR)] = CUT
        elif name == "pool":
            quality[first, at(NEW)] = quality[last, at(GOOD)] = np.nan
        return cls(rows, quality, cost * factor, factor, specs)

    def utility(self, preference: tuple[float, float, float]) -> Float64:
        """Return w_q q - w_c min(c / tau, 1), float64[n, K]."""
        tau = default_tau_cost(list(self.specs))
        return preference[0] * self.quality - preference[1] * np.minimum(self.cost / tau, 1.0)

    def offers(self) -> Iterable[tuple[int, list[ModelSpec], set[str]]]:
        """Yield (request, models at their prices, names that are draining) at each change."""
        before: object = None
        for t, (quality, factor) in enumerate(zip(self.quality, self.factor, strict=True)):
            here = ~np.isnan(quality)
            now = (here.tolist(), factor.tolist())
            if now != before:
                known = [s for k, s in enumerate(self.specs) if here[k] or t > 0]
                specs = [_priced(s, factor[self.specs.index(s)]) for s in known]
                gone = {s.name for k, s in enumerate(self.specs) if not here[k]}
                yield t, specs, gone
                before = now


def _priced(spec: ModelSpec, factor: float) -> ModelSpec:
    return spec.model_copy(update={"output_price": spec.output_price * float(factor)})


def thirds(n: int) -> tuple[slice, slice, slice]:
    return slice(0, n // 3), slice(n // 3, 2 * n // 3), slice(2 * n // 3, n)


@dataclass(frozen=True, slots=True)
class Measured:
    """One contender in one storm, over all orders.

    Attributes
    ----------
    regret : float64[orders, 3], mean utility per request below the best single model, by thirds.
    share : float64[3], of the watched model.
    curve, shares : float64[n], mean over orders: utility by the mean of the model chosen in that
        third (so without the luck of the row), and whether the watched model was chosen.
    adapted : requests from each change until the mean of 40 choices is 90 % of the way from those
        before it to the best single model of the new third, median over the orders in which there
        was a way to go; inf for never, NaN where there was none in most orders.
    """

    regret: Float64
    share: Float64
    curve: Float64
    shares: Float64
    adapted: tuple[float, float]


def measure(stage: Stage, name: str, choices: Sequence[np.ndarray]) -> Measured:
    """Judge the choices of one contender, one array for each order from 0 on."""
    regret, curves, shares, adapted = [], [], [], []
    watched = stage.dataset.models.index(WATCHED[name])
    for order, chosen in enumerate(choices):
        storm = Storm.of(stage.dataset, name, order)
        utility, parts = storm.utility(stage.preference), thirds(len(chosen))
        got = utility[np.arange(len(chosen)), chosen]
        means = [utility[part].mean(axis=0) for part in parts]
        best = [float(np.nanmax(mean)) for mean in means]
        regret.append([b - got[part].mean() for b, part in zip(best, parts, strict=True)])
        valued = [mean[chosen[part]] for mean, part in zip(means, parts, strict=True)]
        curves.append(np.concatenate(valued))
        shares.append(chosen == watched)
        before = [_before(means[k], chosen[parts[k - 1]]) for k in (1, 2)]
        adapted.append([_adapted(valued[k], before[k - 1], best[k]) for k in (1, 2)])
    shown = np.mean(shares, axis=0)
    after = [_median(np.array(column)) for column in zip(*adapted, strict=True)]
    return Measured(
        regret=np.array(regret),
        share=np.array([shown[part].mean() for part in thirds(len(shown))]),
        curve=np.mean(curves, axis=0),
        shares=shown,
        adapted=(after[0], after[1]),
    )


def _before(means: Float64, chosen: np.ndarray) -> float:
    """Return what the new third gives to the choices made just before it."""
    valued = np.where(np.isnan(means), np.nanmin(means), means)
    return float(valued[chosen[-2 * WINDOW :]].mean())


def _median(values: Float64) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if 2 * len(known) > len(values) else math.nan


def _adapted(curve: Float64, start: float, goal: float) -> float:
    if goal - start < 0.005:
        return math.nan
    smooth = np.convolve(curve, np.full(WINDOW, 1.0 / WINDOW), mode="valid")
    reached = np.flatnonzero(smooth >= start + ADAPTED * (goal - start))
    return float(reached[0] + WINDOW // 2) if len(reached) else math.inf


def staged(folder: Path, name: str) -> Stage:
    """Return the prompts and models of one storm; gemini-2.5-flash only where it comes."""
    whole = load(folder / "paretobandit_val.parquet")
    dataset = whole.restrict(without=[] if name == "pool" else [NEW]).complete()
    embedder = make_embedder("hashing")
    return Stage(
        dataset=dataset,
        features=embedder.features(list(dataset.prompts)),
        embedder=embedder.identity,
        preference=PoolOptions().preference.weights(),
    )

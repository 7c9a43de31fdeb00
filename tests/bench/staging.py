"""Staging a storm, and judging the choices that a router made in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from banditroute.core.pool import PoolOptions
from banditroute.features.embedding import make_embedder
from policies.base import Float64
from sim.data.formats import load
from sim.measure.adaptation import adaptation, median
from sim.plan import utility
from sim.play.replay import Experiment, Split
from sim.play.trace import Trace, picked
from sim.worlds.events import Add, Drain, Mix, PriceChange, Quality, WorldEvent
from sim.worlds.scenario import Scenario, ScenarioEvent

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
    "mix": "gsm8k, arc and mmlu are a tenth of the prompts in the middle third, and more else",
}
EASY = ["gsm8k", "arc_challenge", "mmlu"]
MIDDLE = {"from": "1/3", "to": "2/3"}
EVENTS: dict[str, list[WorldEvent]] = {
    "still": [],
    "drop": [Quality.model_validate({"model": GOOD, "set": 0.75, **MIDDLE})],
    "price": [PriceChange.model_validate({"model": DEAR, "factor": 0.0178, **MIDDLE})],
    "pool": [
        Add.model_validate({"model": NEW, "at": "1/3"}),
        Drain.model_validate({"model": GOOD, "at": "2/3"}),
    ],
    "mix": [Mix.model_validate({"tasks": EASY, "share": 0.1, **MIDDLE})],
}


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
    adapted : requests until each change is adapted to, see `sim.measure.adaptation`; median over the
        orders in which there was a way to go.
    """

    regret: Float64
    share: Float64
    curve: Float64
    shares: Float64
    adapted: tuple[float, float]


def measure(experiment: Experiment, name: str, traces: Sequence[Trace]) -> Measured:
    """Judge one contender, one trace for each order."""
    regret, curves, shares, adapted = [], [], [], []
    watched = experiment.dataset.models.index(WATCHED[name])
    for trace in traces:
        chosen = trace.chosen
        values = np.where(trace.world.offered, utility(experiment, trace), np.nan)
        parts = thirds(len(chosen))
        best = [float(np.nanmax(values[part].mean(axis=0))) for part in parts]
        got = picked(values, chosen)
        regret.append([b - got[part].mean() for b, part in zip(best, parts, strict=True)])
        shares.append(chosen == watched)
        needed, worth = adaptation(values, chosen, [part.start for part in parts[1:]])
        curves.append(worth)
        adapted.append(needed)
    shown = np.mean(shares, axis=0)
    after = [median(column) for column in zip(*adapted, strict=True)]
    return Measured(
        regret=np.array(regret),
        share=np.array([shown[part].mean() for part in thirds(len(shown))]),
        curve=np.mean(curves, axis=0),
        shares=shown,
        adapted=(after[0], after[1]),
    )


def staged(folder: Path, name: str) -> Experiment:
    """Return one storm on all prompts; gemini-2.5-flash only where it comes."""
    whole = load(folder / "paretobandit_val.parquet")
    dataset = whole.restrict(without=[] if name == "pool" else [NEW]).complete()
    embedder = make_embedder("hashing")
    events = tuple(ScenarioEvent(event, name) for event in EVENTS[name])
    return Experiment(
        dataset=dataset,
        features=embedder.features(list(dataset.prompts)),
        embedder=embedder.identity,
        split=Split(fraction=0.0),
        preference=PoolOptions().preference.weights(),
        scenario=Scenario(name=name, title=name, says=SAYS[name], events=events),
    )

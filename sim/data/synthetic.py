"""Synthetic data with a planted context effect: the prompt says which model is best.

Prompts are made of English words, so that a text embedder sees the topic. The true mean quality is
known, so a policy's result can be checked against it. Nothing here imitates a real model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.data.dataset import Dataset, Float64

MODELS = ("small", "coder", "large")
TOPICS = ("chat", "code", "maths")
TRUTH = np.array(
    [
        [0.85, 0.60, 0.87],
        [0.35, 0.88, 0.75],
        [0.25, 0.35, 0.85],
    ]
)
"""float64[topic, model], mean quality before it is clipped to [0, 1]."""

COST_USD = np.array([1e-4, 3e-4, 1e-3])
"""float64[model], mean US dollars per request."""

_NOISE = 0.15
_OPENINGS = (
    "please tell me about|what do you think of|suggest something for|describe|write a note on",
    "write a python function to|fix this code that should|implement a class to|change the loop to",
    "solve for x when|compute the sum of|prove that|find the value of|calculate how many",
)
_WORDS = (
    "holiday family dinner garden weather music story letter friend birthday travel recipe movie "
    "summer morning coffee village river birds market painting song advice walk",
    "list string array sort parse json file return index dictionary loop recursion stack queue "
    "integer compile test class method import regex thread cache tree",
    "equation integral triangle probability prime fraction matrix derivative polynomial angle "
    "number square root modulo radius sequence limit vector percent ratio apples trains",
)


@dataclass(frozen=True, slots=True)
class Planted:
    """Synthetic data and the truth that it was drawn from.

    Attributes
    ----------
    dataset : Dataset
        n prompts, 3 models.
    truth : float64[n, 3]
        Mean of the distribution of each quality, before it is clipped to [0, 1].
    """

    dataset: Dataset
    truth: Float64


def generate(*, rows: int = 2_000, seed: int = 0) -> Planted:
    """Draw a dataset.

    Parameters
    ----------
    rows : int
        Number of prompts, at least 1.
    seed : int
        The same seed gives the same data.

    Returns
    -------
    Planted
        The data and the truth.

    Notes
    -----
    Quality is ``clip(truth + N(0, 0.15), 0, 1)``. Cost is lognormal around each model's mean, with
    a factor that all models share on a prompt: where one answer is long, all are.
    """
    if rows < 1:
        raise ValueError(f"rows: at least 1, not {rows}")
    rng = np.random.default_rng([seed, 1])
    topics = rng.integers(len(TOPICS), size=rows)
    truth = TRUTH[topics]
    quality = np.clip(truth + rng.normal(0.0, _NOISE, truth.shape), 0.0, 1.0)
    shared = rng.lognormal(-0.08, 0.4, (rows, 1))
    cost_usd = COST_USD * shared * rng.lognormal(-0.02, 0.2, truth.shape)
    dataset = Dataset(
        name="synthetic",
        prompts=tuple(_prompt(int(topic), rng) for topic in topics),
        task=tuple(TOPICS[topic] for topic in topics),
        split=("synthetic",) * rows,
        models=MODELS,
        quality=quality,
        cost_usd=cost_usd,
    )
    return Planted(dataset=dataset, truth=truth)


def _prompt(topic: int, rng: np.random.Generator) -> str:
    opening = str(rng.choice(_OPENINGS[topic].split("|")))
    words = rng.choice(_WORDS[topic].split(), size=int(rng.integers(4, 14)))
    body = f"{opening} {' '.join(words.tolist())}"
    if topic == 1:
        return f"{body}\ndef {words[0]}(x):\n    return x"
    if topic == 2:
        return f"{body} with {rng.integers(2, 99)} + {rng.integers(2, 99)} = x?"
    return f"{body}, please."

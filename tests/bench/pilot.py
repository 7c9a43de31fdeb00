"""What PILOT's prior is worth: fitted to the pairs of 100 prompts, played on the other 200.

Every split plays each contender on the same stream under bandit feedback: it learns the score of
the model that it chose and nothing else; cost does not count, and a model that has no score on a
prompt cannot be chosen. Policies and fit run with their shipped defaults. Two controls tell where a
gain comes from: the same fit to shuffled winners, and a prior of each model's share of wins in the
same pairs, which knows no prompt. Needs torch and `arena_bench_v1.parquet`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from report import show
from rich.progress import track

from banditroute.features.embedding import make_embedder
from banditroute.fitting.pairs import Pairs
from banditroute.fitting.pairwise import PairwiseOptions, fit
from policies import Outcome, make_policy
from policies.base import Arrays, Float32, Float64
from policies.laws import draw
from sim.data.dataset import Dataset
from sim.data.formats import load
from sim.measure.supervised import ridge

FITTED = 100
HORIZONS = (50, 100, 200)
MEANS = "PILOT, model means alone"
FREE = "LinUCB without prior"


def pairs_of(data: Dataset) -> Pairs:
    """Return all comparisons of two models' scores on one prompt, models sorted by name."""
    order = np.argsort(data.models)
    quality = data.quality[:, order]
    a, b = np.triu_indices(len(order), 1)
    gap = quality[:, a] - quality[:, b]
    row, pair = np.nonzero(~np.isnan(gap))
    won = 0.5 + 0.5 * np.sign(gap[row, pair])
    models = tuple(data.models[k] for k in order)
    return Pairs(data.prompts, models, row, a[pair], b[pair], won)


def means_prior(pairs: Pairs, dim: int) -> Arrays:
    """Return a prior that places all prompts on one point: log-odds of models' shares of wins."""
    share = pairs.strength()
    level = np.log(share / (1.0 - share))
    scale = float(np.abs(level).max())
    same = np.zeros((2, dim))
    same[1, -1] = 1.0
    return {
        "arms": np.array(pairs.models),
        "projection": same,
        "center": np.array([0.0, 1.0]),
        "embeddings": np.column_stack([np.sqrt(1.0 - (level / scale) ** 2), level / scale]),
        "temperature": np.array(1.0 / scale),
        "context": np.array(0.0),
        "support": np.array(1.0),
        "accuracy": np.full(len(level), 0.7),
    }


def play(
    data: Dataset,
    x: Float32,
    name: str,
    *,
    params: Mapping[str, object],
    prior: Arrays | None,
    seed: int,
) -> Float64:
    """Return the score of the chosen model on every prompt, in order."""
    policy = make_policy(name, dim=x.shape[1], params=params)
    if prior is not None:
        policy.adopt(prior)
    for model in data.models:
        policy.add_arm(model)
    uniforms = np.random.default_rng([seed, 1]).random(len(data))
    quality, free = np.zeros(len(data)), np.zeros((1, len(data.models)))
    for i, u in enumerate(uniforms):
        policy.refresh()
        scores = policy.score(x[i : i + 1], np.array([[1.0, 0.0, 0.0]]))
        pmf = policy.pmf(scores, ~np.isnan(data.quality[i : i + 1]), free)
        arm = int(draw(pmf, np.array([u]))[0])
        quality[i] = data.quality[i, arm]
        outcome = Outcome(i + 1, f"d{i}", data.models[arm], x[i], "quality", float(quality[i]))
        policy.learn([outcome])
    return quality


def single(data: Dataset, order: Float64) -> Float64:
    """Return the scores of the best model by `order`[n, K], among those that have a score."""
    choices = np.where(np.isnan(data.quality), -np.inf, order).argmax(axis=1)
    chosen: Float64 = data.quality[np.arange(len(data)), choices]
    return chosen


def split(data: Dataset, x: Float32, seed: int) -> dict[str, Float64]:
    """Return the scores of every contender on the stream of one split."""
    order = np.random.default_rng(seed).permutation(len(data))
    known, new = data.take(order[:FITTED]), data.take(order[FITTED:])
    at, fresh = x[order[:FITTED]].astype(np.float64), x[order[FITTED:]]
    pairs, options = pairs_of(known), PairwiseOptions(seed=seed)
    rng = np.random.default_rng([seed, 2])
    # Names are in order in every pair: without a coin, the first ones would keep a bias.
    won = np.where(rng.random(len(pairs)) < 0.5, pairs.won, 1.0 - pairs.won)
    shuffled = replace(pairs, won=rng.permutation(won))
    prior = fit(pairs, at, options).arrays
    runs: dict[str, tuple[str, dict[str, object], Arrays | None]] = {
        "PILOT": ("pilot", {}, prior),
        "PILOT, score cosine": ("pilot", {"score": "cosine"}, prior),
        MEANS: ("pilot", {}, means_prior(pairs, x.shape[1])),
        "PILOT, shuffled winners": ("pilot", {}, fit(shuffled, at, options).arrays),
        FREE: ("linucb", {}, None),
        "Thompson without prior": ("thompson", {}, None),
        "random": ("random", {}, None),
    }
    found = {
        label: play(new, fresh, name, params=params, prior=given, seed=seed)
        for label, (name, params, given) in runs.items()
    }
    means = np.nanmean(known.quality, axis=0)
    labels = np.where(np.isnan(known.quality), means, known.quality)
    found["ridge on all scores of the 100"] = single(
        new, fresh.astype(np.float64) @ ridge(at, labels)
    )
    found["best single of the 100"] = single(new, np.tile(means, (len(new), 1)))
    best = np.nanmean(new.quality, axis=0)
    found["best single in hindsight"] = single(new, np.tile(best, (len(new), 1)))
    return found


def table(splits: list[dict[str, Float64]]) -> list[list[str]]:
    """Return a row per contender: means, then differences from the two that matter."""
    means = {
        label: np.array([[one[label][:n].mean() for n in HORIZONS] for one in splits])
        for label in splits[0]
    }
    rows = []
    for label, found in means.items():
        row = [label, *(f"{value:.4f}" for value in found.mean(axis=0))]
        for other in (FREE, MEANS):
            gap = found - means[other]
            error = gap.std(axis=0, ddof=1) / np.sqrt(len(gap))
            row += [f"{m:+.4f} ({e:.4f})" for m, e in zip(gap.mean(axis=0), error, strict=True)]
        rows.append(row)
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="arena_bench_v1.parquet")
    parser.add_argument("--splits", type=int, default=20)
    options = parser.parse_args()
    data = load(options.file)
    x = make_embedder("hashing").features(list(data.prompts))
    splits = [split(data, x, seed) for seed in track(range(options.splits), "splits")]
    columns = ["mean score of the first", *(str(n) for n in HORIZONS)]
    columns += [f"{n}: over {who}" for who in ("LinUCB", "means") for n in HORIZONS]
    note = f"{len(splits)} random splits; in brackets the paired standard error over splits"
    show("PILOT's prior, bandit feedback", columns, table(splits), note)


if __name__ == "__main__":
    main()

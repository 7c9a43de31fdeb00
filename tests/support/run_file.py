"""A made-up run of several stages: worlds with a known effect, and choices in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.measure.summary import stage_of
from sim.measure.supervised import Supervised
from sim.play.trace import Trace
from sim.results import RunFile, Stage
from sim.worlds.world import World, WorldChange

MODELS = ("cheap/8b", "<b>bold</b> & $co$", "large-latest", "costly/pro-2.5-preview")
QUALITY, COST = (0.83, 0.84, 0.86, 0.88), (3e-5, 1.5e-4, 9e-4, 1.4e-2)
POLICIES = (("learner", 0.95), ("learner, slow", 0.8), ("coin", 0.0))


def world(seed: int, n: int, *, dropped: bool = False, gone: bool = False) -> World:
    """Return prompts of two tasks; only the last two models do the second task well."""
    rng = np.random.default_rng([seed, 7])
    hard = rng.random(n) < 0.4
    mean = np.where(hard[:, None], np.array(QUALITY) - np.array([0.5, 0.3, 0.02, 0.0]), QUALITY)
    quality = np.clip(mean + rng.normal(0.0, 0.12, (n, 4)), 0.0, 1.0)
    cost = np.array(COST) * rng.lognormal(0.0, 0.5, (n, 4))
    offered = np.ones((n, 4), dtype=np.bool_)
    changes: list[WorldChange] = []
    if dropped:
        quality[n // 3 : 2 * n // 3, 2] *= 0.6
        changes = [
            WorldChange(n // 3, "large-latest drops to 60 %"),
            WorldChange(2 * n // 3, "it recovers"),
        ]
    if gone:
        offered[n // 2 :, 1] = False
        changes = [WorldChange(n // 2, f"{MODELS[1]} is drained")]
    return World(
        models=MODELS,
        rows=rng.permutation(n),
        task=tuple("hard" if is_hard else "easy" for is_hard in hard),
        quality=quality,
        judged=quality,
        cost_usd=cost,
        price_factor=np.ones((n, 4)),
        offered=offered,
        time_s=np.arange(n, dtype=np.float64),
        delay_s=np.zeros(n),
        changes=tuple(changes),
    )


def play(
    played: World, label: str, skill: float, seed: int, rate_usd: float | None = None
) -> Trace:
    """Return choices that take the best quality per cost more and more often."""
    n, k = played.quality.shape
    rng = np.random.default_rng([seed, len(label)])
    hard = np.array([task == "hard" for task in played.task])
    wanted = np.where(hard, 2, 0)
    recent = np.array([played.quality[max(0, t - 60) : t + 1, 2].mean() for t in range(n)])
    wanted = np.where(hard & (recent < 0.7), 3 if rate_usd is None else 1, wanted)
    wanted = np.where(played.offered[np.arange(n), wanted], wanted, 0)
    certain = skill * np.minimum(1.0, np.arange(1, n + 1) / (n / 8))
    tried = played.offered if rate_usd is None else played.offered & (np.arange(k) < 3)
    pmf = (1.0 - certain)[:, None] * tried / tried.sum(axis=1, keepdims=True)
    pmf[np.arange(n), wanted] += certain
    chosen = np.array([rng.choice(k, p=row) for row in pmf])
    propensity = pmf[np.arange(n), chosen]
    entropy = -np.sum(pmf * np.log(np.where(pmf > 0.0, pmf, 1.0)), axis=1)
    if rate_usd is not None:
        spent = played.cost_usd[np.arange(n), chosen].cumsum()
        over = spent > rate_usd * n
        chosen, propensity = np.where(over, -1, chosen), np.where(over, math.nan, propensity)
    return Trace(label, seed, played, chosen, propensity, entropy)


@dataclass(frozen=True)
class Plan:
    """A stage before it is played."""

    title: str
    says: str
    rate_usd: float | None = None
    dropped: bool = False
    gone: bool = False
    scenario: str = ""


PLANS = (
    Plan("still", "Nothing changes."),
    Plan("drop, on a budget", "One model is worse for a third of the time.", 4e-4, dropped=True),
    Plan("drained", "A model is taken out half-way.", gone=True),
)

BUDGETS = (
    Plan("tight drop", "Little money.", 2e-4, dropped=True, scenario="drop"),
    Plan("rich drop", "More money.", 1.2e-3, dropped=True, scenario="drop"),
)


def staged(plan: Plan, *, seeds: int, n: int, policies: Sequence[tuple[str, float]]) -> Stage:
    """Return a stage with the supervised limit; that of a drop has a utility, too."""
    worlds = [world(seed, n, dropped=plan.dropped, gone=plan.gone) for seed in range(seeds)]
    traces = [
        play(played, label, skill, seed, plan.rate_usd)
        for label, skill in policies
        for seed, played in enumerate(worlds)
    ]
    utility = {
        seed: played.quality - 60.0 * np.minimum(played.cost_usd, 0.01)
        for seed, played in enumerate(worlds)
    }
    return stage_of(
        title=plan.title,
        says=plan.says,
        scenario=plan.scenario,
        traces=traces,
        budget_rate_usd=plan.rate_usd,
        supervised=None if plan.gone else dict(enumerate(map(limit, worlds))),
        utility=utility if plan.dropped else None,
    )


def limit(played: World) -> Supervised:
    """Return the supervised limit, whose prediction is the mean of each task."""
    hard = np.array([task == "hard" for task in played.task])
    quality, cost = (
        np.where(hard[:, None], of[hard].mean(axis=0), of[~hard].mean(axis=0))
        for of in (played.quality, played.cost_usd)
    )
    return Supervised(quality, cost, played.quality, played.cost_usd)


def run_file(
    *,
    seeds: int = 6,
    n: int = 900,
    policies: Sequence[tuple[str, float]] = POLICIES,
    plans: Sequence[Plan] = PLANS,
) -> RunFile:
    """Return a run; by default nothing happens, a model drops under a budget, one is drained."""
    return RunFile(
        title="made-up run",
        command=["sim", "replay", "a file.parquet", "--policy", "learner"],
        versions={"banditroute": "0.1.0", "numpy": "2.0"},
        data={"name": "made up", "digest": "0123abcd", "rows": n, "models": list(MODELS)},
        settings={"seeds": seeds, "preference": [0.7, 0.3, 0.0]},
        stages=[staged(plan, seeds=seeds, n=n, policies=policies) for plan in plans],
    )

"""A policy alone on a stream of full information, for sweeps over large precomputed streams.

There is no router here, no fold, no price and no log. Only quality counts, every arm is always on
offer, and feedback comes at once. Under these conditions a replay makes the same choices. Results
about money, delay or drift need a replay.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policies import Policy
from policies.base import Float32, Float64
from policies.laws import draw
from policies.ridge import RidgeArms


def play_alone(
    policy: Policy,
    x: Float32,
    rewards: Float64,
    *,
    rng: np.random.Generator,
    batch: int = 1,
    refresh: int = 1,
    steps: int = 0,
) -> NDArray[np.intp]:
    """Return the arm that the policy chooses for each row, int[n], learning as it goes.

    Parameters
    ----------
    policy : Policy
        With its K arms. It goes on from what it has learned; publish it anew afterwards.
    x : float32[n, d]
        The features.
    rewards : float64[n, K]
        What each arm earns, in [0, 1].
    rng : numpy.random.Generator
        Source of the uniforms.
    batch : int
        How many rows are decided before anything is learned of them.
    refresh : int
        How many outcomes at least are learned before they show in a decision.
    steps : int
        With 0 the choices are those of a replay, bit for bit. With more, the solutions of linear
        policies that do not forget are updated by Sherman-Morrison, and solved anew after this many
        outcomes of an arm; see `RidgeArms`.

    Raises
    ------
    ValueError
        For a policy that weighs money itself, and for sizes that do not fit.
    """
    n, k = rewards.shape
    if policy.reads_preference:
        raise ValueError(f"policy: {policy.name} weighs money, which is not here")
    if (len(x), len(policy.arms)) != (n, k) or min(batch, refresh) < 1 or k < 1:
        raise ValueError(f"rewards: {n} rows of {k} arms for {len(x)} of {len(policy.arms)}")
    ridges = [part for part in vars(policy).values() if isinstance(part, RidgeArms)]
    for ridge in ridges:
        ridge.set_steps(steps)
    preference = np.tile((1.0, 0.0, 0.0), (batch, 1))
    eligible, penalty = np.ones((batch, k), dtype=np.bool_), np.zeros((batch, k))
    u = rng.random((n,))
    chosen, each = np.empty(n, dtype=np.intp), np.arange(batch)
    policy.refresh()
    unseen = 0
    for start in range(0, n, batch):
        rows, earned = x[start : start + batch], rewards[start : start + batch]
        m = len(rows)
        scores, _, _ = policy.assess(rows, preference[:m])
        arms = draw(policy.pmf(scores, eligible[:m], penalty[:m]), u[start : start + m])
        chosen[start : start + m] = arms
        policy.learn_rows(arms, rows, earned[each[:m], arms])
        unseen += m
        if unseen >= refresh:
            policy.refresh()
            unseen = 0
    for ridge in ridges:
        ridge.set_steps(0)
    return chosen

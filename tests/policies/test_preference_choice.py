"""How a caller's preference changes the choice: models, penalty and law together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.policy_cases import ARMS, CASES, DIM, Case, build, contexts, outcomes, trained

from policies import POLICIES, Outcome, Policy, make_policy
from policies.base import Float32, Float64
from policies.models.cost import CostModel
from policies.preference import penalty

TAU = 1e-2
GREEDY: list[Case] = [
    ("thompson", {"alpha": 1e-6, "context": 0.0}),
    ("linucb", {"alpha": 0.0}),
    ("pilot", {"alpha": 0.0}),
    ("knn", {"alpha": 0.0}),
    ("epsilon-greedy", {"epsilon": 0.0}),
]

PENALISED = [case for case in CASES if not POLICIES[case[0]].reads_preference]
"""Policies that pay the predicted cost; the others learn costs by themselves."""


def costs_of(seed: int, x: Float32) -> Float64:
    """Return predicted US dollars[n, K] of a cost model that has learned a random log."""
    rng, model = np.random.default_rng([7, seed]), CostModel(dim=DIM)
    for arm in ARMS:
        model.add_arm(arm)
    prior = 10 ** rng.uniform(-5, -1.5, len(ARMS))
    for row in contexts(60, seed=seed + 1):
        arm = int(rng.integers(len(ARMS)))
        value = float(prior[arm] * rng.lognormal(0.0, 1.0))
        model.learn(
            Outcome(1, "d", ARMS[arm], row, "cost", value, cost_prior_usd=float(prior[arm]))
        )
    model.refresh()
    return model.predict(x, np.zeros((len(x), len(ARMS))), prior)


def pmf_at(policy: Policy, x: Float32, cost: Float64, weights: tuple[float, float]) -> Float64:
    preference = np.tile([*weights, 0.0], (len(x), 1))
    fine = penalty(cost, np.zeros_like(cost), preference, tau_cost_usd=TAU, tau_latency_ms=1.0)
    return policy.pmf(policy.score(x, preference), np.ones(cost.shape, dtype=np.bool_), fine)


@settings(max_examples=120, deadline=None)
@given(
    case=st.sampled_from(PENALISED),
    seed=st.integers(0, 10_000),
    weights=st.lists(st.integers(0, 100), min_size=2, max_size=6, unique=True).map(sorted),
)
def test_moving_weight_to_cost_never_raises_the_predicted_clipped_cost(
    case: Case, seed: int, weights: list[int]
) -> None:
    policy = build(case)
    policy.learn(outcomes(40, seed=seed))
    policy.refresh()
    x = contexts(8, seed=seed + 2)
    cost = costs_of(seed, x)
    clipped = np.minimum(cost / TAU, 1.0)
    paid = [
        (pmf_at(policy, x, cost, (1.0 - w / 100.0, w / 100.0)) * clipped).sum(axis=1)
        for w in weights
    ]
    # For a law that draws, what falls is the expectation; quadrature leaves 1e-7 of noise.
    assert (np.diff(paid, axis=0) <= 1e-7).all()


@pytest.mark.parametrize("greedy", GREEDY, ids=[name for name, _ in GREEDY])
def test_quality_alone_with_free_money_picks_the_best_predicted_model(greedy: Case) -> None:
    policy = trained(greedy)
    x = contexts(200, seed=3)
    cost = costs_of(0, x)
    pmf = pmf_at(policy, x, cost, (1.0, 0.0))
    mean = policy.estimate(x)[0].astype(np.float64)
    gap = -np.diff(np.sort(np.minimum(mean, 1.0), axis=1)[:, -2:])[:, 0]
    clear = np.abs(gap) > 1e-4
    assert clear.sum() > 100 or len(set(mean.argmax(axis=1))) == 1
    assert (pmf[clear].argmax(axis=1) == mean[clear].argmax(axis=1)).all()


def test_the_three_models_are_separate() -> None:
    """An outcome of quality changes no predicted cost, and an outcome of cost no quality."""
    policy, cost = make_policy("thompson", dim=DIM), CostModel(dim=DIM)
    for part in (policy, cost):
        part.add_arm("a")
        part.refresh()
    x = contexts(1)
    kept = cost.predict(x, np.zeros((1, 1)), np.ones(1))
    policy.learn([Outcome(1, "d", "a", x[0], "quality", 0.0, cost_usd=9.0)])
    policy.refresh()
    assert cost.predict(x, np.zeros((1, 1)), np.ones(1)).tolist() == kept.tolist()
    before = policy.publish()
    cost.learn(Outcome(2, "d", "a", x[0], "cost", 9.0, cost_prior_usd=1.0))
    assert all((policy.publish()[name] == array).all() for name, array in before.items())

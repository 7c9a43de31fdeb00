"""The net of BaRP: its gradient by differences and by torch, its estimator, and its steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policies import barp_net as net
from policies.barp_net import Adam, Minibatch, Net

K, DIM, N, BETA = 4, 3, 12, 0.3


def some_net(seed: int = 0) -> Net:
    rng = np.random.default_rng([1, seed])
    made = net.fresh(DIM) | {"head": np.zeros((K, 2, DIM))}
    return {name: array + 0.3 * rng.normal(size=array.shape) for name, array in made.items()}


def some_rows(seed: int = 0) -> Minibatch:
    """Return rows of one outcome each; those of the second half are of a pair."""
    rng = np.random.default_rng([2, seed])
    share, arms = rng.random(N), np.column_stack([rng.integers(K, size=N), np.full(N, -1)])
    arms[N // 2 :, 1] = (arms[N // 2 :, 0] + 1) % K
    return Minibatch(
        x=rng.normal(size=(N, DIM)),
        w=np.column_stack([1.0 - share, share]),
        reward=rng.normal(size=(N, K)),
        arms=arms,
        propensity=rng.uniform(0.2, 1.0, size=(N, 2)),
        surprise=rng.normal(size=(N, 2)),
    )


def objective(at: Net, seen: Minibatch, weights: np.ndarray) -> float:
    """Return what is maximised, with the importance weights[n, 2] held fixed."""
    pi, log_pi = net.softmax(net.logits(at, seen.x, seen.w, beta=BETA))
    rows = np.arange(N)[:, None]
    observed = np.where(seen.arms >= 0, weights * seen.surprise * log_pi[rows, seen.arms], 0.0)
    believed = (pi * (seen.reward - BETA * log_pi)).sum(axis=1)
    return float((believed + observed.sum(axis=1)).mean())


def test_the_gradient_is_that_of_differences() -> None:
    at, seen = some_net(), some_rows()
    pi = net.softmax(net.logits(at, seen.x, seen.w, beta=BETA))[0]
    weights = np.minimum(pi[np.arange(N)[:, None], seen.arms] / seen.propensity, 0.7)
    found = net.gradient(at, seen, beta=BETA, clip=0.7)
    for name, array in at.items():
        for index in np.ndindex(array.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = {key: value.copy() for key, value in at.items()}
                moved[name][index] += step
                ends.append(objective(moved, seen, weights))
            assert found[name][index] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-8)


@pytest.mark.minilm
def test_the_gradient_is_that_of_autograd() -> None:
    import torch

    from banditroute.fitting.pretraining import loss

    at, seen = some_net(3), some_rows(3)
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in at.items()}
    loss(torch, tensors, seen, beta=BETA, clip=0.7).backward()
    for name, g in net.gradient(at, seen, beta=BETA, clip=0.7).items():
        np.testing.assert_allclose(g, -tensors[name].grad.numpy(), rtol=0, atol=1e-12)


@pytest.mark.minilm
def test_steps_are_those_of_torch() -> None:
    import torch

    at = some_net()
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in at.items()}
    theirs, ours = torch.optim.Adam(tensors.values(), lr=0.01, maximize=True), Adam.of(at)
    for seed in range(5):
        found = net.gradient(at, some_rows(seed), beta=BETA, clip=5.0)
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(found[name])
        theirs.step()
        ours.climb(at, found, rate=0.01)
    for name, array in at.items():
        np.testing.assert_allclose(array, tensors[name].detach().numpy(), rtol=0, atol=1e-12)


def test_beliefs_do_not_change_the_mean_of_the_gradient() -> None:
    """On average over the draw, any baseline gives the gradient of the true rewards."""
    at, seen = some_net(), some_rows()
    true = np.random.default_rng(5).normal(size=(N, K))
    logged = np.random.default_rng(6).dirichlet(np.ones(K), size=N)
    expected = net.gradient(
        at, replace(seen, reward=true, surprise=np.zeros((N, 2))), beta=BETA, clip=1e9
    )
    for belief in (np.zeros((N, K)), seen.reward):
        total = {name: np.zeros_like(array) for name, array in at.items()}
        for arm in range(K):
            p = logged[:, arm]
            observed = replace(
                seen,
                reward=belief,
                arms=np.column_stack([np.full(N, arm), np.full(N, -1)]),
                propensity=np.column_stack([p, p]),
                # The mean over arms, each K p times, is the expectation over the draw.
                surprise=np.column_stack([K * p * (true[:, arm] - belief[:, arm])] * 2),
            )
            for name, g in net.gradient(at, observed, beta=BETA, clip=1e9).items():
                total[name] += g / K
        for name, g in expected.items():
            np.testing.assert_allclose(total[name], g, rtol=0, atol=1e-12)


def test_an_importance_weight_is_clipped() -> None:
    at, seen = some_net(), some_rows()
    rare, rarer = (
        net.gradient(at, replace(seen, propensity=np.full((N, 2), p)), beta=BETA, clip=2.0)
        for p in (1e-6, 1e-9)
    )
    for name, g in rare.items():
        np.testing.assert_array_equal(g, rarer[name])


def test_the_simplex() -> None:
    preference = np.array([[0.6, 0.2, 0.2], [2.0, 0.0, 0.0], [0.0, 0.3, 0.7], [0.0, 0.0, 1.0]])
    w, total = net.simplex(preference)
    np.testing.assert_allclose(w, [[0.75, 0.25], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(total, [0.8, 2.0, 0.3, 1.0])

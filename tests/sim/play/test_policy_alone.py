"""The lane: a policy alone chooses what the whole product does, where only quality counts."""

from __future__ import annotations

import numpy as np
import pytest

from policies import Policy, make_policy
from policies.base import Float32, Float64
from sim.data.dataset import Dataset
from sim.play.candidate import Candidate
from sim.play.policy_alone import play_alone
from sim.play.replay import CandidateReplay, Experiment, Split
from sim.worlds.world import World

ARMS = ("small", "plain", "large", "huge")
_DRAWS = 1


def _stream(n: int = 400, dim: int = 6) -> tuple[Float32, Float64]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(n, dim)).astype(np.float32)
    x[:, -1] = 1.0
    levels = x @ rng.normal(0.0, 0.1, (dim, len(ARMS))) + np.array([0.3, 0.35, 0.4, 0.4])
    return x, np.clip(levels + rng.normal(0.0, 0.1, levels.shape), 0.0, 1.0)


def _policy(name: str = "linucb", **params: object) -> Policy:
    policy = make_policy(name, dim=6, params=params)
    for arm in ARMS:
        policy.add_arm(arm)
    return policy


def _replayed(contender: Candidate, batch: int) -> list[int]:
    x, rewards = _stream()
    n = len(x)
    data = Dataset(
        name="made",
        prompts=("a prompt",) * n,
        task=("t",) * n,
        split=("s",) * n,
        models=ARMS,
        quality=rewards,
        cost_usd=np.full(rewards.shape, 1e-3),
    )
    plan = Experiment(
        dataset=data,
        features=x,
        embedder="given",
        split=Split(),
        preference=(1.0, 0.0, 0.0),
        batch=batch,
    )
    trace = CandidateReplay(plan, contender, 0).play(World.from_dataset(data, np.arange(n)))
    return [int(arm) for arm in trace.chosen]


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize(
    "contender",
    [
        Candidate.of("linucb"),
        Candidate.of("linucb", {"gamma": 0.99, "alpha": 1.0}),
        Candidate.of("thompson", exploration_share=0.0),
        Candidate.of("sw-linucb", {"window": 50}),
    ],
    ids=lambda contender: f"{contender.name} {contender.params}",
)
def test_it_chooses_what_the_replay_does(contender: Candidate, batch: int) -> None:
    x, rewards = _stream()
    policy = _policy(contender.name, **contender.params)
    chosen = play_alone(policy, x, rewards, rng=np.random.default_rng([0, _DRAWS]), batch=batch)
    assert chosen.tolist() == _replayed(contender, batch)
    assert len(set(chosen.tolist())) > 1


def test_steps_choose_what_solving_does_and_learn_the_same_sums() -> None:
    x, rewards = _stream(3_000)
    exact, quick = _policy(), _policy()
    chosen = [
        play_alone(policy, x, rewards, rng=np.random.default_rng(0), steps=steps)
        for policy, steps in ((exact, 0), (quick, 64))
    ]
    assert chosen[0].tolist() == chosen[1].tolist()
    exact.refresh()
    quick.refresh()
    # Whoever goes on with it has what is solved from the sums.
    assert all((exact.view[name] == quick.view[name]).all() for name in exact.view)
    assert all(
        (a == b).all() for a, b in zip(exact.state().values(), quick.state().values(), strict=True)
    )


def test_what_is_not_refreshed_does_not_show() -> None:
    x, rewards = _stream()
    policy = _policy(alpha=0.0)
    rare = play_alone(policy, x, rewards, rng=np.random.default_rng(0), refresh=100)
    fresh = play_alone(_policy(alpha=0.0), x, rewards, rng=np.random.default_rng(0))
    assert rare.tolist() != fresh.tolist()
    assert policy.clock == len(x)


@pytest.mark.parametrize("bad", [{"batch": 0}, {"refresh": 0}])
def test_sizes_that_do_not_fit_are_refused(bad: dict[str, int]) -> None:
    x, rewards = _stream()
    with pytest.raises(ValueError, match="rewards"):
        play_alone(_policy(), x, rewards, rng=np.random.default_rng(0), **bad)
    with pytest.raises(ValueError, match="rewards"):
        play_alone(_policy(), x[1:], rewards, rng=np.random.default_rng(0))


def test_a_policy_that_weighs_money_is_refused() -> None:
    x, rewards = _stream()
    with pytest.raises(ValueError, match="money"):
        play_alone(_policy("barp"), x, rewards, rng=np.random.default_rng(0))

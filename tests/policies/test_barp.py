"""BaRP beyond the conformance suite: preferences, learning in the fold, pairs, arms and priors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.policy_cases import same_bits

from policies import Comparison, Outcome
from policies.barp import Barp
from policies.base import Arrays, Sums

DIM = 3
FREE = np.zeros((1, 3))


def log(
    n: int, *, seed: int = 0, arms: tuple[str, ...] = ("small", "odd", "large")
) -> list[Outcome]:
    """Return a uniform log: large is best and costs most, odd is good at a high first feature."""
    rng, made = np.random.default_rng([1, seed]), []
    for i in range(n):
        x = np.array([*rng.normal(size=DIM - 1), 1.0], dtype=np.float32)
        arm = int(rng.integers(len(arms)))
        quality = (0.5, 0.5 + 0.3 * float(x[0]), 0.8)[arm] + 0.05 * rng.normal()
        cost = (0.0001, 0.001, 0.01)[arm] * rng.uniform(0.8, 1.2)
        made.append(Outcome(i, f"d{i}", arms[arm], x, "quality", quality, cost, 1.0 / len(arms)))
    return made


def taught(n: int = 600, **parameters: object) -> Barp:
    policy = Barp(dim=DIM, **parameters)  # type: ignore[arg-type]
    policy.tau_cost_usd = 0.01
    for name in ("small", "odd", "large"):
        policy.add_arm(name)
    policy.learn(log(n))
    policy.refresh()
    return policy


def pmf(policy: Barp, first: float, *preference: float, penalty: np.ndarray = FREE) -> np.ndarray:
    x = np.array([[first, 0.0, 1.0]], dtype=np.float32)
    scores = policy.score(x, np.array([preference]))
    return policy.pmf(scores, np.ones((1, len(policy.arms)), dtype=np.bool_), penalty)[0]


# --- preferences ---------------------------------------------------------------------------------


def test_the_preference_changes_the_choice_with_nothing_learned_again() -> None:
    policy = taught()
    before = policy.state()
    assert pmf(policy, 0.0, 1.0, 0.0, 0.0)[2] > 0.99
    assert pmf(policy, 0.0, 0.5, 0.5, 0.0)[2] < 0.01
    assert pmf(policy, 2.0, 0.9, 0.1, 0.0)[1] > 0.99
    assert pmf(policy, -2.0, 0.5, 0.5, 0.0)[0] > 0.99
    assert same_bits(policy.state(), before)


def test_the_expected_cost_falls_as_its_weight_grows() -> None:
    policy, cost = taught(), np.array([0.01, 0.1, 1.0])
    paid = [pmf(policy, 0.0, 1.0 - w, w, 0.0) @ cost for w in np.linspace(0.0, 1.0, 21)]
    assert (np.diff(paid) <= 1e-9).all() and paid[0] > 0.9 and paid[-1] < 0.15


@pytest.mark.parametrize("quality", [1.0, 0.5])
def test_a_penalty_in_quality_units_weighs_as_much_as_quality_does(quality: float) -> None:
    policy, fine = taught(), np.array([[0.0, 0.004, 0.002]])
    plain = pmf(policy, 0.5, quality, 1.0 - quality, 0.0)
    expected = plain * np.exp(-fine[0] * quality / policy.beta)
    found = pmf(policy, 0.5, quality, 1.0 - quality, 0.0, penalty=fine)
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-6)


@pytest.mark.parametrize("preference", [(0.0, 0.0, 1.0), (0.0, 1e-3, 0.999)])
def test_without_quality_latency_decides(preference: tuple[float, float, float]) -> None:
    # What the router makes of latency 0.2, 0.1 and 0.3 at the floor of the weight of quality.
    fine = np.array([[0.2, 0.1, 0.3]]) / 1e-9 * preference[2]
    assert pmf(taught(), 0.0, *preference, penalty=fine)[1] == pytest.approx(1.0)


def test_without_quality_cost_decides() -> None:
    assert pmf(taught(), 0.0, 0.0, 1.0, 0.0)[0] > 0.99


# --- learning ------------------------------------------------------------------------------------


def test_rewards_alone_teach_the_net() -> None:
    """Without an anchor only the policy gradient moves the head."""
    policy = taught(1_500, anchor=0.0, rate=0.01, beta=0.02)
    assert pmf(policy, 0.0, 1.0, 0.0, 0.0).argmax() == 2
    assert pmf(policy, 0.0, 0.5, 0.5, 0.0)[2] < 0.05
    assert pmf(policy, 2.0, 0.8, 0.2, 0.0).argmax() == 1


def test_the_gradient_corrects_what_the_ridge_believes() -> None:
    """An expectation that outcomes contradict, as after a prior of other models, is corrected."""
    policy, sums = Barp(dim=DIM, anchor=0.0, rate=0.01, beta=0.05, clip=10.0), {}
    for name, level in (("good", 0.2), ("bad", 0.9)):
        policy.add_arm(name)
        gram, moment = np.zeros((DIM, DIM)), np.zeros(DIM)
        gram[-1, -1], moment[-1] = 1e6, 1e6 * level
        sums[name] = Sums(gram, moment, 1e6 * level**2, 1e6)
        policy.teach(name, sums[name])
    policy.refresh()
    assert pmf(policy, 0.0, 1.0, 0.0, 0.0, penalty=np.zeros((1, 2)))[1] > 0.99
    rng = np.random.default_rng(4)
    for i in range(1_500):
        x, arm = np.array([*rng.normal(size=2), 1.0], dtype=np.float32), i % 2
        quality = (0.9, 0.2)[arm]
        policy.learn([Outcome(i, "", ("good", "bad")[arm], x, "quality", quality, 0.0, 0.5)])
    policy.refresh()
    assert policy.estimate(np.array([[0.0, 0.0, 1.0]], dtype=np.float32))[0].argmax() == 1
    assert pmf(policy, 0.0, 1.0, 0.0, 0.0, penalty=np.zeros((1, 2)))[0] > 0.8


def test_it_moves_when_a_batch_is_full_and_not_before() -> None:
    policy = taught(0, batch=8)
    before = {name: array.copy() for name, array in policy.net.items()}
    policy.learn(log(7))
    assert same_bits(policy.net, before) and policy.adam.taken == 0
    policy.learn(log(8)[7:])
    assert not same_bits(policy.net, before) and policy.adam.taken == policy.steps


def test_without_steps_the_net_is_frozen_and_the_estimate_is_not() -> None:
    policy = taught(0, steps=0)
    before = {name: array.copy() for name, array in policy.net.items()}
    policy.learn(log(100))
    policy.refresh()
    assert same_bits(policy.net, before)
    assert policy.estimate(np.array([[0.0, 0.0, 1.0]], dtype=np.float32))[0].argmax() == 2


def test_only_the_newest_lessons_are_remembered() -> None:
    one, two = taught(0, memory=32), taught(0, memory=32)
    one.learn(log(32, seed=1))
    for policy in (one, two):
        policy.learn(log(32, seed=9))
    assert same_bits(one.kept, two.kept) and not same_bits(one.net, two.net)


def test_a_cost_that_was_not_reported_is_the_expected_one() -> None:
    policy = taught()
    before = policy.spend.state()
    policy.learn([replace(one, cost_usd=None) for one in log(64, seed=3)])
    assert same_bits(policy.spend.state(), before)
    assert all(np.isfinite(array).all() for array in policy.net.values())


def test_an_outcome_is_worth_its_quality_and_cost_beyond_what_was_believed() -> None:
    policy, w = taught(), np.array([[0.75, 0.25]])
    theta, spend = policy.ridge.solve(600)[0], policy.spend.solve(600)[0]
    x = np.array([0.4, -0.2, 1.0], dtype=np.float32)
    policy._keep(x, (1, -1), (0.5, 1.0), (0.9, 0.3))
    seen = policy._minibatch(np.array([600]), w, theta, spend)
    quality, cost = theta @ x, spend @ x
    np.testing.assert_allclose(seen.reward[0], 0.75 * quality - 0.25 * cost)
    expected = 0.75 * (0.9 - quality[1]) - 0.25 * (0.3 - cost[1])
    assert seen.surprise[0, 0] == pytest.approx(float(expected))


def test_cost_counts_up_to_tau() -> None:
    heads = []
    for cost_usd in (0.01, 5.0):
        policy = taught(0)
        policy.learn([replace(one, cost_usd=cost_usd) for one in log(64)])
        heads.append(policy.net["head"])
    assert heads[0].tobytes() == heads[1].tobytes()


# --- pairs ---------------------------------------------------------------------------------------


def pairs(
    policy: Barp, n: int, *, winner: str = "odd", loser: str = "large", p: float = 0.5
) -> None:
    rng = np.random.default_rng([3, n])
    for i in range(n):
        x = np.array([*rng.normal(size=DIM - 1), 1.0], dtype=np.float32)
        policy.compare(Comparison(i, "a", "b", winner, loser, x, p, p))
    policy.refresh()


def test_who_wins_pairs_is_drawn_more_often() -> None:
    policy = taught(0, rate=0.01, anchor=0.0)
    policy.refresh()
    before, sums = pmf(policy, 0.0, 1.0, 0.0, 0.0), policy.ridge.state()
    pairs(policy, 320)
    after = pmf(policy, 0.0, 1.0, 0.0, 0.0)
    assert after[1] > before[1] + 0.2 and after[2] < before[2] - 0.2
    assert same_bits(policy.ridge.state(), sums) and policy.clock == 0


def test_a_pair_is_worth_its_surprise_and_at_most_its_gain() -> None:
    policy = taught(600, gain=0.1)
    w = np.array([[0.75, 0.25]])
    theta, spend = policy.ridge.solve(600)[0], policy.spend.solve(600)[0]
    x = np.array([0.0, 0.0, 1.0], dtype=np.float32)
    found = {}
    for winner, loser in ((2, 0), (0, 2)):
        policy._keep(x, (winner, loser), (0.5, 0.25), (0.0, 0.0))
        slot = np.array([(policy.examples - 1) % policy.memory])
        seen = policy._minibatch(slot, w, theta, spend)
        assert seen.arms.tolist() == [[winner, loser]]
        assert seen.propensity.tolist() == [[0.5, 0.25]]
        assert seen.surprise[0, 1] == -seen.surprise[0, 0]
        found[winner] = float(seen.surprise[0, 0])
    odds = float(theta[2] @ x - theta[0] @ x) / 0.1
    assert found[2] == pytest.approx(0.75 * 0.1 / (1.0 + np.exp(odds)))
    assert found[0] == pytest.approx(0.75 * 0.1 / (1.0 + np.exp(-odds)))
    assert 0.0 < found[2] < 0.01 < found[0] < 0.75 * 0.1


def test_pairs_are_part_of_the_state() -> None:
    one = taught(100)
    pairs(one, 50)
    two = taught(0)
    two.load(one.state())
    for policy in (one, two):
        policy.learn(log(60, seed=5))
        pairs(policy, 60)
    assert same_bits(one.state(), two.state()) and one.examples == 270


# --- arms ----------------------------------------------------------------------------------------


def test_a_new_arm_starts_as_the_mean_of_the_others_and_learns() -> None:
    policy = taught()
    others = policy.net["head"].copy()
    policy.add_arm("new")
    np.testing.assert_allclose(policy.net["head"][3], others.mean(axis=0))
    assert policy.net["head"][:3].tobytes() == others.tobytes()
    rng = np.random.default_rng(8)
    for i in range(64):
        x = np.array([*rng.normal(size=DIM - 1), 1.0], dtype=np.float32)
        policy.learn([Outcome(i, "", "new", x, "quality", 1.0, 0.0, 0.5)])
    policy.refresh()
    assert pmf(policy, 0.0, 0.7, 0.3, 0.0, penalty=np.zeros((1, 4)))[3] > 0.9


def test_a_reset_draws_one_row_to_the_mean_and_forgets_its_outcomes() -> None:
    policy = taught()
    head, rest = policy.net["head"].copy(), policy.kept["arms"].copy()
    policy.reset_arm("small", shift=0.1)
    moved = head[0].copy()
    moved[0, -1] += 0.1
    mean = (moved + head[1] + head[2]) / 3.0
    np.testing.assert_allclose(policy.net["head"][0], 0.5 * (moved + mean))
    assert policy.net["head"][1:].tobytes() == head[1:].tobytes()
    assert not (policy.kept["arms"][:600] == 0).any()
    kept = (rest != 0).all(axis=1)
    assert (policy.kept["arms"][kept] == rest[kept]).all()
    known = policy.ridge.level_counts(policy.clock)
    assert known[0] == pytest.approx(2.0) and known[1] > 100.0


def test_an_arm_that_is_taught_is_placed_by_what_it_was_taught() -> None:
    policy = taught()
    policy.add_arm("new")
    gram, moment = np.zeros((DIM, DIM)), np.zeros(DIM)
    gram[-1, -1], moment[-1] = 99.0, 99.0
    policy.teach("new", Sums(gram, moment, 99.0, 99.0))
    policy.refresh()
    assert policy.net["head"][3, 0, -1] == pytest.approx((99.0 + 0.7) / 100.0)
    assert pmf(policy, 0.0, 1.0, 0.0, 0.0, penalty=np.zeros((1, 4))).argmax() == 3


# --- priors --------------------------------------------------------------------------------------


def trained_prior() -> Arrays:
    policy, prefixes = taught(), ("", "spend_")
    made: Arrays = {"arms": np.array(policy.arms), "tau_cost": np.array(policy.tau_cost_usd)}
    for prefix, ridge in zip(prefixes, (policy.ridge, policy.spend), strict=True):
        made |= {f"{prefix}{name}": getattr(ridge, name) for name in ("moment", "square", "count")}
        made[f"{prefix}gram"] = ridge.symmetric()
    return made | policy.net


def started(
    prior: Arrays, *, tau: float = 0.01, arms: tuple[str, ...] = ("small", "odd", "large")
) -> Barp:
    policy = Barp(dim=DIM)
    policy.tau_cost_usd = tau
    policy.adopt(prior)
    for name in arms:
        policy.add_arm(name)
    policy.refresh()
    return policy


def test_a_trained_net_plays_as_it_did_and_goes_on() -> None:
    policy, straight = started(trained_prior()), taught()
    for first in (-1.0, 0.0, 2.0):
        for w in (0.0, 0.2, 0.6):
            found, expected = (pmf(one, first, 1.0 - w, w, 0.0) for one in (policy, straight))
            np.testing.assert_allclose(found, expected, atol=1e-5)
    x = np.array([[0.3, 0.1, 1.0]], dtype=np.float32)
    np.testing.assert_allclose(policy.estimate(x)[0], straight.estimate(x)[0], atol=1e-5)
    before = policy.net["head"].copy()
    policy.learn(log(64, seed=6))
    assert np.abs(policy.net["head"] - before).max() > 0.0


def test_a_trained_arm_has_its_row_wherever_it_stands() -> None:
    policy = started(trained_prior(), arms=("other", "large", "small"))
    head = trained_prior()["head"]
    assert policy.net["head"][1].tobytes() == head[2].tobytes()
    assert policy.net["head"][2].tobytes() == head[0].tobytes()


def test_another_tau_is_another_scale_of_cost() -> None:
    policy, head = started(trained_prior(), tau=0.02), trained_prior()["head"]
    np.testing.assert_allclose(policy.net["head"][:, 1], 0.5 * head[:, 1])
    np.testing.assert_allclose(policy.net["head"][:, 0], head[:, 0])
    theta = started(trained_prior()).spend.solve(0)[0]
    np.testing.assert_allclose(policy.spend.solve(0)[0], 0.5 * theta)


def test_sums_alone_place_the_head() -> None:
    prior = {name: trained_prior()[name] for name in ("arms", "gram", "moment", "square", "count")}
    policy = started(prior)
    assert pmf(policy, 0.0, 1.0, 0.0, 0.0)[2] > 0.99 and pmf(policy, 2.0, 1.0, 0.0, 0.0)[1] > 0.99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": None}, ""),
        (
            {"head": np.zeros((3, 2, DIM + 1))},
            r"prior: head: must have shape \[3, 2, 3\], has \[3, 2, 4\]",
        ),
        ({"head": np.full((3, 2, DIM), np.nan)}, "prior: head: every number must be finite"),
        ({"inner": None}, r"prior: inner: must have shape \[8, 2\], has nothing"),
        ({"outer": np.zeros((2, 3))}, r"prior: outer: must have shape \[2, 8\], has \[2, 3\]"),
        ({"tau_cost": np.array(0.0)}, "prior: tau_cost: above 0, not 0"),
        ({"spend_gram": None}, "prior: sums of quality and cost for every model"),
        ({"spend_moment": np.zeros((3, DIM + 1))}, "prior: of 3 features, not 4"),
        ({"moment": np.full((3, DIM), np.inf)}, "prior: every number finite"),
    ],
)
def test_a_prior_that_does_not_fit_is_refused(
    change: dict[str, np.ndarray | None], message: str
) -> None:
    prior = trained_prior() | change
    prior = {name: array for name, array in prior.items() if array is not None}
    if not message:
        Barp(dim=DIM).adopt(prior)
        return
    with pytest.raises(ValueError, match=f"^{message}"):
        Barp(dim=DIM).adopt(prior)


@pytest.mark.parametrize(
    ("field", "value"),
    [("beta", 0.0), ("rate", -1.0), ("anchor", 1.5), ("clip", 0.0), ("batch", 0), ("steps", -1),
     ("memory", 0), ("gain", 0.0), ("ridge", 0.0), ("level", 0.0), ("prior", 2.0)],
)  # fmt: skip
def test_a_parameter_that_makes_no_sense_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        Barp(dim=DIM, **{field: value})  # type: ignore[arg-type]


def test_an_arm_without_outcomes_is_expected_to_be_like_the_others() -> None:
    """With bare priors it would be good and free of charge, and would get all requests."""
    policy = taught()
    policy.add_arm("late")
    outcomes = log(400)
    policy.learn(outcomes)
    policy.refresh()
    x = np.stack([o.x for o in outcomes[:50]])
    w = np.tile([[0.5, 0.5, 0.0]], (50, 1))
    pmf = policy.pmf(policy.score(x, w), np.ones((50, 4), np.bool_), np.zeros((50, 4)))
    assert pmf[:, 3].mean() < 0.3

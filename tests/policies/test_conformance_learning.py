"""The promises of the policy contract about learning, state, arms and forgetting.

A test here may use only what `policies.base` promises; what one policy computes is tested beside
its own module.
"""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from support.policy_cases import (
    ARMS,
    DIM,
    Case,
    build,
    comparisons,
    contexts,
    outcomes,
    rows,
    same_bits,
    trained,
)

from policies import POLICIES, Outcome, Policy, full_params, make_policy
from policies.laws import draw

# --- learning ------------------------------------------------------------------------------------


def test_the_same_log_gives_the_same_bits(case: Case) -> None:
    one, two, r = trained(case), trained(case), rows()
    assert same_bits(one.state(), two.state())
    assert same_bits(one.publish(), two.publish())
    a, b = (p.pmf(r.scores(p), r.eligible, r.penalty) for p in (one, two))
    assert a.tobytes() == b.tobytes()
    u = np.random.default_rng(8).random(len(a))
    assert draw(a, u).tolist() == draw(b, u).tolist()


def test_state_does_not_depend_on_batches_or_on_publishing(case: Case) -> None:
    log = outcomes(150)
    whole, single, pieces = build(case), build(case), build(case)
    whole.learn(log)
    for outcome in log:
        single.learn([outcome])
        single.publish()
    for cut in np.split(np.arange(len(log)), [0, 3, 40, 41, 120]):
        pieces.learn(log[i] for i in cut)
        pieces.refresh()
        pieces.state()
    assert same_bits(single.state(), whole.state())
    assert same_bits(pieces.state(), whole.state())
    assert same_bits(single.publish(), whole.publish())
    assert same_bits(pieces.publish(), whole.publish())


@pytest.mark.parametrize("gap", [1, 7, 150])
def test_rows_are_learned_to_the_bits_of_their_outcomes(case: Case, gap: int) -> None:
    one, rows_alone = build(case), build(case)
    log = [
        Outcome(0, "", outcome.arm, outcome.x, "quality", outcome.value)
        for outcome in outcomes(150)
    ]
    one.learn(log)
    arms = np.array([ARMS.index(outcome.arm) for outcome in log])
    x = np.stack([outcome.x for outcome in log])
    values = np.array([outcome.value for outcome in log])
    for at in range(0, len(log), gap):
        rows_alone.learn_rows(arms[at : at + gap], x[at : at + gap], values[at : at + gap])
        rows_alone.publish()
    assert same_bits(one.state(), rows_alone.state())
    assert same_bits(one.publish(), rows_alone.publish())


def test_a_bad_row_changes_nothing(case: Case) -> None:
    policy = trained(case)
    before = policy.state()
    x, arms = contexts(3), np.array([0, 1, 2])
    with pytest.raises(ValueError, match="finite"):
        policy.learn_rows(arms, x, np.array([0.5, np.nan, 0.5]))
    x[2, 0] = np.inf
    with pytest.raises(ValueError, match="finite"):
        policy.learn_rows(arms, x, np.array([0.5, 0.5, 0.5]))
    assert same_bits(policy.state(), before)


def test_publish_is_pure(case: Case) -> None:
    policy = trained(case)
    before = policy.state()
    first = policy.publish()
    kept = {name: array.copy() for name, array in first.items()}
    assert same_bits(policy.publish(), kept)
    assert same_bits(policy.state(), before)
    policy.learn(outcomes(60, seed=4))
    assert same_bits(first, kept), "a published view moved when the policy learned"


def test_learning_shows_only_after_publishing(case: Case) -> None:
    policy, r = trained(case), rows()
    before = r.scores(policy)
    policy.learn(outcomes(60, seed=4))
    assert same_bits(r.scores(policy), before)


def test_state_round_trip_is_exact(case: Case) -> None:
    log = outcomes(200)
    straight, first = build(case), build(case)
    straight.learn(log[:130])
    first.learn(log[:130])
    buffer = io.BytesIO()
    np.savez(buffer, **first.state())
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as stored:
        second = make_policy(case[0], dim=DIM, params=case[1])
        second.load(dict(stored))
    assert second.arms == first.arms and second.clock == first.clock
    assert same_bits(second.state(), first.state())
    assert same_bits(second.publish(), first.publish())
    straight.learn(log[130:])
    second.learn(log[130:])
    assert same_bits(second.state(), straight.state())
    assert same_bits(second.publish(), straight.publish())


def test_state_is_neither_shared_when_taken_nor_when_loaded(case: Case) -> None:
    policy, copy = trained(case), build(case)
    state = policy.state()
    kept = {name: array.copy() for name, array in state.items()}
    copy.load(state)
    policy.learn(outcomes(60, seed=4))
    copy.learn(outcomes(30, seed=5))
    assert same_bits(state, kept)


def test_loading_replaces_whatever_was_learned(case: Case) -> None:
    policy, other = trained(case), build(case, arms=ARMS[:2])
    other.learn(outcomes(70, seed=6, arms=ARMS[:2]))
    other.refresh()
    other.load(policy.state())
    assert same_bits(other.state(), policy.state())
    assert same_bits(other.publish(), policy.publish())


def test_state_survives_any_memory_layout(case: Case) -> None:
    policy, copy = trained(case), build(case)
    copy.load({name: np.array(array, order="F") for name, array in policy.state().items()})
    for p in (policy, copy):
        p.learn(outcomes(30, seed=5))
    assert same_bits(copy.state(), policy.state())


def test_state_and_view_are_plain_arrays(case: Case) -> None:
    policy = trained(case)
    for arrays in (policy.state(), policy.publish()):
        assert all(isinstance(array, np.ndarray) for array in arrays.values())
        assert all(array.dtype.kind in "fiubU" for array in arrays.values())
        assert arrays["arms"].tolist() == list(ARMS)
    floats = [array for array in policy.publish().values() if array.dtype.kind == "f"]
    assert floats and all(array.dtype == np.float32 for array in floats)


def test_a_scorer_needs_only_the_view(case: Case) -> None:
    learner, r = trained(case), rows()
    scorer = make_policy(case[0], dim=DIM, params=case[1])
    scorer.install(learner.publish())
    assert scorer.arms == learner.arms
    assert same_bits(r.scores(scorer), r.scores(learner))
    for a, b in zip(scorer.estimate(r.x), learner.estimate(r.x), strict=True):
        assert a.tobytes() == b.tobytes()


def test_learning_keeps_no_reference_to_the_features(case: Case) -> None:
    policy, log = build(case), outcomes(30)
    policy.learn(log)
    before = policy.state()
    for outcome in log:
        outcome.x[:] = 7.0
    assert same_bits(policy.state(), before)


# --- comparisons ---------------------------------------------------------------------------------


def compared(case: Case, policy: Policy | None = None) -> Policy:
    """Return a policy that has learned outcomes and comparisons alternately."""
    policy = policy or build(case)
    for outcome, comparison in zip(outcomes(60), comparisons(60), strict=True):
        policy.learn([outcome])
        policy.compare(comparison)
    return policy


@pytest.mark.parametrize("change", [{"winner": "nobody-knows"}, {"loser": "nobody-knows"}])
def test_comparing_an_unknown_arm_changes_nothing(case: Case, change: dict[str, str]) -> None:
    policy, (comparison,) = trained(case), comparisons(1)
    before = policy.state()
    with pytest.raises(KeyError, match="nobody-knows"):
        policy.compare(dataclasses.replace(comparison, **change))
    assert same_bits(policy.state(), before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_comparing_at_no_point_at_all_changes_nothing(case: Case, bad: float) -> None:
    policy, (comparison,) = trained(case), comparisons(1)
    before, x = policy.state(), comparison.x.copy()
    x[2] = bad
    with pytest.raises(ValueError, match="x: every value finite"):
        policy.compare(dataclasses.replace(comparison, x=x))
    with pytest.raises(ValueError, match="x: shape"):
        policy.compare(dataclasses.replace(comparison, x=x[:-1]))
    assert same_bits(policy.state(), before)


def test_comparisons_are_no_outcomes(case: Case) -> None:
    policy = trained(case)
    clock, pulls = policy.clock, policy.pulls.copy()
    for comparison in comparisons(20):
        policy.compare(comparison)
    assert policy.clock == clock and policy.pulls.tolist() == pulls.tolist()


def test_the_same_comparisons_give_the_same_bits(case: Case) -> None:
    one, two = compared(case), build(case)
    for outcome, comparison in zip(outcomes(60), comparisons(60), strict=True):
        two.learn([outcome])
        two.publish()
        two.compare(comparison)
        two.refresh()
        comparison.x[:] = 7.0
    assert same_bits(one.state(), two.state())
    assert same_bits(one.publish(), two.publish())


def test_state_with_comparisons_goes_round(case: Case) -> None:
    straight = compared(case)
    buffer = io.BytesIO()
    np.savez(buffer, **straight.state())
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as stored:
        loaded = make_policy(case[0], dim=DIM, params=case[1])
        loaded.load(dict(stored))
    assert same_bits(loaded.state(), straight.state())
    assert same_bits(loaded.publish(), straight.publish())
    for policy in (straight, loaded):
        compared(case, policy)
        policy.refresh()
    assert same_bits(loaded.state(), straight.state())
    r = rows()
    assert same_bits(r.scores(loaded), r.scores(straight))


# --- arms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["unknown arm", "wrong shape"])
def test_a_bad_outcome_changes_nothing(case: Case, bad: str) -> None:
    policy, good = trained(case), outcomes(4, seed=3)
    before = policy.state()
    if bad == "unknown arm":
        with pytest.raises(KeyError, match="nobody-knows"):
            policy.learn([*good, dataclasses.replace(good[0], arm="nobody-knows")])
    else:
        with pytest.raises(ValueError, match="x: shape"):
            policy.learn([*good, dataclasses.replace(good[0], x=good[0].x[:-1])])
    assert same_bits(policy.state(), before)


def test_context_of_the_wrong_width_is_refused(case: Case) -> None:
    policy = trained(case)
    for x in (contexts(2)[:, :-1], contexts(1)[0]):
        with pytest.raises(ValueError, match="x: shape"):
            policy.score(x, np.ones((2, 3)))


def test_an_arm_added_live_leaves_the_others_as_they_are(case: Case) -> None:
    few = ARMS[:3]
    policy, r = build(case, arms=few), rows()
    policy.learn(outcomes(120, arms=few))
    policy.refresh()
    before, estimate = r.scores(policy), policy.estimate(r.x)
    policy.add_arm("huge")
    policy.refresh()
    assert policy.arms == [*few, "huge"] and policy.clock == 120
    for name, array in r.scores(policy).items():
        np.testing.assert_allclose(array[:, :3], before[name], rtol=0, atol=1e-5)
    for a, b in zip(policy.estimate(r.x), estimate, strict=True):
        np.testing.assert_allclose(a[:, :3], b, rtol=0, atol=1e-5)
    policy.learn(outcomes(40, arms=("huge",)))
    assert policy.clock == 160


def test_adding_a_known_arm_again_changes_nothing(case: Case) -> None:
    policy = trained(case)
    before = policy.state()
    policy.add_arm("small")
    assert same_bits(policy.state(), before)


# --- forgetting ----------------------------------------------------------------------------------


def _forgetful() -> list[str]:
    return [name for name in POLICIES if "gamma" in full_params(name, {})]


def _with_gamma(name: str, gamma: float) -> Policy:
    policy = make_policy(name, dim=DIM, params={"gamma": gamma})
    for arm in ARMS:
        policy.add_arm(arm)
    return policy


@pytest.mark.parametrize("name", _forgetful())
def test_a_forgotten_arm_is_like_a_new_one(name: str) -> None:
    policy = _with_gamma(name, 0.9)
    policy.learn(outcomes(40, arms=("tiny",)))
    policy.learn(outcomes(400, arms=("huge",)))
    policy.refresh()
    mean, std = policy.estimate(contexts(8, seed=1))
    for array in (mean, std):
        np.testing.assert_allclose(array[:, 0], array[:, 1], rtol=0, atol=1e-5)
        assert not np.allclose(array[:, 0], array[:, ARMS.index("huge")], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", [n for n in _forgetful() if not n.endswith("thompson")])
def test_forgetting_goes_by_position_not_by_the_arm(name: str) -> None:
    """An old outcome weighs the same, whichever other arms have learned since.

    Thompson's arms borrow from one another, so their ageing is tested in test_discounted.py.
    """
    first, *others = outcomes(11, arms=("tiny",))
    one, many = _with_gamma(name, 0.9), _with_gamma(name, 0.9)
    one.learn([first, *(dataclasses.replace(o, arm="huge") for o in others)])
    many.learn(
        [first, *(dataclasses.replace(o, arm=ARMS[2 + i % 5]) for i, o in enumerate(others))]
    )
    one.refresh()
    many.refresh()
    x = contexts(8, seed=1)
    for a, b in zip(one.estimate(x), many.estimate(x), strict=True):
        np.testing.assert_allclose(a[:, 0], b[:, 0], rtol=0, atol=1e-5)


def test_a_reset_of_one_arm_is_answered_or_not_but_never_breaks_anything(case: Case) -> None:
    policy, other, r = trained(case), trained(case), rows()
    with pytest.raises(KeyError, match="nobody"):
        policy.reset_arm("nobody")
    assert same_bits(policy.state(), other.state()), "a refused reset left a trace"
    for one in (policy, other):
        one.reset_arm("best", shift=-0.2, worth=3.0)
        one.learn(outcomes(20, seed=4))
        one.refresh()
    assert same_bits(policy.state(), other.state())
    restored = build(case, ())
    restored.load(policy.state())
    restored.refresh()
    assert same_bits(restored.publish(), policy.publish())
    pmf = policy.pmf(r.scores(policy), r.eligible, r.penalty)
    np.testing.assert_allclose(pmf[r.eligible.any(axis=1)].sum(axis=1), 1.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["linucb", "thompson", "pilot", "d-linucb", "d-thompson", "d-ucb", "epsilon-greedy"]
)
def test_a_reset_moves_the_level_of_one_arm_and_makes_it_less_sure(name: str) -> None:
    log = [dataclasses.replace(o, value=0.8) for o in outcomes(300, arms=("good", "best"))]
    policy = build((name, {}))
    policy.learn(log)
    policy.refresh()
    x, at = contexts(16, seed=3), ARMS.index("best")
    mean, std = policy.estimate(x)
    policy.reset_arm("best", shift=-0.3, worth=4.0)
    policy.refresh()
    moved, unsure = policy.estimate(x)
    assert (moved[:, at] < mean[:, at] - 0.1).all()
    assert (unsure[:, at] > std[:, at]).all()
    assert np.abs(moved - mean)[:, ARMS.index("good")].max() < 0.05

"""The promises of the policy contract, each checked for every policy of the registry.

A test here may use only what `policies.base` promises. What a single policy computes is tested in
the test file of its module.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.policy_cases import (
    ARMS,
    DIM,
    PARAMETERS,
    Case,
    build,
    contexts,
    outcomes,
    permuted,
    rows,
    same_bits,
    trained,
)

from policies import POLICIES, make_policy
from policies.exploration import shares
from policies.laws import draw

ORDER = [3, 0, 8, 2, 1, 7, 5, 4, 6]


def test_the_parameter_table_names_no_unknown_policy() -> None:
    assert PARAMETERS.keys() <= POLICIES.keys()


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_can_be_built_without_parameters(name: str) -> None:
    policy = make_policy(name, dim=DIM)
    assert policy.name == name and policy.arms == [] and policy.clock == 0


# --- the law -------------------------------------------------------------------------------------


def test_pmf_is_a_law(case: Case) -> None:
    policy, r = trained(case), rows(256)
    pmf = policy.pmf(r.scores(policy), r.eligible, r.penalty)
    assert pmf.dtype == np.float64 and pmf.shape == r.eligible.shape
    assert (pmf >= 0.0).all()
    assert (pmf[~r.eligible] == 0.0).all()
    some = r.eligible.any(axis=1)
    np.testing.assert_allclose(pmf[some].sum(axis=1), 1.0, rtol=0, atol=1e-12)
    assert (pmf[~some] == 0.0).all() and not some.all()


def test_pmf_with_exploration_is_a_law(case: Case) -> None:
    policy, r = trained(case), rows(256)
    explore = np.where(r.eligible, 0.02, 0.0)
    pmf = policy.pmf(r.scores(policy), r.eligible, r.penalty, explore)
    some = r.eligible.any(axis=1)
    np.testing.assert_allclose(pmf[some].sum(axis=1), 1.0, rtol=0, atol=1e-12)
    assert (pmf[r.eligible] >= 0.02).all()
    assert (pmf[~r.eligible] == 0.0).all()


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_draw_frequency_is_the_pmf(case: Case, share: float) -> None:
    policy, r, n = trained(case), rows(40), 20_000
    scores = r.scores(policy)
    plain = policy.pmf(scores, r.eligible, r.penalty)
    explore, excluded = shares(
        plain,
        r.eligible,
        np.random.default_rng(5).uniform(1e-5, 1e-2, size=plain.shape),
        share=share,
        cost_share=0.5,
        spend_rate_usd=1e-2,
        min_propensity=0.001,
    )
    pmf = policy.pmf(scores, r.eligible & ~excluded, r.penalty, explore)
    uniforms = np.random.default_rng(6).random((len(pmf), n))
    for row, u in zip(pmf, uniforms, strict=True):
        drawn = draw(np.tile(row, (n, 1)), u)
        if not row.any():
            assert (drawn == -1).all()
            continue
        frequency = np.bincount(drawn, minlength=len(row)) / n
        # Counts of what is expected less than once are no normal variables: five of them may be.
        bound = 4.0 * np.sqrt(row * (1.0 - row) / n) + 5.0 / n
        assert (np.abs(frequency - row) <= bound).all()
        assert (frequency[row == 0.0] == 0.0).all()


def test_the_law_of_a_row_does_not_depend_on_its_batch_or_memory_layout(case: Case) -> None:
    policy, r = trained(case), rows()
    scores = r.scores(policy)
    explore = np.where(r.eligible, np.random.default_rng(7).uniform(0, 0.03, r.eligible.shape), 0.0)
    whole = policy.pmf(scores, r.eligible, r.penalty, explore)
    for i in range(len(whole)):
        one = slice(i, i + 1)
        row = {name: array[one].copy() for name, array in scores.items()}
        alone = policy.pmf(row, r.eligible[one], r.penalty[one], explore[one])
        assert alone.tobytes() == whole[i].tobytes()
    turned = {name: np.asfortranarray(array) for name, array in scores.items()}
    f = np.asfortranarray
    again = policy.pmf(turned, f(r.eligible), f(r.penalty), f(explore))
    assert np.ascontiguousarray(again).tobytes() == np.ascontiguousarray(whole).tobytes()


def test_the_law_reads_no_state(case: Case) -> None:
    policy, r = trained(case), rows()
    scores = r.scores(policy)
    kept = {name: array.copy() for name, array in scores.items()}
    before = policy.law(scores, r.eligible, r.penalty)
    policy.learn(outcomes(50, seed=9))
    policy.refresh()
    after = type(policy).law(scores, r.eligible, r.penalty)
    assert before.tobytes() == after.tobytes()
    assert same_bits(scores, kept), "the law wrote into its input"


def test_permuted_columns_permute_the_law(case: Case) -> None:
    policy, r = trained(case), rows()
    scores = r.scores(policy)
    straight = policy.law(scores, r.eligible, r.penalty)
    turned = policy.law(permuted(scores, ORDER), r.eligible[:, ORDER], r.penalty[:, ORDER])
    np.testing.assert_allclose(turned, straight[:, ORDER], rtol=0, atol=1e-12)


# --- scores --------------------------------------------------------------------------------------


def test_scores_and_estimates_are_float32_per_row_and_arm(case: Case) -> None:
    policy, r = trained(case), rows()
    scores = r.scores(policy)
    assert scores
    for array in (*scores.values(), *policy.estimate(r.x)):
        assert array.dtype == np.float32 and array.shape == r.eligible.shape
    assert (policy.estimate(r.x)[1] >= 0.0).all()


def test_a_batch_scores_as_its_rows_do(case: Case) -> None:
    policy, r = trained(case), rows()
    scores, estimate = r.scores(policy), policy.estimate(r.x)
    for i in range(len(r.x)):
        one = slice(i, i + 1)
        for name, array in policy.score(r.x[one], r.preference[one]).items():
            np.testing.assert_allclose(array, scores[name][one], rtol=0, atol=1e-5)
        for alone, batch in zip(policy.estimate(r.x[one]), estimate, strict=True):
            np.testing.assert_allclose(alone, batch[one], rtol=0, atol=1e-5)


def test_assess_is_score_and_estimate_in_one_step(case: Case) -> None:
    policy, r = trained(case), rows()
    scores, mean, std = policy.assess(r.x, r.preference)
    assert same_bits(scores, r.scores(policy))
    assert same_bits({"m": mean, "s": std}, dict(zip("ms", policy.estimate(r.x), strict=True)))


def test_scoring_is_repeatable_and_leaves_its_input_alone(case: Case) -> None:
    policy, r = trained(case), rows()
    x, preference = r.x.copy(), r.preference.copy()
    x.flags.writeable = preference.flags.writeable = False
    assert same_bits(policy.score(x, preference), r.scores(policy))


def test_the_order_in_which_arms_are_added_only_permutes(case: Case) -> None:
    straight, turned = trained(case), trained(case, arms=[ARMS[k] for k in ORDER])
    r = rows()
    expected = permuted(r.scores(straight), ORDER)
    for name, array in r.scores(turned).items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-5)
    for a, b in zip(turned.estimate(r.x), straight.estimate(r.x), strict=True):
        np.testing.assert_allclose(a, b[:, ORDER], rtol=0, atol=1e-5)


def test_estimates_follow_the_rewards(case: Case) -> None:
    log = [
        dataclasses.replace(outcome, value=1.0 if outcome.arm == "huge" else 0.0)
        for outcome in outcomes(400)
    ]
    policy = build(case)
    policy.learn(log)
    policy.refresh()
    mean = policy.estimate(contexts(32, seed=1))[0].mean(axis=0)
    assert mean[ARMS.index("huge")] > mean[ARMS.index("tiny")] + 0.4


def test_zero_context_works(case: Case) -> None:
    policy, r = trained(case), rows()
    zero = np.zeros_like(r.x)
    policy.learn([dataclasses.replace(o, x=zero[0]) for o in outcomes(4, seed=2)])
    policy.refresh()
    scores = policy.score(zero, r.preference)
    assert all(np.isfinite(array).all() for array in (*scores.values(), *policy.estimate(zero)))
    pmf = policy.pmf(scores, np.ones_like(r.eligible), r.penalty)
    np.testing.assert_allclose(pmf.sum(axis=1), 1.0, rtol=0, atol=1e-12)


def test_an_untrained_policy_decides(case: Case) -> None:
    policy, r = build(case), rows()
    policy.refresh()
    pmf = policy.pmf(r.scores(policy), r.eligible, r.penalty)
    some = r.eligible.any(axis=1)
    np.testing.assert_allclose(pmf[some].sum(axis=1), 1.0, rtol=0, atol=1e-12)


def test_a_policy_without_arms_chooses_none(case: Case) -> None:
    policy = build(case, arms=())
    policy.refresh()
    scores = policy.score(contexts(2), np.ones((2, 3)))
    pmf = policy.pmf(scores, np.zeros((2, 0), dtype=np.bool_), np.zeros((2, 0)))
    assert pmf.shape == (2, 0)
    assert draw(pmf, np.array([0.1, 0.9])).tolist() == [-1, -1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_context_that_is_not_finite_is_refused(case: Case, bad: float) -> None:
    policy = trained(case)
    before = policy.state()
    x = contexts(3)
    x[1, 2] = bad
    with pytest.raises(ValueError, match="x: every value finite"):
        policy.score(x, np.ones((3, 3)))
    with pytest.raises(ValueError, match="x: every value finite"):
        policy.estimate(x)
    with pytest.raises(ValueError, match="x: every value finite"):
        policy.assess(x, np.ones((3, 3)))
    good = outcomes(1, seed=3)
    with pytest.raises(ValueError, match="x: every value finite"):
        policy.learn([*good, dataclasses.replace(good[0], x=x[1])])
    with pytest.raises(ValueError, match="value: finite"):
        policy.learn([*good, dataclasses.replace(good[0], value=bad)])
    assert same_bits(policy.state(), before)


def test_what_is_weighed_already_is_nothing_but_for_who_reads_the_preference(case: Case) -> None:
    policy, r = trained(case), rows()
    weighed = policy.weighed(r.x, r.preference)
    assert weighed.shape == r.eligible.shape and weighed.dtype == np.float64
    assert np.isfinite(weighed).all() and (weighed >= 0.0).all()
    assert weighed.any() == policy.reads_preference
    free = policy.weighed(r.x, np.tile([1.0, 0.0, 0.0], (len(r.x), 1)))
    assert not free.any(), "cost has no weight"
    one = [policy.weighed(r.x[i : i + 1], r.preference[i : i + 1])[0] for i in range(8)]
    np.testing.assert_allclose(one, weighed[:8], rtol=1e-5)

"""PILOT against a slow and simple reference, and mistakes of its public description."""

from __future__ import annotations

import numpy as np
import pytest
from support.pilot_priors import GIVEN, QUALITY_ONLY, SIZE, preferences, started
from support.policy_cases import ARMS, DIM, contexts, outcomes, rows, same_bits

from policies import Outcome, make_policy
from policies.base import Arrays, Float64, Sums
from policies.linucb import LinUCB
from policies.pilot import Pilot


def spheres(x: Float64, prior: Arrays) -> Float64:
    psi = x @ prior["projection"].T
    return psi / np.linalg.norm(psi, axis=1, keepdims=True)


# --- without preferences -------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 0.97])
def test_without_preferences_it_is_linucb_bit_for_bit(gamma: float) -> None:
    pilot, plain = Pilot(dim=DIM, gamma=gamma), LinUCB(dim=DIM, gamma=gamma)
    for policy in (pilot, plain):
        for arm in ARMS:
            policy.add_arm(arm)
        policy.learn(outcomes(120))
        policy.refresh()
    r = rows()
    assert same_bits(r.scores(pilot), r.scores(plain))
    assert same_bits(pilot.state(), plain.state())


def test_sums_teach_it_as_they_teach_linucb() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(20, DIM))
    sums = {"gram": (x.T @ x)[None], "moment": x.sum(axis=0)[None], "square": np.ones(1)}
    sums |= {"count": np.full(1, 20.0), "arms": np.array(["good"])}
    pilot, plain = Pilot(dim=DIM), LinUCB(dim=DIM)
    for policy in (pilot, plain):
        policy.adopt(sums)
        policy.add_arm("good")
        policy.refresh()
    assert same_bits(rows().scores(pilot), rows().scores(plain))
    with pytest.raises(ValueError, match=r"^prior: a cosine has no use"):
        Pilot(dim=DIM, score="cosine").adopt(sums)


@pytest.mark.parametrize("score", ["inner", "cosine"])
@pytest.mark.parametrize("projected", [True, False])
def test_sums_of_features_say_nothing_of_other_coordinates(score: str, projected: bool) -> None:
    """As many coordinates as features, so that no shape error would reveal a mix-up."""
    policy = Pilot(dim=DIM, score=score, **GIVEN)
    size = DIM - (score == "inner")
    if projected:
        v, w = np.eye(len(ARMS), size) + 0.1, np.ones((size, DIM))
        policy.adopt(preferences(projection=w, center=np.zeros(size), embeddings=v))
    for arm in ARMS:
        policy.add_arm(arm)
    policy.learn(outcomes(40))
    x = contexts(20).astype(np.float64)
    before, sums = policy.state(), Sums(x.T @ x, x.sum(axis=0), 20.0, 20.0)
    assert before["moment"].shape == (len(ARMS), DIM)
    policy.teach("good", sums)
    plain = score == "inner" and not projected
    assert same_bits(policy.state(), before) != plain


# --- the two scores ------------------------------------------------------------------------------


def test_the_first_scores_are_the_preferences_in_units_of_reward() -> None:
    prior = preferences()
    policy = started(prior, **GIVEN)
    policy.refresh()
    x = contexts(20)
    scale = 0.2 / 0.5
    psi, v = spheres(x, prior), prior["embeddings"]
    e = scale * (v - v.mean(axis=0))
    levels = e @ prior["center"]
    levels += min(0.6, 1.0 - levels.max())
    expected = levels + 0.7 * (psi - prior["center"]) @ e.T
    mean, std = policy.estimate(x)
    np.testing.assert_allclose(mean, expected, atol=1e-5)
    worth = 2.0 + 0.8 * (8.0 - 2.0)
    apart = ((psi - prior["center"]) ** 2).sum(axis=1) / 5.0 + 1.0 / worth
    np.testing.assert_allclose(std, np.tile(np.sqrt(apart)[:, None], len(ARMS)), atol=1e-5)
    bonus = policy.score(x, np.tile(QUALITY_ONLY, (20, 1)))["bonus"]
    np.testing.assert_allclose(bonus, 0.3 * std, atol=1e-6)


@pytest.mark.parametrize("support", [0.0, 0.8])
@pytest.mark.parametrize("gamma", [1.0, 0.97])
def test_learning_is_least_squares_with_one_shift_for_all_arms(
    gamma: float, support: float
) -> None:
    prior, log = preferences(support=support), outcomes(60)
    policy = started(prior, gamma=gamma, **GIVEN)
    fresh = started(prior, gamma=gamma, **GIVEN)
    first = fresh.ridge.mean
    policy.learn(log)
    policy.refresh()
    # One regression over [every arm's deviation from its prior, the shift], all at once.
    d, k = SIZE + 1, len(ARMS)
    a, b = np.zeros((k * d + 1, k * d + 1)), np.zeros(k * d + 1)
    for arm in range(k):
        at = slice(arm * d, arm * d + d)
        a[at, at] += np.diag([5.0] * SIZE + [2.0 + support * (8.0 - 2.0)])
    a[-1, -1] = 2.0 / support if support else 1e12
    for age, outcome in enumerate(reversed(log)):
        arm = ARMS.index(outcome.arm)
        psi = spheres(outcome.x[None].astype(np.float64), prior)[0]
        z = np.append(psi - prior["center"], 1.0)
        row = np.zeros(k * d + 1)
        row[arm * d : arm * d + d], row[-1] = z, 1.0
        a += gamma**age * np.outer(row, row)
        b += gamma**age * (outcome.value - z @ first[arm]) * row
    solved = np.linalg.solve(a, b)
    theta = first + solved[:-1].reshape(k, d)
    theta[:, -1] += solved[-1]
    np.testing.assert_allclose(policy.view["theta"], theta, atol=1e-5)


def test_a_disappointment_with_one_model_lowers_all_and_keeps_their_order() -> None:
    policy = started(preferences(context=0.0, support=1.0))
    policy.refresh()
    x = contexts(1)
    before = policy.estimate(x)[0][0]
    best = ARMS[int(before.argmax())]
    policy.learn(Outcome(i, "d", best, x[0], "quality", 0.1) for i in range(3))
    policy.refresh()
    after = policy.estimate(x)[0][0]
    assert (after < before - 0.1).all()
    others = np.delete(np.arange(len(ARMS)), ARMS.index(best))
    np.testing.assert_allclose(np.ptp(after[others] - before[others]), 0.0, atol=1e-5)


def test_cosine_scores_are_those_published() -> None:
    prior, log = preferences(), outcomes(60)
    policy = started(prior, score="cosine", alpha=0.3)
    policy.learn(log)
    policy.refresh()
    x = contexts(10, seed=5)
    psi, scores = spheres(x, prior), policy.score(x, np.tile(QUALITY_ONLY, (10, 1)))
    for k, arm in enumerate(ARMS):
        a = np.eye(SIZE) / prior["accuracy"][k]
        b = a @ prior["embeddings"][k]
        for outcome in log:
            if outcome.arm == arm:
                z = spheres(outcome.x[None].astype(np.float64), prior)[0]
                a, b = a + np.outer(z, z), b + outcome.value * z
        theta = np.linalg.solve(a, b)
        np.testing.assert_allclose(
            scores["mean"][:, k], psi @ theta / np.linalg.norm(theta), atol=1e-5
        )
        width = np.sqrt(np.einsum("ij,jk,ik->i", psi, np.linalg.inv(a), psi))
        np.testing.assert_allclose(scores["bonus"][:, k], 0.3 * width, atol=1e-5)
        np.testing.assert_allclose(policy.estimate(x)[0][:, k], psi @ theta, atol=1e-5)


# --- what the public description gets wrong, or leaves out ---------------------------------------


def test_a_cosine_cannot_tell_a_good_model_from_one_half_as_good() -> None:
    x = np.array([[0.6, 0.8]], dtype=np.float32)
    found = {}
    for score in ("cosine", "inner"):
        policy = Pilot(dim=2, score=score, ridge=0.01, level=0.01, alpha=0.0)
        for arm, value in (("good", 1.0), ("half", 0.5)):
            policy.add_arm(arm)
            policy.learn(Outcome(i, "d", arm, x[0], "quality", value) for i in range(50))
        policy.refresh()
        scores = policy.score(x, QUALITY_ONLY)
        found[score] = scores["mean"][0, 0] - scores["mean"][0, 1]
        mean = policy.estimate(x)[0][0]
        assert mean[0] - mean[1] > 0.45, "the size that a cosine drops is what was learned"
    assert abs(found["cosine"]) < 1e-5 and found["inner"] > 0.45


def test_a_worse_model_in_the_fit_gets_a_stronger_published_prior() -> None:
    accuracy = np.linspace(0.5, 1.0, len(ARMS))
    policy = started(preferences(accuracy=accuracy), score="cosine")
    policy.refresh()
    bonus = policy.score(contexts(1), QUALITY_ONLY)["bonus"][0]
    assert (np.diff(bonus) > 0.0).all()


def test_the_best_level_is_a_reward_however_far_preferences_go() -> None:
    policy = started(preferences(temperature=0.01, context=0.0))
    policy.refresh()
    np.testing.assert_allclose(policy.estimate(contexts(1))[0].max(), 1.0, atol=1e-5)


# --- models that come, and priors ----------------------------------------------------------------


def test_an_unknown_model_is_tried_soon_and_dropped_soon() -> None:
    policy = started(preferences(ARMS[:-1], support=1.0))
    policy.refresh()
    x, best = contexts(1), ARMS.index("best")
    scores = policy.score(x, QUALITY_ONLY)
    total = scores["mean"][0] + scores["bonus"][0]
    level = policy.view["theta"][:, -1]
    assert level[best] == level.max() and scores["bonus"][0, best] == scores["bonus"][0].max()
    policy.learn(Outcome(i, "d", "best", x[0], "quality", 0.0) for i in range(3))
    policy.refresh()
    after = policy.score(x, QUALITY_ONLY)
    assert (after["mean"] + after["bonus"])[0, best] < total[best] - 0.4


def test_an_unknown_model_has_the_mean_direction_in_cosine_mode() -> None:
    prior = preferences(ARMS[:-1])
    policy = started(prior, score="cosine")
    policy.refresh()
    mean = prior["embeddings"].mean(axis=0)
    np.testing.assert_allclose(policy.view["direction"][-1], mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("params", [{}, {"score": "cosine"}, {"gamma": 0.97}])
def test_state_goes_round_with_a_prior_bit_for_bit(params: dict[str, object]) -> None:
    prior = preferences(ARMS[:6])
    policy = started(prior, **params)
    policy.learn(outcomes(80))
    again = Pilot(dim=DIM, **params)
    again.adopt(prior)
    again.load(policy.state())
    assert same_bits(again.publish(), policy.publish())
    for one in (policy, again):
        one.learn(outcomes(30, seed=1))
        one.add_arm("newcomer")
    assert same_bits(again.state(), policy.state())
    assert same_bits(again.publish(), policy.publish())
    scorer = Pilot(dim=DIM, **params)
    scorer.adopt(prior)
    scorer.install(policy.publish())
    policy.refresh()
    x, preference = contexts(8, seed=3), np.tile(QUALITY_ONLY, (8, 1))
    assert same_bits(scorer.score(x, preference), policy.score(x, preference))


@pytest.mark.parametrize("params", [{}, {"score": "cosine"}])
def test_order_and_batches_do_not_matter_with_a_prior(params: dict[str, object]) -> None:
    prior = preferences(ARMS[:6])
    straight, turned = started(prior, **params), started(prior, arms=ARMS[::-1], **params)
    for policy in (straight, turned):
        policy.learn(outcomes(80))
        policy.refresh()
    x = contexts(16, seed=3)
    for a, b in zip(straight.estimate(x), turned.estimate(x), strict=True):
        np.testing.assert_allclose(a, b[:, ::-1], atol=1e-5)
    for i in range(len(x)):
        alone = straight.score(x[i : i + 1], QUALITY_ONLY)["mean"]
        whole = straight.score(x, np.tile(QUALITY_ONLY, (16, 1)))["mean"][i : i + 1]
        np.testing.assert_allclose(alone, whole, atol=1e-5)


@pytest.mark.parametrize("params", [{}, {"score": "cosine"}])
def test_a_prompt_that_maps_to_nothing_is_scored(params: dict[str, object]) -> None:
    policy = started(preferences(), **params)
    zero = np.zeros((1, DIM), dtype=np.float32)
    policy.learn([Outcome(1, "d", "good", zero[0], "quality", 1.0)])
    policy.refresh()
    assert all(np.isfinite(part).all() for part in policy.score(zero, QUALITY_ONLY).values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"projection": np.ones((SIZE, DIM + 1))},
            "projection: must have shape [4, 6], has [4, 7]",
        ),
        ({"projection": np.array(1.0)}, "projection: must have shape [1, 6], has []"),
        ({"center": np.ones(SIZE + 1)}, "center: must have shape [4], has [5]"),
        ({"embeddings": np.ones((2, SIZE))}, "embeddings: must have shape [9, 4], has [2, 4]"),
        ({"accuracy": np.full(len(ARMS), np.nan)}, "accuracy: every number must be finite"),
        ({"accuracy": np.zeros(len(ARMS))}, "accuracy: at least 1e-06"),
        ({"accuracy": np.array(["1"] * len(ARMS))}, "accuracy: every number must be finite"),
        ({"temperature": 0.0}, "temperature: at least 1e-06"),
        ({"temperature": np.inf}, "temperature: every number must be finite"),
        ({"context": 1.5}, "context: in [0, 1]"),
        ({"support": -0.5}, "support: in [0, 1]"),
    ],
)
def test_a_bad_prior_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Pilot(dim=DIM).adopt(preferences(**changes))
    assert str(caught.value) == f"prior: {message}"


def test_a_prior_must_be_whole() -> None:
    prior = preferences()
    del prior["center"]
    with pytest.raises(ValueError, match=r"^prior: center: must have shape \[4\], has nothing$"):
        Pilot(dim=DIM).adopt(prior)


def test_other_policies_have_no_use_for_preferences() -> None:
    for name in ("linucb", "thompson", "random"):
        with pytest.raises(ValueError, match=f"^prior: {name} has no use"):
            make_policy(name, dim=DIM).adopt(preferences())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha", -0.5),
        ("alpha", float("nan")),
        ("score", "dot"),
        ("trust", 0.0),
        ("slopes", -1.0),
        ("slopes", float("nan")),
        ("gain", -0.1),
        ("ridge", 0.0),
        ("level", 0.0),
        ("prior", 1.5),
        ("prior", float("nan")),
        ("gamma", 0.0),
    ],
)
def test_bad_parameters_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        Pilot(dim=2, **{field: value})

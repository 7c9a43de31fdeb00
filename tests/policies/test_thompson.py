"""Thompson: its posterior against simple algebra, when it estimates, and what it explores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from policies import Outcome
from policies.base import Float32, Float64, Sums
from policies.ridge import next_position
from policies.thompson import PRECISIONS, Thompson

QUALITY_ONLY = np.array([[1.0, 0.0, 0.0]])
Log = list[tuple[int, Float32, float]]


def stream(n: int, *, arms: int = 3, d: int = 5, seed: int = 0, noise: float = 0.2) -> Log:
    """Rewards with slopes that arms share in part, and levels of their own."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(0.0, 0.08, d) + rng.normal(0.0, 0.04, (arms, d))
    theta[:, -1] = np.linspace(0.4, 0.7, arms)
    log: Log = []
    for _ in range(n):
        x = rng.normal(size=d).astype(np.float32)
        x[-1] = 1.0
        arm = int(rng.integers(arms))
        log.append((arm, x, float(np.clip(theta[arm] @ x + noise * rng.normal(), 0.0, 1.0))))
    return log


def trained(log: Log, *, arms: int = 3, d: int = 5, **params: float) -> Thompson:
    policy = Thompson(dim=d, **params)
    for arm in range(arms):
        policy.add_arm(str(arm))
    policy.learn(Outcome(0, "d", str(arm), x, "quality", r) for arm, x, r in log)
    policy.refresh()
    return policy


def rows_of(log: Log, arm: int) -> tuple[Float64, Float64]:
    mine = [(x, r) for who, x, r in log if who == arm]
    d = len(log[0][1])
    return (
        np.array([x for x, _ in mine], dtype=np.float64).reshape(-1, d),
        np.array([r for _, r in mine]),
    )


def test_coefficients_solve_the_equations_of_the_docstring() -> None:
    log = stream(64)
    policy, d = trained(log), 5
    p = np.full(d, policy.slopes)
    p[-1] = policy.level
    left, right = np.diag(np.append(0.3 * 3 * p[:-1], p[-1])), np.zeros(d)
    right[-1] = p[-1] * (sum(r for *_, r in log) + 1.2) / (len(log) + 2.0)
    for arm in range(3):
        x, r = rows_of(log, arm)
        a = np.linalg.inv(x.T @ x + np.diag(p))
        left += np.diag(p) - np.diag(p) @ a @ np.diag(p)
        right += np.diag(p) @ a @ x.T @ r
    shared = np.linalg.solve(left, right)
    np.testing.assert_allclose(policy.shared, shared, rtol=1e-9)
    for arm in range(3):
        x, r = rows_of(log, arm)
        a = np.linalg.inv(x.T @ x + np.diag(p))
        expected = a @ (x.T @ r + p * shared)
        np.testing.assert_allclose(policy.view["theta"][arm], expected, rtol=0, atol=1e-6)
        scale = np.sqrt(policy.noise[arm] / (len(r) + policy.level))
        assert policy.view["scale"][arm] == pytest.approx(scale, rel=1e-6)
        point = x[:1].astype(np.float32)
        std = np.sqrt(policy.noise[arm] * x[0] @ a @ x[0])
        assert policy.estimate(point)[1][0, arm] == pytest.approx(std, rel=1e-5)


def test_the_slopes_precision_maximises_the_marginal_likelihood() -> None:
    """Against the density of all rewards of an arm at once, which needs no algebra of ridges."""
    for seed, noise in ((1, 0.05), (2, 0.4)):
        log = stream(32, seed=seed, noise=noise)
        policy = trained(log[:31])
        shared = policy.shared.copy()
        policy.learn([Outcome(0, "d", str(log[31][0]), log[31][1], "quality", log[31][2])])

        def evidence(slopes: float) -> float:
            prior = np.diag([1.0 / slopes] * 4 + [1.0 / policy.level])  # noqa: B023
            total = 0.0
            for arm in range(3):
                x, r = rows_of(log, arm)  # noqa: B023
                cover = policy.noise[arm] * (np.eye(len(r)) + x @ prior @ x.T)  # noqa: B023
                total += multivariate_normal.logpdf(r, x @ shared, cover)  # noqa: B023
            return total

        assert policy.slopes == max(PRECISIONS, key=evidence)


def test_the_noise_of_an_arm_is_drawn_to_what_arms_have_in_common() -> None:
    log = stream(32)
    before = trained(log[:31])
    arm, x, r = log[31]
    before.learn([Outcome(0, "d", str(arm), x, "quality", r)])
    # What it was anchored to until then: the positions below 32 are 4, 8 and 16.
    old = trained(log[:31])
    p = np.append(np.full(4, old.slopes), old.level)
    error, freedom = np.zeros((2, 3))
    for k in range(3):
        rows, rewards = rows_of(log, k)
        a = np.linalg.inv(rows.T @ rows + np.diag(p))
        theta = a @ (rows.T @ rewards + p * old.shared)
        freedom[k] = len(rewards) - np.trace(rows.T @ rows @ a)
        error[k] = ((rewards - rows @ theta) ** 2).sum()
    pooled = (error.sum() + 4.0 * 0.09) / (freedom.sum() + 4.0)
    np.testing.assert_allclose(before.noise, (error + 16 * pooled) / (freedom + 16), rtol=1e-9)
    assert before.level == pytest.approx(pooled / 0.2**2)


def test_a_few_equal_rewards_do_not_make_an_arm_certain() -> None:
    """Binary rewards: four failures in a row of an arm that is as good as the others."""
    rng, policy = np.random.default_rng(8), trained([], d=1)
    one = np.ones(1, dtype=np.float32)
    policy.learn(Outcome(0, "d", "0", one, "quality", 0.0) for _ in range(4))
    for reward in rng.random(60) < 0.5:
        policy.learn([Outcome(0, "d", "1", one, "quality", float(reward))])
    policy.refresh()
    mean, scale = policy.view["theta"][0, 0], policy.view["scale"][0]
    assert mean + 3.0 * scale > 0.5


def test_before_it_takes_stock_slopes_have_precision_100_around_nothing() -> None:
    log = [(0, x, r) for _, x, r in stream(3)]
    policy = trained(log)
    x, r = rows_of(log, 0)
    p, m = np.diag([100.0] * 4 + [0.09 / 0.2**2]), np.array([0.0] * 4 + [0.6])
    inverse = np.linalg.inv(x.T @ x + p)
    theta = inverse @ (x.T @ r + p @ m)
    mean, std = policy.estimate(x.astype(np.float32))
    np.testing.assert_allclose(mean[:, 0], x @ theta, rtol=0, atol=1e-6)
    np.testing.assert_allclose(mean[:, 1:], 0.6, rtol=0, atol=1e-6)
    expected = np.sqrt(0.09 * np.einsum("ij,jk,ik->i", x, inverse, x))
    np.testing.assert_allclose(std[:, 0], expected, rtol=1e-5)


def test_it_takes_stock_at_fixed_positions_only() -> None:
    policy, moved = trained([]), []
    before = policy.shared.copy()
    for position, (arm, x, r) in enumerate(stream(200), start=1):
        policy.learn([Outcome(0, "d", str(arm), x, "quality", r)])
        if (policy.shared != before).any():
            moved.append(position)
        before = policy.shared.copy()
    assert moved == [4, 8, 16, 32, 64, 96, 128, 160, 192]


def test_stock_taking_thins_out_on_long_logs() -> None:
    position, count = 0, 0
    while position < 1_000_000:
        following = next_position(position)
        assert following - position >= min(32, max(position, 4))
        position, count = following, count + 1
    assert count < 300


def test_between_two_positions_only_the_arm_that_learns_moves() -> None:
    log = stream(40)
    policy = trained(log)
    before = policy.view["theta"].copy()
    policy.learn([Outcome(0, "d", "1", log[0][1], "quality", 0.0)])
    policy.refresh()
    assert (policy.view["theta"][[0, 2]] == before[[0, 2]]).all()
    assert (policy.view["theta"][1] != before[1]).any()


def test_a_new_arm_borrows_slopes_and_level_and_is_explored() -> None:
    policy = trained(stream(600, noise=0.05))
    old = policy.view["theta"].mean(axis=0)
    policy.add_arm("new")
    policy.refresh()
    new = policy.view["theta"][3]
    assert np.corrcoef(new[:-1], old[:-1])[0, 1] > 0.9
    assert new[-1] == pytest.approx(old[-1], abs=0.1)
    assert policy.view["scale"][3] == pytest.approx(0.2, rel=0.05)
    x = np.zeros((1, 5), dtype=np.float32)
    x[0, -1] = 1.0
    scores = policy.score(x, QUALITY_ONLY)
    pmf = policy.pmf(scores, np.ones((1, 4), dtype=np.bool_), np.zeros((1, 4)))
    assert 0.05 < pmf[0, 3] < 0.6


@pytest.mark.parametrize("context", [0.0, 0.5, 2.0])
def test_the_draw_adds_a_part_of_the_uncertainty_at_the_prompt(context: float) -> None:
    policy = trained(stream(80), context=context)
    x = np.array([[0.0, 0.0, 0.0, 0.0, 1.0], [9.0, -9.0, 9.0, 0.0, 1.0]], dtype=np.float32)
    scale = policy.score(x, np.tile(QUALITY_ONLY, (2, 1)))["scale"]
    std = policy.estimate(x)[1]
    np.testing.assert_allclose(scale, np.hypot(policy.view["scale"], context * std), rtol=1e-6)
    assert ((scale[1] > 1.2 * scale[0]) == (context > 0.0)).all()


def test_alpha_scales_the_draw_and_nothing_else() -> None:
    log = stream(50)
    one, two = trained(log, alpha=1.0), trained(log, alpha=2.0)
    np.testing.assert_allclose(two.view["scale"], 2.0 * one.view["scale"], rtol=1e-6)
    assert (two.view["theta"] == one.view["theta"]).all()


def test_a_lesson_counts_like_the_outcomes_that_it_sums_up() -> None:
    log = stream(96)
    taught = trained([])
    for arm in range(3):
        x, r = rows_of(log, arm)
        taught.teach(str(arm), Sums(x.T @ x, x.T @ r, float(r @ r), float(len(r))))
    taught.refresh()
    learned = trained(log)
    # Where they take stock differs, so the noise may differ a little; the data does not.
    np.testing.assert_allclose(taught.view["theta"], learned.view["theta"], rtol=0, atol=2e-3)
    np.testing.assert_allclose(taught.view["scale"], learned.view["scale"], rtol=0.05)
    assert taught.pulls.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha", 0.0),
        ("alpha", float("nan")),
        ("tau", -1.0),
        ("prior", 1.5),
        ("prior", float("nan")),
    ],
)
def test_bad_parameters_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        Thompson(dim=2, **{field: value})

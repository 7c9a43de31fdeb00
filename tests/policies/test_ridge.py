"""Ridge statistics against their formulas, summed directly."""

from __future__ import annotations

import numpy as np
import pytest

from policies.base import Float32, Float64
from policies.ridge import RidgeArms, widths

PRECISION = np.array([100.0, 30.0, 10.0, 1.0])
MEAN = np.array([0.0, 0.1, 0.0, 0.6])


def _log(n: int, arms: int = 3) -> tuple[Float32, Float64, Float64]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, len(MEAN))).astype(np.float32)
    return x, rng.random(n), rng.integers(arms, size=n)


def _fold(x: Float32, r: Float64, arm: Float64, *, gamma: float, arms: int = 3) -> RidgeArms:
    ridge = RidgeArms(precision=PRECISION, mean=MEAN, gamma=gamma)
    for _ in range(arms):
        ridge.grow()
    for position in range(1, len(x) + 1):
        i = position - 1
        ridge.update(int(arm[i]), x[i], float(r[i]), position)
    return ridge


def _direct(x: Float32, r: Float64, gamma: float, ages: Float64) -> tuple[Float64, Float64]:
    """Return theta and A^-1 of one arm; `ages` are t - i of its outcomes."""
    weight = np.longdouble(gamma) ** ages
    wide = x.astype(np.longdouble)
    gram = (wide * weight[:, None]).T @ wide + np.diag(PRECISION)
    moment = (wide * (weight * r)[:, None]).sum(axis=0) + PRECISION * MEAN
    inverse = np.linalg.inv(gram.astype(np.float64))
    return inverse @ moment.astype(np.float64), inverse


@pytest.mark.parametrize("gamma", [1.0, 0.999, 0.9])
@pytest.mark.parametrize("n", [1, 5, 400])
def test_solution_is_the_direct_one(gamma: float, n: int) -> None:
    x, r, arm = _log(n)
    thetas, inverses = _fold(x, r, arm, gamma=gamma).solve(n)
    for k in range(3):
        mine = np.flatnonzero(arm == k)
        theta, inverse = _direct(x[mine], r[mine], gamma, n - 1.0 - mine)
        np.testing.assert_allclose(thetas[k], theta, rtol=0, atol=1e-12)
        np.testing.assert_allclose(inverses[k], inverse, rtol=0, atol=1e-12)
        assert (inverses[k] == inverses[k].T).all()


def test_forgetting_stays_exact_over_100_000_steps() -> None:
    n, gamma = 100_000, 0.999
    x, r, arm = _log(n)
    thetas, inverses = _fold(x, r, arm, gamma=gamma).solve(n)
    for k in range(3):
        mine = np.flatnonzero(arm == k)
        theta, inverse = _direct(x[mine], r[mine], gamma, n - 1.0 - mine)
        np.testing.assert_allclose(thetas[k], theta, rtol=1e-10)
        np.testing.assert_allclose(inverses[k], inverse, rtol=0, atol=1e-12 * inverse.max())


def test_without_forgetting_100_000_steps_stay_exact() -> None:
    n = 100_000
    x, r, arm = _log(n, arms=1)
    thetas, _ = _fold(x, r, arm, gamma=1.0, arms=1).solve(n)
    np.testing.assert_allclose(thetas[0], _direct(x, r, 1.0, np.zeros(n))[0], rtol=1e-10)


def test_an_arm_that_learned_nothing_has_the_prior() -> None:
    ridge = RidgeArms(precision=PRECISION, mean=MEAN)
    ridge.grow()
    theta, inverse = ridge.solve(1_000_000)
    np.testing.assert_allclose(theta[0], MEAN, rtol=1e-15)
    np.testing.assert_allclose(inverse[0], np.diag(1.0 / PRECISION), rtol=1e-15)


def test_the_newest_outcome_has_weight_one() -> None:
    ridge = RidgeArms(precision=np.ones(1), mean=np.zeros(1), gamma=0.5)
    ridge.grow()
    one = np.ones(1, dtype=np.float32)
    ridge.update(0, one, 1.0, 1)
    assert ridge.solve(1)[1].item() == pytest.approx(1.0 / 2.0, rel=1e-15)
    ridge.update(0, one, 1.0, 2)
    assert ridge.solve(2)[1].item() == pytest.approx(1.0 / (1.0 + 1.0 + 0.5), rel=1e-15)
    assert ridge.solve(4)[1].item() == pytest.approx(1.0 / (1.0 + 0.25 + 0.125), rel=1e-15)


def test_counts_decay_like_the_sums() -> None:
    x, r, arm = _log(60)
    ridge = _fold(x, r, arm, gamma=0.9)
    for k in range(3):
        mine = np.flatnonzero(arm == k)
        expected = (0.9 ** (mine[-1] - mine)).sum()
        np.testing.assert_allclose(ridge.count[k], expected, rtol=1e-13)
        assert ridge.last[k] == mine[-1] + 1


def test_forgetting_regresses_to_the_prior_and_never_to_a_singular_matrix() -> None:
    x, r, arm = _log(50)
    ridge = _fold(x, r, arm, gamma=0.5)
    theta, inverse = ridge.solve(5_000)
    np.testing.assert_allclose(theta, np.tile(MEAN, (3, 1)), rtol=0, atol=1e-15)
    np.testing.assert_allclose(inverse[0], np.diag(1.0 / PRECISION), rtol=1e-15)


def test_solving_changes_no_sum() -> None:
    x, r, arm = _log(50)
    ridge = _fold(x, r, arm, gamma=0.9)
    before = ridge.state()
    ridge.solve(50)
    ridge.solve(500)
    for name, array in ridge.state().items():
        assert array.tobytes() == before[name].tobytes()


def test_an_old_solution_is_not_returned_after_an_update() -> None:
    x, r, arm = _log(50)
    ridge = _fold(x, r, arm, gamma=1.0)
    before = ridge.solve(50)[0]
    ridge.update(1, x[0], 1.0, 51)
    after = ridge.solve(51)[0]
    assert (after[[0, 2]] == before[[0, 2]]).all() and (after[1] != before[1]).any()


def test_no_arm_has_no_solution() -> None:
    theta, inverse = RidgeArms(precision=PRECISION, mean=MEAN).solve(0)
    assert theta.shape == (0, 4) and inverse.shape == (0, 4, 4)


def test_widths_are_those_of_each_row() -> None:
    x, r, arm = _log(40)
    inverse = _fold(x, r, arm, gamma=1.0).solve(40)[1]
    wide = x.astype(np.float64)
    expected = [[np.sqrt(row @ a @ row) for a in inverse] for row in wide]
    found = widths(x, inverse.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, -0.1, 1.001, float("nan")])
def test_gamma_is_in_the_unit_interval(gamma: float) -> None:
    with pytest.raises(ValueError, match=r"gamma: in \(0, 1\]"):
        RidgeArms(precision=PRECISION, mean=MEAN, gamma=gamma)


def test_precision_is_positive() -> None:
    with pytest.raises(ValueError, match="precision: every entry positive"):
        RidgeArms(precision=np.array([1.0, 0.0]), mean=np.zeros(2))


@pytest.mark.parametrize("gamma", [1.0, 0.97])
@pytest.mark.parametrize("worth", [0.0, 5.0])
def test_forgetting_a_level_keeps_the_slopes_and_the_noise(gamma: float, worth: float) -> None:
    """Subtract the discounted means directly, and add `worth` outcomes at the new level."""
    n, shift = 300, -0.2
    x, r, arm = _log(n)
    x[:, -1] = 1.0
    ridge = _fold(x, r, arm, gamma=gamma)
    others = [ridge.solve_one(k, n)[0] for k in (0, 2)]
    ridge.forget_level(1, shift=shift, worth=worth, clock=n)
    mine = np.flatnonzero(arm == 1)
    weight = gamma ** (n - 1.0 - mine)
    wide = x[mine].astype(np.float64)
    mean, value = weight @ wide / weight.sum(), weight @ r[mine] / weight.sum()
    centred, spread = wide - mean, r[mine] - value
    gram = (centred * weight[:, None]).T @ centred + worth * np.outer(mean, mean)
    moment = (centred * weight[:, None]).T @ spread + worth * (value + shift) * mean
    square = weight @ spread**2 + worth * (value + shift) ** 2
    np.testing.assert_allclose(ridge.symmetric()[1], gram, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ridge.moment[1], moment, rtol=0, atol=1e-9)
    assert ridge.square[1] == pytest.approx(square, abs=1e-9)
    assert ridge.level_counts(n)[1] == pytest.approx(worth, abs=1e-9)
    theta, _ = ridge.solve_one(1, n)
    direct = np.linalg.solve(gram + np.diag(PRECISION), moment + PRECISION * MEAN)
    np.testing.assert_allclose(theta, direct, rtol=1e-8)
    for k, before in zip((0, 2), others, strict=True):
        assert np.array_equal(ridge.solve_one(k, n)[0], before)


def test_an_arm_of_few_outcomes_is_not_made_surer_by_loosening() -> None:
    ridge = RidgeArms(precision=PRECISION, mean=MEAN)
    ridge.grow()
    ridge.forget_level(0, shift=0.5, worth=9.0, clock=0)
    assert ridge.level_counts(0)[0] == 0.0 and not ridge.moment.any()
    x = np.array([0.1, 0.2, 0.3, 1.0], dtype=np.float32)
    for _ in range(2):
        ridge.update(0, x, 0.5, 1)
    ridge.forget_level(0, shift=-0.2, worth=9.0, clock=2)
    assert ridge.level_counts(2)[0] == 2.0 and ridge.moment[0, -1] == pytest.approx(0.6)


@pytest.mark.parametrize("gamma", [1.0, 0.97])
def test_narrowed_is_what_is_solved_and_keeps_what_was_given_out(gamma: float) -> None:
    x, r, arm = _log(60)
    ridge = _fold(x[:50], r[:50], arm[:50], gamma=gamma)
    given = ridge.solve_float32(50)
    before = [array.copy() for array in given]
    for i in range(50, 60):
        ridge.update(int(arm[i]), x[i], float(r[i]), i + 1)
        for narrow, wide in zip(ridge.solve_float32(i + 1), ridge.solve(i + 1), strict=True):
            assert np.array_equal(narrow, wide.astype(np.float32))
    assert all(np.array_equal(a, b) for a, b in zip(given, before, strict=True))
    ridge.grow()
    assert np.array_equal(ridge.solve_float32(60)[0], ridge.solve(60)[0].astype(np.float32))


def test_what_is_left_of_changed_arms_is_what_all_leave() -> None:
    x, r, arm = _log(60)
    ridge = _fold(x[:40], r[:40], arm[:40], gamma=1.0)
    for i in range(40, 60):
        ridge.update(int(arm[i]), x[i], float(r[i]), i + 1)
        if i == 50:
            ridge.anchor(precision=2.0 * PRECISION, mean=0.5 * MEAN)
        found, direct = ridge.cached_residuals(i + 1), ridge.residuals(*ridge.solve(i + 1))
        assert all(np.array_equal(a, b) for a, b in zip(found, direct, strict=True))


@pytest.mark.parametrize("gap", [1, 50])
def test_steps_stay_near_what_is_solved(gap: int) -> None:
    n = 20_000
    x, r, arm = _log(n)
    quick, exact = RidgeArms(precision=PRECISION, mean=MEAN), _fold(x, r, arm, gamma=1.0)
    for _ in range(3):
        quick.grow()
    quick.set_steps(64)
    quick.solve_float32(0)
    for at in range(0, n, gap):
        to = slice(at, at + gap)
        quick.update_rows(arm[to].astype(np.intp), x[to], r[to], at)
        if at % 1_000 == 0:
            quick.solve_float32(at + gap)
    for found, expected in zip(quick.solve(n), exact.solve(n), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    for name, sums in exact.state().items():
        np.testing.assert_allclose(quick.state()[name], sums, rtol=1e-12, atol=1e-10)


def test_a_step_is_taken_between_two_solutions() -> None:
    x, r, _ = _log(70)
    ridge = RidgeArms(precision=PRECISION, mean=MEAN)
    ridge.grow()
    ridge.set_steps(64)
    solved = []
    for i in range(70):
        ridge.solve_float32(i)
        ridge.update(0, x[i], float(r[i]), i + 1)
        solved.append(ridge._solved[0] is None)
    assert np.flatnonzero(solved).tolist() == [63]

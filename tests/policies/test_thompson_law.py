"""The law of the best of several clipped normals, against adaptive quadrature and draws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import norm

from policies import thompson_law as normals
from policies.base import Bools, Float64
from policies.thompson_law import best_of

Case = tuple[Float64, Float64, Float64]


def pmf(case: Case, eligible: Bools | None = None) -> Float64:
    mean, scale, penalty = (np.atleast_2d(part) for part in case)
    allowed = np.ones(mean.shape, dtype=np.bool_) if eligible is None else eligible[None]
    return best_of(mean, scale, penalty, allowed)[0]


def slow_and_obvious(case: Case) -> Float64:
    """Adaptive quadrature below the caps, and a sum over all subsets of ties at the caps."""
    mean, scale, penalty = case
    arms = range(len(mean))
    lid = 1.0 - penalty
    centre = mean - penalty

    def cdf(b: int, u: float) -> float:
        return 1.0 if u >= lid[b] else float(norm.cdf((u - centre[b]) / scale[b]))

    found = np.zeros(len(mean))
    for a in arms:

        def density(u: float, a: int = a) -> float:
            others = math.prod(cdf(b, u) for b in arms if b != a)
            return float(norm.pdf((u - centre[a]) / scale[a]) / scale[a]) * others

        # Adaptive quadrature sees a narrow arm only if told where to look.
        low, high = centre[a] - 9.0 * scale[a], min(centre[a] + 9.0 * scale[a], lid[a])
        marks = [centre[b] + z * scale[b] for b in arms for z in (-6, -3, -1, 0, 1, 3, 6)]
        inside = sorted({low, high, *(u for u in (*marks, *lid) if low < u < high)})
        for left, right in itertools.pairwise(inside):
            found[a] += quad(density, left, right, epsabs=1e-11, epsrel=1e-10)[0]
        tied = [b for b in arms if b != a and lid[b] == lid[a]]
        below = math.prod(cdf(b, lid[a]) for b in arms if b != a and b not in tied)
        reached = [float(norm.sf((lid[b] - centre[b]) / scale[b])) for b in arms]
        for size in range(len(tied) + 1):
            for some in itertools.combinations(tied, size):
                p = math.prod(reached[b] if b in some else 1.0 - reached[b] for b in tied)
                found[a] += reached[a] * below * p / (size + 1)
    return found


def assert_agrees_with_draws(case: Case, n: int, *, seed: int = 0) -> None:
    """Check the law against the frequencies of n draws, within four standard errors."""
    mean, scale, penalty = case
    rng, total = np.random.default_rng(seed), np.zeros(len(mean))
    for _ in range(n // 500_000):
        noise = rng.standard_normal((500_000, len(mean)))
        utility = np.minimum(mean + scale * noise, 1.0) - penalty
        best = utility == utility.max(axis=1, keepdims=True)
        total += (best / best.sum(axis=1, keepdims=True)).sum(axis=0)
    p = pmf(case)
    # An arm of mass below 1 / n may be drawn once.
    assert (np.abs(total / n - p) <= 4.0 * np.sqrt(p * (1.0 - p) / n) + 1.0 / n).all()


def case_of(kind: str, arms: int, seed: int) -> Case:
    rng = np.random.default_rng([arms, seed])
    flat = np.full(arms, 0.1)
    if kind == "alike":
        return np.full(arms, 0.8), np.full(arms, 0.05), flat
    if kind == "two scales":
        scale = np.where(np.arange(arms) % 2, 1e-3, 1.0)
        return rng.uniform(0.4, 1.05, arms), scale, rng.uniform(0.0, 0.2, arms)
    if kind == "two scales, free":
        scale = np.where(np.arange(arms) % 2, 1e-3, 1.0)
        return rng.uniform(0.4, 1.0, arms), scale, np.zeros(arms)
    if kind == "at the cap":
        return rng.uniform(0.95, 1.1, arms), 10 ** rng.uniform(-3, -1, arms), np.zeros(arms)
    return rng.uniform(0.3, 1.0, arms), 10 ** rng.uniform(-3, 0, arms), rng.uniform(0, 0.3, arms)


KINDS = ("alike", "two scales", "two scales, free", "at the cap", "any")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arms", [2, 3, 6])
def test_it_agrees_with_adaptive_quadrature(kind: str, arms: int) -> None:
    for seed in range(3):
        case = case_of(kind, arms, seed)
        expected = slow_and_obvious(case)
        assert expected.sum() == pytest.approx(1.0, abs=1e-8)
        np.testing.assert_allclose(pmf(case), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_it_agrees_with_draws(kind: str) -> None:
    assert_agrees_with_draws(case_of(kind, 4, 1), 1_000_000)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arms", [3, 8])
def test_it_agrees_with_ten_million_draws(kind: str, arms: int) -> None:
    assert_agrees_with_draws(case_of(kind, arms, 2), 10_000_000, seed=3)


def dense(mean: Float64, scale: Float64) -> Float64:
    """The trapezoid rule without any cap: its error falls as fast as a normal's own tails."""
    step = scale.min() / 12.0
    u = np.arange((mean - 8.0 * scale).min(), (mean + 8.0 * scale).max(), step)
    z = (u[:, None] - mean) / scale
    below = norm.logcdf(z)
    others = below.sum(axis=1, keepdims=True) - below
    found: Float64 = (np.exp(norm.logpdf(z) + others) / scale).sum(axis=0) * step
    return found


@pytest.mark.parametrize("arms", [8, 40])
@pytest.mark.parametrize("low", [1.0, 0.5, 0.35, 0.2])
@pytest.mark.parametrize("kind", ["mixed", "one narrow", "one wide"])
def test_many_arms_of_like_scales_are_integrated_to_2e_7(kind: str, low: float, arms: int) -> None:
    """Scales of `low` and 1 with means close together, where the integrands are sharpest."""
    at, rng = np.arange(arms), np.random.default_rng([arms, 1])
    narrow = {"mixed": at % 2 == 1, "one narrow": at == 1, "one wide": at != 1}[kind]
    scale, mean = np.where(narrow, low, 1.0), 0.3 * rng.normal(size=arms)
    none = np.zeros((1, arms))
    found = best_of(mean[None], scale[None], none, none == 0.0, cap=1e3)
    np.testing.assert_allclose(found[0], dense(mean, scale), rtol=0, atol=2e-7)


def test_panels_are_narrow_only_where_a_narrow_arm_is_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Scales of 1 and 1/5; narrow panels everywhere would be 1,608."""
    evaluated = 0

    def counted(z: Float64) -> Float64:
        nonlocal evaluated
        evaluated += z.size
        return np.asarray(ndtr(z))

    monkeypatch.setattr(normals, "ndtr", counted)
    scale, none = np.where(np.arange(8) % 2, 0.2, 1.0)[None], np.zeros((1, 8))
    best_of(none, scale, none, none == 0.0, cap=1e3)
    assert 0 < evaluated < 1_000


def test_a_duel_has_a_closed_form() -> None:
    mean, scale, penalty = np.array([0.1, 0.15]), np.array([0.03, 0.02]), np.array([0.0, 0.02])
    expected = norm.cdf((0.1 - 0.13) / math.hypot(0.03, 0.02))
    np.testing.assert_allclose(pmf((mean, scale, penalty))[0], expected, rtol=0, atol=1e-9)


def test_many_equal_arms_share_evenly() -> None:
    for mean in (0.5, 0.97, 3.0):
        case = np.full(32, mean), np.full(32, 0.04), np.zeros(32)
        np.testing.assert_allclose(pmf(case), np.full(32, 1 / 32), rtol=0, atol=1e-12)


def test_of_arms_surely_at_the_cap_the_cheapest_wins() -> None:
    case = np.full(3, 9.0), np.full(3, 0.1), np.array([0.2, 0.1, 0.1])
    np.testing.assert_allclose(pmf(case), [0.0, 0.5, 0.5], rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 0.2])
def test_a_penalty_beyond_all_quality_leaves_the_order_of_penalties(scale: float) -> None:
    penalty = np.array([3e8, 1e8, 2e8])
    case = np.array([1.0, 0.0, 1.0]), np.full(3, scale), penalty
    assert pmf(case).tolist() == [0.0, 1.0, 0.0]


def test_what_is_not_eligible_has_no_mass_and_no_say() -> None:
    case = case_of("any", 4, 5)
    allowed = np.array([True, False, True, False])
    rest = tuple(part[allowed] for part in case)
    found = pmf(case, allowed)
    assert found[~allowed].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(found[allowed], pmf(rest), rtol=0, atol=1e-12)  # type: ignore[arg-type]
    assert pmf(case, np.zeros(4, dtype=np.bool_)).tolist() == [0.0] * 4


def test_a_row_has_the_same_bits_beside_rows_with_more_rivals() -> None:
    rng = np.random.default_rng(3)
    mean, penalty = rng.uniform(0.5, 1.0, (400, 12)), rng.uniform(0.0, 0.3, (400, 12))
    scale = np.where(rng.random((400, 1)) < 0.5, 0.3, 0.01) * np.ones((1, 12))
    allowed = rng.random((400, 12)) < 0.8
    whole = best_of(mean, scale, penalty, allowed)
    for i in range(400):
        row = slice(i, i + 1)
        alone = best_of(mean[row], scale[row], penalty[row], allowed[row])
        assert alone.tobytes() == whole[row].tobytes()


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_scale_must_be_positive(bad: float) -> None:
    with pytest.raises(ValueError, match="scale: every eligible entry positive"):
        pmf((np.ones(2), np.array([0.1, bad]), np.zeros(2)))


def test_ties_at_the_cap_have_the_same_bits_beside_rows_with_more_of_them() -> None:
    """Two of twelve arms can win and tie: the number of such arms in other rows changes no bit."""
    rng = np.random.default_rng(5)
    mean, scale = rng.uniform(0.9, 1.1, (60, 12)), rng.uniform(0.05, 0.3, (60, 12))
    none, allowed = np.zeros((60, 12)), np.ones((60, 12), dtype=np.bool_)
    allowed[1:, 2:] = False
    whole = best_of(mean, scale, none, allowed)
    assert (whole[0] > 0.0).all()
    few = best_of(mean[1:], scale[1:], none[1:], allowed[1:])
    assert few.tobytes() == whole[1:].tobytes()

"""References: values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sim.measure.baselines import References


def of_means(quality: list[float], cost: list[float]) -> References:
    names = [f"m{k}" for k in range(len(quality))]
    return References.of(names, np.array([quality]), np.array([cost]))


def test_levels_of_two_prompts() -> None:
    quality = np.array([[0.2, 1.0, 1.0], [0.6, 0.4, 0.9]])
    cost = np.array([[1.0, 3.0, 2.0], [1.0, 1.0, 6.0]])
    references = References.of(["a", "b", "c"], quality, cost)
    assert references.random == pytest.approx((4.1 / 6, 14 / 6))
    assert references.best_single == 2
    # The cheaper of two perfect answers, then the best.
    assert references.oracle == pytest.approx((0.95, 4.0))


def test_zero_router_is_the_upper_left_hull_from_the_cheapest() -> None:
    references = of_means([0.5, 0.9, 0.6, 0.8, 1.0], [1.0, 3.0, 2.0, 4.0, 11.0])
    assert references.zero_router().corners.tolist() == [[1.0, 0.5], [3.0, 0.9], [11.0, 1.0]]
    assert references.zero_router().quality_at(2.0) == pytest.approx(0.7)
    assert references.zero_router().quality_at(7.0) == pytest.approx(0.95)
    assert references.zero_router().quality_at(0.1) == 0.5
    slopes = [references.zero_router().slope(cost) for cost in (0.1, 2.0, 3.0, 7.0, 11.0)]
    assert slopes == pytest.approx([0.2, 0.2, 0.0125, 0.0125, 0.0])
    assert references.zero_router().quality_at(99.0) == 1.0


def test_zero_router_without_a_trade_off_is_one_corner() -> None:
    assert of_means([0.9, 0.4], [1.0, 2.0]).zero_router().corners.tolist() == [[1.0, 0.9]]
    assert of_means([0.4, 0.9], [1.0, 1.0]).zero_router().corners.tolist() == [[1.0, 0.9]]


def test_best_mix_of_two_models_is_never_above_the_zero_router() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        references = of_means(rng.random(6).tolist(), rng.random(6).tolist())
        costs = np.linspace(references.cost_usd.min(), references.cost_usd.max(), 40)
        levels = [references.zero_router().quality_at(cost) for cost in costs]
        assert (np.diff(levels) >= -1e-12).all()
        mixes = []
        for i in range(6):
            for j in range(6):
                share = rng.random()
                cost = share * references.cost_usd[i] + (1 - share) * references.cost_usd[j]
                quality = share * references.quality[i] + (1 - share) * references.quality[j]
                mixes.append(references.zero_router().quality_at(cost) - quality)
        assert min(mixes) >= -1e-12


def test_mean_of_references() -> None:
    mean = References.mean([of_means([0.2, 0.4], [1.0, 2.0]), of_means([0.4, 0.8], [3.0, 4.0])])
    assert mean.quality.tolist() == pytest.approx([0.3, 0.6])
    assert mean.cost_usd.tolist() == [2.0, 3.0]
    assert mean.oracle == pytest.approx((0.6, 3.0))


def test_oracle_at_a_rate_is_the_knapsack() -> None:
    """Two dollars a prompt: the first perfect answer fits, a half of the second one's gain does."""
    quality = np.array([[0.2, 1.0, 1.0], [0.6, 0.4, 0.9]])
    cost = np.array([[0.5, 2.0, 1.5], [0.5, 0.5, 4.5]])
    references = References.of(["a", "b", "c"], quality, cost, budget_rate_usd=2.0)
    assert references.oracle == pytest.approx(((1.0 + 0.6 + 0.5 * 0.3) / 2, 2.0))
    rich = References.of(["a", "b", "c"], quality, cost, budget_rate_usd=9.0)
    assert rich.oracle == pytest.approx((0.95, 3.0))


def test_oracle_refuses_where_the_budget_does_not_pay_for_the_cheapest_answers() -> None:
    quality, cost = np.array([[0.2, 1.0], [0.6, 0.7]]), np.array([[1.0, 1.0], [1.0, 2.0]])
    references = References.of(["a", "b"], quality, cost, budget_rate_usd=0.5)
    assert references.oracle == pytest.approx((0.5, 0.5))


def test_zero_router_sees_which_models_are_on_offer() -> None:
    """Money goes where it buys the most: to the steep offer first, whatever comes first."""
    offered = np.array([[True, True, False]] * 2 + [[True, False, True]] * 2)
    quality = np.array([[0.5, 0.6, 9.0]] * 2 + [[0.4, 9.0, 0.8]] * 2)
    cost = np.array([[1.0, 3.0, 2.0]] * 4)
    references = References.of(["a", "b", "c"], quality, cost, offered=offered)
    assert references.quality.tolist() == pytest.approx([0.45, 0.6, 0.8])
    corners = [[1.0, 0.45], [1.5, 0.65], [2.5, 0.7]]
    assert references.zero_router().corners == pytest.approx(np.array(corners))
    assert references.zero_router().mix_at(2.0) == (1, 0.5)
    assert references.zero_router().mix_at(0.1) == (0, 0.0)
    assert references.zero_router().mix_at(99.0) == (2, 0.0)
    assert references.cost_span_usd == pytest.approx((1.0, 2.5))
    assert references.random == pytest.approx((0.5 * (0.55 + 0.6), 0.5 * (2.0 + 1.5)))
    # It alone can be played at all times.
    assert references.best_single == 0
    assert references.oracle == pytest.approx((0.7, 2.5))
    mean = References.mean([references, references])
    assert mean.zero_router().corners == pytest.approx(np.array(corners))


def test_offers_of_several_seeds_are_merged() -> None:
    def half(cut: int, lift: float) -> References:
        offered = np.ones((4, 2), dtype=np.bool_)
        offered[cut:, 1] = False
        quality = np.array([[0.5 + lift, 0.9 + lift]] * 4)
        return References.of(["a", "b"], quality, np.array([[1.0, 3.0]] * 4), offered=offered)

    merged = References.mean([half(2, 0.0), half(1, 0.1), half(0, 0.1), half(4, 0.0)])
    shares = {tuple(np.isnan(one.quality)): one.share for one in merged.offers}
    assert shares == pytest.approx({(False, True): 9 / 16, (False, False): 7 / 16})
    assert merged.quality[0] == pytest.approx(0.55)
    assert merged.quality[1] == pytest.approx((2 * 0.9 + 1.0 + 4 * 0.9) / 7)


def test_a_request_with_nothing_on_offer_has_quality_and_cost_0() -> None:
    offered = np.array([[True, True], [False, False]])
    quality, cost = np.array([[0.5, 0.9]] * 2), np.array([[1.0, 3.0]] * 2)
    references = References.of(["a", "b"], quality, cost, offered=offered)
    assert references.zero_router().corners == pytest.approx(np.array([[0.5, 0.25], [1.5, 0.45]]))
    assert references.oracle == pytest.approx((0.45, 1.5))
    assert references.random == pytest.approx((0.35, 1.0))

"""Scores: published values, and values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sim.measure.baselines import Offer, References
from sim.measure.scores import aiq, arena_score, captured_gain

# RouterBench, 0-shot: mean quality and US dollars per query of its eleven models.
ROUTERBENCH = {
    "gpt-4-1106-preview": (0.7814, 0.003293),
    "Yi-34B-Chat": (0.6475, 0.000186),
    "claude-v2": (0.6358, 0.002419),
    "claude-v1": (0.6301, 0.002145),
    "gpt-3.5-turbo-1106": (0.6193, 0.000243),
    "claude-instant-v1": (0.5984, 0.000233),
    "mixtral-8x7b-chat": (0.5471, 0.000135),
    "WizardLM-13B-V1.2": (0.4311, 0.000073),
    "llama-2-70b-chat": (0.3287, 0.000203),
    "mistral-7b-chat": (0.3061, 0.000046),
    "code-llama-instruct-34b-chat": (0.2022, 0.000172),
}


def test_aiq_of_routerbenchs_zero_router() -> None:
    quality, cost = np.array(list(ROUTERBENCH.values())).T
    score = aiq(cost, quality, low_usd=cost.min(), high_usd=cost.max())
    assert score == pytest.approx(0.7055, abs=5e-5)
    references = References(tuple(ROUTERBENCH), (0.0, 0.0), (Offer(1.0, quality, cost),))
    assert references.cost_span_usd == (cost.min(), cost.max())
    zero_router = references.zero_router()
    costs, qualities = zero_router.corners.T
    assert aiq(costs, qualities, low_usd=cost.min(), high_usd=cost.max()) == score
    assert zero_router.quality_at(0.25 * 0.003293) == pytest.approx(0.675, abs=5e-4)


def test_aiq_is_over_the_range_that_is_given() -> None:
    # From its only point on a router is flat; below the range nothing counts.
    assert aiq([1.0, 2.0], [0.5, 0.7], low_usd=1.0, high_usd=4.0) == pytest.approx(
        (0.6 + 2 * 0.7) / 3
    )
    assert aiq([0.0, 2.0], [0.5, 0.7], low_usd=1.0, high_usd=2.0) == pytest.approx(0.65)
    assert aiq([1.0, 2.0, 3.0], [0.5, 0.4, 0.9], low_usd=1.0, high_usd=3.0) == pytest.approx(0.7)
    assert aiq([1.0, 9.0], [0.5, 1.3], low_usd=1.0, high_usd=3.0) == pytest.approx(0.6)
    assert aiq([2.0], [0.5], low_usd=2.0, high_usd=2.0) == 0.5


@pytest.mark.parametrize("points", [([], []), ([2.0, 3.0], [0.5, 0.7])])
def test_aiq_needs_a_point_at_the_cheap_end(points: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="cost_usd: no point at 1 or below"):
        aiq(*points, low_usd=1.0, high_usd=4.0)


def test_arena_score_of_published_figures() -> None:
    assert arena_score(0.7554, 1.00 / 1000) == pytest.approx(72.07, abs=0.005)
    assert arena_score(0.7554, 0.50 / 1000) == pytest.approx(73.2, abs=0.05)
    assert arena_score(0.8, 0.0) == arena_score(0.8, 4.4e-6) == pytest.approx(80 * 1.1 / 1.08)
    assert arena_score(0.8, 0.2) == arena_score(0.8, 9.0) == 0.0
    assert arena_score(0.0, 9.0) == 0.0


def test_captured_gain_is_a_ratio_of_means() -> None:
    gain, limit = np.array([0.02, 0.04]), np.array([0.04, 0.06])
    score = captured_gain(gain, limit)
    assert score.mean == pytest.approx(0.6)
    # Residuals -0.004 and 0.004 over a mean of 0.05.
    assert score.se == pytest.approx(0.08)
    assert captured_gain(gain[:1], limit[:1]).se is None


@pytest.mark.parametrize(
    "limit",
    [[0.004, 0.004], [0.0, 0.1], [-0.1, -0.1], [np.nan, 0.1]],
    ids=["next to nothing", "not certain", "below", "not known"],
)
def test_captured_gain_is_undefined_where_supervision_gains_nothing(limit: list[float]) -> None:
    assert captured_gain(np.array([0.1, 0.1]), np.array(limit)).mean is None

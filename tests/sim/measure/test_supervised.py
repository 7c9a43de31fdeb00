"""The supervised limit: values worked out by hand, and planted effects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from banditroute.features.embedding import make_embedder
from sim.data.synthetic import generate
from sim.measure.baselines import References
from sim.measure.supervised import Supervised, ridge

QUALITY = np.array([[0.5, 0.9], [0.5, 0.6], [0.5, 0.4], [0.5, 0.8]])
COST = np.array([[1.0, 3.0]] * 4)


def test_preference_weighs_quality_against_cost_up_to_tau() -> None:
    oracle = Supervised.oracle(QUALITY, COST)
    assert oracle.at_preference(1.0, 0.0, tau_cost_usd=1.0) == pytest.approx((0.7, 2.5))
    # Costs of 0.1 and 0.3: the gains 0.4 and 0.3 pay at equal weights, the gain 0.1 does not.
    assert oracle.at_preference(0.5, 0.5, tau_cost_usd=10.0) == pytest.approx((0.675, 2.0))
    # Everything above tau costs the same.
    assert oracle.at_preference(0.1, 0.9, tau_cost_usd=0.5) == pytest.approx((0.7, 2.5))


def test_rate_is_met_by_mixing_the_two_neighbouring_prices() -> None:
    oracle = Supervised.oracle(QUALITY, COST)
    assert oracle.at_rate(1.5) == pytest.approx((0.6, 1.5))
    # Halfway between one expensive answer and two.
    assert oracle.at_rate(1.75) == pytest.approx((0.6375, 1.75))


def test_a_rate_that_does_not_bind_is_not_spent_and_an_impossible_rate_is_not_met() -> None:
    oracle = Supervised.oracle(QUALITY, COST)
    assert oracle.at_rate(10.0) == pytest.approx((0.7, 2.5))
    assert oracle.at_rate(0.5) == pytest.approx((0.5, 1.0))


def test_ridge_shrinks_noise_but_never_the_intercept() -> None:
    rng = np.random.default_rng(3)
    x = np.column_stack([rng.standard_normal((400, 3)), np.ones(400)])
    y = np.column_stack([5.0 + 2.0 * x[:, 0], 5.0 + rng.standard_normal(400)])
    fitted = ridge(x, y)
    assert fitted[:, 0] == pytest.approx([2.0, 0.0, 0.0, 5.0], abs=0.02)
    assert fitted[:3, 1] == pytest.approx([0.0] * 3, abs=0.05)
    assert fitted[3, 1] == pytest.approx(y[:, 1].mean(), abs=0.02)


def test_costs_are_right_on_average_and_the_planted_effect_is_found() -> None:
    data = generate(rows=1_200, seed=4).dataset
    features = make_embedder("hashing").features(list(data.prompts))
    learned, scored = np.arange(600), np.arange(600, 1_200)
    limit = Supervised.of(data, features, learned, scored)
    assert limit.predicted_cost_usd.mean(axis=0) == pytest.approx(
        data.cost_usd[scored].mean(axis=0), rel=0.1
    )
    references = References.of(data.models, data.quality[scored], data.cost_usd[scored])
    quality, cost = limit.at_preference(0.7, 0.3, tau_cost_usd=float(data.cost_usd.max()))
    zero_router = references.zero_router()
    assert quality - zero_router.quality_at(cost) > 0.1
    assert quality <= references.oracle[0]
    rate = float(np.median(references.cost_usd))
    paced, spent = limit.at_rate(rate)
    assert spent == pytest.approx(rate, rel=0.02)
    assert paced > zero_router.quality_at(rate)


def test_rows_are_predicted_from_the_other_rows_alone() -> None:
    """A row's own labels do not change its predictions, and features still help."""
    data = generate(rows=400, seed=2).dataset
    embedder = make_embedder("hashing")
    features = embedder.features(list(data.prompts))
    rows = np.random.default_rng(0).permutation(400)
    limit = Supervised.cross_fitted(data, features, rows)
    assert limit.quality.tolist() == data.quality[rows].tolist()
    spoiled = data.quality.copy()
    spoiled[rows[0]] = 0.0
    again = Supervised.cross_fitted(replace(data, quality=spoiled), features, rows)
    assert again.predicted_quality[0].tolist() == limit.predicted_quality[0].tolist()
    assert again.predicted_quality[-1].tolist() != limit.predicted_quality[-1].tolist()
    plain = References.of(data.models, data.quality, data.cost_usd)
    assert limit.at_rate(np.inf)[0] > plain.quality.max() + 0.02

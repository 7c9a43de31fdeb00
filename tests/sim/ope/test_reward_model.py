from __future__ import annotations

import numpy as np
import pytest

from sim.ope.reward_model import LEAST_OBSERVED, observed_probability, predict_rewards


def features(rng: np.random.Generator, n: int, d: int = 4) -> np.ndarray:
    x = rng.normal(size=(n, d)).astype(np.float32)
    x[:, -1] = 1.0
    return x


@pytest.mark.parametrize("at", [0, 1, 2, 5, 63, 64, 130, 298, 299])
def test_no_later_row_changes_a_prediction(at: int) -> None:
    rng = np.random.default_rng(at)
    x, chosen, reward = features(rng, 300), rng.integers(3, size=300), rng.random(300)
    before = predict_rewards(x, chosen, reward, 3)
    x[at + 1 :], chosen[at + 1 :] = features(rng, 299 - at), rng.integers(3, size=299 - at)
    reward[at:] = 100.0 * rng.random(300 - at)
    after = predict_rewards(x, chosen, reward, 3)
    assert (before[: at + 1] == after[: at + 1]).all()


def test_a_linear_reward_is_learned() -> None:
    rng = np.random.default_rng(0)
    x, chosen = features(rng, 4_000), rng.integers(3, size=4_000)
    means = 0.5 + 0.1 * x.astype(np.float64) @ rng.normal(size=(4, 3))
    reward = means[np.arange(4_000), chosen] + rng.normal(0.0, 0.05, 4_000)
    assert np.abs(predict_rewards(x, chosen, reward, 3)[3_000:] - means[3_000:]).mean() < 0.02


def test_a_missing_reward_does_not_count_as_zero() -> None:
    rng = np.random.default_rng(1)
    x, chosen, reward = features(rng, 400), rng.integers(2, size=400), rng.random(400)
    reward[::2] = np.nan
    found = predict_rewards(x, chosen, reward, 2)
    # The arm of a row without a reward does not matter.
    chosen[::2] = 1 - chosen[::2]
    assert (found == predict_rewards(x, chosen, reward, 2)).all()
    assert found[100:].mean() == pytest.approx(0.5, abs=0.05)
    assert not predict_rewards(x, chosen, np.full(400, np.nan), 2).any()


def test_an_arm_that_was_never_chosen_has_the_mean_of_all() -> None:
    rng = np.random.default_rng(2)
    x, chosen, reward = features(rng, 200), rng.integers(2, size=200), 0.2 + 0.1 * rng.random(200)
    found = predict_rewards(x, chosen, reward, 3)
    assert found[150:, 2] == pytest.approx(reward[:150].mean(), abs=0.01)
    assert found[1:].min() >= reward.min() and found.max() <= reward.max()


def test_with_all_or_no_outcomes_observed_the_probability_is_one() -> None:
    x, chosen = features(np.random.default_rng(0), 20), np.zeros(20, dtype=np.intp)
    assert (observed_probability(x, chosen, np.ones(20, dtype=np.bool_), 2) == 1.0).all()
    assert (observed_probability(x, chosen, np.zeros(20, dtype=np.bool_), 2) == 1.0).all()


def test_outcomes_missing_by_arm_and_features_are_made_up_for() -> None:
    rng = np.random.default_rng(3)
    n = 20_000
    x, chosen = features(rng, n), rng.integers(2, size=n)
    reward = 0.5 + 0.1 * x[:, 0] + 0.2 * chosen
    chance = 1.0 / (1.0 + np.exp(-(1.0 * x[:, 0] + 1.5 * chosen - 1.0)))
    is_observed = rng.random(n) < chance
    found = observed_probability(x, chosen, is_observed, 2)
    assert np.abs(found - chance).mean() < 0.02
    assert found.sum() == pytest.approx(is_observed.sum(), rel=0.01)
    weighted = np.average(reward[is_observed], weights=1.0 / found[is_observed])
    assert weighted == pytest.approx(reward.mean(), abs=0.01)
    assert reward[is_observed].mean() > reward.mean() + 0.05


def test_an_observed_row_stands_for_twenty_rows_at_most() -> None:
    rng = np.random.default_rng(4)
    x, chosen = features(rng, 3_000), rng.integers(2, size=3_000)
    is_observed = np.where(chosen == 0, rng.random(3_000) < 0.9, rng.random(3_000) < 0.001)
    found = observed_probability(x, chosen, is_observed, 2)
    assert found.min() == LEAST_OBSERVED and found.max() <= 1.0

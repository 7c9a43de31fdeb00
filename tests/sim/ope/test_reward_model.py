from __future__ import annotations

import numpy as np
import pytest

from sim.ope.reward_model import LEAST_OBSERVED, observed, predicted


def features(rng: np.random.Generator, n: int, d: int = 4) -> np.ndarray:
    x = rng.normal(size=(n, d)).astype(np.float32)
    x[:, -1] = 1.0
    return x


@pytest.mark.parametrize("at", [0, 1, 2, 5, 63, 64, 130, 298, 299])
def test_no_later_row_changes_a_prediction(at: int) -> None:
    rng = np.random.default_rng(at)
    x, chosen, reward = features(rng, 300), rng.integers(3, size=300), rng.random(300)
    before = predicted(x, chosen, reward, 3)
    x[at + 1 :], chosen[at + 1 :] = features(rng, 299 - at), rng.integers(3, size=299 - at)
    reward[at:] = 100.0 * rng.random(300 - at)
    after = predicted(x, chosen, reward, 3)
    assert (before[: at + 1] == after[: at + 1]).all()


def test_what_an_arm_gave_is_found() -> None:
    rng = np.random.default_rng(0)
    x, chosen = features(rng, 4_000), rng.integers(3, size=4_000)
    means = 0.5 + 0.1 * x.astype(np.float64) @ rng.normal(size=(4, 3))
    reward = means[np.arange(4_000), chosen] + rng.normal(0.0, 0.05, 4_000)
    assert np.abs(predicted(x, chosen, reward, 3)[3_000:] - means[3_000:]).mean() < 0.02


def test_nothing_observed_is_not_a_zero() -> None:
    rng = np.random.default_rng(1)
    x, chosen, reward = features(rng, 400), rng.integers(2, size=400), rng.random(400)
    reward[::2] = np.nan
    found = predicted(x, chosen, reward, 2)
    # The rows that teach nothing might as well have been of the other arm.
    chosen[::2] = 1 - chosen[::2]
    assert (found == predicted(x, chosen, reward, 2)).all()
    assert found[100:].mean() == pytest.approx(0.5, abs=0.05)
    assert not predicted(x, chosen, np.full(400, np.nan), 2).any()


def test_an_arm_that_nobody_chose_has_the_mean_of_all() -> None:
    rng = np.random.default_rng(2)
    x, chosen, reward = features(rng, 200), rng.integers(2, size=200), 0.2 + 0.1 * rng.random(200)
    found = predicted(x, chosen, reward, 3)
    assert found[150:, 2] == pytest.approx(reward[:150].mean(), abs=0.01)
    assert found[1:].min() >= reward.min() and found.max() <= reward.max()


def test_all_observed_or_none_needs_no_model() -> None:
    x, chosen = features(np.random.default_rng(0), 20), np.zeros(20, dtype=np.intp)
    assert (observed(x, chosen, np.ones(20, dtype=np.bool_), 2) == 1.0).all()
    assert (observed(x, chosen, np.zeros(20, dtype=np.bool_), 2) == 1.0).all()


def test_what_is_missing_by_arm_and_features_is_made_up_for() -> None:
    rng = np.random.default_rng(3)
    n = 20_000
    x, chosen = features(rng, n), rng.integers(2, size=n)
    reward = 0.5 + 0.1 * x[:, 0] + 0.2 * chosen
    chance = 1.0 / (1.0 + np.exp(-(1.0 * x[:, 0] + 1.5 * chosen - 1.0)))
    seen = rng.random(n) < chance
    found = observed(x, chosen, seen, 2)
    assert np.abs(found - chance).mean() < 0.02
    assert found.sum() == pytest.approx(seen.sum(), rel=0.01)
    weighted = np.average(reward[seen], weights=1.0 / found[seen])
    assert weighted == pytest.approx(reward.mean(), abs=0.01)
    assert reward[seen].mean() > reward.mean() + 0.05


def test_a_row_never_counts_for_more_than_twenty() -> None:
    rng = np.random.default_rng(4)
    x, chosen = features(rng, 3_000), rng.integers(2, size=3_000)
    seen = np.where(chosen == 0, rng.random(3_000) < 0.9, rng.random(3_000) < 0.001)
    found = observed(x, chosen, seen, 2)
    assert found.min() == LEAST_OBSERVED and found.max() <= 1.0

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.ope import estimators
from sim.ope.estimators import ESTIMATORS, clipped_ips, dm, dr, dr_os, ips, snips, switch_dr
from sim.ope.inputs import EstimatorInputs

FOUR = EstimatorInputs(
    reward=np.array([1.0, 0.0, 0.5, 1.0]),
    weight=np.array([2.0, 1.0, 4.0, 0.5]),
    observation_weight=np.array([1.0, 1.0, 2.0, 0.0]),
    q_hat=np.array([0.5, 0.5, 0.25, 0.9]),
    v_hat=np.array([0.6, 0.4, 0.2, 0.8]),
)
"""Importance 2, 1, 8, 0: the last row was not observed."""


def planted(n: int = 400, seed: int = 0, observed: float = 0.8) -> EstimatorInputs:
    rng = np.random.default_rng(seed)
    return EstimatorInputs(
        reward=rng.random(n),
        weight=rng.exponential(1.0, n),
        observation_weight=np.where(rng.random(n) < observed, 1.0 / observed, 0.0),
        q_hat=rng.random(n),
        v_hat=rng.random(n),
    )


@pytest.mark.parametrize(
    ("how", "values"),
    [
        ("ips", [2.0, 0.0, 4.0, 0.0]),
        ("dm", [0.6, 0.4, 0.2, 0.8]),
        ("dr", [0.6 + 2 * 0.5, 0.4 - 0.5, 0.2 + 8 * 0.25, 0.8]),
    ],
)
def test_values_by_hand(how: str, values: list[float]) -> None:
    assert ESTIMATORS[how](FOUR) == pytest.approx(values)


def test_snips_by_hand() -> None:
    value = (2 * 1.0 + 1 * 0.0 + 8 * 0.5) / 11
    values = snips(FOUR)
    assert values.mean() == pytest.approx(value)
    left_out = np.array([2 * (1 - value) / 9, -value / 10, 8 * (0.5 - value) / 3, 0.0]) * 3
    assert values - values.mean() == pytest.approx(left_out - left_out.mean())


def test_the_influence_of_a_row_is_what_leaving_it_out_changes() -> None:
    inputs = planted(60)
    values = snips(inputs)
    w, n = inputs.importance, 60
    for i in range(0, n, 7):
        rest = np.arange(n) != i
        without = (w[rest] @ inputs.reward[rest]) / w[rest].sum()
        alone = (n - 1) * (values.mean() - without)
        mean = (values.mean() - values).mean()
        expected = w[i] * (inputs.reward[i] - values.mean()) / (w.sum() - w[i]) * (n - 1)
        assert alone == pytest.approx(expected - mean)


def test_snips_grows_by_a_constant_as_all_rewards_do() -> None:
    inputs = planted()
    higher = replace(inputs, reward=inputs.reward + 3.0)
    assert snips(higher) == pytest.approx(snips(inputs) + 3.0)
    assert ips(higher).mean() != pytest.approx(ips(inputs).mean() + 3.0, abs=0.01)


def test_equal_weights_give_the_mean_of_the_rewards() -> None:
    inputs = replace(planted(observed=1.0), weight=np.ones(400))
    assert snips(inputs) == pytest.approx(inputs.reward)


def test_one_row_with_all_weight_has_finite_values() -> None:
    weight = np.zeros(5)
    weight[2] = 0.3
    inputs = replace(planted(5, observed=1.0), weight=weight, reward=np.full(5, 0.1))
    assert np.isfinite(snips(inputs)).all()
    assert snips(inputs).mean() == pytest.approx(0.1)


def test_with_a_perfect_reward_model_the_rewards_change_nothing() -> None:
    inputs = planted()
    perfect = replace(inputs, q_hat=inputs.reward)
    for how in ("dr", "switch-dr", "dr-os"):
        assert ESTIMATORS[how](perfect) == pytest.approx(inputs.v_hat)


@pytest.mark.parametrize("how", ESTIMATORS)
def test_an_unobserved_reward_counts_for_nothing(how: str) -> None:
    inputs = planted()
    other = replace(inputs, reward=np.where(inputs.observation_weight > 0.0, inputs.reward, 77.0))
    assert ESTIMATORS[how](other) == pytest.approx(ESTIMATORS[how](inputs))


@pytest.mark.parametrize("how", ESTIMATORS)
def test_all_weights_zero(how: str) -> None:
    inputs = replace(planted(), weight=np.zeros(400))
    values = ESTIMATORS[how](inputs)
    if how == "snips":
        assert np.isnan(values).all()
    elif "ips" in how:
        assert not values.any()
    else:
        assert values == pytest.approx(inputs.v_hat)


@pytest.mark.parametrize(
    ("of", "none", "all_of_it"),
    [
        (clipped_ips, lambda _: np.zeros(400), ips),
        (switch_dr, dm, dr),
        (dr_os, dm, dr),
    ],
)
def test_the_lowest_and_the_highest_limit(
    of: object, none: object, all_of_it: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(of) and callable(none) and callable(all_of_it)
    inputs = planted()
    for limit, end in ((1e-12, none), (1e9, all_of_it)):
        monkeypatch.setattr(estimators, "_best_limit", lambda *_, limit=limit: limit)
        assert of(inputs) == pytest.approx(end(inputs), abs=1e-6)


@pytest.mark.parametrize("how", ["clipped ips", "switch-dr", "dr-os"])
def test_equal_weights_are_not_clipped(how: str) -> None:
    """Clipping them would add bias and reduce no variance."""
    inputs = replace(planted(4_000, observed=1.0), weight=np.ones(4_000))
    plain = ips if how == "clipped ips" else dr
    assert ESTIMATORS[how](inputs) == pytest.approx(plain(inputs), abs=1e-4)


def test_clipping_counts_the_whole_reward_as_lost() -> None:
    """A clipped weight loses the reward itself, not its difference from other rewards."""
    inputs = planted(4_000, observed=1.0)
    inputs = replace(inputs, reward=0.95 + 0.05 * inputs.reward)
    assert clipped_ips(inputs).mean() == pytest.approx(ips(inputs).mean(), rel=0.02)


def test_ips_is_unbiased_and_dr_is_less_spread() -> None:
    """Two arms: the log chooses uniformly, the target plays the second with probability 0.9."""
    rng = np.random.default_rng(1)
    n, action_dist, target = 50_000, np.array([0.5, 0.5]), np.array([0.1, 0.9])
    means = np.array([0.3, 0.7])
    arm = rng.integers(2, size=n)
    inputs = EstimatorInputs(
        reward=(rng.random(n) < means[arm]).astype(np.float64),
        weight=(target / action_dist)[arm],
        observation_weight=np.ones(n),
        q_hat=means[arm],
        v_hat=np.full(n, float(target @ means)),
    )
    for how in ESTIMATORS:
        assert ESTIMATORS[how](inputs).mean() == pytest.approx(0.66, abs=0.01), how
    assert dr(inputs).std() < 0.8 * ips(inputs).std()

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.ope.overlap import Support, effective_sample_size, least_sample_size

GOOD = Support(
    rows=1_000,
    observed=1_000,
    ess=400.0,
    largest=0.01,
    mean_weight=1.0,
    mean_weight_error=0.02,
    outside=0.0,
    most_weight=4.0,
)


def of(
    weight: object, target: object, action_dist: object, observation_weight: object = None
) -> Support:
    weight = np.asarray(weight, dtype=np.float64)
    return Support.of(
        weight,
        np.ones(len(weight))
        if observation_weight is None
        else np.asarray(observation_weight, dtype=np.float64),
        np.asarray(target, dtype=np.float64),
        None if action_dist is None else np.asarray(action_dist, dtype=np.float64),
    )


def test_by_hand() -> None:
    action_dist = [[0.5, 0.5, 0.0]] * 4
    target = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.3, 0.2], [0.9, 0.1, 0.0]]
    found = of([2.0, 0.0, 1.0, 1.8], target, action_dist, observation_weight=[1.0, 1.0, 2.0, 0.0])
    assert (found.rows, found.observed) == (4, 3)
    assert found.ess == pytest.approx(4.0**2 / (2.0**2 + 2.0**2))
    assert found.largest == pytest.approx(0.5)
    assert found.mean_weight == pytest.approx(1.2)
    spread = np.std([2.0, 0.0, 1.0, 1.8], ddof=1) / 2
    assert found.mean_weight_error == pytest.approx(spread)
    assert found.outside == pytest.approx(0.05)
    assert found.most_weight == pytest.approx(2.0)


def test_a_probability_too_small_to_be_drawn_counts_as_zero() -> None:
    """A weight of a million that is never drawn makes the estimate wrong, and its error look small."""
    target = np.tile([0.0, 1.0], (1_000, 1))
    action_dist = np.tile([1.0 - 1e-6, 1e-6], (1_000, 1))
    assert of(np.zeros(1_000), target, action_dist).outside == 1.0
    action_dist = np.tile([0.999, 1e-3], (1_000, 1))
    assert of(np.zeros(1_000), target, action_dist).outside == 0.0


def test_a_log_of_propensities_alone() -> None:
    found = of([1.0, 2.0, 0.5], [[0.5, 0.5]] * 3, None)
    assert found.outside is None and found.most_weight is None
    assert any("cannot be checked" in one for one in found.warnings())


def test_no_weight_at_all() -> None:
    found = of(np.zeros(9), [[1.0, 0.0]] * 9, [[0.0, 1.0]] * 9)
    assert (found.ess, found.largest, found.outside) == (0.0, 0.0, 1.0)
    assert found.refusal() is not None


def test_the_effective_sample_size_and_the_least_one() -> None:
    assert effective_sample_size(np.ones(7)) == pytest.approx(7.0)
    assert effective_sample_size(np.array([3.0, 0.0, 0.0])) == pytest.approx(1.0)
    assert effective_sample_size(np.zeros(3)) == 0.0
    assert (least_sample_size(100), least_sample_size(5_000), least_sample_size(20_000)) == (
        50.0,
        50.0,
        200.0,
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"outside": 0.05}, None),
        ({"outside": None}, None),
        ({"ess": 50.0}, None),
        ({"outside": 0.0512}, "5.1% of the target's choices are of models that the log gave"),
        ({"ess": 49.9}, "effective sample size 49.9 of 1000 rows, at least 50 is needed"),
        (
            {"rows": 20_000, "ess": 199.0, "observed": 20_000},
            "effective sample size 199.0 of 20000 rows, at least 200 is needed",
        ),
        ({"observed": 49, "ess": 30.0}, "49 of 1,000 rows have feedback, at least 50 are needed"),
    ],
)
def test_refusals(change: dict[str, float], expected: str | None) -> None:
    refusal = replace(GOOD, **change).refusal()
    if expected is None:
        assert refusal is None
    else:
        assert refusal is not None and refusal.startswith(expected)
        # The remedy fits the cause: exploration does not bring feedback.
        assert ("exploration_share" in refusal) == ("have feedback" not in refusal)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mean_weight": 1.07}, "the mean weight is 1.070 +- 0.020, not 1.000: choices were"),
        ({"mean_weight": 0.93}, "the mean weight is 0.930"),
        ({"mean_weight": 0.93, "outside": 0.04}, "4.00% of the target's choices are of models of"),
        ({"largest": 0.2}, "one row has 20% of all weight"),
    ],
)
def test_warnings(change: dict[str, float], expected: str) -> None:
    assert GOOD.warnings() == []
    assert replace(GOOD, mean_weight=1.05).warnings() == []
    (found,) = replace(GOOD, **change).warnings()
    assert found.startswith(expected)


def test_wrong_propensities_give_a_warning() -> None:
    rng = np.random.default_rng(0)
    action_dist = rng.dirichlet([2.0, 2.0, 2.0], size=3_000)
    target = rng.dirichlet([4.0, 2.0, 2.0], size=3_000)
    chosen = (action_dist.cumsum(axis=1) > rng.random((3_000, 1))).argmax(axis=1)
    at = np.arange(3_000), chosen
    assert of(target[at] / action_dist[at], target, action_dist).warnings() == []
    for wrong in (0.8 * action_dist[at], np.full(3_000, 0.5), np.sqrt(action_dist[at])):
        warnings = of(target[at] / wrong, target, action_dist).warnings()
        assert any(one.startswith("the mean weight is") for one in warnings)

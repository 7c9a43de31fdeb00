"""The cost and latency models: prior, regression, prices, state."""

from __future__ import annotations

import numpy as np
import pytest

from policies import Outcome
from policies.base import Float32, Float64, Sums
from policies.models.cost import CostModel, LatencyModel

X = np.ones((2, 3), dtype=np.float32)


def _outcome(arm: str, value: float, *, prior: float = 1.0, input_cost: float = 0.2) -> Outcome:
    return Outcome(
        1, "d", arm, X[0], "cost", value, cost_prior_usd=prior, input_cost_usd=input_cost
    )


def _costs(*outcomes: Outcome) -> CostModel:
    model = CostModel(dim=3)
    for arm in ("a", "b"):
        model.add_arm(arm)
    for outcome in outcomes:
        model.learn(outcome)
    model.refresh()
    return model


def _made(kind: type[CostModel] | type[LatencyModel]) -> CostModel | LatencyModel:
    return CostModel(dim=3) if kind is CostModel else LatencyModel()


def test_before_learning_the_prior_is_the_prediction() -> None:
    input_cost, output = np.array([[0.2, 0.3], [0.0, 0.1]]), np.array([[0.8, 0.4], [1.0, 2.0]])
    found = _costs().predict(X, input_cost, output)
    np.testing.assert_allclose(found, input_cost + output, rtol=1e-6)


def test_known_values() -> None:
    """One arm with two outcomes, computed with plain linear algebra."""
    model = _costs(_outcome("a", 1.8), _outcome("a", 0.6))
    x, y = np.ones((2, 3)), np.log([1.6 / 0.8, 0.4 / 0.8])
    precision, mean = np.diag([30.0, 30.0, 3.0]), np.array([0.0, 0.0, -0.125])
    inverse = np.linalg.inv(x.T @ x + precision)
    theta = inverse @ (x.T @ y + precision @ mean)
    freedom = 2.0 - np.trace(x.T @ x @ inverse)
    variance = (((y - x @ theta) ** 2).sum() + 3.0 * 0.25) / (freedom + 3.0)
    ratio = np.exp(theta.sum() + variance / 2.0)
    found = model.predict(X[:1], np.array([[0.2, 0.2]]), np.array([[0.8, 0.8]]))
    np.testing.assert_allclose(found, [[0.2 + ratio * 0.8, 1.0]], rtol=1e-6)


def test_the_prompt_is_seen_and_slopes_are_shared() -> None:
    """Long prompts get long answers; an arm that was never played borrows that from the others."""
    rng = np.random.default_rng(0)
    model = CostModel(dim=3)
    for arm in ("a", "b", "new"):
        model.add_arm(arm)
    for _ in range(400):
        x = np.array([rng.normal(), rng.normal(), 1.0], dtype=np.float32)
        value = float(np.exp(0.8 * x[0] + 0.3 * rng.normal()))
        arm = "ab"[int(rng.integers(2))]
        model.learn(Outcome(1, "d", arm, x, "cost", value, cost_prior_usd=1.0))
    model.refresh()
    short, long = np.array([[-1, 0, 1], [1, 0, 1]], dtype=np.float32)
    nothing, one = np.zeros((2, 3)), np.ones((2, 3))
    found = model.predict(np.stack([short, long]), nothing, one)
    expected = np.exp(np.array([-0.8, 0.8]) + 0.3**2 / 2)
    np.testing.assert_allclose(found[:, :2], np.stack([expected] * 2, axis=1), rtol=0.15)
    assert found[1, 2] / found[0, 2] > 4.0


def test_a_new_price_moves_the_prediction_with_nothing_relearned() -> None:
    cheap = _costs(*[_outcome("a", 1.8)] * 5)
    dear = _costs(*[_outcome("a", 18.0, prior=10.0, input_cost=2.0)] * 5)
    row = np.array([[0.2, 0.2]]), np.array([[0.8, 0.8]])
    np.testing.assert_allclose(dear.predict(X[:1], *row), cheap.predict(X[:1], *row), rtol=1e-14)


def test_it_approaches_what_a_model_really_costs() -> None:
    level = np.array([[0.0, 0.0, 1.0]], dtype=np.float32)
    model = _costs()
    for _ in range(2_000):
        model.learn(
            Outcome(1, "d", "b", level[0], "cost", 2.6, cost_prior_usd=1.0, input_cost_usd=0.2)
        )
    model.refresh()
    found = model.predict(level, np.array([[0.2, 0.2]]), np.array([[0.8, 0.8]]))
    np.testing.assert_allclose(found, [[1.0, 2.6]], rtol=5e-3)


def test_a_cost_below_the_input_cost_counts_as_no_output() -> None:
    below, none = (_costs(_outcome("a", value)) for value in (0.1, 0.2))
    assert below.view["theta"].tolist() == none.view["theta"].tolist()
    assert (below.view["theta"][0] < 0.0).all()


def test_where_output_is_free_there_is_nothing_to_learn() -> None:
    assert _costs(_outcome("a", 5.0, prior=0.2)).state()["count"].tolist() == [0.0, 0.0]


def test_columns_pick_arms_in_the_order_asked() -> None:
    model = _costs(_outcome("a", 1.8))
    nothing, one = np.zeros((1, 2)), np.ones((1, 2))
    whole = model.predict(X[:1], nothing, one)
    picked = model.predict(X[:1], nothing, one, columns=np.array([1, 0]))
    assert picked.tolist() == whole[:, ::-1].tolist()


def test_latency_is_zero_until_seen_and_then_the_mean() -> None:
    model = LatencyModel()
    model.add_arm("a")
    model.add_arm("b")
    for value in (100.0, 300.0):
        model.learn(Outcome(1, "d", "b", X[0], "latency", value))
    model.refresh()
    assert model.predict(3).tolist() == [[0.0, 200.0]] * 3


@pytest.mark.parametrize("kind", [CostModel, LatencyModel])
def test_state_round_trip_is_exact(kind: type[CostModel] | type[LatencyModel]) -> None:
    one, two = _made(kind), _made(kind)
    for arm in ("a", "b"):
        one.add_arm(arm)
    log = [_outcome(arm, value) for arm, value in (("a", 0.7), ("b", 1.1), ("a", 0.3))]
    for outcome in log:
        one.learn(outcome)
    state = one.state()
    kept = {name: array.copy() for name, array in state.items()}
    two.load(state)
    for model in (one, two):
        model.learn(log[1])
        model.add_arm("a")
        model.add_arm("c")
    for name, array in one.state().items():
        assert array.tobytes() == two.state()[name].tobytes()
    for name, array in state.items():
        assert array.tobytes() == kept[name].tobytes(), "a state that was taken does not move"


@pytest.mark.parametrize("kind", [CostModel, LatencyModel])
def test_predictions_move_only_when_published(kind: type[CostModel] | type[LatencyModel]) -> None:
    model = _made(kind)
    model.add_arm("a")
    model.refresh()
    before = model.publish()
    model.learn(_outcome("a", 7.0))
    shown = [array.tobytes() for array in model.publish().values()]
    assert shown != [array.tobytes() for array in before.values()]
    one = np.ones((1, 1))
    said = model.predict(X[:1], one, one[0]) if isinstance(model, CostModel) else model.predict(1)
    model.refresh()
    now = model.predict(X[:1], one, one[0]) if isinstance(model, CostModel) else model.predict(1)
    assert said.tolist() != now.tolist()


@pytest.mark.parametrize("wrong", [1e6, 1e300])
def test_one_wrong_bill_does_not_price_a_model_out_for_good(wrong: float) -> None:
    model = CostModel(dim=3)
    model.add_arm("a")
    model.learn(Outcome(1, "d", "a", X[0], "cost", wrong, cost_prior_usd=1e-10))
    right = Outcome(2, "d", "a", X[0], "cost", 1e-4, cost_prior_usd=1e-4)
    for _ in range(300):
        model.learn(right)
    model.refresh()
    assert model.predict(X[:1], np.zeros((1, 1)), np.array([1e-4])) < 1.1e-4


@pytest.mark.parametrize("kind", [CostModel, LatencyModel])
def test_an_unknown_arm_is_refused(kind: type[CostModel] | type[LatencyModel]) -> None:
    with pytest.raises(KeyError, match="nobody"):
        _made(kind).learn(_outcome("nobody", 1.0))


def _features(*slopes: float) -> Float32:
    return np.array([[slope, 0.0, 1.0] for slope in slopes], dtype=np.float32)


def test_a_prompt_unlike_any_seen_is_held_between_the_limits() -> None:
    """x.theta of about 50 and -50: at most 64 times the prior's output tokens, at least 1/64."""
    model = _costs()
    for slope in (1.0, -1.0) * 300:
        value = 4.0**slope
        model.learn(Outcome(1, "d", "a", _features(slope)[0], "cost", value, cost_prior_usd=1.0))
    model.refresh()
    far = _features(40.0, -40.0)
    assert (np.abs(far @ model.view["theta"][0]) > 45.0).all()
    found = model.predict(far, np.zeros((2, 2)), np.ones(2))[:, 0]
    np.testing.assert_allclose(found, [64.0, 1.0 / 64.0], rtol=1e-6)


def _lesson(n: int, slope: float) -> Sums:
    """Return the sums of n outcomes whose y is `slope` times the first feature."""
    x = np.random.default_rng(2).normal(size=(n, 3))
    x[:, -1] = 1.0
    y = slope * x[:, 0]
    return Sums(x.T @ x, y @ x, float(y @ y), float(n))


def _slopes(**lessons: Sums) -> Float64:
    model = _costs()
    for arm, sums in lessons.items():
        model.teach(arm, sums)
    model.add_arm("new")
    model.refresh()
    return np.asarray(model.view["theta"], dtype=np.float64)[:, 0]


def test_an_arm_that_was_not_taught_borrows_the_slopes_of_one_that_was() -> None:
    taught, other, new = _slopes(a=_lesson(300, 0.8))
    assert taught == pytest.approx(0.8, abs=0.1)
    # What was taught first made the common slopes, and has moved a little closer to them since.
    assert other == new == pytest.approx(taught, abs=0.1)


def test_slopes_in_common_are_weighted_by_outcomes() -> None:
    many, few, new = _slopes(a=_lesson(600, 0.8), b=_lesson(6, -0.8))
    assert few < many and new == pytest.approx(0.8, abs=0.05)


def test_slopes_in_common_are_taken_anew_at_fixed_positions_only() -> None:
    model, rng, moved = _costs(), np.random.default_rng(0), []
    before = model.state()["common"]
    for position in range(1, 201):
        value = float(rng.uniform(0.5, 2.0))
        x = _features(rng.normal())[0]
        arm = "ab"[int(rng.integers(2))]
        model.learn(Outcome(1, "d", arm, x, "cost", value, cost_prior_usd=1.0))
        if (model.state()["common"] != before).any():
            moved.append(position)
        before = model.state()["common"]
    assert moved == [4, 8, 16, 32, 64, 96, 128, 160, 192]


def test_what_a_decision_is_expected_to_cost_is_what_a_router_would_predict() -> None:
    model, rng = _costs(), np.random.default_rng(4)
    x = _features(0.7)[0]
    outcome = Outcome(1, "d", "b", x, "quality", 1.0, cost_prior_usd=3e-3, input_cost_usd=1e-3)
    for _ in range(40):
        value = float(rng.uniform(3e-3, 9e-3))
        model.learn(
            Outcome(1, "d", "b", x, "cost", value, cost_prior_usd=3e-3, input_cost_usd=1e-3)
        )
        model.refresh()
        (row,) = model.predict(x[None], np.full((1, 2), 1e-3), np.full(2, 2e-3))
        assert model.expect(outcome) == pytest.approx(row[model.arms.index("b")], rel=1e-6)
    assert 3e-3 < model.expect(outcome) < 9e-3

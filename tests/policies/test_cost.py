"""The cost and latency models: prior, learning, prices, state."""

from __future__ import annotations

import numpy as np
import pytest

from policies import Outcome
from policies.cost import CostModel, LatencyModel

X = np.ones((2, 3), dtype=np.float32)


def _outcome(arm: str, value: float, *, prior: float = 1.0, input_cost: float = 0.2) -> Outcome:
    return Outcome(1, "d", arm, X[0], "cost", value, cost_prior=prior, input_cost=input_cost)


def _costs(*outcomes: Outcome) -> CostModel:
    model = CostModel()
    for arm in ("a", "b"):
        model.add_arm(arm)
    for outcome in outcomes:
        model.learn(outcome)
    model.refresh()
    return model


def test_before_learning_the_prior_is_the_prediction() -> None:
    input_cost, output = np.array([[0.2, 0.3], [0.0, 0.1]]), np.array([[0.8, 0.4], [1.0, 2.0]])
    assert _costs().predict(X, input_cost, output).tolist() == (input_cost + output).tolist()


def test_known_values() -> None:
    model = _costs(_outcome("a", 1.8), _outcome("a", 0.6))
    ratio = (3.0 * 1.0 + 1.6 / 0.8 + 0.4 / 0.8) / 5.0
    found = model.predict(X[:1], np.array([[0.2, 0.2]]), np.array([[0.8, 0.8]]))
    np.testing.assert_allclose(found, [[0.2 + ratio * 0.8, 1.0]], rtol=1e-15)


def test_a_new_price_moves_the_prediction_with_nothing_relearned() -> None:
    cheap = _costs(*[_outcome("a", 1.8)] * 5)
    dear = _costs(*[_outcome("a", 18.0, prior=10.0, input_cost=2.0)] * 5)
    row = np.array([[0.2, 0.2]]), np.array([[0.8, 0.8]])
    np.testing.assert_allclose(dear.predict(X[:1], *row), cheap.predict(X[:1], *row), rtol=1e-14)


def test_it_approaches_what_a_model_really_costs() -> None:
    model = _costs(*[_outcome("b", 2.6)] * 2_000)
    found = model.predict(X[:1], np.array([[0.2, 0.2]]), np.array([[0.8, 0.8]]))
    assert found[0, 0] == 1.0 and found[0, 1] == pytest.approx(2.6, rel=2e-3)


def test_a_cost_below_the_input_cost_counts_as_no_output() -> None:
    assert _costs(_outcome("a", 0.1)).view.tolist() == [3.0 / 4.0, 1.0]


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
    one, two = kind(), kind()
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
    model = kind()
    model.add_arm("a")
    model.refresh()
    before = model.view.copy()
    model.learn(_outcome("a", 7.0))
    assert model.view.tolist() == before.tolist()
    model.refresh()
    assert model.view.tolist() != before.tolist()


@pytest.mark.parametrize("wrong", [1e6, 1e300])
def test_one_wrong_bill_does_not_price_a_model_out_for_good(wrong: float) -> None:
    model = CostModel()
    model.add_arm("a")
    model.learn(Outcome(1, "d", "a", np.zeros(1, np.float32), "cost", wrong, cost_prior=1e-10))
    right = Outcome(2, "d", "a", np.zeros(1, np.float32), "cost", 1e-4, cost_prior=1e-4)
    for _ in range(3_000):
        model.learn(right)
    model.refresh()
    assert model.predict(np.zeros((1, 1)), np.zeros((1, 1)), np.array([1e-4])) < 1.05e-4


@pytest.mark.parametrize("kind", [CostModel, LatencyModel])
def test_an_unknown_arm_is_refused(kind: type[CostModel] | type[LatencyModel]) -> None:
    with pytest.raises(KeyError, match="nobody"):
        kind().learn(_outcome("nobody", 1.0))

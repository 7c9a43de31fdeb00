"""Pools and models as plain values: weights and scales."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from banditroute.core.pool import Model, ModelSpec, PoolOptions, Preference, default_tau_cost_usd


@pytest.mark.parametrize(
    ("sent", "weights"),
    [
        ({"quality": 1}, (1.0, 0.0, 0.0)),
        ({"quality": 1, "cost": 3}, (0.25, 0.75, 0.0)),
        ({"quality": 1e6, "cost": 1e6, "latency": 2e-300}, (0.5, 0.5, 1e-306)),
        ({"latency": 5e-324}, (0.0, 0.0, 1.0)),
    ],
)
def test_only_ratios_of_weights_count(
    sent: dict[str, float], weights: tuple[float, float, float]
) -> None:
    assert Preference(**sent).weights() == weights


def test_weights_cannot_all_be_0() -> None:
    with pytest.raises(ValidationError, match="above 0"):
        Preference()


def test_the_default_cost_scale_is_that_of_the_most_expensive_model() -> None:
    models = [
        ModelSpec(name="in", input_price=10.0, output_price=1.0),
        ModelSpec(name="out", input_price=1.0, output_price=20.0),
    ]
    assert default_tau_cost_usd(models) == pytest.approx((1_000 * 1.0 + 512 * 20.0) / 1e6)
    assert default_tau_cost_usd([]) == 1.0
    assert default_tau_cost_usd([ModelSpec(name="free", input_price=0.0, output_price=0.0)]) == 1.0


def test_an_answer_without_a_limit_has_a_prior_and_a_bound() -> None:
    model = Model(name="m", input_price=1.0, output_price=1.0, price_id=1)
    assert (model.prior_output_tokens, model.output_limit) == (512, 4_096)
    limited = replace(model, max_output_tokens=7)
    assert (limited.prior_output_tokens, limited.output_limit) == (7, 7)


def test_options_refuse_an_unknown_key() -> None:
    with pytest.raises(ValidationError):
        PoolOptions.model_validate({"tau": 1})
    with pytest.raises(ValidationError, match="embedding_dim"):
        PoolOptions(embedder="precomputed")
    spec = PoolOptions.model_validate({"policy": {"name": "linucb", "alpha": 0.5}}).policy
    assert spec.params == {"alpha": 0.5}

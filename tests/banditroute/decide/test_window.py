"""What a budget's price is solved on: requests joined, and scored as a decision would score them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from support.routers import BEST, CHEAP, MODELS, Wallet, asks_of, fold_of

from banditroute.core.pool import PoolOptions
from banditroute.decide.columns import RequestBatch
from banditroute.decide.reasons import REASONS
from banditroute.decide.router import Router


def router() -> Router:
    snapshot = fold_of(*(model.name for model in MODELS)).snapshot()
    rng = np.random.default_rng(3)
    return Router(options=PoolOptions(), snapshot=snapshot, models=MODELS, rng=rng)


def rows_of(asks: RequestBatch, n: int) -> list[RequestBatch]:
    """Return the rows of n requests, each by itself."""
    values = {field.name: getattr(asks, field.name) for field in fields(asks)}
    return [
        RequestBatch(**{name: None if v is None else v[i : i + 1] for name, v in values.items()})
        for i in range(n)
    ]


LIMITS: list[dict[str, Any]] = [
    {},
    {"max_output_tokens": np.array([8.0, np.inf, 90.0])},
    {"max_cost_usd": np.array([np.inf, 1e-6, 1.0]), "max_latency_ms": np.array([1.0, 2.0, 3.0])},
    {"models": [None, frozenset({"able"}), frozenset({"cheap", "best"})]},
    {"requires": [frozenset(), frozenset({"tools"}), frozenset()]},
    {"reservation_usd": np.arange(9.0).reshape(3, 3)},
]


@pytest.mark.parametrize("limits", LIMITS, ids=lambda limits: "+".join(limits) or "none")
def test_joined_requests_are_decided_as_they_were_in_one_batch(limits: dict[str, Any]) -> None:
    whole = asks_of(3, **limits)
    joined = RequestBatch.join(rows_of(whole, 3))
    for field in fields(RequestBatch):
        assert (getattr(joined, field.name) is None) == (getattr(whole, field.name) is None)
    one, other = router().decide(whole), router().decide(joined)
    np.testing.assert_array_equal(one.reasons, other.reasons)
    np.testing.assert_array_equal(one.pmf, other.pmf)
    np.testing.assert_array_equal(one.scored.reservation_nano, other.scored.reservation_nano)


def test_a_limit_of_one_request_is_none_of_its_neighbours() -> None:
    free, bound = asks_of(1), asks_of(1, max_cost_usd=np.array([1e-9]))
    picky = asks_of(1, models=[frozenset({"best"})])
    verdict = router().decide(RequestBatch.join([free, bound, picky])).reasons
    assert not verdict[0].any()
    assert (verdict[1] == REASONS.index("max_cost_usd")).all()
    assert verdict[2].tolist() == [REASONS.index("not_allowed")] * 2 + [0]


def test_reservations_known_of_some_requests_only_are_refused() -> None:
    with pytest.raises(ValueError, match="reservation_usd: known of some"):
        RequestBatch.join([asks_of(1), asks_of(1, reservation_usd=np.ones((1, 3)))])


def test_a_window_holds_what_a_decision_would_and_draws_nothing() -> None:
    asks = asks_of(9, max_cost_usd=np.linspace(1e-4, 0.2, 9))
    one = router()
    window, decided = one.score(asks).window(), one.decide(asks)
    np.testing.assert_array_equal(decided.u, router().decide(asks).u)
    np.testing.assert_array_equal(window.eligible, decided.reasons == 0)
    for name, scored in (("mean", "mean"), ("cost_usd", "cost_usd"), ("penalty", "penalty")):
        np.testing.assert_array_equal(getattr(window, name), getattr(decided.scored, scored))
    np.testing.assert_allclose(
        window.reservation_usd * 1e9, decided.scored.reservation_nano, atol=1.0
    )
    np.testing.assert_allclose(window.law(0.0)[window.eligible.all(axis=1)].sum(axis=1), 1.0)
    assert window.law(0.0).shape == (9, 3)


def test_what_is_kept_bars_all_models_but_the_cheapest() -> None:
    worst = np.tile([0.001, 0.25, 0.5], (3, 1))
    asks = asks_of(3, reservation_usd=worst)
    decided = router().decide(asks, purse=Wallet(460_000_000, keep=200_000_000))
    budget = REASONS.index("budget")
    assert decided.reasons.tolist() == [[0, 0, budget]] + [[0, budget, budget]] * 2 or (
        decided.chosen[0] == 0 and (decided.reasons[:, 2] == budget).all()
    )
    # Nobody but the cheapest is left, even where all that is there is kept for others.
    all_kept = router().decide(asks, purse=Wallet(10**9, keep=9 * 10**9))
    assert all_kept.reasons.tolist() == [[0, budget, budget]] * 3
    assert all_kept.chosen.tolist() == [0, 0, 0]


def test_the_cheapest_is_so_of_the_models_that_a_request_can_have() -> None:
    allow = [frozenset({BEST.name})]
    asks = asks_of(1, reservation_usd=np.array([[0.001, 0.25, 0.5]]), models=allow)
    decided = router().decide(asks, purse=Wallet(10**9, keep=9 * 10**9))
    assert decided.scored.columns.models[int(decided.chosen[0])] == BEST
    assert CHEAP in decided.scored.columns.models

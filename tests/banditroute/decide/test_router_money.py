"""The decision under budgets: purses, what is kept, thresholds and rates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.routers import Wallet, asks_of, fold_of, router_of, verdicts

from banditroute.decide.columns import Snapshot
from banditroute.decide.reasons import REASONS
from policies.laws import draw
from policies.pacing.price import PriceTerms


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return fold_of("cheap", "able", "best").snapshot()


@pytest.mark.parametrize("nano", [86_700_000, 4_000_000])
def test_a_purse_is_never_overdrawn_and_each_law_is_the_true_one(
    snapshot: Snapshot, nano: int
) -> None:
    n = 12
    router = router_of(snapshot)
    worst = router.score(asks_of(n)).reservation_nano
    free = router.decide(asks_of(n), purse=Wallet(10**15))
    np.testing.assert_array_equal(free.reasons, router_of(snapshot).decide(asks_of(n)).reasons)
    np.testing.assert_array_equal(free.pmf, router_of(snapshot).decide(asks_of(n)).pmf)
    purse = Wallet(nano)
    left = purse.left
    decided = router_of(snapshot).decide(asks_of(n), purse=purse)
    short, chosen = 0, []
    for i in range(n):
        eligible = worst[i] <= left
        short += int(not eligible.all())
        barred = decided.reasons[i] == REASONS.index("budget")
        np.testing.assert_array_equal(barred, (free.reasons[i] == 0) & ~eligible)
        if decided.chosen[i] >= 0:
            left -= int(worst[i, decided.chosen[i]])
            chosen.append(int(worst[i, decided.chosen[i]]))
            assert decided.pmf[i].sum() == pytest.approx(1.0)
            assert not decided.pmf[i][barred].any()
            again = draw(decided.pmf[i : i + 1], decided.u[i : i + 1])
            assert again[0] == decided.chosen[i]
        else:
            assert not decided.pmf[i].any()
    assert short > 0 and len(chosen) > 0 and (nano > 10**7) == (len(chosen) == n)
    assert chosen == purse.taken and left == purse.left


def test_what_is_kept_is_there_for_the_cheapest_model_alone(snapshot: Snapshot) -> None:
    asks = replace(asks_of(4), reservation_usd=np.full((4, 3), 0.002))
    purse = Wallet(10_000_000, keep=9_500_000)
    decided = router_of(snapshot).decide(asks, purse=purse)
    cheapest = decided.scored.cost_usd.argmin(axis=1)
    assert (decided.chosen == cheapest).all()
    barred = decided.reasons == REASONS.index("budget")
    assert (barred.sum(axis=1) == 2).all() and not barred[np.arange(4), cheapest].any()


def test_what_must_be_reserved_can_be_given(snapshot: Snapshot) -> None:
    worst = np.array([[0.001, 0.25, 0.5]] * 3)
    asks = replace(asks_of(3), reservation_usd=worst)
    decided = router_of(snapshot).decide(asks, purse=Wallet(260_000_000))
    assert decided.scored.reservation_nano.tolist() == [[1_000_000, 250_000_000, 500_000_000]] * 3
    assert (decided.reasons[:, 2] == REASONS.index("budget")).all()


def test_a_threshold_leaves_models_out_with_the_price_as_reason(snapshot: Snapshot) -> None:
    decided = router_of(snapshot).decide(asks_of(5), price=PriceTerms(gain=1e9).rows(5))
    assert set(verdicts(decided).values()) == {"eligible", "price_of_money"}
    assert (decided.chosen == decided.scored.cost_usd.argmin(axis=1)).all()


def test_a_rate_of_the_budget_is_what_exploration_is_a_share_of(snapshot: Snapshot) -> None:
    options = {"exploration_share": 0.3, "exploration_cost_share": 0.5, "min_propensity": 0.0}
    price = PriceTerms(rate_usd=1e-9).rows(5)
    decided = router_of(snapshot, **options).decide(asks_of(5), price=price)
    assert decided.spend_rate_usd.tolist() == [1e-9] * 5
    exploit = decided.scored.cost_usd[np.arange(5), decided.pmf.argmax(axis=1)]
    extra = np.maximum(decided.scored.cost_usd - exploit[:, None], 0.0)
    assert ((decided.explore * extra).sum(axis=1) <= 0.5e-9 * (1 + 1e-9)).all()


def test_nothing_is_kept_for_a_cheapest_model_that_no_reservation_lets_in(
    snapshot: Snapshot,
) -> None:
    router = router_of(snapshot)
    asks = asks_of(1)
    worst, cost = router.score(asks).reservation_nano[0], router.decide(asks).scored.cost_usd[0]
    dear = int(cost.argmax())
    assert worst[dear] > worst[cost.argmin()]
    # What a model is expected to cost and what it reserves need not have the same order.
    purse = Wallet(int(worst[dear]) - 1)
    purse.keep = purse.left + 1
    bounded = replace(
        asks, reservation_usd=np.where(np.arange(len(worst)) == dear, 0.002, 100.0)[None]
    )
    decided = router.decide(bounded, purse=purse)
    assert decided.chosen.tolist() == [dear] and purse.taken == [2_000_000]

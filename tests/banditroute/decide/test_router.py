"""The decision by itself: every column checked against a plain reading of its definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from support.routers import (
    ABLE,
    BEST,
    CHEAP,
    MODELS,
    NONE,
    asks_of,
    columns_of,
    fold_of,
    router_of,
    verdicts,
)

from banditroute.core.pool import Model
from banditroute.decide.columns import ModelColumns, RequestBatch, Snapshot
from policies.pacing.price import PriceTerms


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return fold_of("cheap", "able", "best").snapshot()


def test_every_column_is_what_its_definition_says(snapshot: Snapshot) -> None:
    decided = router_of(snapshot).decide(asks_of(50), price=PriceTerms(3.0, 3.0).rows(50))
    asks, k = decided.scored.requests, len(MODELS)
    mean, std = snapshot.policy.estimate(asks.features)
    ratio = snapshot.cost.predict(asks.features, np.zeros((50, k)), np.ones(k))
    assert np.array_equal(decided.scored.mean, mean) and np.array_equal(decided.scored.std, std)
    for i in range(50):
        for j, model in enumerate(MODELS):
            read = asks.input_tokens[i] * model.input_price / 1e6
            written = model.prior_output_tokens * model.output_price / 1e6
            cost = read + ratio[i, j] * written
            assert decided.scored.cost_usd[i, j] == pytest.approx(cost)
            assert decided.scored.latency_ms[i, j] == pytest.approx(100.0 * (j + 1))
            fine = 0.3 * min(cost / 0.01, 1.0) + 0.1 * min(
                decided.scored.latency_ms[i, j] / 1_000, 1.0
            )
            assert decided.scored.penalty[i, j] == pytest.approx(fine / 0.6)
            bound = (
                asks.input_bound[i] * model.input_price + model.output_limit * model.output_price
            )
            assert decided.scored.reservation_nano[i, j] == math.ceil(round(bound * 1_000, 3))
        score = decided.scored.scores["mean"][i].astype(float) + decided.scored.scores["bonus"][i]
        fine = decided.scored.penalty[i] + 3.0 * decided.scored.cost_usd[i]
        utility = np.where(decided.reasons[i] == 0, score - fine, -np.inf)
        assert decided.pmf[i].sum() == pytest.approx(1.0)
        assert decided.pmf[i, decided.chosen[i]] > 0 and utility.argmax() == decided.chosen[i]
    assert decided.pmf.shape == (50, k) and len(set(decided.chosen.tolist())) > 1
    assert np.all((decided.u >= 0) & (decided.u < 1))


def test_the_draw_follows_the_pmf() -> None:
    fold = fold_of("cheap", "able", "best", policy="random")
    decided = router_of(fold.snapshot()).decide(asks_of(6_000, max_cost_usd=np.full(6_000, 0.02)))
    assert np.array_equal(decided.pmf[0], [0.5, 0.5, 0.0])
    share = np.bincount(decided.chosen, minlength=3) / 6_000
    assert np.allclose(share, decided.pmf.mean(axis=0), atol=0.02) and share[2] == 0.0


def test_the_same_seed_draws_the_same(snapshot: Snapshot) -> None:
    first, second, other = (
        router_of(snapshot, seed=seed).decide(asks_of(20)).u.tolist() for seed in (3, 3, 4)
    )
    assert first == second != other


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_batch_is_its_rows_one_by_one(snapshot: Snapshot, share: float) -> None:
    n = 12
    limits = {
        "max_output_tokens": np.array([np.inf, 50.0] * 6),
        "max_cost_usd": np.array([np.inf, 0.003, 0.0] * 4),
        "max_latency_ms": np.array([np.inf, np.inf, np.inf, 250.0] * 3),
        "models": [None, frozenset({"able", "cheap"})] * 6,
        "requires": [frozenset(), frozenset({"tools"}), frozenset()] * 4,
    }
    options = {"exploration_share": share, "exploration_cost_share": 1e9}
    whole = router_of(snapshot, **options).decide(asks_of(n, **limits))
    router = router_of(snapshot, **options)
    asks = asks_of(n, **limits)
    for i in range(n):
        row = {
            name: None if value is None else value[i : i + 1]
            for name, value in columns_of(asks).items()
        }
        one = router.decide(RequestBatch(**row))
        assert one.chosen[0] == whole.chosen[i] and one.u[0] == whole.u[i]
        assert np.array_equal(one.reasons[0], whole.reasons[i])
        for name in ("mean", "cost_usd", "penalty", "max_output_tokens"):
            alone, among = getattr(one.scored, name)[0], getattr(whole.scored, name)[i]
            assert np.allclose(alone, among, atol=1e-5)
        for name in ("pmf", "explore"):
            assert np.allclose(getattr(one, name)[0], getattr(whole, name)[i], atol=1e-5)
        assert np.array_equal(one.scored.reservation_nano[0], whole.scored.reservation_nano[i])
        assert one.fallbacks()[0] == whole.fallbacks()[i]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, ["eligible"] * 3),
        ({"requires": [frozenset({"tools"})]}, ["capability", "eligible", "capability"]),
        ({"models": [frozenset({"best"})]}, ["not_allowed", "not_allowed", "eligible"]),
        ({"models": [None]}, ["eligible"] * 3),
        ({"input_tokens": np.array([500.5])}, ["eligible", "context_length", "eligible"]),
        ({"max_cost_usd": np.array([0.001])}, ["max_cost_usd", "eligible", "max_cost_usd"]),
        ({"max_latency_ms": np.array([200.0])}, ["eligible", "eligible", "max_latency_ms"]),
        ({"max_cost_usd": np.array([0.0]), "requires": [frozenset({"tools"})]},
         ["capability", "max_cost_usd", "capability"]),
    ],
)  # fmt: skip
def test_each_filter_gives_its_reason(
    snapshot: Snapshot, limits: dict[str, Any], expected: list[str]
) -> None:
    few = {"input_tokens": np.array([10.0]), "input_bound": np.array([40.0])}
    decided = router_of(snapshot).decide(asks_of(1, **few | limits))
    assert list(verdicts(decided).values()) == expected
    eligible = [name for name, reason in verdicts(decided).items() if reason == "eligible"]
    chosen = [decided.scored.columns.models[decided.chosen[0]].name] if eligible else []
    assert sorted(chosen + decided.fallbacks()[0]) == sorted(eligible)
    assert np.all(decided.pmf[0][decided.reasons[0] > 0] == 0.0)


def test_a_cost_limit_is_met_exactly_by_the_worst_case(snapshot: Snapshot) -> None:
    worst = (400 * ABLE.input_price + 100 * ABLE.output_price) / 1e6
    for limit, reason in ((worst, "eligible"), (worst * (1 - 1e-12), "max_cost_usd")):
        limits = {"input_bound": np.array([400.0]), "max_cost_usd": np.array([limit])}
        decided = router_of(snapshot, [ABLE]).decide(asks_of(1, **limits))
        assert verdicts(decided) == {"able": reason}


def test_no_eligible_model_chooses_none(snapshot: Snapshot) -> None:
    decided = router_of(snapshot).decide(asks_of(2, max_cost_usd=np.array([0.0, np.inf])))
    assert decided.chosen[0] == -1 and decided.chosen[1] >= 0
    assert decided.pmf[0].tolist() == [0.0] * 3 and decided.fallbacks()[0] == []


def test_a_draining_model_is_left_out(snapshot: Snapshot) -> None:
    gone = Model(name="able", input_price=0.0, output_price=0.0, price_id=9, draining=True)
    decided = router_of(snapshot, [CHEAP, gone, BEST]).decide(asks_of(30))
    assert verdicts(decided)["able"] == "draining" and 1 not in decided.chosen


@pytest.mark.parametrize(
    ("price", "tokens", "nano"),
    [(1.0, 1.0, 1_000), (0.0001, 1.0, 1), (0.0004999, 1.0, 1), (0.1, 3.0, 300), (0.0, 9.0, 0)],
)
def test_a_reservation_is_rounded_up_to_the_nano_dollar(
    snapshot: Snapshot, price: float, tokens: float, nano: int
) -> None:
    model = Model(name="cheap", input_price=price, output_price=0.0, price_id=1)
    decided = router_of(snapshot, [model]).decide(asks_of(1, input_bound=np.array([tokens])))
    assert decided.scored.reservation_nano.tolist() == [[nano]]


def test_the_request_limits_what_a_model_may_write(snapshot: Snapshot) -> None:
    limits = {"max_output_tokens": np.array([np.inf, 200.0, 7.0]), "input_bound": np.ones(3)}
    decided = router_of(snapshot).decide(asks_of(3, **limits))
    assert decided.scored.max_output_tokens.tolist() == [
        [4096, 100, 4096],
        [200, 100, 200],
        [7, 7, 7],
    ]
    ceiling = decided.scored.input_cost_usd[2] + 7 * decided.scored.columns.output_token_usd
    assert np.allclose(decided.scored.cost_usd[2], ceiling)
    assert np.all(decided.scored.reservation_nano[2] < decided.scored.reservation_nano[0])


def test_models_that_the_snapshot_does_not_know_wait(snapshot: Snapshot) -> None:
    stranger = Model(name="stranger", input_price=0.0, output_price=0.0, price_id=8)
    plain = router_of(snapshot).decide(asks_of(9))
    mixed = router_of(snapshot, [stranger, BEST, ABLE, CHEAP]).decide(asks_of(9))
    assert [model.name for model in mixed.scored.columns.models] == ["cheap", "able", "best"]
    for name in ("mean", "cost_usd", "penalty", "reservation_nano"):
        assert np.array_equal(getattr(plain.scored, name), getattr(mixed.scored, name))
    assert np.array_equal(plain.pmf, mixed.pmf)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_arms_that_the_pool_does_not_have_are_skipped(snapshot: Snapshot, share: float) -> None:
    options = {"exploration_share": share}
    whole = router_of(snapshot, **options).decide(asks_of(9))
    part = router_of(snapshot, [BEST, CHEAP], **options).decide(asks_of(9))
    assert [model.name for model in part.scored.columns.models] == ["cheap", "best"]
    of_models = ("mean", "std", "cost_usd", "latency_ms", "penalty", "input_cost_usd")
    for name in (*of_models, "reservation_nano"):
        assert np.array_equal(getattr(part.scored, name), getattr(whole.scored, name)[:, [0, 2]])
    for name, value in part.scored.scores.items():
        assert np.array_equal(value, whole.scored.scores[name][:, [0, 2]])
    assert np.allclose(part.pmf.sum(axis=1), 1.0) and part.pmf.shape == (9, 2)


def test_without_any_known_model_nothing_is_chosen(snapshot: Snapshot) -> None:
    stranger = Model(name="stranger", input_price=0.0, output_price=0.0, price_id=8)
    decided = router_of(snapshot, [stranger]).decide(asks_of(2))
    assert decided.chosen.tolist() == [-1, -1] and decided.pmf.shape == (2, 0)
    assert decided.fallbacks() == [[], []]


def test_a_swap_takes_effect_with_the_next_decision(snapshot: Snapshot) -> None:
    router = router_of(snapshot)
    frame = router.columns
    newer = fold_of("cheap", "able", "best", outcomes=80).snapshot()
    router.swap(snapshot=newer)
    assert router.snapshot is newer and router.columns.names_json is frame.names_json
    dearer = Model(name="cheap", input_price=9.0, output_price=9.0, price_id=4)
    router.swap(models=[dearer, ABLE, BEST])
    assert router.columns.prices_json == "[4, 2, 3]" and router.snapshot is newer
    grown = fold_of("cheap", "able", "best", "new").snapshot()
    new = Model(name="new", input_price=0.0, output_price=0.0, price_id=5)
    router.swap(models=[dearer, ABLE, BEST, new])
    assert len(router.columns.models) == 3
    router.swap(snapshot=grown)
    assert [model.name for model in router.columns.models] == ["cheap", "able", "best", "new"]


def test_exploration_reaches_every_model_and_keeps_to_its_budget(snapshot: Snapshot) -> None:
    asks = asks_of(200)
    plain = router_of(snapshot).decide(asks)
    assert not plain.explore.any()
    explored = router_of(
        snapshot, exploration_share=0.3, exploration_cost_share=0.05, min_propensity=1e-6
    ).decide(asks)
    assert np.all(explored.pmf > 0) and np.allclose(explored.pmf.sum(axis=1), 1.0)
    exploit = explored.scored.cost_usd[np.arange(200), plain.pmf.argmax(axis=1)]
    extra = np.maximum(explored.scored.cost_usd - exploit[:, None], 0.0)
    spent = (explored.explore * extra).sum(axis=1)
    assert np.all(spent <= 0.05 * explored.spend_rate_usd * (1 + 1e-9))
    assert explored.spend_rate_usd == pytest.approx(exploit.mean())
    kept = plain.pmf * (1 - explored.explore.sum(axis=1, keepdims=True)) + explored.explore
    assert np.allclose(explored.pmf, kept)


def test_a_floor_that_breaks_the_cap_makes_a_model_ineligible(snapshot: Snapshot) -> None:
    options = {
        "exploration_share": 0.3,
        "exploration_cost_share": 1e-6,
        "min_propensity": 0.05,
    }
    asks = asks_of(20, preference=np.tile([0.0, 1.0, 0.0], (20, 1)))
    decided = router_of(snapshot, **options).decide(asks)
    assert verdicts(decided) == {
        "cheap": "eligible",
        "able": "exploration_cost",
        "best": "exploration_cost",
    }
    assert np.all(decided.pmf == [1.0, 0.0, 0.0])


def test_the_spend_rate_is_the_running_mean_of_the_policy_s_own_choice(snapshot: Snapshot) -> None:
    first, second, nobody = asks_of(5, seed=1), asks_of(7, seed=2), asks_of(5, max_cost_usd=NONE)
    for before in ([first], [first, nobody], [nobody, first]):
        router = router_of(snapshot)
        made = [router.decide(asks) for asks in before]
        costs = np.concatenate(
            [(one.pmf * one.scored.cost_usd).sum(axis=1)[one.chosen >= 0] for one in made]
        )
        assert (
            router.decide(second).spend_rate_usd == pytest.approx(costs.mean()) and len(costs) == 5
        )


def test_what_exploration_spends_does_not_raise_its_own_budget(snapshot: Snapshot) -> None:
    """The spend rate, of which exploration may spend a share, is that of the policy alone."""
    options = {"exploration_share": 0.3, "exploration_cost_share": 1e9, "min_propensity": 1e-6}
    first, router = asks_of(20, seed=1), router_of(snapshot, **options)
    explored, plain = router.decide(first), router_of(snapshot).decide(first)
    own, whole = ((one.pmf * one.scored.cost_usd).sum(axis=1).mean() for one in (plain, explored))
    assert whole > 1.1 * own
    assert router.decide(asks_of(5, seed=2)).spend_rate_usd == pytest.approx(own)


def test_a_frame_is_empty_without_models(snapshot: Snapshot) -> None:
    frame = ModelColumns.of(snapshot, [])
    assert frame.models == () and frame.names_json == "[]"

"""The decision by itself: every column checked against a plain reading of its definition."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from banditroute.fold import Event, Fold
from banditroute.frame import Asks, Decisions, Frame, Snapshot
from banditroute.pool import Charter, Model, PoolOptions
from banditroute.router import REASONS, Router
from policies import Outcome, full_params
from policies.laws import draw
from policies.price import Price

DIM = 6
CHEAP = Model(name="cheap", input_price=0.1, output_price=0.4, price_id=1)
ABLE = Model(
    name="able",
    input_price=1.0,
    output_price=4.0,
    price_id=2,
    max_output_tokens=100,
    context_length=500,
    capabilities=frozenset({"tools"}),
)
BEST = Model(name="best", input_price=5.0, output_price=20.0, price_id=3)
MODELS = [CHEAP, ABLE, BEST]
NONE = np.zeros(5)


def fold_of(*arms: str, outcomes: int = 60, policy: str = "linucb", **params: object) -> Fold:
    charter = Charter(
        policy=policy,
        params=full_params(policy, params),
        embedder="words",
        dim=DIM,
        tau_cost=0.01,
        tau_latency_ms=1_000.0,
    )
    fold, rng = Fold(charter), np.random.default_rng(7)
    for seq, name in enumerate(arms, start=1):
        fold.apply(Event(seq, "p", "model_added", payload={"name": name}))
    for i in range(outcomes if arms else 0):
        x = features(rng, 1)[0]
        arm = arms[i % len(arms)]
        shared: dict[str, Any] = {"arm": arm, "x": x, "cost_prior": 0.002, "input_cost": 0.0}
        for field, value in (
            ("quality", float(x[1] > 0) if arm == "able" else 0.6),
            ("cost", float(rng.uniform(0.001, 0.004))),
            ("latency", 100.0 * (1 + arms.index(arm))),
        ):
            seq = fold.version + 1
            outcome = Outcome(seq, f"d{seq}", field=field, value=value, **shared)
            fold.apply(Event(seq, "p", "feedback", outcome, embedder="words"))
    return fold


def features(rng: np.random.Generator, n: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    x = rng.normal(size=(n, DIM)).astype(np.float32)
    x[:, -1] = 1.0
    return x


def asks_of(n: int, seed: int = 1, **limits: Any) -> Asks:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 400, size=n).astype(np.float64)
    columns: dict[str, Any] = {
        "features": features(rng, n),
        "preference": np.tile([0.6, 0.3, 0.1], (n, 1)),
        "input_tokens": tokens,
        "input_bound": tokens * 4,
    }
    return Asks(**columns | limits)


def router_of(
    snapshot: Snapshot, models: list[Model] | None = None, *, seed: int = 3, **options: Any
) -> Router:
    return Router(
        options=PoolOptions(**options),
        snapshot=snapshot,
        models=MODELS if models is None else models,
        rng=np.random.default_rng(seed),
    )


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return fold_of("cheap", "able", "best").snapshot()


def verdicts(decided: Decisions, row: int = 0) -> dict[str, str]:
    names = [model.name for model in decided.frame.models]
    return {name: REASONS[code] for name, code in zip(names, decided.verdict[row], strict=True)}


def test_every_column_is_what_its_definition_says(snapshot: Snapshot) -> None:
    decided = router_of(snapshot).decide(asks_of(50), price=Price.flat(50, 3.0))
    asks, k = decided.asks, len(MODELS)
    mean, std = snapshot.policy.estimate(asks.features)
    ratio = snapshot.cost.predict(asks.features, np.zeros((50, k)), np.ones(k))
    assert np.array_equal(decided.mean, mean) and np.array_equal(decided.std, std)
    for i in range(50):
        for j, model in enumerate(MODELS):
            read = asks.input_tokens[i] * model.input_price / 1e6
            written = model.prior_output_tokens * model.output_price / 1e6
            cost = read + ratio[i, j] * written
            assert decided.cost[i, j] == pytest.approx(cost)
            assert decided.latency[i, j] == pytest.approx(100.0 * (j + 1))
            fine = 0.3 * min(cost / 0.01, 1.0) + 0.1 * min(decided.latency[i, j] / 1_000, 1.0)
            assert decided.penalty[i, j] == pytest.approx(fine / 0.6)
            bound = (
                asks.input_bound[i] * model.input_price + model.output_limit * model.output_price
            )
            assert decided.reserved_nano[i, j] == math.ceil(round(bound * 1_000, 3))
        score = decided.scores["mean"][i].astype(float) + decided.scores["bonus"][i]
        fine = decided.penalty[i] + 3.0 * decided.cost[i]
        utility = np.where(decided.verdict[i] == 0, score - fine, -np.inf)
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
        one = router.decide(Asks(**row))
        assert one.chosen[0] == whole.chosen[i] and one.u[0] == whole.u[i]
        assert np.array_equal(one.verdict[0], whole.verdict[i])
        for name in ("mean", "cost", "penalty", "pmf", "explore", "max_output"):
            assert np.allclose(getattr(one, name)[0], getattr(whole, name)[i], atol=1e-5)
        assert np.array_equal(one.reserved_nano[0], whole.reserved_nano[i])
        assert one.fallbacks()[0] == whole.fallbacks()[i]


def columns_of(asks: Asks) -> dict[str, Any]:
    return {name: getattr(asks, name) for name in Asks.__dataclass_fields__}


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
    chosen = [decided.frame.models[decided.chosen[0]].name] if eligible else []
    assert sorted(chosen + decided.fallbacks()[0]) == sorted(eligible)
    assert np.all(decided.pmf[0][decided.verdict[0] > 0] == 0.0)


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
    assert decided.reserved_nano.tolist() == [[nano]]


def test_the_request_limits_what_a_model_may_write(snapshot: Snapshot) -> None:
    limits = {"max_output_tokens": np.array([np.inf, 200.0, 7.0]), "input_bound": np.ones(3)}
    decided = router_of(snapshot).decide(asks_of(3, **limits))
    assert decided.max_output.tolist() == [[4096, 100, 4096], [200, 100, 200], [7, 7, 7]]
    ceiling = decided.input_cost[2] + 7 * decided.frame.output_price
    assert np.allclose(decided.cost[2], ceiling)
    assert np.all(decided.reserved_nano[2] < decided.reserved_nano[0])


def test_models_that_the_snapshot_does_not_know_wait(snapshot: Snapshot) -> None:
    stranger = Model(name="stranger", input_price=0.0, output_price=0.0, price_id=8)
    plain = router_of(snapshot).decide(asks_of(9))
    mixed = router_of(snapshot, [stranger, BEST, ABLE, CHEAP]).decide(asks_of(9))
    assert [model.name for model in mixed.frame.models] == ["cheap", "able", "best"]
    for name in ("mean", "cost", "penalty", "pmf", "reserved_nano"):
        assert np.array_equal(getattr(plain, name), getattr(mixed, name))


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_arms_that_the_pool_does_not_have_are_skipped(snapshot: Snapshot, share: float) -> None:
    options = {"exploration_share": share}
    whole = router_of(snapshot, **options).decide(asks_of(9))
    part = router_of(snapshot, [BEST, CHEAP], **options).decide(asks_of(9))
    assert [model.name for model in part.frame.models] == ["cheap", "best"]
    for name in ("mean", "std", "cost", "latency", "penalty", "input_cost", "reserved_nano"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[:, [0, 2]])
    for name, value in part.scores.items():
        assert np.array_equal(value, whole.scores[name][:, [0, 2]])
    assert np.allclose(part.pmf.sum(axis=1), 1.0) and part.pmf.shape == (9, 2)


def test_without_any_known_model_nothing_is_chosen(snapshot: Snapshot) -> None:
    stranger = Model(name="stranger", input_price=0.0, output_price=0.0, price_id=8)
    decided = router_of(snapshot, [stranger]).decide(asks_of(2))
    assert decided.chosen.tolist() == [-1, -1] and decided.pmf.shape == (2, 0)
    assert decided.fallbacks() == [[], []]


def test_a_swap_takes_effect_with_the_next_decision(snapshot: Snapshot) -> None:
    router = router_of(snapshot)
    frame = router.frame
    newer = fold_of("cheap", "able", "best", outcomes=80).snapshot()
    router.swap(snapshot=newer)
    assert router.snapshot is newer and router.frame.names_json is frame.names_json
    dearer = Model(name="cheap", input_price=9.0, output_price=9.0, price_id=4)
    router.swap(models=[dearer, ABLE, BEST])
    assert router.frame.prices_json == "[4, 2, 3]" and router.snapshot is newer
    grown = fold_of("cheap", "able", "best", "new").snapshot()
    new = Model(name="new", input_price=0.0, output_price=0.0, price_id=5)
    router.swap(models=[dearer, ABLE, BEST, new])
    assert len(router.frame.models) == 3
    router.swap(snapshot=grown)
    assert [model.name for model in router.frame.models] == ["cheap", "able", "best", "new"]


def test_exploration_reaches_every_model_and_keeps_to_its_budget(snapshot: Snapshot) -> None:
    asks = asks_of(200)
    plain = router_of(snapshot).decide(asks)
    assert not plain.explore.any()
    explored = router_of(
        snapshot, exploration_share=0.3, exploration_cost_share=0.05, min_propensity=1e-6
    ).decide(asks)
    assert np.all(explored.pmf > 0) and np.allclose(explored.pmf.sum(axis=1), 1.0)
    exploit = explored.cost[np.arange(200), plain.pmf.argmax(axis=1)]
    extra = np.maximum(explored.cost - exploit[:, None], 0.0)
    spent = (explored.explore * extra).sum(axis=1)
    assert np.all(spent <= 0.05 * explored.spend_rate * (1 + 1e-9))
    assert explored.spend_rate == pytest.approx(exploit.mean())
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
        costs = np.concatenate([(one.pmf * one.cost).sum(axis=1)[one.chosen >= 0] for one in made])
        assert router.decide(second).spend_rate == pytest.approx(costs.mean()) and len(costs) == 5


def test_what_exploration_spends_does_not_raise_its_own_budget(snapshot: Snapshot) -> None:
    """The spend rate, of which exploration may spend a share, is that of the policy alone."""
    options = {"exploration_share": 0.3, "exploration_cost_share": 1e9, "min_propensity": 1e-6}
    first, router = asks_of(20, seed=1), router_of(snapshot, **options)
    explored, plain = router.decide(first), router_of(snapshot).decide(first)
    own, whole = ((one.pmf * one.cost).sum(axis=1).mean() for one in (plain, explored))
    assert whole > 1.1 * own
    assert router.decide(asks_of(5, seed=2)).spend_rate == pytest.approx(own)


def test_a_frame_is_empty_without_models(snapshot: Snapshot) -> None:
    frame = Frame.of(snapshot, [])
    assert frame.models == () and frame.names_json == "[]"


class Wallet:
    """A purse of one budget."""

    def __init__(self, nano: int) -> None:
        self.left, self.keep, self.taken = nano, 0, list[int]()

    def headroom(self, row: int) -> int:
        return self.left

    def spare(self, row: int) -> int:
        return self.left - self.keep

    def take(self, row: int, nano: int) -> None:
        assert nano <= self.left
        self.left -= nano
        self.taken.append(nano)


@pytest.mark.parametrize("nano", [86_700_000, 4_000_000])
def test_a_purse_is_never_overdrawn_and_each_law_is_the_true_one(
    snapshot: Snapshot, nano: int
) -> None:
    n = 12
    router = router_of(snapshot)
    worst = router.worst(asks_of(n))
    free = router.decide(asks_of(n), purse=Wallet(10**15))
    np.testing.assert_array_equal(free.verdict, router_of(snapshot).decide(asks_of(n)).verdict)
    np.testing.assert_array_equal(free.pmf, router_of(snapshot).decide(asks_of(n)).pmf)
    purse = Wallet(nano)
    left = purse.left
    decided = router_of(snapshot).decide(asks_of(n), purse=purse)
    short, chosen = 0, []
    for i in range(n):
        eligible = worst[i] <= left
        short += int(not eligible.all())
        barred = decided.verdict[i] == REASONS.index("budget")
        np.testing.assert_array_equal(barred, (free.verdict[i] == 0) & ~eligible)
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
    asks = replace(asks_of(4), worst=np.full((4, 3), 0.002))
    purse = Wallet(10_000_000)
    purse.keep = 9_500_000
    decided = router_of(snapshot).decide(asks, purse=purse)
    cheapest = decided.cost.argmin(axis=1)
    assert (decided.chosen == cheapest).all()
    barred = decided.verdict == REASONS.index("budget")
    assert (barred.sum(axis=1) == 2).all() and not barred[np.arange(4), cheapest].any()


def test_what_must_be_reserved_can_be_given(snapshot: Snapshot) -> None:
    worst = np.array([[0.001, 0.25, 0.5]] * 3)
    asks = replace(asks_of(3), worst=worst)
    decided = router_of(snapshot).decide(asks, purse=Wallet(260_000_000))
    assert decided.reserved_nano.tolist() == [[1_000_000, 250_000_000, 500_000_000]] * 3
    assert (decided.verdict[:, 2] == REASONS.index("budget")).all()


def test_a_threshold_leaves_models_out_with_the_price_as_reason(snapshot: Snapshot) -> None:
    decided = router_of(snapshot).decide(asks_of(5), price=Price.flat(5, gain=1e9))
    assert set(verdicts(decided).values()) == {"eligible", "price_of_money"}
    assert (decided.chosen == decided.cost.argmin(axis=1)).all()


def test_a_rate_of_the_budget_is_what_exploration_is_a_share_of(snapshot: Snapshot) -> None:
    options = {"exploration_share": 0.3, "exploration_cost_share": 0.5, "min_propensity": 0.0}
    price = Price.flat(5, rate=1e-9)
    decided = router_of(snapshot, **options).decide(asks_of(5), price=price)
    assert decided.spend_rate.tolist() == [1e-9] * 5
    exploit = decided.cost[np.arange(5), decided.pmf.argmax(axis=1)]
    extra = np.maximum(decided.cost - exploit[:, None], 0.0)
    assert ((decided.explore * extra).sum(axis=1) <= 0.5e-9 * (1 + 1e-9)).all()


def test_nothing_is_kept_for_a_cheapest_model_that_no_reservation_lets_in(
    snapshot: Snapshot,
) -> None:
    router = router_of(snapshot)
    asks = asks_of(1)
    worst, cost = router.worst(asks)[0], router.decide(asks).cost[0]
    dear = int(cost.argmax())
    assert worst[dear] > worst[cost.argmin()]
    # What a model is expected to cost and what it reserves need not have the same order.
    purse = Wallet(int(worst[dear]) - 1)
    purse.keep = purse.left + 1
    bounded = replace(asks, worst=np.where(np.arange(len(worst)) == dear, 0.002, 100.0)[None])
    decided = router.decide(bounded, purse=purse)
    assert decided.chosen.tolist() == [dear] and purse.taken == [2_000_000]

"""The modes on streams of known values: near the optimum, within the ratio, in the budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from policies import PACINGS, Pacing, make_pacing
from policies.base import Float64
from policies.linucb import LinUCB
from policies.pacing.base import WINDOW, Money, Window, price_where
from policies.pacing.history import History
from policies.pacing.knapsack import best_value, least_cost
from policies.pacing.price import PriceTerms, below_gain, cheapest, priced
from policies.pacing.zcl import psi

NEVER = Money(left_usd=math.inf, cap_usd=math.inf, requests=math.inf, rate_usd=math.nan)


def window_of(value: Float64, cost: Float64, worst: Float64 | None = None) -> Window:
    mean = value.astype(np.float32)
    return Window(
        kind=LinUCB,
        scores={"mean": mean, "bonus": np.zeros_like(mean)},
        eligible=np.ones(value.shape, dtype=np.bool_),
        penalty=np.zeros(value.shape),
        mean=mean,
        cost_usd=cost,
        reservation_usd=cost if worst is None else worst,
    )


@dataclass
class Stream:
    """Requests of known value[n, K] and cost[n, K]; a reservation equals the bill."""

    value: Float64
    cost: Float64

    def run(
        self,
        pacing: Pacing,
        *,
        budget: float = math.inf,
        rate: float = math.nan,
        horizon: bool = True,
        settles: bool = True,
        seed: int = 0,
    ) -> tuple[float, Float64]:
        """Return the value and the cost of each request; no request may overdraw the budget."""
        n = len(self.value)
        u = np.random.default_rng(seed).random(n)
        spent, got = np.zeros(n), 0.0
        for t in range(n):
            left = budget - float(spent.sum())
            if pacing.due(t):
                seen = slice(max(t - WINDOW, 0), max(t, 1))
                requests = n - t if horizon else math.inf
                money = Money(left_usd=left, cap_usd=budget, requests=requests, rate_usd=rate)
                pacing.solve(window_of(self.value[seen], self.cost[seen]), money)
            value, cost = self.value[t : t + 1], self.cost[t : t + 1]
            terms, at = pacing.terms, window_of(value, cost)
            room = np.full(cost.shape, left - terms.keep_usd)
            room[0, cheapest(cost, at.eligible)] = left
            open_to = at.eligible & (cost <= room + 1e-12)
            open_to &= ~below_gain(at.mean, cost, open_to, np.array([[terms.gain]]))
            pmf = priced(LinUCB, at.scores, open_to, at.penalty, cost, terms.rows(1))[0]
            if not pmf.any():
                continue
            k = int((pmf.cumsum() > u[t] * pmf.sum()).argmax())
            spent[t], got = cost[0, k], got + float(value[0, k])
            pacing.charge(cost[0, k], cost[0, k])
            if settles:
                pacing.settle(cost[0, k], cost[0, k])
        assert spent.sum() <= budget * (1 + 1e-12)
        return got, spent


def lognormal(seed: int, n: int = 1500) -> Stream:
    """Three models of rising cost and quality, each with a context of its own."""
    rng = np.random.default_rng(seed)
    cost = np.array([1e-4, 5e-4, 5e-3]) * rng.lognormal(-0.125, 0.5, (n, 3))
    level = rng.beta(2.0, 1.5, (n, 1))
    gain = np.array([0.0, 0.15, 0.2]) * rng.random((n, 3)) * 2.0
    return Stream(np.minimum(level + np.cumsum(gain, axis=1) * 0.5, 1.0), cost)


@pytest.mark.parametrize("rate", [1.6e-4, 4e-4, 1.5e-3])
@pytest.mark.parametrize("seed", range(2))
def test_history_is_within_one_percent_of_the_optimum(rate: float, seed: int) -> None:
    stream = lognormal(seed)
    budget = rate * len(stream.value)
    best = best_value(stream.value, stream.cost, budget)
    got, spent = stream.run(History(), budget=budget)
    assert got >= 0.99 * best.value
    assert 0.99 < spent.sum() / budget <= 1.0


def adversary(kind: str, lower: float, upper: float) -> Stream:
    """Orders that are bad for a threshold: rising or falling gains, or many small ones and then 0."""
    rng = np.random.default_rng(4)
    n, weight = 2000, 1e-3
    worth = np.exp(rng.uniform(math.log(lower), math.log(upper), (n, 2)))
    if kind == "rising":
        worth.sort(axis=0)
    elif kind == "falling":
        worth = -np.sort(-worth, axis=0)
    elif kind == "flood":
        worth[:] = lower
    elif kind == "flood, then best":
        worth[: n // 2], worth[n // 2 :] = lower, upper
    cost = weight * np.array([0.2, 1.0]) * rng.uniform(0.5, 1.0, (n, 2))
    nothing = np.zeros((n, 1))
    return Stream(np.hstack([nothing, worth * cost]), np.hstack([nothing, cost]))


@pytest.mark.parametrize("kind", ["random", "rising", "falling", "flood", "flood, then best"])
def test_zcl_keeps_its_ratio_on_any_order(kind: str) -> None:
    """Costs of at most 0.1 % of the budget, an item of value and cost 0, and known bounds."""
    lower, upper = 0.05, 5.0
    stream = adversary(kind, lower, upper)
    best = best_value(stream.value, stream.cost, 1.0).value
    got, spent = stream.run(
        make_pacing("zcl", lower=lower, upper=upper, bin_size=0), budget=1.0, horizon=True
    )
    assert got > 0.0 and best / got <= math.log(upper / lower) + 2.0


@pytest.mark.parametrize("mode", PACINGS)
@pytest.mark.parametrize("horizon", [True, False])
def test_no_mode_breaks_a_budget_or_leaves_much_of_it(mode: str, horizon: bool) -> None:
    stream = lognormal(7, n=800)
    rate = 4e-4
    _, spent = stream.run(make_pacing(mode), budget=rate * 800, rate=rate, horizon=horizon)
    assert (spent > 0.0).all() or not horizon
    assert spent.sum() > (0.95 if mode == "history" else 0.85) * rate * 800


def test_pacer_needs_no_feedback() -> None:
    stream = lognormal(8, n=800)
    _, spent = stream.run(make_pacing("pacer"), rate=4e-4, horizon=False, settles=False)
    assert 0.9 < spent.mean() / 4e-4 < 1.1


def test_without_an_aim_money_costs_nothing() -> None:
    stream = lognormal(9, n=20)
    for mode in PACINGS:
        terms = make_pacing(mode).solve(window_of(stream.value, stream.cost), NEVER)
        assert (terms.low, terms.high, terms.gain, terms.keep_usd) == (0.0, 0.0, 0.0, 0.0)


def test_before_any_request_only_the_cheapest_is_bought() -> None:
    money = Money(left_usd=1.0, cap_usd=1.0, requests=1000, rate_usd=math.nan)
    value, cost = np.array([[0.5, 0.9]]), np.array([[1e-4, 1e-2]])
    for mode in PACINGS:
        terms = make_pacing(mode).solve(None, money)
        assert terms.rate_usd == 1e-3
        at, price = window_of(value, cost), terms.rows(1)
        open_to = at.eligible & ~below_gain(at.mean, cost, at.eligible, price.gain)
        law = priced(LinUCB, at.scores, open_to, at.penalty, cost, price)
        assert law.tolist() == [[1.0, 0.0]]


def test_what_cheap_answers_need_is_kept_and_falls_with_every_request() -> None:
    cost = np.array([[1e-4, 1e-2], [3e-4, 1e-2]])
    worst = np.array([[1e-3, 0.0105], [1e-3, 0.0105]])
    window = window_of(np.full((2, 2), 0.5), cost, worst)
    pacing = History()
    terms = pacing.solve(window, Money(left_usd=1.0, cap_usd=1.0, requests=101, rate_usd=math.nan))
    assert terms.keep_usd == pytest.approx(100 * 2e-4 + 2 * 1e-4 * 10 + 1e-3 - 5e-4)
    pacing.charge(1e-4, 1e-3)
    assert pacing.terms.keep_usd == pytest.approx(terms.keep_usd - 2e-4)
    last = pacing.solve(window, Money(left_usd=1.0, cap_usd=1.0, requests=1, rate_usd=math.nan))
    assert last.keep_usd == 0.0


def test_money_that_no_reservation_lets_through_is_not_planned_for() -> None:
    """The expensive model is out of reach from half the money on: its part is spent early."""
    n = 100
    cost = np.tile([0.0, 1.0], (n, 1))
    gains = np.column_stack([np.zeros(n), np.linspace(0.01, 1.0, n)])
    cap = 40.0
    shares = []
    for worst in (1.0, 20.0):
        window = window_of(gains, cost, np.tile([0.0, worst], (n, 1)))
        terms = History().solve(
            window, Money(left_usd=cap, cap_usd=cap, requests=n, rate_usd=math.nan)
        )
        law = priced(LinUCB, window.scores, window.eligible, window.penalty, cost, terms.rows(n))
        shares.append(float(law[:, 1].mean()))
    assert shares == pytest.approx([0.4, 0.21], abs=0.012)


def test_quality_floor_is_met_at_the_least_cost() -> None:
    stream = lognormal(3, n=256)
    window = window_of(stream.value, stream.cost)
    floor = 0.5 * (window.quality(0.0) + window.quality(1e9))
    terms = History(quality_floor=floor).solve(window, NEVER)
    price = terms.rows(256)
    law = priced(LinUCB, window.scores, window.eligible, window.penalty, window.cost_usd, price)
    assert (law * window.mean).sum() / 256 == pytest.approx(floor, abs=1e-6)
    best = least_cost(window.mean.astype(np.float64), window.cost_usd, floor * 256)
    assert (law * window.cost_usd).sum() == pytest.approx(best.cost, rel=0.01)


def test_a_budget_goes_before_a_quality_floor() -> None:
    stream = lognormal(3, n=256)
    window = window_of(stream.value, stream.cost)
    money = Money(left_usd=0.256, cap_usd=0.256, requests=256, rate_usd=math.nan)
    poorer, both = (
        History(quality_floor=floor).solve(window, money)
        for floor in (0.0, float(window.quality(0.0)))
    )
    assert (poorer.low, poorer.high) == pytest.approx((both.low, both.high))


@pytest.mark.parametrize("target", [0.0, 0.3, 1.0, 1.4, 5.0])
@pytest.mark.parametrize("guess", [0.0, 1e-3, 1.0, 1e3])
def test_prices_enclose_what_they_are_to_meet(target: float, guess: float) -> None:
    def spend(price: float) -> float:
        return 0.2 + (price < 1.0) * 0.4 + 0.6 / (1.0 + price)

    low, high, share = price_where(spend, target, guess=guess, scale=1.0)
    assert 0.0 <= low <= high and 0.0 <= share <= 1.0
    met = share * spend(low) + (1.0 - share) * spend(high)
    assert met == pytest.approx(min(max(target, spend(1e6)), spend(0.0)), abs=1e-9)


def test_psi_has_the_published_values() -> None:
    upper, ratio = 1000.0, 1.0 + math.log(1000.0)
    assert psi(0.0, 1.0, upper) == pytest.approx(math.exp(-1.0))
    assert psi(1.0 / ratio, 1.0, upper) == pytest.approx(1.0)
    assert psi(1.0, 1.0, upper) == pytest.approx(1000.0)


@pytest.mark.parametrize(
    ("mode", "params", "message"),
    [
        ("histroy", {}, "pacing: unknown mode 'histroy'; did you mean 'history'"),
        ("history", {"cary": 1.0}, "cary: unknown parameter of history; did you mean 'carry'"),
        ("history", {"horizon": 0.0}, "horizon: positive"),
        ("history", {"quality_floor": 1.5}, r"quality_floor: in \[0, 1\]"),
        ("zcl", {"bin_size": -1}, "bin_size: at least 0"),
        ("zcl", {"lower": 2.0, "upper": 1.0}, "upper: at least lower"),
        ("pacer", {"step": "big"}, "step: not a valid value"),
    ],
)
def test_wrong_parameters_are_refused(mode: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_pacing(mode, **params)


def test_an_open_reservation_counts_as_what_it_is_expected_to_cost() -> None:
    pacing = History()
    for _ in range(4):
        pacing.charge(1.0, 10.0)
    assert pacing.spent_usd == pytest.approx(4.0)
    pacing.settle(10.0, 3.0)
    assert pacing.spent_usd == pytest.approx(6.0)
    for _ in range(3):
        pacing.settle(10.0, 2.0)
    assert pacing.spent_usd == pytest.approx(9.0)


def test_terms_become_rows() -> None:
    price = PriceTerms(1.0, 2.0, 0.25, 3.0, 4.0, 5.0).rows(3)
    parts = (price.low, price.high, price.share, price.gain, price.rate_usd)
    assert [part[:, 0].tolist() for part in parts] == [
        [value] * 3 for value in (1.0, 2.0, 0.25, 3.0, 4.0)
    ]


def test_zcl_counts_bills_above_the_floor_and_rolls_over_what_a_bin_leaves() -> None:
    value, cost = np.array([[0.5, 0.9]]), np.array([[1.0, 3.0]])
    window, lower, upper = window_of(value, cost), 0.1, 10.0
    pacing = make_pacing("zcl", lower=lower, upper=upper, bin_size=10)

    def gain(left: float, requests: int) -> float:
        return pacing.solve(window, Money(left, 60.0, requests, math.nan)).gain

    # 20 requests and 30 dollars above the floor: 15 of them are the first bin's.
    assert gain(50.0, 20) == pytest.approx(psi(0.0, lower, upper))
    pacing.charge(3.0, 8.0)
    assert pacing.terms.gain == pytest.approx(psi(2.0 / 15.0, lower, upper))
    pacing.settle(8.0, 7.0)
    assert pacing.terms.gain == pytest.approx(psi(6.0 / 15.0, lower, upper))
    for _ in range(9):
        pacing.charge(1.0, 1.0)
        pacing.settle(1.0, 1.0)
    assert pacing.terms.gain == pytest.approx(psi(6.0 / 15.0, lower, upper))
    # The second bin has all that the first one left, 24 dollars, which pays for anything: a snipe.
    assert gain(34.0, 10) == 0.0
    assert gain(29.0, 10) > 0.0


def test_zcl_has_an_answer_where_every_model_is_worth_less_than_nothing() -> None:
    value, cost = np.array([[-0.5, -0.2, -0.9]]), np.array([[1e-4, 1e-3, 1e-2]])
    window = window_of(value, cost)
    pacing = make_pacing("zcl", lower=1e3, upper=1e6)
    terms = pacing.solve(window, Money(0.5, 1.0, 1000, math.nan))
    left = ~below_gain(window.mean, cost, window.eligible, terms.rows(1).gain)
    assert left.tolist() == [[True, False, False]]

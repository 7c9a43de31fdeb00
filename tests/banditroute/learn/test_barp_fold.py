"""BaRP in the fold and the router: it learns each decision once, from its quality and cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from support.routers import ABLE, BEST, CHEAP, asks_of, fold_of, router_of

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import Model, PoolOptions
from banditroute.decide.columns import Decisions, RequestBatch
from banditroute.decide.router import Router
from banditroute.learn.fold import Event, Fold
from policies import Comparison, Outcome
from policies.barp import Barp
from policies.base import Float32
from policies.pacing.price import PriceTerms

DIM, TAU = 4, 0.01
IDENTITY = PolicyIdentity(
    policy="barp", params={}, embedder="e", dim=DIM, tau_cost_usd=TAU, tau_latency_ms=1e3
)
MODELS = [Model("small", 0.0, 0.2, price_id=1), Model("large", 0.0, 20.0, price_id=2)]
POOL = [CHEAP, ABLE, BEST]


def fold() -> Fold:
    made = Fold(IDENTITY)
    for model in MODELS:
        made.add_model(model.name)
    return made


def policy(of: Fold) -> Barp:
    assert isinstance(of.policy, Barp)
    return of.policy


def features(n: int, *, seed: int = 0) -> Float32:
    x = np.random.default_rng([5, seed]).normal(size=(n, DIM)).astype(np.float32)
    x[:, -1] = 1.0
    return x


def event(seq: int, x: Float32, arm: str, field: str, value: float, cost: float | None) -> Event:
    prior = 512 * (0.2 if arm == "small" else 20.0) / 1e6
    outcome = Outcome(seq, f"d{seq}", arm, x, field, value, cost, 0.5, cost_prior_usd=prior)
    return Event(seq, "p", "feedback", outcome, "e")


def stream(n: int) -> list[Event]:
    """Return quality and cost in turn; large is better and more expensive."""
    events: list[Event] = []
    for i, x in enumerate(features(n)):
        arm, quality, cost = (("small", 0.5, 1e-4), ("large", 0.8, 8e-3))[i % 2]
        for field, value in (("quality", quality), ("cost", cost)):
            events.append(event(len(events) + 1, x, arm, field, value, cost))
    return events


def test_a_later_cost_moves_the_cost_model_alone() -> None:
    one = fold()
    x = features(1)[0]
    one.apply(event(1, x, "small", "quality", 0.5, None))
    before = policy(one).state()
    one.apply(event(2, x, "small", "cost", 0.004, 0.004))
    after = policy(one).state()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert one.cost.clock == 1 and policy(one).examples == 1


def test_a_missing_cost_is_what_the_cost_model_predicts() -> None:
    one = fold()
    x = features(1)[0]
    one.apply(event(1, x, "small", "cost", 0.002, 0.002))
    one.apply(event(2, x, "small", "quality", 0.5, None))
    cost = policy(one).kept["told"][0].tolist()
    prior = 512 * 0.2 / 1e6
    assert cost[0] == 0.5 and prior / TAU < cost[1] < 0.2
    one.apply(event(3, x, "small", "quality", 0.5, 0.003))
    assert policy(one).kept["told"][1].tolist() == [0.5, pytest.approx(0.3)]


def test_a_checkpoint_in_the_middle_of_a_batch_changes_no_bit() -> None:
    events, straight, first = stream(90), fold(), fold()
    for one in events:
        straight.apply(one)
    for one in events[:101]:
        first.apply(one)
    second = Fold.restore(IDENTITY, 101, first.dump())
    for one in events[101:]:
        second.apply(one)
        second.publish()
    assert second.digest() == straight.digest()
    assert policy(straight).adam.taken == 2 * policy(straight).steps


def test_pairs_are_folded_with_the_rest() -> None:
    one = fold()
    for seq, x in enumerate(features(64), start=1):
        pair = Comparison(seq, f"a{seq}", f"b{seq}", "small", "large", x, 0.5, 0.5)
        one.apply(Event(seq, "p", "preference", embedder="e", comparison=pair))
    scores = one.snapshot().policy.score(features(8), np.tile([1.0, 0.0, 0.0], (8, 1)))
    assert (scores["logit"][:, 0] > scores["logit"][:, 1]).all()


def decide(
    of: Fold, *, weight: float, price: float = 0.0, models: Sequence[Model] = MODELS
) -> Decisions:
    router = Router(
        options=PoolOptions.model_validate({}),
        snapshot=of.snapshot(),
        models=models,
        rng=np.random.default_rng(0),
    )
    x = features(20, seed=3)
    asks = RequestBatch(
        features=x,
        preference=np.tile([1.0 - weight, weight, 0.0], (len(x), 1)),
        input_tokens=np.zeros(len(x)),
        input_bound=np.zeros(len(x)),
    )
    return router.decide(asks, price=PriceTerms(price, price).rows(len(x)))


def test_the_router_leaves_cost_to_the_net_and_money_to_the_price() -> None:
    one = fold()
    for each in stream(200):
        one.apply(each)
    assert (decide(one, weight=0.0).chosen == 1).all()
    decided = decide(one, weight=0.6)
    assert (decided.chosen == 0).all()
    # What is left of the penalty is what the two models of cost differ by, at unchanged prices.
    np.testing.assert_allclose(decided.scored.penalty, 0.0, atol=0.05)
    scarce = decide(one, weight=0.0, price=100.0)
    np.testing.assert_allclose(scarce.scored.penalty, 0.0, atol=1e-12)
    assert (scarce.chosen == 0).all()
    logit = scarce.scored.scores["logit"] - 100.0 * scarce.scored.cost_usd / policy(one).beta
    law = np.exp(logit - logit.max(axis=1, keepdims=True))
    np.testing.assert_allclose(scarce.pmf, law / law.sum(axis=1, keepdims=True), rtol=1e-5)


def test_a_new_price_moves_the_next_decision_with_nothing_learned() -> None:
    one = fold()
    for each in stream(200):
        one.apply(each)
    cut = [MODELS[0], Model("large", 0.0, 0.2, price_id=3)]
    before, after = (decide(one, weight=0.5, models=models) for models in (MODELS, cut))
    assert (before.chosen == 0).all() and (after.chosen == 1).all()
    assert after.scored.columns.snapshot.version == before.scored.columns.snapshot.version
    restored = decide(one, weight=0.5)
    assert restored.pmf.tobytes() == before.pmf.tobytes()


def test_fallbacks_are_in_the_order_of_the_law() -> None:
    """The net weighs cost in its logits, so only its law gives the order of the fallbacks."""
    decided = router_of(fold_of("cheap", "able", "best", policy="barp").snapshot(), POOL).decide(
        asks_of(30)
    )
    for pmf, chosen, others in zip(
        decided.pmf.tolist(), decided.chosen.tolist(), decided.fallbacks(), strict=True
    ):
        ranked = sorted(range(len(pmf)), key=lambda k: -pmf[k])
        assert others == [POOL[k].name for k in ranked if k != chosen]

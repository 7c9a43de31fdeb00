"""Models that were added late: their forced share is exact, logged and capped, and it ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine
from support.databases import SQLITE
from support.routers import ABLE, BEST, CHEAP, asks_of, fold_of, router_of, verdicts
from support.small_log import Book

from banditroute.core.pool import Model, ModelSpec
from banditroute.decide.columns import Decisions
from banditroute.decide.router import Router
from banditroute.learn.fold import Event, Fold
from banditroute.store import pools
from banditroute.store.feedback import Post
from banditroute.store.verify import audit
from policies import Outcome

NEW = Model(name="new", input_price=0.1, output_price=0.4, price_id=4)
DEAR = Model(name="new", input_price=100.0, output_price=400.0, price_id=4)
POOL = [CHEAP, ABLE, BEST]


def late_fold(policy: str = "linucb", **params: Any) -> Fold:
    fold = fold_of("cheap", "able", "best", policy=policy, **params)
    fold.apply(Event(fold.version + 1, "p", "model_added", payload={"name": "new"}))
    return fold


def routed(fold: Fold, new: Model = NEW, n: int = 50, **options: Any) -> tuple[Router, Decisions]:
    router = router_of(fold.snapshot(), [*POOL, new], **options)
    return router, router.decide(asks_of(n))


def test_without_newcomers_there_is_no_share() -> None:
    _, plain = routed(fold_of("cheap", "able", "best", "new"))
    assert not plain.explore.any()
    _, off = routed(late_fold(), newcomer_share=0.0)
    assert not off.explore.any()
    _, known = routed(late_fold(), newcomer_pulls=0)
    assert not known.explore.any()


@pytest.mark.parametrize("policy", ["linucb", "thompson", "epsilon-greedy"])
def test_a_newcomer_has_its_share_on_top_of_the_law(policy: str) -> None:
    fold = late_fold(policy)
    _, off = routed(fold, newcomer_share=0.0)
    _, on = routed(fold, newcomer_share=0.04)
    assert np.array_equal(on.explore[:, :3], np.zeros((50, 3)))
    assert (on.explore[:, 3] <= 0.04).all() and on.explore[:, 3].max() == 0.04
    spent = on.explore.sum(axis=1, keepdims=True)
    assert np.allclose(on.pmf, off.pmf * (1.0 - spent) + on.explore)
    assert np.allclose(on.pmf.sum(axis=1), 1.0) and (on.pmf[:, 3] > 0.0).all()
    assert verdicts(on)["new"] == "eligible"


def test_the_share_keeps_to_the_cap_and_the_newcomer_eligible() -> None:
    fold = late_fold()
    _, off = routed(fold, DEAR, newcomer_share=0.0)
    exploit = off.scored.cost_usd[np.arange(50), off.pmf.argmax(axis=1)]
    for cap in (0.05, 0.001, 0.0):
        _, on = routed(fold, DEAR, newcomer_share=0.5, exploration_cost_share=cap)
        extra = np.maximum(on.scored.cost_usd[:, 3] - exploit, 0.0)
        assert (on.explore[:, 3] * extra <= cap * on.spend_rate_usd * (1 + 1e-9)).all()
        assert (on.reasons == 0).all()
        if cap:
            assert (on.explore[:, 3] > 0.0).all() and on.explore[:, 3].max() < 0.5
        else:
            assert not on.explore.any() and np.array_equal(on.pmf, off.pmf)


def test_with_uniform_exploration_both_keep_to_one_cap() -> None:
    fold = late_fold()
    options = {"exploration_share": 0.2, "min_propensity": 1e-9, "newcomer_share": 0.5}
    _, on = routed(fold, DEAR, **options)
    _, off = routed(fold, DEAR, newcomer_share=0.0)
    exploit = off.scored.cost_usd[np.arange(50), off.pmf.argmax(axis=1)]
    extra = np.maximum(on.scored.cost_usd - exploit[:, None], 0.0)
    assert ((on.explore * extra).sum(axis=1) <= 0.05 * on.spend_rate_usd * (1 + 1e-9)).all()
    assert np.allclose(on.pmf.sum(axis=1), 1.0) and (on.pmf > 0).all()


def test_a_draining_or_filtered_newcomer_gets_nothing() -> None:
    gone = Model(name="new", input_price=0.0, output_price=0.0, price_id=4, draining=True)
    _, decided = routed(late_fold(), gone)
    assert not decided.explore.any() and np.allclose(decided.pmf.sum(axis=1), 1.0)
    router, _ = routed(late_fold())
    alone = router.decide(asks_of(2, models=[frozenset({"cheap"}), frozenset({"new"})]))
    assert alone.pmf.tolist() == [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]


def test_columns_of_a_pool_without_some_arms_are_the_right_ones() -> None:
    fold = late_fold()
    decided = router_of(fold.snapshot(), [NEW, BEST]).decide(asks_of(5))
    assert [model.name for model in decided.scored.columns.models] == ["best", "new"]
    assert not decided.explore[:, 0].any() and decided.explore[:, 1].all()
    without = router_of(fold.snapshot(), [BEST]).decide(asks_of(5))
    assert not without.explore.any()


def played(book: Book, arm: str, n: int) -> None:
    """Choose `arm` `n` times and send good feedback."""
    _, ids = book.decide(n, models=[frozenset({arm})] * n)
    book.send(*(Post(one, "default", quality=0.9) for one in ids))


@SQLITE
def test_it_ends_with_enough_outcomes_and_every_row_recomputes(engine: Engine) -> None:
    book = Book(engine, newcomer_share=0.1, newcomer_pulls=6, exploration_cost_share=1e9)
    book.feed(30)
    late = ModelSpec(name="late", input_price=0.2, output_price=0.3)
    with book.begin() as connection:
        pools.add_model(connection, "default", late, source="api", now_us=book.now)
    decided, ids = book.decide(400)
    at = [model.name for model in decided.scored.columns.models].index("late")
    assert (decided.explore[:, at] == 0.1).all() and (decided.pmf[:, at] >= 0.1).all()
    chosen = int((decided.chosen == at).sum())
    assert abs(chosen - decided.pmf[:, at].sum()) < 4 * (400 * 0.1 * 0.9) ** 0.5
    assert len(ids) == 400
    played(book, "late", 5)
    assert book.decide(3)[0].explore[:, at].all()
    played(book, "late", 1)
    assert not book.decide(3)[0].explore.any()
    found = audit(book.log, "default")
    assert found.sound() and found.decisions > 430


@pytest.mark.parametrize("policy", ["linucb", "thompson"])
def test_optimism_is_two_rewards_above_the_mean(policy: str) -> None:
    plain, hoping = late_fold(policy), late_fold(policy)
    event = Event(hoping.version + 1, "p", "prior", payload={"arm": "new", "optimism": 0.2})
    hoping.apply(event)
    mean = hoping.rewards / hoping.policy.clock
    assert 0.5 < mean < 0.7 and hoping.policy.pulls[3] == 0
    at, x = 3, asks_of(1).features * 0
    x[:, -1] = 1.0
    before, after = (f.snapshot().policy.estimate(x)[0][0, at] for f in (plain, hoping))
    if policy == "linucb":
        prior, weight = 0.7, 1.0
        assert after == pytest.approx((prior * weight + 2 * (mean + 0.2)) / (weight + 2), abs=1e-6)
    else:
        assert after > before
    ridge = hoping.policy.ridge  # type: ignore[attr-defined]
    assert ridge.count[at] == 2.0 and ridge.moment[at, -1] == pytest.approx(2 * (mean + 0.2))
    assert not ridge.gram[at, :-1].any()


def test_optimism_is_capped_at_1_and_says_nothing_before_there_is_a_mean() -> None:
    fold = late_fold()
    fold.apply(Event(fold.version + 1, "p", "prior", payload={"arm": "new", "optimism": 1.0}))
    assert fold.policy.ridge.moment[3, -1] == 2.0  # type: ignore[attr-defined]
    young = fold_of("cheap", outcomes=0)
    digest = young.digest()
    young.apply(Event(young.version + 1, "p", "prior", payload={"arm": "cheap", "optimism": 0.5}))
    assert young.digest() == digest
    deaf = late_fold("random")
    digest = deaf.digest()
    deaf.apply(Event(deaf.version + 1, "p", "prior", payload={"arm": "new", "optimism": 0.5}))
    assert deaf.digest() == digest


def test_a_newer_snapshot_of_the_same_arms_ends_the_share() -> None:
    """As in a daemon, the same router serves throughout."""
    fold = late_fold()
    router, decided = routed(fold, newcomer_share=0.04, newcomer_pulls=6)
    assert decided.explore[:, 3].any()
    x = decided.scored.requests.features[0]
    for pulls in range(1, 7):
        seq = fold.version + 1
        outcome = Outcome(seq, f"d{seq}", "new", x, "quality", 0.6)
        fold.apply(Event(seq, "p", "feedback", outcome, embedder="words"))
        router.swap(snapshot=fold.snapshot())
        assert router.decide(asks_of(50)).explore[:, 3].any() == (pulls < 6)

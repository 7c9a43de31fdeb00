from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.small_log import Book

from banditroute.core.pool import Model
from banditroute.decide.router import Router
from banditroute.learn.fold import Event
from policies.pacing.price import PriceTerms
from sim.ope import read_parquet as files
from sim.ope.bandit_log import BanditLog
from sim.ope.logged_requests import DecisionHistory
from sim.ope.read_database import read
from sim.ope.target_policy import compute_action_dist, identity_of, train
from sim.play.candidate import Candidate

Make = Callable[..., BanditLog]
LEARNERS = ("linucb", "thompson", "pilot")


def pmf_of(history: DecisionHistory, candidate: Candidate, *, until: int, rows: Any = None) -> Any:
    at = np.arange(len(history.log)) if rows is None else rows
    fold = train(history, candidate, until=until)
    return compute_action_dist(
        history.requests, history.log.models, candidate.options, fold, rows=at
    )


@pytest.fixture
def mixed(book: Book) -> DecisionHistory:
    """Return a daemon's log in which requests allow different models."""
    for _ in range(4):
        book.feed(10)
        ids = book.decide(6, models=[{"small", "large"}, {"large", "medium"}, None] * 2)[1]
        assert len(ids) == 6
    return read(book.log, "default")


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_frozen_policy_is_a_router_on_its_snapshot(
    mixed: DecisionHistory, name: str, share: float
) -> None:
    candidate = Candidate.of(name, exploration_share=share, exploration_cost_share=1.0)
    found = pmf_of(mixed, candidate, until=40)
    ((rows, models),) = mixed.requests.model_sets
    assert rows.tolist() == list(range(64))
    router = Router(
        options=candidate.options,
        snapshot=train(mixed, candidate, until=40).snapshot(),
        models=models,
        rng=np.random.default_rng(9),
    )
    price = PriceTerms().rows(64)
    price.rate_usd[:, 0] = mixed.requests.spend_rate_usd
    decided = router.decide(mixed.requests.batch, price=price)
    columns = [mixed.log.models.index(model.name) for model in decided.scored.columns.models]
    assert (found[:, columns] == decided.pmf).all()
    assert found.sum(axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize("name", [*LEARNERS, "random", "epsilon-greedy"])
def test_a_model_that_was_not_open_has_probability_zero(mixed: DecisionHistory, name: str) -> None:
    candidate = Candidate.of(name, exploration_share=0.3, exploration_cost_share=10.0)
    found = pmf_of(mixed, candidate, until=30)
    assert mixed.requests.batch.models is not None
    is_open = np.array(
        [
            [name in (names or ()) for name in mixed.log.models]
            for names in mixed.requests.batch.models
        ]
    )
    assert not found[~is_open].any()
    assert (~is_open).sum() == 16


def test_a_row_has_the_same_pmf_in_any_selection(mixed: DecisionHistory) -> None:
    candidate = Candidate.of("linucb")
    whole = pmf_of(mixed, candidate, until=30)
    rows = np.array([50, 3, 17])
    assert (pmf_of(mixed, candidate, until=30, rows=rows) == whole[rows]).all()


@pytest.mark.parametrize("name", LEARNERS)
def test_evaluated_rows_are_not_learned_from(make_log: Make, name: str) -> None:
    log = make_log(200)
    candidate = Candidate.of(name)
    first = np.arange(200) < 100
    before = pmf_of(files.history_of(log), candidate, until=100)
    later = replace(log, quality=np.where(first, log.quality, 1.0 - log.quality))
    assert (pmf_of(files.history_of(later), candidate, until=100) == before).all()
    earlier = replace(log, quality=np.where(first, 1.0 - log.quality, log.quality))
    assert (pmf_of(files.history_of(earlier), candidate, until=100) != before).any()


def test_late_feedback_is_learned_with_its_decision(book: Book) -> None:
    """What counts is the decision that it belongs to, not when it came."""
    from banditroute.store.feedback import Post

    ids = book.decide(6)[1]
    for one in reversed(ids):
        book.send(Post(one, "default", quality=0.5))
    found = read(book.log, "default")
    assert train(found, Candidate.of("linucb"), until=3).learned == 3
    assert train(found, Candidate.of("linucb"), until=0).learned == 0


def test_all_models_are_added_and_no_reset_is_applied(mixed: DecisionHistory) -> None:
    reset = Event(10_000, "default", "reset", payload={"arm": "small", "trigger_seq": 3})
    other = replace(mixed, events=[*mixed.events, reset])
    folds = [train(one, Candidate.of("linucb"), until=20) for one in (mixed, other)]
    assert folds[0].digest() == folds[1].digest()
    assert set(folds[0].policy.arms) == {"small", "large", "medium"}


def test_each_set_of_rows_has_its_own_prices(make_log: Make) -> None:
    log = make_log(300)
    history = files.history_of(replace(log, preference=np.tile([0.1, 0.9, 0.0], (300, 1))))
    batch = replace(history.requests.batch, input_tokens=np.full(300, 1e6))
    model_sets = [
        (
            np.arange(start, 300, 3),
            tuple(Model(n, 0.0 if n == free else 1.0, 0.0, k) for k, n in enumerate("abc")),
        )
        for start, free in enumerate("abc")
    ]
    requests = replace(history.requests, batch=batch, model_sets=model_sets)
    found = pmf_of(replace(history, requests=requests), Candidate.of("linucb"), until=0)
    assert (found.argmax(axis=1) == np.arange(300) % 3).all()
    assert (found.max(axis=1) == 1.0).all()


def test_a_policy_keeps_its_own_scales(mixed: DecisionHistory) -> None:
    plain = identity_of(Candidate.of("linucb"), mixed.policy_identity)
    assert (plain.tau_cost_usd, plain.tau_latency_ms) == (0.01, 1_000.0)
    own = Candidate.of("linucb", {"alpha": 0.5}, tau_cost=0.5, tau_latency_ms=7.0)
    found = identity_of(own, mixed.policy_identity)
    assert (found.tau_cost_usd, found.tau_latency_ms) == (0.5, 7.0)
    assert found.params["alpha"] == 0.5
    assert (found.embedder, found.dim) == (
        mixed.policy_identity.embedder,
        mixed.policy_identity.dim,
    )

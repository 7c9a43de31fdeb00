from __future__ import annotations

import numpy as np
import pytest

from banditroute.learn.fold import Fold
from policies.base import Float64
from sim.data.prices import draw_prices
from sim.data.synthetic import MODELS, Planted, generate
from sim.ope.logged_requests import DecisionHistory
from sim.ope.synthetic_log import simulate_log
from sim.ope.target_policy import compute_action_dist, train
from sim.play.candidate import Candidate

EXPLORING = Candidate.of("linucb", exploration_share=0.25, exploration_cost_share=1.0)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return generate(rows=600, seed=5)


def topics(planted: Planted) -> Float64:
    """Return the topic of each prompt as features, so that the planted effect can be learned."""
    kinds = sorted(set(planted.dataset.task))
    x = np.array([[one == kind for kind in kinds] + [True] for one in planted.dataset.task])
    return x.astype(np.float32)


def log_of(planted: Planted, candidate: Candidate = EXPLORING, seed: int = 0) -> DecisionHistory:
    return simulate_log(
        planted.dataset,
        topics(planted),
        np.random.default_rng(seed).permutation(600)[:400],
        candidate=candidate,
        specs=draw_prices(planted.dataset, seed=0),
        embedder="topics",
        preference=(0.6, 0.3, 0.1),
        rng=np.random.default_rng([seed, 1]),
    )


def test_the_log_is_what_a_daemon_would_have_logged(planted: Planted) -> None:
    rows = np.random.default_rng(0).permutation(600)[:400]
    found = log_of(planted)
    log = found.log
    assert log.models == MODELS and len(log) == 400
    assert log.quality.tolist() == planted.dataset.quality[rows, log.chosen].tolist()
    assert log.cost_usd.tolist() == planted.dataset.cost_usd[rows, log.chosen].tolist()
    assert log.action_dist is not None
    assert (log.action_dist[np.arange(400), log.chosen] == log.propensity).all()
    assert log.action_dist.sum(axis=1) == pytest.approx(1.0)
    assert log.action_dist.min() > 0.0
    taught = [event.outcome for event in found.events if event.outcome is not None]
    assert [one.field for one in taught[:4]] == ["quality", "cost"] * 2
    assert [one.arm for one in taught[::2]] == [MODELS[k] for k in log.chosen]
    assert [one.value for one in taught[::2]] == log.quality.tolist()


def test_the_same_seed_makes_the_same_log(planted: Planted) -> None:
    a, b, c = (log_of(planted, seed=seed).log for seed in (0, 0, 1))
    assert a.chosen.tolist() == b.chosen.tolist() != c.chosen.tolist()


def test_the_logged_pmf_is_computed_again(planted: Planted) -> None:
    """Trained on all rows but the last, the same policy has the pmf that was logged there."""
    found = log_of(planted)
    assert found.log.action_dist is not None
    fold = train(found, EXPLORING, until=399)
    rows = np.array([399])
    again = compute_action_dist(
        found.requests, found.log.models, EXPLORING.options, fold, rows=rows
    )
    assert again[0] == pytest.approx(found.log.action_dist[399], abs=1e-9)
    whole = Fold(found.policy_identity)
    for event in found.events:
        whole.apply(event)
    assert whole.learned == 800


def test_without_exploration_one_model_has_all_the_mass(planted: Planted) -> None:
    log = log_of(planted, Candidate.of("linucb")).log
    assert (log.propensity == 1.0).mean() > 0.95

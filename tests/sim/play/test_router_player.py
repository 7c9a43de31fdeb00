"""Our own player: it folds exactly what the daemon would log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from banditroute.features.embedding import make_embedder
from banditroute.learn.learner import rebuild
from banditroute.store import decision_row, engine, feedback, log
from sim.data.prices import draw_prices
from sim.data.synthetic import generate
from sim.play.candidate import Candidate
from sim.play.player import ModelsOnOffer
from sim.play.replay import Experiment, Split
from sim.play.router_player import RouterPlayer

LINUCB = Candidate.of("linucb")
TOKENS = np.array([100.0])


def experiment(rows: int = 120, split: Split | None = None) -> Experiment:
    data = generate(rows=rows, seed=9).dataset
    embedder = make_embedder("hashing")
    return Experiment(
        dataset=data,
        features=embedder.features(list(data.prompts)),
        embedder=embedder.identity,
        split=split or Split(),
        preference=(0.7, 0.3, 0.0),
    )


def _player(plan: Experiment, *, seed: int) -> RouterPlayer:
    return RouterPlayer(
        specs=draw_prices(plan.dataset, seed=seed),
        candidate=LINUCB,
        dim=plan.features.shape[1],
        embedder=plan.embedder,
        preference=plan.preference,
        rng=np.random.default_rng([seed, 1]),
    )


def test_fold_equals_the_one_rebuilt_from_the_daemons_log(tmp_path: Path) -> None:
    plan = experiment(40)
    player = _player(plan, seed=0)
    database = engine.open_engine(f"sqlite:///{tmp_path / 'log.db'}")
    engine.prepare(database)
    store = log.Log(database)
    with database.begin() as connection:
        started = player.fold.policy_identity.payload()
        log.append_event(connection, pool="p", kind="policy_started", payload=started, now_us=0)
        for name in plan.dataset.models:
            log.append_event(
                connection, pool="p", kind="model_added", payload={"name": name}, now_us=0
            )
    for row in range(40):
        tokens = np.array([float(len(plan.dataset.prompts[row].encode()))])
        (choice,) = player.decide(plan.features[[row]], tokens)
        decisions, _ = choice.note
        arm = int(decisions.chosen[0])
        quality, cost = (
            float(plan.dataset.quality[row, arm]),
            float(plan.dataset.cost_usd[row, arm]),
        )
        player.feed(choice, quality=quality, cost_usd=cost)
        encoded = decision_row.encode(
            decisions,
            [decision_row.Note(id=f"d{row}")],
            pool="p",
            created_at_us=row,
            expires_at_us=10**9,
        )
        post = feedback.Post(decision_id=f"d{row}", key="default", quality=quality, cost_usd=cost)
        with database.begin() as connection:
            log.log_decisions(connection, [log.Entry(row) for row in decision_row.as_rows(encoded)])
            assert feedback.record(connection, [post], now_us=row) == ["accepted"]
    rebuilt = rebuild(store, "p")
    database.dispose()
    assert rebuilt is not None
    assert rebuilt[1].digest() == player.fold.digest()
    assert rebuilt[1].version == player.fold.version == 4 + 2 * 40


def test_drift_is_answered_in_the_log_as_the_daemon_answers_it() -> None:
    """A model turns bad half-way: with resets on there is one per alarm, and the choice moves."""
    data = generate(rows=600, seed=3).dataset
    data = replace(data, quality=np.where(np.arange(3) == 2, 0.95, np.minimum(data.quality, 0.7)))
    broken = data.quality.copy()
    broken[:, 2] = 0.1
    embedder = make_embedder("hashing")
    features = embedder.features(list(data.prompts))
    late: dict[bool, float] = {}
    for switched_on in (False, True):
        candidate = Candidate.of("thompson", reset_on_drift=switched_on)
        player = RouterPlayer(
            specs=draw_prices(data, seed=0),
            candidate=candidate,
            dim=features.shape[1],
            embedder=embedder.identity,
            preference=(1.0, 0.0, 0.0),
            rng=np.random.default_rng(7),
        )
        chosen = []
        for row in range(600):
            (choice,) = player.decide(features[[row]], TOKENS)
            arm = data.models.index(choice.model or "")
            truth = data.quality if row < 300 else broken
            player.feed(choice, quality=float(truth[row, arm]), cost_usd=1e-3)
            chosen.append(arm)
        late[switched_on] = float(np.mean(np.array(chosen[320:400]) == 2))
        resets = player.fold.version - 4 - 2 * 600
        assert (resets > 0) == switched_on
        assert player.fold.drift.alarms() == {} or not switched_on
    assert late[True] < 0.15 < late[False]


def test_models_come_go_and_change_price_in_a_replay() -> None:
    plan = experiment()
    player = RouterPlayer(
        specs=draw_prices(plan.dataset, seed=1)[:2],
        candidate=LINUCB,
        dim=plan.features.shape[1],
        embedder=plan.embedder,
        preference=plan.preference,
        rng=np.random.default_rng(2),
    )
    specs = draw_prices(plan.dataset, seed=1)
    before = player.updated_router().decide(player.requests(plan.features[:1], TOKENS))
    assert [model.name for model in before.scored.columns.models] == list(plan.dataset.models[:2])
    dearer = specs[1].model_copy(update={"output_price": 2.0 * specs[1].output_price})
    player.offer(ModelsOnOffer([specs[0], dearer, specs[2]], draining={specs[0].name}))
    after = player.updated_router().decide(player.requests(plan.features[:1], TOKENS))
    assert [model.name for model in after.scored.columns.models] == list(plan.dataset.models)
    assert after.scored.cost_usd[0, 1] == pytest.approx(2.0 * before.scored.cost_usd[0, 1])
    assert after.pmf[0, 0] == 0.0 and player.fold.version == 4

"""Replay: it learns, it repeats, and it folds exactly what the daemon would log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from banditroute.embedding import make_embedder
from banditroute.learner import rebuild
from banditroute.store import codec, engine, feedback, log
from sim.errors import InputError
from sim.metrics import stage_of
from sim.prices import drawn
from sim.replay import Contender, Experiment, Replayer, Split, run, run_all
from sim.synthetic import generate

LINUCB = Contender(label="linucb", name="linucb", params={})


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


def test_learning_beats_the_zero_router_where_context_pays() -> None:
    plan = experiment(800)
    runs = run_all(plan, [LINUCB, Contender("random", "random", {})], range(3))
    learned, random = stage_of(title="", says="", traces=runs, budget_rate=None).contenders
    gain, chance = learned.metrics["difference"].mean, random.metrics["difference"].mean
    assert gain is not None and gain > 0.03
    assert chance == pytest.approx(0.0, abs=0.04)
    assert [one.mean for one in random.share.values()] == pytest.approx([1 / 3] * 3, abs=0.06)
    assert random.metrics["propensity"].mean == pytest.approx(1 / 3)
    assert random.metrics["entropy"].mean == pytest.approx(np.log(3))


def test_same_seed_same_bits_whatever_the_number_of_processes() -> None:
    plan = experiment()
    alone = run_all(plan, [LINUCB], range(2), jobs=1)
    together = run_all(plan, [LINUCB], range(2), jobs=2)
    assert [one.digest for one in alone] == [one.digest for one in together]
    assert [one.chosen.tolist() for one in alone] == [one.chosen.tolist() for one in together]
    assert alone[0].digest != alone[1].digest


def test_every_row_is_learned_and_the_second_half_is_scored() -> None:
    plan = experiment(split=Split(fraction=0.25))
    fixed = Contender("fixed:arm=coder", "fixed", {"arm": "coder"})
    result = run(plan, fixed, seed=5)
    order = np.random.default_rng([5, 0]).permutation(120)
    scored = order[30:]
    coder = plan.dataset.models.index("coder")
    assert result.chosen.tolist() == [coder] * 90
    assert result.world.rows.tolist() == scored.tolist()
    assert result.world.quality.tolist() == plan.dataset.quality[scored].tolist()
    assert result.propensity.tolist() == [1.0] * 90
    assert result.entropy.tolist() == [0.0] * 90


def test_named_splits_are_learned_from_and_scored() -> None:
    plan = experiment()
    names = ("val",) * 50 + ("other",) * 10 + ("test",) * 60
    data = replace(plan.dataset, split=names)
    learned, scored = Split(learn="val", test="test").rows(data, np.random.default_rng(0))
    assert sorted(learned) == list(range(50))
    assert sorted(scored) == list(range(60, 120))
    assert learned.tolist() != sorted(learned)
    with pytest.raises(InputError, match=r"--test-split: .*'tset'.*'other', 'test', 'val'"):
        Split(learn="val", test="tset").rows(data, np.random.default_rng(0))


def test_fraction_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="--learn-fraction"):
        Split(fraction=0.999).rows(experiment(10).dataset, np.random.default_rng(0))


def test_labels_of_other_models_are_never_seen() -> None:
    """Spoiling what was not chosen changes nothing in what was learned."""
    plan = experiment()
    honest = run(plan, LINUCB, seed=1)
    chosen = _chosen(plan, seed=1)
    quality, cost = np.zeros_like(plan.dataset.quality), plan.dataset.cost.copy()
    for row, arm in chosen.items():
        quality[row, arm] = plan.dataset.quality[row, arm]
    spoiled = replace(plan.dataset, quality=quality, cost=cost)
    assert run(replace(plan, dataset=spoiled), LINUCB, seed=1).digest == honest.digest


def _chosen(plan: Experiment, *, seed: int) -> dict[int, int]:
    replayer = _replayer(plan, seed=seed)
    chosen = {}
    for row in np.random.default_rng([seed, 0]).permutation(len(plan.dataset)).tolist():
        tokens = float(len(plan.dataset.prompts[row].encode()))
        decisions = replayer.decide(plan.features[row], tokens)
        arm = chosen[row] = int(decisions.chosen[0])
        quality, cost = plan.dataset.quality[row, arm], plan.dataset.cost[row, arm]
        replayer.feed(decisions, quality=float(quality), cost=float(cost))
    return chosen


def _replayer(plan: Experiment, *, seed: int) -> Replayer:
    return Replayer(
        specs=drawn(plan.dataset, seed=seed),
        contender=LINUCB,
        dim=plan.features.shape[1],
        embedder=plan.embedder,
        preference=plan.preference,
        rng=np.random.default_rng([seed, 1]),
    )


def test_fold_equals_the_one_rebuilt_from_the_daemons_log(tmp_path: Path) -> None:
    plan = experiment(40)
    replayer = _replayer(plan, seed=0)
    database = engine.open_engine(f"sqlite:///{tmp_path / 'log.db'}")
    engine.prepare(database)
    store = log.Log(database)
    with database.begin() as connection:
        started = replayer.fold.charter.payload()
        log.append_event(connection, pool="p", kind="policy_started", payload=started, now=0)
        for name in plan.dataset.models:
            log.append_event(
                connection, pool="p", kind="model_added", payload={"name": name}, now=0
            )
    for row in range(40):
        tokens = float(len(plan.dataset.prompts[row].encode()))
        decisions = replayer.decide(plan.features[row], tokens)
        arm = int(decisions.chosen[0])
        quality, cost = float(plan.dataset.quality[row, arm]), float(plan.dataset.cost[row, arm])
        replayer.feed(decisions, quality=quality, cost=cost)
        rows = codec.encode(
            decisions, [codec.Note(id=f"d{row}")], pool="p", created_at=row, expires_at=10**9
        )
        post = feedback.Post(decision_id=f"d{row}", key="default", quality=quality, cost_usd=cost)
        with database.begin() as connection:
            log.log_decisions(connection, [log.Entry(row) for row in rows])
            assert feedback.record(connection, [post], now=row) == ["accepted"]
    rebuilt = rebuild(store, "p")
    database.dispose()
    assert rebuilt is not None
    assert rebuilt[1].digest() == replayer.fold.digest()
    assert rebuilt[1].version == replayer.fold.version == 4 + 2 * 40


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
        contender = Contender("thompson", "thompson", {}, reset_on_drift=switched_on)
        replayer = Replayer(
            specs=drawn(data, seed=0),
            contender=contender,
            dim=features.shape[1],
            embedder=embedder.identity,
            preference=(1.0, 0.0, 0.0),
            rng=np.random.default_rng(7),
        )
        chosen = []
        for row in range(600):
            decided = replayer.decide(features[row], 100.0)
            arm = int(decided.chosen[0])
            truth = data.quality if row < 300 else broken
            replayer.feed(decided, quality=float(truth[row, arm]), cost=1e-3)
            chosen.append(arm)
        late[switched_on] = float(np.mean(np.array(chosen[320:400]) == 2))
        resets = replayer.fold.version - 4 - 2 * 600
        assert (resets > 0) == switched_on
        assert replayer.fold.drift.alarms() == {} or not switched_on
    assert late[True] < 0.15 < late[False]


def test_models_come_go_and_change_price_in_a_replay() -> None:
    plan = experiment()
    replayer = Replayer(
        specs=drawn(plan.dataset, seed=1)[:2],
        contender=LINUCB,
        dim=plan.features.shape[1],
        embedder=plan.embedder,
        preference=plan.preference,
        rng=np.random.default_rng(2),
    )
    specs = drawn(plan.dataset, seed=1)
    before = replayer.decide(plan.features[0], 100.0)
    assert [model.name for model in before.frame.models] == list(plan.dataset.models[:2])
    dearer = specs[1].model_copy(update={"output_price": 2.0 * specs[1].output_price})
    replayer.offer([specs[0], dearer, specs[2]], draining={specs[0].name})
    after = replayer.decide(plan.features[0], 100.0)
    assert [model.name for model in after.frame.models] == list(plan.dataset.models)
    assert after.cost[0, 1] == pytest.approx(2.0 * before.cost[0, 1])
    assert after.pmf[0, 0] == 0.0 and replayer.fold.version == 4

"""Drift from end to end: an alarm becomes one reset, and only that changes the policy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, insert
from sqlalchemy.exc import IntegrityError
from support.routers import ABLE, BEST, CHEAP, asks_of, fold_of, router_of, verdicts
from support.served_daemon import LEARNED_WITHIN_S, Served, serve
from support.small_log import Book

from banditroute.learn import learner as learner_module
from banditroute.learn.fold import Event, Fold
from banditroute.learn.learner import rebuild
from banditroute.service import service
from banditroute.store.feedback import Post, default_expired
from banditroute.store.log import append_resets
from banditroute.store.tables import events
from banditroute.store.verify import audit
from policies import POLICIES, Outcome

POOL = [CHEAP, ABLE, BEST]


def say(book: Book, quality: float, n: int) -> None:
    """Answer `n` decisions of one model with `quality`, give or take a little."""
    _, ids = book.decide(n, models=[frozenset({"large"})] * n)
    noise = 0.03 * book.rng.normal(size=n)
    book.send(
        *(Post(one, "k", quality=quality + e) for one, e in zip(ids, noise.tolist(), strict=True))
    )


def fallen(engine: Engine, **options: Any) -> Book:
    """Return a pool whose model ``large`` was good for 100 outcomes and bad for the next 10."""
    book = Book(engine, **options)
    say(book, 0.9, 100)
    say(book, 0.6, 10)
    return book


def fold(book: Book, **how: Any) -> Fold:
    built = rebuild(book.log, book.pool, **how)
    assert built is not None
    return built[1]


def reset(book: Book) -> list[int]:
    one = fold(book)
    with book.begin() as connection:
        return append_resets(
            connection,
            pool=book.pool,
            policy=one.policy_identity.id,
            alarms=one.drift.alarms(),
            now_us=book.now,
        )


def level(one: Fold) -> float:
    """Return the estimated quality of ``large`` at the intercept."""
    x = np.zeros((1, one.policy_identity.dim), dtype=np.float32)
    x[0, -1] = 1.0
    one.policy.refresh()
    mean, _ = one.policy.estimate(x)
    return float(mean[0, one.policy.arms.index("large")])


def test_an_alarm_is_shown_but_changes_nothing(engine: Engine) -> None:
    book = fallen(engine)
    one = fold(book)
    (trigger,) = one.drift.alarms().values()
    seqs = [event.seq for event in book.events() if event.field == "quality"]
    assert one.drift.alarms() == {"large": trigger} and seqs[100] < trigger <= seqs[-1]
    assert one.snapshot().alarms() == {"large": trigger}
    assert level(one) > 0.8


def test_a_reset_is_appended_once_and_moves_the_level_alone(engine: Engine) -> None:
    book = fallen(engine)
    before = fold(book)
    (seq,) = reset(book)
    assert reset(book) == [], "the alarm does not stand any more"
    with book.begin() as connection:
        again = append_resets(
            connection,
            pool=book.pool,
            policy=before.policy_identity.id,
            alarms=before.drift.alarms(),
            now_us=book.now,
        )
    assert again == [], "and a late second answer to it is none"
    row = book.events()[-1]
    assert (row.seq, row.kind, row.arm) == (seq, "reset", "large")
    assert row.policy == before.policy_identity.id
    after = fold(book)
    assert level(after) < level(before) - 0.1
    small = before.policy.arms.index("small")
    for name, array in before.policy.state().items():
        if array.ndim and len(array) == 3:
            assert np.array_equal(array[small], after.policy.state()[name][small]), name


def test_an_answer_to_an_alarm_that_was_withdrawn_changes_nothing(engine: Engine) -> None:
    """The snapshot that an answer comes from may be behind the log."""
    book = fallen(engine)
    stale = fold(book)
    say(book, 0.9, 200)
    before = fold(book)
    assert stale.drift.alarms() and not before.drift.alarms()
    with book.begin() as connection:
        (_,) = append_resets(
            connection,
            pool=book.pool,
            policy=stale.policy_identity.id,
            alarms=stale.drift.alarms(),
            now_us=book.now,
        )
    after = fold(book)
    assert after.version == before.version + 1 and after.digest() == before.digest()


def test_the_database_refuses_a_second_reset_of_one_alarm(engine: Engine) -> None:
    book = fallen(engine)
    (_,) = reset(book)
    (row,) = [dict(event._mapping) for event in book.events() if event.kind == "reset"]
    del row["seq"]
    with pytest.raises(IntegrityError), book.begin() as connection:
        connection.execute(insert(events), row)
    other = row | {"policy": "another-policy"}
    with book.begin() as connection:
        connection.execute(insert(events), other)


def test_replays_checkpoints_and_restarts_fold_resets_alike(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner_module, "CHECKPOINT_EVERY", 40)
    book = fallen(engine, policy="thompson")
    reset(book)
    say(book, 0.6, 40)
    say(book, 0.9, 30)
    reset(book)
    assert [event.kind for event in book.events()].count("reset") == 2
    kept: list[learner_module.Checkpoint] = []
    tailing = learner_module.Learner(book.log, keep=kept.append)
    whole = fold(book, checkpoints=False)
    assert tailing.fold("default").digest() == whole.digest()  # type: ignore[union-attr]
    restored = Fold.restore(whole.policy_identity, whole.version, whole.dump())
    assert restored.digest() == whole.digest()
    assert restored.drift.state().keys() == whole.drift.state().keys()


def test_a_reset_in_a_log_of_another_policy_counts_as_well(engine: Engine) -> None:
    """That the model changed is a fact about the model; the next policy must not unlearn it."""
    book = fallen(engine)
    reset(book)
    book.start("thompson")
    learned = fold(book)
    assert not learned.drift.alarms() and learned.snapshot().drift["suspect"].tolist() == [
        False,
        True,
        False,
    ]


def test_after_a_rollback_the_alarm_may_be_raised_again(engine: Engine) -> None:
    book = fallen(engine)
    (trigger,) = fold(book).drift.alarms().values()
    reset(book)
    book.append("rollback", version=trigger)
    assert fold(book).drift.alarms() == {}
    say(book, 0.6, 20)
    (again,) = fold(book).drift.alarms().values()
    assert again > trigger and len(reset(book)) == 1
    assert book.digest() == book.digest(checkpoints=True)


def test_rewards_that_never_came_are_no_drift(engine: Engine) -> None:
    book = Book(engine)
    say(book, 0.9, 100)
    book.decide(40, models=[frozenset({"large"})] * 40)
    with book.begin() as connection:
        assert (
            default_expired(connection, pool="default", quality=0.0, now_us=book.now + 10**12) == 40
        )
    one = fold(book)
    assert one.policy.clock == 140 and not one.drift.alarms()


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_can_live_with_a_reset(policy: str) -> None:
    one = fold_of(
        "cheap", "able", "best", policy=policy, **({"arm": "able"} if policy == "fixed" else {})
    )
    one.apply(Event(one.version + 1, "p", "reset", payload={"arm": "best"}))
    decided = router_of(one.snapshot(), POOL).decide(asks_of(20))
    assert np.allclose(decided.pmf.sum(axis=1), 1.0)


def suspicious(policy: str = "linucb") -> Fold:
    """Return a fold in which ``best`` was found worse."""
    one = fold_of("cheap", "able", "best", policy=policy)
    x = np.zeros(one.policy_identity.dim, dtype=np.float32)
    x[-1] = 1.0
    arms: Sequence[tuple[str, float]] = [("able", 0.9), ("best", 0.9)] * 60 + [("best", 0.2)] * 20
    for k, (arm, quality) in enumerate(arms):
        seq = one.version + 1
        outcome = Outcome(seq, f"d{k}", arm, x, "quality", quality + 0.02 * (-1) ** (k // 2))
        one.apply(
            Event(seq, "p", "feedback", outcome=outcome, embedder=one.policy_identity.embedder)
        )
    for arm, trigger in one.drift.alarms().items():
        payload = {"arm": arm, "trigger_seq": trigger}
        one.apply(Event(one.version + 1, "p", "reset", payload=payload))
    return one


@pytest.mark.parametrize("policy", ["linucb", "thompson", "epsilon-greedy"])
def test_a_suspect_keeps_a_share_that_is_exact_and_capped(policy: str) -> None:
    one = suspicious(policy)
    assert one.snapshot().drift["suspect"].tolist() == [False, False, True]
    off = router_of(one.snapshot(), POOL, recheck_share=0.1).decide(asks_of(30))
    assert not off.explore.any(), "switched off"
    wide = {"recheck_share": 0.1, "exploration_cost_share": 1e6, "reset_on_drift": True}
    on = router_of(one.snapshot(), POOL, **wide).decide(asks_of(30))
    assert (on.explore[:, 2] == 0.1).all() and not on.explore[:, :2].any()
    np.testing.assert_allclose(on.pmf, 0.9 * off.pmf + on.explore, rtol=0, atol=1e-12)
    assert verdicts(on)["best"] == "eligible"
    tight = router_of(one.snapshot(), POOL, **(wide | {"exploration_cost_share": 0.01}))
    assert (tight.decide(asks_of(30)).explore[:, 2] < 0.1).all()


def test_a_suspect_share_is_logged_so_that_the_pmf_can_be_recomputed(engine: Engine) -> None:
    book = fallen(engine, recheck_share=0.2, exploration_cost_share=1e6, reset_on_drift=True)
    reset(book)
    decided, _ = book.decide(20)
    assert (
        decided.explore[:, decided.scored.columns.snapshot.policy.arms.index("large")] == 0.2
    ).all()
    found = audit(book.log, "default")
    assert found.decisions == 130 and found.sound()


MODELS = [
    {"name": "small", "input_price": 0.1, "output_price": 0.5},
    {"name": "large", "input_price": 0.1, "output_price": 0.5},
]


def answer(daemon: Served, quality: float, n: int) -> None:
    rows = [{"prompt": f"question {k}", "models": ["large"]} for k in range(n)]
    decided = daemon.post("/v1/route/batch", {"requests": rows}).json()["decisions"]
    feedback = [
        {"decision_id": one["decision_id"], "quality": quality + 0.02 * (k % 3)}
        for k, one in enumerate(decided)
    ]
    assert daemon.post("/v1/feedback/batch", {"feedback": feedback}).status_code == 200


def eventually(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LEARNED_WITHIN_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def gauge(daemon: Served, name: str, model: str) -> float:
    line = f'banditroute_{name}{{model="{model}",pool="default"}} '
    (found,) = [one for one in daemon.client.get("/metrics").text.splitlines() if line in one]
    return float(found.removeprefix(line))


@pytest.mark.parametrize("switched_on", [True, False])
def test_the_daemon_answers_an_alarm_when_told_to_and_shows_it_always(
    tmp_path: Path,
    switched_on: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(service, "HOUSEKEEPING_S", 0.01)
    pools = {"default": {"models": MODELS, "reset_on_drift": switched_on, "policy": "linucb"}}
    path = tmp_path / "drift.db"
    with caplog.at_level(logging.WARNING), serve(path, pools=pools) as daemon:
        answer(daemon, 0.9, 100)
        answer(daemon, 0.5, 30)
        if switched_on:
            # Not before: the log grows by the reset while one waits for its end to be folded.
            eventually(lambda: any(row["kind"] == "reset" for row in daemon.rows("events")))
            assert gauge(daemon, "suspect_model", "large") in (0.0, 1.0)
            state = daemon.policy()
            assert gauge(daemon, "suspect_model", "large") == 1.0
            assert gauge(daemon, "drift_ratio", "large") > -1.0
            # The writer wakes the learner before it resolves the commit's caller.
            eventually(lambda: "pool default: drift alarm, reset of large" in caplog.text)
        else:
            for _ in range(3):
                state = daemon.policy()
            assert gauge(daemon, "drift_ratio", "large") <= -1.0
            assert gauge(daemon, "suspect_model", "large") == 0.0
        assert gauge(daemon, "drift_ratio", "small") == 0.0
    kinds = [row["kind"] for row in daemon.rows("events")]
    assert kinds.count("reset") == int(switched_on)
    assert state["digest"] == daemon.rebuilt_digest()
    with serve(path, pools=pools) as again:
        assert again.policy()["digest"] == state["digest"]
        answer(again, 0.5, 5)
        again.policy()
        assert gauge(again, "suspect_model", "large") == float(switched_on)
    assert [row["kind"] for row in again.rows("events")].count("reset") == int(switched_on)

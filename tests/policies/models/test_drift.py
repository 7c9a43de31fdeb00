"""The change detector: quiet while nothing changes, prompt when an arm does, and exact as state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
from support.policy_cases import same_bits

from policies import Outcome
from policies.models.drift import FALSE_ALARM_EVERY, THRESHOLDS, TILTS, Drift

DIM = 4
SLOPES = np.array([0.05, -0.03, 0.02, 0.0])
Reward = Callable[[np.random.Generator], float]


def contexts(n: int, seed: int) -> np.ndarray:
    x = np.random.default_rng([1, seed]).normal(size=(n, DIM)).astype(np.float32)
    x[:, -1] = 1.0
    return x


def stream(
    n: int, reward: Reward, *, arm: str = "a", seed: int = 0, at: int = 1
) -> Iterator[Outcome]:
    rng = np.random.default_rng([2, seed])
    for seq, x in enumerate(contexts(n, seed), start=at):
        value = float(np.clip(reward(rng) + x @ SLOPES, 0.0, 1.0))
        yield Outcome(seq, f"d{seq}", arm, x, "quality", value)


def normal(level: float, sd: float = 0.1) -> Reward:
    return lambda rng: level + sd * rng.normal()


def binary(level: float) -> Reward:
    return lambda rng: float(rng.random() < level)


def watching(*arms: str) -> Drift:
    drift = Drift(dim=DIM)
    for arm in arms:
        drift.add_arm(arm)
    return drift


def feed(drift: Drift, outcomes: Iterable[Outcome]) -> int:
    """Learn until an alarm stands, or to the end; return the number of learned outcomes."""
    learned = 0
    for outcome in outcomes:
        drift.learn(outcome)
        learned += 1
        if drift.alarms():
            break
    return learned


def answered(drift: Drift, trigger: int) -> tuple[float, float]:
    answer = drift.reset("a", trigger)
    assert answer is not None
    return answer


@pytest.mark.parametrize(("tilt", "threshold"), list(zip(TILTS, THRESHOLDS, strict=True)))
def test_the_threshold_is_siegmund_s(tilt: float, threshold: float) -> None:
    k, reach = abs(tilt) / 2.0, threshold / abs(tilt) + 1.166
    run_length = (math.exp(2.0 * k * reach) - 2.0 * k * reach - 1.0) / (2.0 * k * k)
    assert run_length == pytest.approx(len(TILTS) * FALSE_ALARM_EVERY)


@pytest.mark.parametrize(
    "reward", [normal(0.6), normal(0.9, 0.3), binary(0.5), binary(0.93), lambda _: 0.8]
)
def test_false_alarms_are_as_rare_as_they_are_said_to_be(reward: Reward) -> None:
    """Of 30,000 outcomes of three arms 3 false alarms are expected; 9 have a chance below 1/250."""
    alarms = 0
    for seed in range(3):
        drift = watching("a")
        for outcome in stream(10_000, reward, seed=seed):
            drift.learn(outcome)
            for arm, trigger in drift.alarms().items() if outcome.seq % 50 == 0 else ():
                alarms += 1
                drift.reset(arm, trigger)
    assert alarms < 9


@pytest.mark.parametrize(
    ("before", "after", "within", "better"),
    [
        (normal(0.8), normal(0.6), 15, False),
        (normal(0.6), normal(0.8), 15, True),
        (normal(0.8), normal(0.7), 40, False),
        (normal(0.8), normal(0.75), 250, False),
        (binary(0.8), binary(0.5), 90, False),
        (binary(0.8), binary(0.6), 250, False),
        (binary(0.5), binary(0.8), 90, True),
        (normal(0.92), lambda _: 0.75, 20, False),
    ],
)
def test_a_change_is_detected(before: Reward, after: Reward, within: int, better: bool) -> None:
    delays = []
    for seed in range(5):
        drift = watching("a")
        for outcome in stream(600, before, seed=seed):
            drift.learn(outcome)
            for arm, trigger in drift.alarms().items():  # one outcome in 10,000 is a false one
                drift.reset(arm, trigger)
        delays.append(feed(drift, stream(2_000, after, seed=seed + 50, at=601)))
        assert (drift.publish()["level"][0] >= 1.0) == better
        assert (drift.publish()["level"][0] <= -1.0) == (not better)
    assert np.median(delays) <= within


def test_a_change_does_not_explain_itself_away_while_it_is_looked_into() -> None:
    """Above half of h, the 256th outcome does not make the worse level the expected one."""
    drift = watching("a")
    assert feed(drift, stream(251, normal(0.8), seed=3)) == 251
    expected = drift.expected.copy()
    assert feed(drift, stream(9, lambda _: 0.6, seed=4, at=252)) > 5
    assert drift.alarms() and np.array_equal(drift.expected, expected)


def test_one_wild_reward_is_no_change() -> None:
    drift = watching("a")
    assert feed(drift, stream(400, normal(0.9, 0.02))) == 400
    drift.learn(Outcome(401, "d", "a", contexts(1, 9)[0], "quality", 0.0))
    assert not drift.alarms() and drift.publish()["level"][0] < 0.0


def test_nothing_is_compared_before_the_arm_has_20_outcomes() -> None:
    drift = watching("a")
    for outcome in stream(20, normal(0.2, 0.3)):
        drift.learn(outcome)
        assert drift.publish()["level"][0] == 0.0


def test_only_the_arm_that_changed_is_named_with_the_event_of_the_alarm() -> None:
    drift = watching("a", "b")
    for one, other in zip(
        stream(200, normal(0.8)), stream(200, normal(0.5), arm="b", seed=1), strict=True
    ):
        drift.learn(one)
        drift.learn(other)
    count = feed(drift, stream(50, normal(0.3), arm="b", seed=2, at=1_000))
    assert drift.alarms() == {"b": 999 + count}


def test_an_alarm_stands_while_the_excess_lasts_and_changes_nothing() -> None:
    drift = watching("a")
    feed(drift, stream(300, normal(0.8)))
    feed(drift, stream(50, normal(0.5), seed=1, at=301))
    (trigger,) = drift.alarms().values()
    after = list(stream(400, normal(0.8), seed=2, at=500))
    drift.learn(after[0])
    assert drift.alarms() == {"a": trigger}
    for outcome in after[1:]:
        drift.learn(outcome)
    assert drift.alarms() == {}, "it went on as before, so the alarm is gone"


def test_a_reset_says_how_far_and_starts_anew() -> None:
    drift = watching("a")
    feed(drift, stream(300, normal(0.8)))
    feed(drift, stream(50, normal(0.6), seed=1, at=301))
    (trigger,) = drift.alarms().values()
    shift, worth = answered(drift, trigger)
    assert -0.3 < shift < -0.12 and 4.0 <= worth <= 20.0
    view = drift.publish()
    assert view["level"][0] == 0.0 and view["trigger"][0] == 0 and view["suspect"][0]
    # What it expects now is the new level, so the same rewards are no news.
    assert feed(drift, stream(300, normal(0.6), seed=5, at=400)) == 300
    # Recovery is an alarm the other way, and the arm is no suspect any more.
    feed(drift, stream(60, normal(0.8), seed=6, at=800))
    shift, _ = answered(drift, drift.alarms()["a"])
    assert shift > 0.12 and not drift.publish()["suspect"][0]


def test_a_reset_without_a_trigger_only_makes_unsure() -> None:
    drift = watching("a")
    feed(drift, stream(300, normal(0.8)))
    feed(drift, stream(50, normal(0.6), seed=1, at=301))
    assert drift.alarms()
    assert drift.reset("a") == (0.0, 2.0)
    assert not drift.publish()["suspect"][0] and not drift.alarms()


@pytest.mark.parametrize("trigger", [7, 10_000])
def test_an_answer_that_comes_too_late_changes_nothing(trigger: int) -> None:
    """The alarm was withdrawn in the meantime, or another one stands."""
    drift = watching("a")
    assert drift.reset("a", trigger) is None
    feed(drift, stream(300, normal(0.8)))
    feed(drift, stream(50, normal(0.6), seed=1, at=301))
    before, stands = drift.state(), drift.alarms()
    assert drift.reset("a", trigger) is None
    assert same_bits(drift.state(), before) and drift.alarms() == stands


def test_a_false_alarm_makes_no_suspect_for_good() -> None:
    """After a false alarm two thirds of the fall are regained, without another alarm."""
    drift = watching("a")
    feed(drift, stream(300, normal(0.8)))
    feed(drift, stream(50, normal(0.6), seed=1, at=301))
    drift.reset("a", drift.alarms()["a"])
    for outcome in stream(12, normal(0.6), seed=2, at=400):
        drift.learn(outcome)
    assert drift.publish()["suspect"][0], "still as bad as it was found"
    learned = 0
    for outcome in stream(200, normal(0.8), seed=3, at=500):
        drift._watches[0].clear()  # no alarm may help
        drift.learn(outcome)
        learned += 1
        if not drift.publish()["suspect"][0]:
            break
    assert 10 < learned < 130


def test_withdrawing_lets_no_alarm_stand_and_keeps_what_was_learned() -> None:
    drift = watching("a")
    feed(drift, stream(300, normal(0.8)))
    feed(drift, stream(50, normal(0.6), seed=1, at=301))
    expected = drift.expected.copy()
    drift.withdraw()
    assert not drift.alarms() and np.array_equal(drift.expected, expected)
    assert feed(drift, stream(50, normal(0.6), seed=2, at=400)) < 50, "and can raise another"


def test_state_is_everything_bit_for_bit() -> None:
    log = [
        outcome
        for seed, arm in enumerate("ab")
        for outcome in stream(700, normal(0.7), arm=arm, seed=seed, at=1_000 * seed + 1)
    ]
    whole, part = watching("a", "b"), watching("a", "b")
    for outcome in log[:650]:
        part.learn(outcome)
    other = Drift(dim=DIM)
    other.load(part.state())
    other.add_arm("a")  # known already
    for outcome in log:
        whole.learn(outcome)
    for outcome in log[650:]:
        other.learn(outcome)
    whole.reset("a")
    other.reset("a")
    assert same_bits(whole.state(), other.state())
    assert same_bits(whole.publish(), other.publish())


def test_an_arm_that_came_late_is_watched_too() -> None:
    drift = watching("a")
    feed(drift, stream(100, normal(0.5)))
    drift.add_arm("b")
    feed(drift, stream(200, normal(0.8), arm="b", seed=1, at=200))
    feed(drift, stream(50, normal(0.5), arm="b", seed=2, at=500))
    assert list(drift.alarms()) == ["b"]


def test_an_unknown_arm_is_a_key_error() -> None:
    (outcome,) = stream(1, normal(0.5), arm="nobody")
    for wrong in (lambda: watching("a").learn(outcome), lambda: watching("a").reset("nobody", 1)):
        with pytest.raises(KeyError, match="nobody"):
            wrong()

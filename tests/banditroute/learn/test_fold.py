"""A published snapshot never changes, whatever the fold learns later."""

from __future__ import annotations

import numpy as np
import pytest

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.decide.columns import Snapshot
from banditroute.learn.fold import Event, Fold, install
from policies import POLICIES
from policies.base import Outcome

DIM = 5
ASKED = np.array([[0.7, 0.3, 0.0]])


def events(first: int, count: int, arms: str) -> list[Event]:
    rng = np.random.default_rng(first)
    found = []
    for seq in range(first, first + count):
        x = np.append(rng.normal(size=DIM - 1), 1.0).astype(np.float32)
        arm, field = arms[seq % len(arms)], ("quality", "cost", "latency")[seq % 3]
        outcome = Outcome(
            seq=seq,
            decision_id=f"d{seq}",
            arm=arm,
            x=x,
            field=field,
            value=float(rng.random()),
            cost_usd=float(rng.random()) * 1e-3,
            propensity=0.5,
            preference=(0.7, 0.3, 0.0),
            cost_prior_usd=2e-3,
            input_cost_usd=1e-3,
        )
        found.append(Event(seq, "pool", "feedback", outcome, "mine"))
    return found


def contents(snapshot: Snapshot) -> dict[str, bytes | list[str]]:
    """Return all that a router reads of a snapshot, bit for bit."""
    x = np.append(np.linspace(-1.0, 1.0, DIM - 1), 1.0).astype(np.float32)[None]
    scores, mean, std = snapshot.policy.assess(x, ASKED)
    arms = len(snapshot.policy.arms)
    cost = snapshot.cost.predict(x, np.full((1, arms), 1e-3), np.full(arms, 1e-3))
    read = {**scores, **snapshot.policy.view, **snapshot.drift, "mean": mean, "std": std}
    read |= {"cost": cost, "weighed": snapshot.policy.weighed(x, ASKED)}
    read |= {"latency": snapshot.latency.predict(1)}
    plain = {name: np.ascontiguousarray(array).tobytes() for name, array in read.items()}
    return plain | {"names": list(snapshot.policy.arms)}


@pytest.mark.parametrize("name", POLICIES)
def test_a_snapshot_stays_as_it_was_published(name: str) -> None:
    params: dict[str, object] = {"arm": "a"} if name == "fixed" else {}
    fold = Fold(PolicyIdentity(name, params, "mine", DIM, tau_cost_usd=1e-2, tau_latency_ms=1e3))
    for seq, arm in enumerate("abc", start=1):
        fold.apply(Event(seq, "pool", "model_added", payload={"name": arm}))
    for event in events(4, 90, "abc"):
        fold.apply(event)
    published = fold.snapshot()
    before = contents(published)
    assert before == contents(install(fold.policy_identity, fold.version, fold.publish()))
    again = fold.snapshot()
    # First with the same arms: a new arm makes new arrays, which would hide a shared one.
    for event in events(94, 45, "abc"):
        fold.apply(event)
        fold.publish()
    fold.policy.reset_arm("a", shift=-0.2)
    assert contents(fold.snapshot()) != before
    assert contents(published) == before == contents(again)
    fold.apply(Event(139, "pool", "model_added", payload={"name": "d"}))
    for event in events(140, 45, "abcd"):
        fold.apply(event)
        fold.publish()
    assert contents(published) == before == contents(again)

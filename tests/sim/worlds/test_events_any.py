"""Events that make no sense are refused; whatever else happens to a world, it stays one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from sim.data.synthetic import MODELS, generate
from sim.errors import InputError
from sim.worlds.events import (
    KINDS,
    Add,
    AnyEvent,
    Burst,
    Delay,
    Drain,
    Judge,
    Loss,
    Mix,
    Outage,
    Poison,
    PriceChange,
    Quality,
    WorldEvent,
)
from sim.worlds.world import World


def made(**keys: object) -> WorldEvent:
    """Return an event as a file gives it."""
    event: WorldEvent = TypeAdapter(AnyEvent).validate_python(keys)
    return event


@pytest.mark.parametrize("text", [1.5, 300.0, -1, -0.1, "4/3", "1/0", "x", "50%", True, None, [1]])
def test_times_that_are_refused(text: object) -> None:
    with pytest.raises(ValidationError, match="a share of the world from 0 to 1"):
        made(kind="drain", model="best", at=text)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "quality", "model": "best"}, "one of set, scale, shift is expected, and none"),
        ({"kind": "quality", "model": "best", "set": 1, "scale": 1}, "not set and scale"),
        ({"kind": "outage"}, "one of models, prefix is expected"),
        ({"kind": "outage", "models": []}, "at least 1 item"),
        ({"kind": "delay"}, "one of seconds, mean is expected"),
        ({"kind": "delay", "seconds": 1, "from": "2/3", "to": "1/3"}, "to must come after from"),
        ({"kind": "delay", "seconds": 1, "from": 7, "to": 7}, "to must come after from"),
        ({"kind": "delay", "seconds": -1}, "seconds from 0"),
        ({"kind": "delay", "seconds": float("nan")}, "seconds from 0"),
        ({"kind": "delay", "seconds": []}, "seconds from 0"),
        ({"kind": "delay", "seconds": [1, "x"]}, "seconds from 0"),
        ({"kind": "judge"}, "at least one of scale, shift, noise, bias is expected"),
        ({"kind": "poison", "share": 1, "value": 2}, 'from 0 to 1 or "inverted" is expected'),
        ({"kind": "poison", "share": 1, "value": "low"}, 'from 0 to 1 or "inverted" is expected'),
        ({"kind": "loss", "share": 1.1}, "less than or equal to 1"),
        ({"kind": "price", "model": "best", "factor": -1}, "greater than or equal to 0"),
        ({"kind": "burst", "factor": 0}, "greater than"),
        ({"kind": "mix", "tasks": [], "share": 1}, "at least 1 item"),
    ],
)
def test_events_that_make_no_sense(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        made(**keys)


def test_kinds_are_all_events() -> None:
    for kind, event in KINDS.items():
        assert event.model_fields["kind"].default == kind


shares = st.floats(0, 1)
parts = st.lists(st.fractions(0, 1, max_denominator=20), min_size=2, max_size=2, unique=True).map(
    lambda two: {"since": min(two), "until": max(two)}
)
names = st.sampled_from([*MODELS, "best", "second", "worst", "dearest", "cheapest"])
times = st.fractions(0, 1, max_denominator=20)
events = st.one_of(
    st.builds(lambda m, v, p: Quality(model=m, set=v, **p), names, shares, parts),
    st.builds(lambda m, v, p: Quality(model=m, scale=v, **p), names, st.floats(0, 9), parts),
    st.builds(lambda m, v, p: Quality(model=m, shift=v, **p), names, st.floats(-1, 1), parts),
    st.builds(lambda m, f, p: PriceChange(model=m, factor=f, **p), names, st.floats(0, 99), parts),
    st.builds(Add, model=names, at=times),
    st.builds(Drain, model=names, at=times),
    st.builds(lambda f, p: Burst(factor=f, **p), st.floats(0.01, 100), parts),
    st.builds(lambda m, p: Delay(mean=m, **p), st.floats(0.01, 1e6), parts),
    st.builds(lambda s, m, p: Loss(share=s, model=m, **p), shares, names, parts),
    st.builds(lambda s, b, p: Loss(share=s, below=b, **p), shares, shares, parts),
    st.builds(lambda s, v, p: Poison(share=s, value=v, **p), shares, shares, parts),
    st.builds(lambda s, p: Poison(share=s, value="inverted", **p), shares, parts),
    st.builds(
        lambda a, b, sd, m, p: Judge(scale=a, shift=b, noise=sd, bias={m: 0.1}, **p),
        *(st.floats(-2, 2), st.floats(-2, 2), st.floats(0, 2), names, parts),
    ),
    st.builds(lambda m, p: Outage(models=[m], **p), names, parts),
    st.builds(lambda p: Mix(tasks=["hard"], share=0.5, **p), parts),
)


@given(st.lists(events, max_size=6), st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_composition_leaves_a_world(events: list[WorldEvent], rows: int, seed: int) -> None:
    then = World.from_dataset(generate(rows=rows, seed=seed).dataset, np.arange(rows))
    for event in events:
        try:
            then = event.apply(then, np.random.default_rng(seed))
        except InputError as error:  # a mix may lack rows
            assert isinstance(event, Mix), error
    shape = (rows, len(MODELS))
    columns = (
        then.quality,
        then.judged,
        then.cost_usd,
        then.price_factor,
        then.offered,
        then.delay_s,
    )
    assert {column.shape for column in columns} == {shape}
    assert len(then.task) == len(then.time_s) == len(then) == rows
    assert sorted(then.rows.tolist()) == list(range(rows))
    assert then.time_s[0] == 0.0
    assert (np.diff(then.time_s) >= 0.0).all()
    for quality in (then.quality, then.judged):
        assert ((quality >= 0.0) & (quality <= 1.0)).all()
    for amount in (then.cost_usd, then.price_factor, then.delay_s):
        assert (amount >= 0.0).all()
    assert np.isfinite(then.cost_usd).all()
    assert [c.request for c in then.changes] == sorted(c.request for c in then.changes)
    assert all(0 <= change.request < rows for change in then.changes)

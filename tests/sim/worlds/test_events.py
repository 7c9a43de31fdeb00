"""Each event does to a world what it says, and nothing else."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction

import numpy as np
import pytest
from pydantic import TypeAdapter

from sim.data.dataset import Dataset
from sim.errors import InputError
from sim.worlds.events import (
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
from sim.worlds.roles import Roles
from sim.worlds.world import World, WorldChange

MODELS = ("a/cheap", "b/good", "b/dear")
QUALITY = (0.4, 0.8, 0.6)
COST = (1e-4, 1e-3, 1e-2)
THIRD, TWO_THIRDS = Fraction(1, 3), Fraction(2, 3)


def dataset(rows: int = 9) -> Dataset:
    """Return rows of tasks x, x, y in turn; y is harder by 0.1 for every model."""
    task = tuple("xxy"[i % 3] for i in range(rows))
    harder = np.array([0.1 if one == "y" else 0.0 for one in task])
    return Dataset(
        name="made",
        prompts=tuple(f"prompt {i}" for i in range(rows)),
        task=task,
        split=("",) * rows,
        models=MODELS,
        quality=np.array(QUALITY) - harder[:, None],
        cost_usd=np.tile(COST, (rows, 1)),
    )


def world(rows: int = 9) -> World:
    return World.from_dataset(dataset(rows), np.arange(rows))


def after(event: WorldEvent, before: World | None = None, *, seed: int = 0) -> World:
    return event.apply(before or world(), np.random.default_rng(seed))


def made(**keys: object) -> WorldEvent:
    """Return an event as a file gives it."""
    event: WorldEvent = TypeAdapter(AnyEvent).validate_python(keys)
    return event


def differ(before: World, then: World) -> set[str]:
    """Return the columns in which two worlds differ."""
    return {
        field.name
        for field in fields(World)
        if not np.array_equal(getattr(before, field.name), getattr(then, field.name))
    } - {"changes"}


def test_quality_falls_and_recovers() -> None:
    before = world()
    then = after(Quality(model="b/good", scale=0.5, since=THIRD, until=TWO_THIRDS), before)
    expected = before.quality.copy()
    expected[3:6, 1] *= 0.5
    assert np.array_equal(then.quality, expected)
    assert np.array_equal(then.judged, expected)
    assert differ(before, then) == {"quality", "judged"}
    assert list(then.changes) == [
        WorldChange(3, "b/good: quality x 0.5"),
        WorldChange(6, "b/good: quality as before"),
    ]
    assert differ(world(), before) == set()  # the world that was given is as it was


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"set": 0.75}, [0.75, 0.75, 0.75]),
        ({"shift": 0.15}, [0.95, 0.95, 0.85]),
        ({"shift": 0.5}, [1.0, 1.0, 1.0]),
        ({"shift": -1.0}, [0.0, 0.0, 0.0]),
        ({"scale": 2.0}, [1.0, 1.0, 1.0]),
        ({"scale": 0.0}, [0.0, 0.0, 0.0]),
    ],
)
def test_quality_within_bounds(keys: dict[str, float], expected: list[float]) -> None:
    then = after(made(kind="quality", model="best", **keys))
    assert then.quality[:3, 1] == pytest.approx(expected)


def test_price_is_announced_or_not() -> None:
    before = world()
    then = after(PriceChange(model="dearest", factor=0.1, since=2, until=4), before)
    assert then.cost_usd[:, 2] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, *[1e-2] * 5])
    assert then.price_factor[:, 2].tolist() == [1.0, 1.0, 0.1, 0.1, *[1.0] * 5]
    assert differ(before, then) == {"cost_usd", "price_factor"}
    silent = after(
        PriceChange(model="dearest", factor=0.1, since=2, until=4, announced=False), before
    )
    assert np.array_equal(silent.cost_usd, then.cost_usd)
    assert differ(before, silent) == {"cost_usd"}
    assert silent.changes[0] == WorldChange(2, "b/dear: price x 0.1, not announced")
    twice = after(PriceChange(model="dearest", factor=3.0), then)
    assert twice.price_factor[:3, 2].tolist() == pytest.approx([3.0, 3.0, 0.3])


def test_models_come_and_go() -> None:
    then = after(Drain(model="cheapest", at=TWO_THIRDS), after(Add(model="best", at=THIRD)))
    assert then.offered[:, 0].tolist() == [True] * 6 + [False] * 3
    assert then.offered[:, 1].tolist() == [False] * 3 + [True] * 6
    assert then.offered[:, 2].all()
    assert list(then.changes) == [
        WorldChange(3, "b/good is added"),
        WorldChange(6, "a/cheap is drained"),
    ]
    assert not after(Add(model="best", at=Fraction(1))).offered[:, 1].any()
    assert after(Drain(model="best", at=Fraction(1))).offered.all()
    assert after(Add(model="best", at=Fraction(0))).changes == ()


def test_outage_answers_nothing_for_nothing() -> None:
    before = world()
    then = after(Outage(prefix="b/", since=THIRD, until=TWO_THIRDS), before)
    assert differ(before, then) == {"quality", "judged", "cost_usd"}
    for name in ("quality", "judged", "cost_usd"):
        expected = getattr(before, name).copy()
        expected[3:6, 1:] = 0.0
        assert np.array_equal(getattr(then, name), expected), name
    listed = after(
        Outage(models=["best", "b/dear", "dearest"], since=THIRD, until=TWO_THIRDS), before
    )
    assert differ(then, listed) == set()
    assert [change.label for change in listed.changes] == [
        "b/good, b/dear: outage",
        "b/good, b/dear: outage over",
    ]


def test_delays_add_up() -> None:
    then = after(Delay(seconds=60, since=THIRD), after(Delay(seconds=5, model="best")))
    assert (then.delay_s[:3, 0] == 0.0).all()
    assert (then.delay_s[:3, 1] == 5.0).all()
    assert (then.delay_s[3:, 1] == 65.0).all()
    assert (then.delay_s[3:, 2] == 60.0).all()
    assert differ(world(), then) == {"delay_s"}


def test_drawn_delays_are_the_requests_own() -> None:
    then = after(Delay(mean=60.0), world(3_000))
    assert then.delay_s.mean() == pytest.approx(60.0, rel=0.06)
    assert then.delay_s.std() == pytest.approx(60.0, rel=0.1)
    assert (then.delay_s == then.delay_s[:, :1]).all()
    seen = after(Delay(seconds=[1.0, 2.0, 4.0, 4.0]), world(4_000)).delay_s[:, 0]
    assert [float((seen == value).mean()) for value in (1.0, 2.0, 4.0)] == pytest.approx(
        [0.25, 0.25, 0.5], abs=0.03
    )


def test_loss_at_random() -> None:
    lost = np.isinf(after(Loss(share=0.3), world(3_000)).delay_s)
    assert (lost == lost[:, :1]).all()
    assert lost.mean() == pytest.approx(0.3, abs=0.03)
    assert np.isinf(after(Loss(share=1)).delay_s).all()
    assert not np.isinf(after(Loss(share=0)).delay_s).any()


def test_loss_not_at_random() -> None:
    then = after(Loss(share=1, below=0.55))
    assert np.array_equal(np.isinf(then.delay_s), then.quality < 0.55)
    then = after(Loss(share=1, above=0.55, below=0.65))
    assert np.array_equal(np.isinf(then.delay_s), (then.quality > 0.55) & (then.quality < 0.65))
    assert then.changes[0].label == "100 % of the feedback is lost where quality < 0.65 and > 0.55"
    then = after(Loss(share=1, model="b/good", since=THIRD))
    assert np.isinf(then.delay_s).sum() == 6
    assert np.isinf(then.delay_s[3:, 1]).all()
    # What never comes is not made to come by being late.
    assert np.isinf(after(Delay(seconds=1), then).delay_s).sum() == 6


def test_poison_is_told_to_the_learner_alone() -> None:
    before = world()
    then = after(Poison(share=1, value="inverted", since=THIRD, until=TWO_THIRDS), before)
    assert differ(before, then) == {"judged"}
    assert then.judged[3:6] == pytest.approx(1.0 - before.quality[3:6])
    one = after(Poison(share=1, value=1, model="cheapest"), before)
    assert (one.judged[:, 0] == 1.0).all()
    assert np.array_equal(one.judged[:, 1:], before.judged[:, 1:])
    false = after(Poison(share=0.4, value=0), world(3_000)).judged == 0.0
    assert (false == false[:, :1]).all()
    assert false.mean() == pytest.approx(0.4, abs=0.03)


def test_another_judge() -> None:
    before = world(3_000)
    then = after(Judge(scale=0.5, shift=0.1, bias={"best": -0.2}, since=1000), before)
    assert differ(before, then) == {"judged"}
    assert np.array_equal(then.judged[:1000], before.judged[:1000])
    assert then.judged[1000:] == pytest.approx(0.5 * before.quality[1000:] + [0.1, -0.1, 0.1])
    second = after(Judge(scale=0.5), then)  # it judges what the first one says
    assert second.judged == pytest.approx(0.5 * then.judged)
    noisy = after(Judge(noise=0.05), before)
    wrong = noisy.judged - before.quality
    assert wrong.std() == pytest.approx(0.05, rel=0.05)
    assert not (wrong == wrong[:, :1]).all()
    extreme = after(Judge(noise=5.0), before).judged
    assert (extreme.min(), extreme.max()) == (0.0, 1.0)


def test_burst_squeezes_the_gaps() -> None:
    before = world()
    then = after(Burst(factor=4, since=THIRD, until=TWO_THIRDS), before)
    assert then.time_s.tolist() == [0, 1, 2, 2.25, 2.5, 2.75, 3.75, 4.75, 5.75]
    assert differ(before, then) == {"time_s"}
    assert after(Burst(factor=0.5), before).time_s.tolist() == [2.0 * t for t in range(9)]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_mix_brings_tasks_to_a_part(share: float) -> None:
    before = world(300)
    then = after(Mix(tasks=["x"], share=share, since=THIRD, until=TWO_THIRDS), before)
    assert then.task[100:200].count("x") == round(100 * share)
    assert sorted(then.rows.tolist()) == list(range(300))
    data = dataset(300)
    assert then.task == tuple(data.task[i] for i in then.rows.tolist())
    assert np.array_equal(then.quality, data.quality[then.rows])
    assert np.array_equal(then.time_s, before.time_s)
    assert then.changes[0] == WorldChange(100, f"{share * 100:.3g} % of the requests are x")
    # Only rows that are in the way have moved.
    assert (then.rows != before.rows).sum() == 2 * abs(
        round(100 * share) - before.task[100:200].count("x")
    )


def test_mix_keeps_what_is_not_free() -> None:
    free = np.ones(9, dtype=np.bool_)
    free[:3] = False
    then = Mix(tasks=["x"], share=1, since=THIRD, until=TWO_THIRDS).arrange(
        world(), np.random.default_rng(0), free
    )
    assert then.rows[:3].tolist() == [0, 1, 2]
    assert then.task[3:6] == ("x", "x", "x")


def test_mix_says_what_is_missing() -> None:
    with pytest.raises(
        InputError, match="^share: needs 8 rows of these tasks, and 6 are available$"
    ):
        after(Mix(tasks=["x"], share=0.9))
    with pytest.raises(
        InputError, match="^share: needs 6 rows of other tasks, and 3 are available$"
    ):
        after(Mix(tasks=["easy"], share=0, since=THIRD))


def test_roles() -> None:
    roles = Roles.of(dataset())
    names = ("best", "second", "third", "worst", "dearest", "cheapest", "b/good")
    found = [roles.model(name, "model") for name in names]
    assert found == ["b/good", "b/dear", "a/cheap", "a/cheap", "b/dear", "a/cheap", "b/good"]
    assert roles.select_tasks(["easy"], "tasks") == ["x"]
    assert roles.select_tasks(["hard"], "tasks") == ["y"]


def test_a_model_called_as_a_role_comes_first() -> None:
    data = dataset()
    named = Dataset(
        name=data.name,
        prompts=data.prompts,
        task=("hard",) * 9,
        split=data.split,
        models=("best", "b/good", "b/dear"),
        quality=data.quality,
        cost_usd=data.cost_usd,
    )
    assert Roles.of(named).model("best", "model") == "best"
    assert Roles.of(named).select_tasks(["hard"], "tasks") == ["hard"]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Quality(model="x", set=0), "model: no model 'x'; the data has a/cheap, b/good, b/dear; "),
        (Judge(bias={"x": 0.1}), "bias.x: no model 'x'"),
        (Outage(models=["best", "x"]), "models[1]: no model 'x'"),
        (Outage(prefix="x/"), "prefix: no model name begins with 'x/'; the data has a/cheap, "),
        (Mix(tasks=["z"], share=1), "tasks: no task 'z'; the data has x, y; or easy, hard"),
        (Add(model="best", at=10), "at: request 10 is not among the 9 of this world"),
        (Delay(seconds=1, until=10), "to: request 10 is not among the 9 of this world"),
        (
            Delay(seconds=1, since=8, until=THIRD),
            "to: request 3 comes before request 8 of from",
        ),
    ],
)
def test_what_does_not_fit_the_world(event: WorldEvent, message: str) -> None:
    with pytest.raises(InputError) as caught:
        after(event)
    assert str(caught.value).startswith(message)


def test_a_role_that_few_models_lack() -> None:
    data = dataset().restrict(models=["a/cheap", "b/good"])
    with pytest.raises(InputError, match="model: no model 'third'; .*roles: best, second, worst"):
        Roles.of(data).model("third", "model")


def test_one_task_has_no_easy_half() -> None:
    data = World.from_dataset(dataset().take(np.array([0, 1, 3])), np.arange(3))
    with pytest.raises(InputError, match="tasks: 'easy' needs two tasks, and the data has one"):
        after(Mix(tasks=["easy"], share=1), data)


@pytest.mark.parametrize(
    ("text", "requests"),
    [
        ("1/3", 333),
        ("2/3", 666),
        ("0/5", 0),
        (0.1, 100),
        (0.29, 290),
        (0, 0),
        (1, 1000),
        (1.0, 1000),
        (2, 2),
        (1000, 1000),
    ],
)
def test_times(text: object, requests: int) -> None:
    """Shares are exact: 0.29 of 1,000 is 290, which 0.29 * 1000 in binary is not."""
    then = after(made(kind="drain", model="best", at=text), world(1000))
    assert int(then.offered[:, 1].sum()) == requests


def test_a_part_that_holds_no_request_changes_nothing() -> None:
    then = after(Quality(model="best", set=0, since=Fraction(1, 100), until=Fraction(1, 50)))
    assert (differ(world(), then), then.changes) == (set(), ())


def test_changes_stand_in_order_of_time() -> None:
    late = after(Quality(model="best", set=0, since=6))
    then = after(PriceChange(model="best", factor=2, since=2, until=6), late)
    assert [change.request for change in then.changes] == [2, 6, 6]
    assert then.changes[1].label == "b/good: quality 0"

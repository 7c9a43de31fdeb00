"""Training BaRP's net beforehand: masking, what it learns, and a log in place of labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.fitting import pretraining
from banditroute.fitting.pretraining import Answers, PretrainingOptions, answers_of_log, fit
from banditroute.learn.fold import Event
from banditroute.learn.prior import Prior
from policies import Outcome
from policies.barp import Barp

needs_torch = pytest.mark.minilm
DIM, TAU = 4, 0.01
MODELS = ("small", "odd", "large")


def planted(n: int = 400, *, seed: int = 0) -> Answers:
    """Return labels: large is best and dear, odd is good where the first feature is high."""
    rng = np.random.default_rng([7, seed])
    x = rng.normal(size=(n, DIM)).astype(np.float32)
    x[:, -1] = 1.0
    quality = np.column_stack([np.full(n, 0.5), 0.5 + 0.3 * np.tanh(x[:, 0]), np.full(n, 0.75)])
    quality += 0.1 * rng.normal(size=quality.shape)
    cost = np.array([1e-4, 1e-3, 1e-2]) * rng.uniform(0.8, 1.2, size=quality.shape)
    return Answers(MODELS, x, np.clip(quality, 0.0, 1.0), cost)


def masked(answers: Answers, *, seed: int = 0) -> Answers:
    """Return a uniform log of the same prompts: all but one label of each is gone."""
    given = np.random.default_rng([8, seed]).integers(3, size=len(answers.x))
    hidden = np.arange(3) != given[:, None]
    quality, cost = (np.where(hidden, np.nan, a) for a in (answers.quality, answers.cost_usd))
    return Answers(MODELS, answers.x, quality, cost, given, np.full(len(given), 1.0 / 3.0))


def played(arrays: dict[str, NDArray[Any]], first: float, weight: float) -> NDArray[np.float64]:
    policy = Barp(dim=DIM, steps=0)
    policy.tau_cost_usd = TAU
    policy.adopt(arrays)
    for name in MODELS:
        policy.add_arm(name)
    policy.refresh()
    x = np.array([[first, 0.0, 0.0, 1.0]], dtype=np.float32)
    scores = policy.score(x, np.array([[1.0 - weight, weight, 0.0]]))
    return policy.pmf(scores, np.ones((1, 3), dtype=np.bool_), np.zeros((1, 3)))[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("rate", 0.0), ("rate", float("nan")), ("batch", 0), ("seed", -1)],
)
def test_an_option_that_makes_no_sense_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        PretrainingOptions(**{field: value})  # type: ignore[arg-type]


@needs_torch
@pytest.mark.parametrize("mode", ["masked labels", "a log"])
def test_one_training_serves_every_trade_off(mode: str) -> None:
    answers = planted() if mode == "masked labels" else masked(planted())
    ticks: list[None] = []
    arrays, _ = fit(
        answers, PretrainingOptions(epochs=8), tau_cost_usd=TAU, tick=lambda: ticks.append(None)
    )
    assert len(ticks) == 8
    assert played(arrays, -1.0, 0.0).argmax() == 2
    assert played(arrays, 1.5, 0.3).argmax() == 1
    assert played(arrays, -1.5, 0.5).argmax() == 0


@needs_torch
def test_rewards_alone_train_the_net() -> None:
    """Without the anchor, only the policy gradient is left."""
    plain = Barp(dim=DIM, anchor=0.0, beta=0.02)
    options = PretrainingOptions(epochs=40, rate=0.01)
    arrays, _ = fit(masked(planted()), options, tau_cost_usd=TAU, policy=plain)
    assert played(arrays, -1.0, 0.0).argmax() == 2 and played(arrays, -1.5, 0.5).argmax() == 0


@needs_torch
def test_what_is_masked_is_never_read() -> None:
    answers = masked(planted())
    first, count = fit(answers, PretrainingOptions(epochs=2), tau_cost_usd=TAU)
    other = np.arange(3) != np.asarray(answers.logged_arm)[:, None]
    noise = np.random.default_rng(1).random(other.shape)
    changed = replace(
        answers,
        quality=np.where(other, noise, answers.quality),
        cost_usd=np.where(other, noise, answers.cost_usd),
    )
    second, _ = fit(changed, PretrainingOptions(epochs=2), tau_cost_usd=TAU)
    assert count == len(answers.x)
    assert Prior("barp", "e", first).dump() == Prior("barp", "e", second).dump()


@needs_torch
def test_of_labels_a_step_reveals_one_model_of_a_prompt() -> None:
    answers = planted(100)
    arrays, count = fit(answers, PretrainingOptions(epochs=1), tau_cost_usd=TAU)
    assert count == arrays["count"].sum() == arrays["spend_count"].sum() == 100.0
    # Five passes make 500 draws; an answer that comes up again is no second outcome.
    arrays, count = fit(answers, PretrainingOptions(epochs=5), tau_cost_usd=TAU)
    assert 100 < count == arrays["count"].sum() == arrays["spend_count"].sum() <= 300


@needs_torch
def test_importance_weights_undo_who_was_asked() -> None:
    """Only the log's propensity tells a model that was seldom asked from one that is seldom good."""
    answers = masked(planted())
    even, odd = (
        fit(
            replace(answers, propensity=np.full(400, p)),
            PretrainingOptions(epochs=2),
            tau_cost_usd=TAU,
            policy=Barp(dim=DIM, clip=5.0),
        )[0]["head"]
        for p in (1.0 / 3.0, 0.9)
    )
    assert np.abs(even - odd).max() > 1e-5


@needs_torch
def test_a_cost_that_is_not_known_teaches_no_cost() -> None:
    answers = masked(planted())
    arrays, _ = fit(
        replace(
            answers, cost_usd=np.where(np.arange(400)[:, None] < 200, np.nan, answers.cost_usd)
        ),
        PretrainingOptions(epochs=1),
        tau_cost_usd=TAU,
    )
    assert arrays["count"].sum() == 400.0 and arrays["spend_count"].sum() == 200.0
    assert np.isfinite(arrays["head"]).all()


@needs_torch
def test_a_seed_gives_the_same_bytes_and_they_come_back() -> None:
    import torch

    dumps = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        arrays, _ = fit(planted(60), PretrainingOptions(epochs=2), tau_cost_usd=TAU)
        dumps.append(Prior("barp", "hashing-0", arrays).dump())
        assert torch.get_num_threads() == threads
    assert dumps[0] == dumps[1]
    other, _ = fit(planted(60), PretrainingOptions(epochs=2, seed=1), tau_cost_usd=TAU)
    assert Prior("barp", "hashing-0", other).dump() != dumps[0]
    assert Prior.load(dumps[0]).kind == "barp"
    garbled = dict(Prior.load(dumps[0]).arrays) | {"moment": np.full((3, DIM), np.nan)}
    with pytest.raises(ValueError, match="^prior: moment: every number must be finite"):
        Prior.load(Prior("barp", "hashing-0", garbled).dump())


# --- logs ----------------------------------------------------------------------------------------


class Logbook:
    """An event log in memory, with no rollback in it."""

    def __init__(self, *outcomes: Outcome, policy_identity: PolicyIdentity | None = None) -> None:
        self.events_of_log = [
            Event(k, "p", "feedback", o, "other" if o.decision_id == "o" else "e")
            for k, o in enumerate(outcomes)
        ]
        self.own = policy_identity

    def end(self) -> int:
        return len(self.events_of_log)

    def rollbacks(self, pool: str, *, until: int) -> list[tuple[int, int]]:
        return []

    def events(self, **_: object) -> Iterator[Event]:
        yield from self.events_of_log

    def policy_identity(
        self, pool: str, *, until: int | None = None
    ) -> tuple[int, PolicyIdentity] | None:
        return None if self.own is None else (1, self.own)


IDENTITY = PolicyIdentity(
    policy="barp", params={}, embedder="e", dim=2, tau_cost_usd=TAU, tau_latency_ms=1.0
)
X = np.array([0.5, 1.0], dtype=np.float32)


def outcome(
    decision: str, arm: str, field: str, value: float, cost: float | None = None
) -> Outcome:
    return Outcome(1, decision, arm, X, field, value, cost, propensity=0.25)


def test_a_log_is_one_answer_per_decision() -> None:
    policy_identity, answers = answers_of_log(  # type: ignore[arg-type]
        Logbook(
            outcome("a", "large", "quality", 0.9, 0.02),
            outcome("b", "small", "quality", 0.4),
            outcome("b", "small", "latency", 99.0),
            outcome("b", "small", "cost", 0.001, 0.001),
            outcome("c", "small", "quality", 0.3),
            outcome("o", "small", "quality", 0.0),
            policy_identity=IDENTITY,
        ),
        "p",
    )
    assert policy_identity is IDENTITY and list(answers.models) == ["large", "small"]
    assert answers.logged_arm is not None and answers.logged_arm.tolist() == [0, 1, 1]
    assert answers.propensity is not None and answers.propensity.tolist() == [0.25] * 3
    np.testing.assert_array_equal(answers.quality, [[0.9, np.nan], [np.nan, 0.4], [np.nan, 0.3]])
    np.testing.assert_array_equal(answers.cost_usd, [[0.02, np.nan], [np.nan, 0.001], [np.nan] * 2])


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (Logbook(), "the policy of 'p' never started"),
        (Logbook(policy_identity=IDENTITY), "the log of 'p' has no outcome to learn from"),
        (
            Logbook(outcome("a", "s", "quality", 0.5), policy_identity=IDENTITY),
            "'p' has no cost to learn from",
        ),
    ],
)
def test_a_log_without_lessons_is_refused(log: Logbook, message: str) -> None:
    with pytest.raises(ValueError, match=f"^pool: .*{message}"):
        answers_of_log(log, "p")  # type: ignore[arg-type]


@needs_torch
def test_the_law_is_that_of_the_policy() -> None:
    import torch

    from policies import barp_net as net

    rng = np.random.default_rng(2)
    made = net.fresh(3) | {"head": rng.normal(size=(4, 2, 3)), "outer": rng.normal(size=(2, 8))}
    x, w = rng.normal(size=(5, 3)), rng.dirichlet(np.ones(2), size=5)
    tensors = {name: torch.tensor(array) for name, array in made.items()}
    found = pretraining.log_law(torch, tensors, torch.tensor(x), torch.tensor(w), beta=0.3)
    expected = net.softmax(net.logits(made, x, w, beta=0.3))[1]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)

"""Replay: it learns, it repeats, and no player sees the outcome of a model it did not choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from banditroute.core.pool import ModelSpec
from banditroute.features.embedding import make_embedder
from sim.data.dataset import Dataset
from sim.data.synthetic import generate
from sim.errors import InputError
from sim.measure.baselines import References
from sim.play import libraries
from sim.play.candidate import Candidate
from sim.play.player import Choice, ModelsOnOffer
from sim.play.replay import CandidateReplay, Experiment, Split, run
from sim.play.trace import Trace
from sim.worlds.world import World

LINUCB = Candidate.of("linucb")


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


def above(trace: Trace) -> float:
    """Return the quality above the zero router's at the same cost."""
    world = trace.world
    references = References.of(world.models, world.quality, world.cost_usd)
    return trace.quality - references.zero_router().quality_at(trace.cost_usd)


def test_learning_beats_the_zero_router_where_context_pays() -> None:
    plan = experiment(800)
    learned, random = (
        [run(plan, who, seed) for seed in range(3)] for who in (LINUCB, Candidate.of("random"))
    )
    assert np.mean([above(trace) for trace in learned]) > 0.03
    assert np.mean([above(trace) for trace in random]) == pytest.approx(0.0, abs=0.04)
    assert np.mean([trace.share for trace in random], axis=0) == pytest.approx(
        [1 / 3] * 3, abs=0.06
    )


def test_every_row_is_learned_and_the_second_half_is_scored() -> None:
    plan = experiment(split=Split(fraction=0.25))
    fixed = Candidate.of("fixed", {"arm": "coder"})
    result = run(plan, fixed, seed=5)
    order = np.random.default_rng([5, 0]).permutation(120)
    scored = order[30:]
    coder = plan.dataset.models.index("coder")
    assert result.quality == pytest.approx(plan.dataset.quality[scored, coder].mean())
    assert result.cost_usd == pytest.approx(plan.dataset.cost_usd[scored, coder].mean())
    assert result.share.tolist() == [0.0, 1.0, 0.0]
    assert above(result) <= 1e-12
    assert result.refused == 0.0 and len(result.world) == 90


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
    quality, cost = np.zeros_like(plan.dataset.quality), plan.dataset.cost_usd.copy()
    replay = CandidateReplay(plan, LINUCB, seed=1)
    for world in plan.worlds(seed=1):
        assert world is not None
        trace = replay.play(world)
        quality[world.rows, trace.chosen] = plan.dataset.quality[world.rows, trace.chosen]
    spoiled = replace(plan.dataset, quality=quality, cost_usd=cost)
    assert run(replace(plan, dataset=spoiled), LINUCB, seed=1).digest == honest.digest


class Recorder:
    """A player that chooses its first model on offer and records its calls."""

    name, package, parameters, budgets = "recorder", "recorder", (), True
    calls: ClassVar[list[tuple[object, ...]]] = []

    def __init__(self, specs: Sequence[ModelSpec], **rest: object) -> None:
        self.calls.clear()
        self.count = 0

    def begin(self, requests: int) -> None:
        self.calls.append(("begin", requests))

    def offer(self, offer: ModelsOnOffer) -> None:
        self.names = [spec.name for spec in offer.specs if spec.name not in offer.draining]
        prices = [round(spec.output_price, 6) for spec in offer.specs]
        self.calls.append(("offer", self.names, prices, offer.reservation_usd))

    def decide(self, x: np.ndarray, prompt_bytes: np.ndarray) -> list[Choice]:
        first, self.count = self.count, self.count + len(x)
        self.calls.append(("decide", len(x)))
        return [Choice(self.names[0], note=first + k) for k in range(len(x))]

    def bill(self, choice: Choice, cost_usd: float) -> None:
        self.calls.append(("bill", choice.note, cost_usd))

    def feed(self, choice: Choice, *, quality: float, cost_usd: float) -> None:
        self.calls.append(("feed", choice.note, quality))

    def digest(self) -> str:
        return ""


@dataclass
class Made:
    """A scenario that changes columns of the still world."""

    columns: dict[str, object]

    def stage(self, dataset: Dataset, rows: np.ndarray, rng: np.random.Generator) -> World:
        return replace(World.from_dataset(dataset, rows), **self.columns)


def recorded(
    monkeypatch: pytest.MonkeyPatch, rows: int = 6, *, batch: int = 1, **columns: object
) -> tuple[Trace, Callable[..., list[tuple[object, ...]]]]:
    """Play a world with some columns changed; return its trace, and the calls by kind."""
    monkeypatch.setitem(libraries.LIBRARIES, "recorder", Recorder)  # type: ignore[arg-type]
    plan = replace(experiment(rows, split=Split(fraction=0.0)), scenario=Made(columns), batch=batch)
    trace = run(plan, Candidate.of("recorder"), seed=0)
    return trace, lambda *kinds: [call for call in Recorder.calls if call[0] in kinds]


def test_feedback_is_learned_in_order_of_arrival_before_the_request_that_comes_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delay = np.array([2.5, 0.0, 0.5, np.inf, 100.0, 10.0])
    trace, calls = recorded(monkeypatch, delay_s=np.repeat(delay[:, None], 3, axis=1))
    order = [call[:2] for call in calls("decide", "feed")]
    decided, fed = ("decide", 1), "feed"
    # 1 at once, 2 at 2.5 s and so with 0 before the request of 3 s; 5 at 15 s, 4 at 104 s, 3 never.
    expected = [decided, decided, (fed, 1), decided, (fed, 0), (fed, 2), decided, decided, decided]
    assert order == [*expected, (fed, 5), (fed, 4)]
    assert len(calls("bill")) == 6
    assert trace.chosen.tolist() == [0] * 6 and np.isnan(trace.propensity).all()


def test_feedback_is_the_judged_quality_and_the_score_the_true_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged = np.linspace(0.0, 1.0, 18).reshape(6, 3)
    trace, calls = recorded(monkeypatch, judged=judged)
    assert [call[2] for call in calls("feed")] == judged[:, 0].tolist()
    assert trace.quality == pytest.approx(trace.world.quality[:, 0].mean())


def test_batches_are_decided_at_once_and_end_where_the_offer_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offered = np.ones((11, 3), dtype=np.bool_)
    offered[:5, 2] = offered[5:, 0] = False
    factor = np.ones((11, 3))
    factor[10, 1] = 3.0
    trace, calls = recorded(monkeypatch, rows=11, batch=4, offered=offered, price_factor=factor)
    assert [call[1] for call in calls("decide")] == [4, 1, 4, 1, 1]
    assert trace.chosen.tolist() == [0] * 5 + [1] * 6
    _, *(first, second, third) = zip(*calls("offer"), strict=True)
    assert list(first) == [["small", "coder"], ["coder", "large"], ["coder", "large"]]
    small, coder, large = second[1]
    assert second[0] == [small, coder]
    assert second[2] == [small, pytest.approx(3.0 * coder, rel=1e-4), large]
    assert third[2] == {name: pytest.approx(third[1][name] * by) for name, by in BY.items()}
    firsts = [call for call in calls("decide", "feed")][:6]
    assert [call[0] for call in firsts] == ["decide", *["feed"] * 4, "decide"]


BY = {"small": 1.0, "coder": 3.0, "large": 1.0}


def test_what_is_learned_first_knows_the_models_on_offer_at_the_first_scored_request() -> None:
    offered = np.ones((60, 3), dtype=np.bool_)
    offered[:30, 2] = False
    plan = replace(experiment(split=Split(fraction=0.5)), scenario=Made({"offered": offered}))
    before, scored = plan.worlds(seed=0)
    assert before is not None and not before.offered[:, 2].any() and scored.offered[30:].all()
    trace = run(plan, LINUCB, seed=0)
    assert not (trace.chosen[:30] == 2).any() and (trace.chosen[30:] == 2).any()


def test_a_newcomer_under_a_budget_and_a_price_change_keep_the_cap() -> None:
    offered, factor = np.ones((200, 3), dtype=np.bool_), np.ones((200, 3))
    offered[:60, 0] = False
    factor[120:, 2] = 0.1
    rate = 4e-4
    plan = replace(experiment(200, split=Split(fraction=0.0)), budget_rate_usd=rate)
    data = plan.dataset

    class Cut(Made):
        def stage(self, dataset: Dataset, rows: np.ndarray, rng: np.random.Generator) -> World:
            still = World.from_dataset(dataset, rows)
            return replace(
                still, offered=offered, price_factor=factor, cost_usd=still.cost_usd * factor
            )

    trace = run(replace(plan, scenario=Cut({})), Candidate.of("thompson"), seed=0)
    assert trace.cost_usd <= rate and trace.refused == 0.0
    assert not (trace.chosen[:60] == 0).any() and (trace.chosen[60:] == 0).any()
    assert (trace.chosen[120:] == 2).mean() > (trace.chosen[60:120] == 2).mean()
    assert data.models == trace.world.models


def test_batches_equal_feedback_that_is_late_by_as_much() -> None:
    """A batch of B learns what feedback until the next batch brings, one request at a time."""
    plan = experiment(split=Split(fraction=0.0))
    until_next = (8.0 - np.arange(120) % 8)[:, None] * np.ones(3)
    late = run(replace(plan, scenario=Made({"delay_s": until_next})), LINUCB, seed=0)
    batched = run(replace(plan, batch=8), LINUCB, seed=0)
    at_once = run(plan, LINUCB, seed=0)
    assert late.digest == batched.digest != at_once.digest
    assert late.chosen.tolist() == batched.chosen.tolist()


def test_propensities_and_entropies_are_those_of_the_law_of_the_choice() -> None:
    trace = run(experiment(), Candidate.of("random"), seed=0)
    assert trace.propensity == pytest.approx(np.full(60, 1 / 3))
    assert trace.entropy == pytest.approx(np.full(60, np.log(3.0)))

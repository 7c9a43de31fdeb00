"""Replay: it learns, it repeats, and nobody sees what he did not choose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from banditroute.embedding import make_embedder
from sim.contenders import Contender
from sim.errors import InputError
from sim.references import References
from sim.replay import Course, Experiment, Split, run
from sim.synthetic import generate
from sim.trace import Trace

LINUCB = Contender.of("linucb")


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
    return trace.quality - References.of(world.models, world.quality, world.cost).zero(trace.cost)


def test_learning_beats_the_zero_router_where_context_pays() -> None:
    plan = experiment(800)
    learned, random = (
        [run(plan, who, seed) for seed in range(3)] for who in (LINUCB, Contender.of("random"))
    )
    assert np.mean([above(trace) for trace in learned]) > 0.03
    assert np.mean([above(trace) for trace in random]) == pytest.approx(0.0, abs=0.04)
    assert np.mean([trace.share for trace in random], axis=0) == pytest.approx(
        [1 / 3] * 3, abs=0.06
    )


def test_every_row_is_learned_and_the_second_half_is_scored() -> None:
    plan = experiment(split=Split(fraction=0.25))
    fixed = Contender.of("fixed", {"arm": "coder"})
    result = run(plan, fixed, seed=5)
    order = np.random.default_rng([5, 0]).permutation(120)
    scored = order[30:]
    coder = plan.dataset.models.index("coder")
    assert result.quality == pytest.approx(plan.dataset.quality[scored, coder].mean())
    assert result.cost == pytest.approx(plan.dataset.cost[scored, coder].mean())
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
    quality, cost = np.zeros_like(plan.dataset.quality), plan.dataset.cost.copy()
    course = Course(plan, LINUCB, seed=1)
    for world in plan.worlds(seed=1):
        assert world is not None
        trace = course.play(world)
        quality[world.rows, trace.chosen] = plan.dataset.quality[world.rows, trace.chosen]
    spoiled = replace(plan.dataset, quality=quality, cost=cost)
    assert run(replace(plan, dataset=spoiled), LINUCB, seed=1).digest == honest.digest

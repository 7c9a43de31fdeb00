"""What is said of policies: hand-made traces, with values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sim.metrics import stage_of
from sim.runfile import Contender, Stage
from sim.trace import Trace
from sim.world import Change, World


def world(
    quality: np.ndarray, cost: np.ndarray, *, changes: tuple[Change, ...] = (), **columns: object
) -> World:
    n = len(quality)
    made = World(
        models=("cheap", "dear"),
        rows=np.arange(n),
        task=("",) * n,
        quality=quality,
        judged=quality,
        cost=cost,
        factor=np.ones(cost.shape),
        offered=np.ones(cost.shape, dtype=np.bool_),
        time=np.arange(n, dtype=np.float64),
        delay=np.zeros(n),
        changes=changes,
    )
    return replace(made, **columns)


def trace(
    at: World, chosen: list[int], *, seed: int = 0, label: str = "p", propensity: float = math.nan
) -> Trace:
    n = len(at)
    return Trace(
        label=label,
        seed=seed,
        world=at,
        chosen=np.array(chosen, dtype=np.intp),
        propensity=np.full(n, propensity),
        entropy=np.full(n, propensity),
    )


def staged(*traces: Trace, **options: object) -> Stage:
    return stage_of(title="t", says="s", traces=traces, **({"budget_rate": None} | options))


def mean(of: Contender, name: str) -> float:
    value = of.metrics[name].mean
    assert value is not None
    return value


FOUR = world(
    np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]),
    np.array([[1.0, 3.0]] * 4),
    task=("a", "a", "b", "b"),
)


def test_means_of_one_trace() -> None:
    stage = staged(trace(FOUR, [1, 0, 0, 0], propensity=0.25))
    (one,) = stage.contenders
    assert mean(one, "quality") == 0.75
    assert mean(one, "cost") == 1.5
    # Halfway between (1, 0.5) and (3, 0.75): a quarter of the way.
    assert mean(one, "zero") == pytest.approx(0.5625)
    assert mean(one, "difference") == pytest.approx(0.1875)
    assert mean(one, "regret") == 0.25
    assert mean(one, "single_regret") == 0.0
    assert mean(one, "quality_of_single") == 1.0
    assert mean(one, "cost_of_single") == 0.5
    assert mean(one, "propensity") == 0.25
    assert mean(one, "refused") == 0.0
    # From (1, 0.5) up to (1.5, 0.75), and flat up to 3.
    assert mean(one, "aiq") == pytest.approx((0.5 * 0.625 + 1.5 * 0.75) / 2)
    assert "used" not in one.metrics
    assert one.metrics["captured"].mean is None
    assert stage.zero_aiq.mean == pytest.approx(0.625)
    assert [point.name for point in stage.references] == ["random", "best single: dear", "oracle"]
    assert [(p.quality, p.cost) for p in stage.references] == [
        (0.625, 2.0),
        (0.75, 3.0),
        (1.0, 2.0),
    ]
    assert {m: share.mean for m, share in one.share.items()} == {"cheap": 0.75, "dear": 0.25}
    assert one.propensity is not None
    assert one.propensity[5] == sum(one.propensity) == 4
    assert one.tasks["a"]["quality"].mean == 1.0
    assert one.tasks["b"]["quality"].mean == 0.5
    assert one.tasks["b"]["requests"].mean == 2.0
    assert one.tasks["b"]["zero"].mean == pytest.approx(0.5)
    assert one.at == [1, 2, 3, 4]
    assert one.curves["regret"].mean == [0.0, 0.0, 1.0, 1.0]
    assert one.shares["dear"] == [1.0, 0.0, 0.0, 0.0]

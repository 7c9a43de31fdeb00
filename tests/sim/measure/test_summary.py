"""Stages of hand-made traces, with values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sim.measure.summary import stage_of
from sim.measure.supervised import Supervised
from sim.play.trace import Trace
from sim.results import CandidateResult, Stage
from sim.worlds.world import World, WorldChange


def world(
    quality: np.ndarray,
    cost: np.ndarray,
    *,
    changes: tuple[WorldChange, ...] = (),
    **columns: object,
) -> World:
    n = len(quality)
    made = World(
        models=("cheap", "expensive"),
        rows=np.arange(n),
        task=("",) * n,
        quality=quality,
        judged=quality,
        cost_usd=cost,
        price_factor=np.ones(cost.shape),
        offered=np.ones(cost.shape, dtype=np.bool_),
        time_s=np.arange(n, dtype=np.float64),
        delay_s=np.zeros(n),
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
    return stage_of(title="t", says="s", traces=traces, **({"budget_rate_usd": None} | options))


def mean(of: CandidateResult, name: str) -> float:
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
    assert one.metrics["limit_regret"].mean is None
    assert stage.zero_aiq.mean == pytest.approx(0.625)
    assert [point.name for point in stage.references] == [
        "random",
        "best single: expensive",
        "oracle",
    ]
    assert [(p.quality, p.cost) for p in stage.references] == [
        (0.625, 2.0),
        (0.75, 3.0),
        (1.0, 2.0),
    ]
    assert {m: share.mean for m, share in one.share.items()} == {"cheap": 0.75, "expensive": 0.25}
    assert one.propensity is not None
    assert one.propensity[5] == sum(one.propensity) == 4
    assert one.tasks["a"]["quality"].mean == 1.0
    assert one.tasks["b"]["quality"].mean == 0.5
    assert one.tasks["b"]["requests"].mean == 2.0
    assert one.tasks["b"]["zero"].mean == pytest.approx(0.5)
    assert one.at == [1, 2, 3, 4]
    assert one.curves["regret"].mean == [0.0, 0.0, 1.0, 1.0]
    assert one.shares["expensive"] == [1.0, 0.0, 0.0, 0.0]


def test_errors_of_one_seed_are_over_its_requests() -> None:
    rng = np.random.default_rng(3)
    quality = rng.random((400, 2))
    made = world(quality, np.tile([1.0, 3.0], (400, 1)))
    stage = staged(trace(made, [0, 1] * 200))
    (one,) = stage.contenders
    assert stage.errors_over == "requests"
    got = quality[np.arange(400), [0, 1] * 200]
    assert one.metrics["quality"].se == pytest.approx(got.std() / 20, rel=0.15)
    assert one.metrics["cost"].se == pytest.approx(1 / 20, rel=0.15)
    # The mix is resampled with the policy: what both get of a good prompt cancels.
    assert one.metrics["difference"].se is not None
    assert 0.0 < one.metrics["difference"].se < one.metrics["quality"].se
    assert one.share["cheap"].se == pytest.approx(0.5 / 20)
    assert all(point.quality_se for point in [*stage.models, *stage.references])
    again = staged(trace(made, [0, 1] * 200))
    assert again == stage


def test_differences_are_paired_within_a_seed() -> None:
    # The level of the requests moves with the seed; the distance to the zero router hardly does.
    worlds = [
        world(np.array([[0.4 + lift, 0.8 + lift]] * 4), np.array([[1.0, 3.0]] * 4))
        for lift in (0.0, 0.1, 0.2)
    ]
    stage = staged(*(trace(at, [0, 1, 0, 1], seed=k) for k, at in enumerate(worlds)))
    (one,) = stage.contenders
    assert stage.errors_over == "seeds"
    assert mean(one, "quality") == pytest.approx(0.7)
    assert one.metrics["quality"].se == pytest.approx(0.1 / math.sqrt(3))
    assert mean(one, "difference") == pytest.approx(0.0)
    assert one.metrics["difference"].se == pytest.approx(0.0, abs=1e-12)
    assert one.per_seed["quality"] == pytest.approx([0.6, 0.7, 0.8])
    assert one.curves["gain"].mean[-1] == pytest.approx(0.0)
    assert one.curves["regret"].mean == pytest.approx([0.4, 0.4, 0.8, 0.8])
    assert [(p.name, p.quality) for p in stage.models] == [
        ("cheap", 0.5),
        ("expensive", pytest.approx(0.9)),
    ]


def test_bands_are_t_intervals_over_seeds() -> None:
    worlds = [world(np.array([[lift, 1.0]] * 2), np.array([[1.0, 3.0]] * 2)) for lift in (0.4, 0.6)]
    stage = staged(*(trace(at, [0, 0], seed=k) for k, at in enumerate(worlds)))
    band = stage.contenders[0].curves["regret"]
    # Two seeds: 12.706 standard errors of 0.1.
    assert band.mean == pytest.approx([0.5, 1.0])
    assert band.high[0] - band.mean[0] == pytest.approx(12.706 * 0.1, rel=1e-4)
    assert band.mean[0] - band.low[0] == pytest.approx(12.706 * 0.1, rel=1e-4)


def test_a_budget_and_refusals() -> None:
    stage = staged(trace(FOUR, [1, 0, -1, -1]), budget_rate_usd=1.25)
    (one,) = stage.contenders
    assert mean(one, "quality") == 0.5
    assert mean(one, "cost") == 1.0
    assert mean(one, "used") == pytest.approx(0.8)
    assert mean(one, "refused") == 0.5
    assert one.share["cheap"].mean == 0.5
    assert one.curves["spent"].mean == pytest.approx([0.6, 0.8, 0.8, 0.8])
    assert one.shares["cheap"] == [0.0, 1.0, 0.0, 0.0]
    # Five dollars: three cheap answers, and half of what the first expensive one would add.
    oracle = stage.references[2]
    assert (oracle.quality, oracle.cost) == pytest.approx((2.5 / 4, 1.25))
    assert mean(one, "regret") == pytest.approx(0.125)
    assert one.curves["regret"].mean[-1] == pytest.approx(0.5)


def test_a_model_is_judged_where_it_is_on_offer() -> None:
    """The expensive model, and so its share of the zero router, is on offer in the second half."""
    offered = np.array([[True, False]] * 2 + [[True, True]] * 2)
    quality = np.array([[0.5, 1.0], [0.5, 1.0], [0.5, 0.9], [0.5, 0.7]])
    made = world(quality, np.array([[1.0, 3.0]] * 4), offered=offered)
    stage = staged(trace(made, [0, 0, 1, 0]))
    (one,) = stage.contenders
    assert [(p.name, p.quality) for p in stage.models] == [
        ("cheap", 0.5),
        ("expensive", pytest.approx(0.8)),
    ]
    corners = [(p.cost, p.quality) for p in stage.frontier]
    assert corners == [(1.0, 0.5), (2.0, pytest.approx(0.65))]
    assert [p.name for p in stage.frontier] == ["cheap", "a mix over time"]
    # Half-way between the corners, so half of the second half goes to the expensive model.
    assert mean(one, "zero") == pytest.approx(0.575)
    assert one.curves["gain"].mean == pytest.approx([0.0, 0.0, 0.2, 0.1])
    # The best single model is one that can be played all the time.
    assert stage.references[1].name == "best single: cheap"
    assert stage.references[2].quality == pytest.approx((0.5 + 0.5 + 0.9 + 0.7) / 4)
    assert stage.references[0].quality == pytest.approx((0.5 + 0.5 + 0.7 + 0.6) / 4)


def test_captured_gain_is_at_the_policys_cost() -> None:
    limit = Supervised.oracle(FOUR.quality, FOUR.cost_usd)
    stage = staged(trace(FOUR, [1, 0, 0, 0]), supervised={0: limit})
    (one,) = stage.contenders
    # At 1.5 dollars the limit answers three prompts well; the zero router has 0.5625.
    assert mean(one, "captured") == pytest.approx((0.75 - 0.5625) / (0.75 - 0.5625))
    assert one.metrics["captured"].se is not None
    assert mean(one, "limit_regret") == pytest.approx(0.0)
    assert one.metrics["limit_regret"].se == one.metrics["difference"].se
    assert stage.references[-1].name == "supervised limit"
    assert (stage.references[-1].quality, stage.references[-1].cost) == (1.0, 2.0)
    costs = [point.cost for point in stage.limit]
    assert costs == sorted(costs)
    assert stage.limit[-1].quality == 1.0


def test_adaptation_is_the_median_over_seeds() -> None:
    n = 400
    quality = np.where(np.arange(n)[:, None] < 200, [0.2, 0.8], [0.8, 0.2])
    made = world(
        quality,
        np.array([[1.0, 3.0]] * n),
        changes=(WorldChange(200, "swap"), WorldChange(200, "too")),
    )

    def turning(after: int, seed: int) -> Trace:
        return trace(made, [1] * (200 + after) + [0] * (200 - after), seed=seed)

    stage = staged(*(turning(after, seed) for seed, after in enumerate((10, 50, 200))))
    (one,) = stage.contenders
    (adapted,) = one.adapted
    # A window of 40 needs 36 good choices; it is dated at its middle.
    assert (adapted.at, adapted.outcome, adapted.seeds) == (200, "adapted", 3)
    assert adapted.requests == 50 - 4 + 20
    assert (adapted.low, adapted.high) == (26, None)
    never = staged(*(turning(200, seed) for seed in range(3))).contenders[0].adapted[0]
    assert (never.outcome, never.requests) == ("never", None)
    flat = replace(made, quality=np.full((n, 2), 0.5))
    assert staged(trace(flat, [0] * n)).contenders[0].adapted[0].outcome == "settled"


def test_on_a_budget_money_counts_as_what_it_buys() -> None:
    """Two dollars buy an even mix, and never the expensive model alone, which is the best."""
    n = 400
    quality = np.where(np.arange(n)[:, None] < 200, [0.2, 0.8], [0.4, 0.8])
    made = world(quality, np.array([[1.0, 3.0]] * n), changes=(WorldChange(200, "better"),))
    even = staged(trace(made, [0, 1] * 200), budget_rate_usd=2.0).contenders[0]
    assert even.adapted[0].outcome == "settled"
    assert staged(trace(made, [0, 1] * 200)).contenders[0].adapted[0].outcome == "never"
    refusing = trace(made, [-1] * 210 + [0, 1] * 95)
    after = staged(refusing, budget_rate_usd=2.0).contenders[0].adapted[0]
    # A dollar is worth 0.2 after the change: both models 0.2, refusals 0.
    assert (after.outcome, after.requests) == ("adapted", 10 - 4 + 20)


def test_utility_is_what_was_asked_for() -> None:
    utility = FOUR.quality - 0.4 * FOUR.cost_usd
    stage = staged(trace(FOUR, [1, 0, 0, -1]), utility={0: utility})
    (one,) = stage.contenders
    assert mean(one, "utility") == pytest.approx((-0.2 + 0.6 - 0.4 + 0.0) / 4)
    assert mean(one, "utility_regret") == pytest.approx((0.0 + 0.0 + 0.2 + 0.6) / 4)
    assert len(one.curves["utility"].mean) == 4


def test_policies_without_propensities_have_no_histogram() -> None:
    (one,) = staged(trace(FOUR, [0, 0, 0, 0])).contenders
    assert one.propensity is None
    assert one.metrics["propensity"].mean is None
    assert one.per_seed["propensity"] == [None]


@pytest.mark.parametrize(
    ("traces", "message"),
    [
        ([], "traces: none"),
        (
            [trace(FOUR, [0] * 4), trace(replace(FOUR, rows=np.arange(4) + 1), [0] * 4)],
            "another world",
        ),
        (
            [
                trace(FOUR, [0] * 4),
                trace(replace(FOUR, changes=(WorldChange(2, "x"),)), [0] * 4, seed=1),
            ],
            "equally many changes",
        ),
    ],
)
def test_worlds_that_do_not_go_together(traces: list[Trace], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        staged(*traces)


def test_the_zero_router_has_errors_where_there_is_one_seed_too() -> None:
    rng = np.random.default_rng(5)
    made = world(rng.random((60, 2)) + [0.0, 0.3], rng.random((60, 2)) + [1.0, 3.0])
    made = replace(made, task=("maths", "chat") * 30)
    stage = staged(trace(made, [0, 1] * 30))
    assert [point.name for point in stage.frontier] == ["cheap", "expensive"]
    assert stage.frontier[1].quality_se == pytest.approx(made.quality[:, 1].std(ddof=1) / 60**0.5)
    assert stage.frontier[1].cost_se == pytest.approx(made.cost_usd[:, 1].std(ddof=1) / 60**0.5)
    assert stage.zero_aiq.se is not None and 0.01 < stage.zero_aiq.se < 0.1
    (one,) = stage.contenders
    chat = one.tasks["chat"]
    assert chat["requests"].se is None
    for name in ("quality", "cost", "zero", "difference"):
        assert chat[name].se is not None and chat[name].se > 0.0, name

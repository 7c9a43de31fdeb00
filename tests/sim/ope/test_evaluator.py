from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from policies.base import Float32, Float64
from sim.ope.bandit_log import BanditLog
from sim.ope.estimators import ESTIMATORS
from sim.ope.evaluator import Evaluator
from sim.ope.intervals import empirical_bernstein

Make = Callable[..., BanditLog]
Policy = Callable[[Float32], Float64]
VALUE = 0.9 * 0.8 + 0.1 * 0.3


def target_of(log: BanditLog, good_policy: Policy, first: int = 0) -> Float64:
    return good_policy(log.features[first:])


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_the_truth_is_inside(make_log: Make, good_policy: Policy, missing: float) -> None:
    covered = {how: 0 for how in ("dr", "snips", "ips", "switch-dr", "dr-os")}
    for seed in range(40):
        log = make_log(600, seed, missing=missing)
        evaluator = Evaluator(log, first=100)
        target = target_of(log, good_policy, 100)
        for how, values in evaluator.values(target, "quality").items():
            if how in covered:
                covered[how] += evaluator.interval(values).covers(VALUE)
    assert min(covered.values()) >= 34, covered


@pytest.mark.parametrize("how", ["dr", "snips", "ips", "switch-dr", "dr-os"])
def test_a_missing_outcome_does_not_count_as_zero(
    make_log: Make, good_policy: Policy, how: str
) -> None:
    """Half of the outcomes of `a` are missing, so a plain mean would weigh `b` and `c` too much."""
    found = []
    for seed in range(10):
        log = make_log(2_000, seed, missing=-0.5)
        values = Evaluator(log).values(target_of(log, good_policy), "quality")
        found.append(float(values[how].mean()))
    assert np.mean(found) == pytest.approx(VALUE, abs=0.02)


def test_outcomes_missing_before_the_first_evaluated_row_have_no_weight(
    make_log: Make, good_policy: Policy
) -> None:
    """All evaluated outcomes are observed, so each counts once, whatever the first half lacks."""
    log = make_log(1_000)
    silent = replace(log, quality=np.where(np.arange(1_000) < 480, np.nan, log.quality))
    for name in ("ips", "snips"):
        full, late = (
            Evaluator(of, first=500).values(target_of(log, good_policy, 500), "quality")
            for of in (log, silent)
        )
        assert late[name] == pytest.approx(full[name])
    assert Evaluator(silent, first=500).observed_share("quality") == 1.0


def test_rows_before_the_first_are_learned_from_and_not_evaluated(
    make_log: Make, good_policy: Policy
) -> None:
    log = make_log(800)
    other = replace(log, quality=np.where(np.arange(800) < 400, 1.0 - log.quality, log.quality))
    a, b = (
        Evaluator(of, first=400).values(target_of(log, good_policy, 400), "quality")
        for of in (log, other)
    )
    assert len(a["ips"]) == 400
    assert a["ips"].tolist() == b["ips"].tolist()
    assert a["dm"].mean() > b["dm"].mean() + 0.1


def test_the_logging_policy_needs_no_support(make_log: Make) -> None:
    log = make_log(900, action_dist=(0.5, 0.3, 0.2))
    evaluator = Evaluator(log)
    found = evaluator.evaluate("logged", None)
    assert (found.support, found.refusal, list(found.warnings)) == (None, None, [])
    estimates = found.estimates["quality"]
    for how in ("ips", "snips", "clipped ips"):
        assert estimates[how].normal.mean == pytest.approx(log.quality.mean())
    # The reward model removes the chance of which arm was drawn.
    assert estimates["dr"].normal.mean == pytest.approx(log.quality.mean(), abs=0.03)
    assert evaluator.evaluate("its action_dist", log.action_dist).estimates["quality"][
        "ips"
    ].normal.mean == (pytest.approx(log.quality.mean()))


def test_sessions_make_intervals_wider_in_estimates_and_differences(
    make_log: Make, good_policy: Policy
) -> None:
    log = make_log(400)
    twice = replace(
        log,
        **{
            name: np.repeat(getattr(log, name), 4, axis=0)
            for name in (
                "features",
                "chosen",
                "propensity",
                "action_dist",
                "quality",
                "cost_usd",
            )
        },
        preference=np.repeat(log.preference, 4, axis=0),
        tau_cost_usd=np.ones(1_600),
        session=np.repeat(np.arange(400), 4),
    )
    wide = []
    for session in (twice.session, np.arange(1_600)):
        evaluator = Evaluator(replace(twice, session=session))
        a = evaluator.evaluate("good", target_of(twice, good_policy))
        b = evaluator.evaluate("logged", None)
        apart = evaluator.difference(a, b, "quality")["ips"]
        own = a.estimates["quality"]["ips"]
        wide.append([i.half_width for e in (own, apart) for i in (e.normal, e.bootstrap)])
    assert np.array(wide[0]) / np.array(wide[1]) == pytest.approx([2.0] * 4, rel=0.15)


def test_differences_are_paired_and_antisymmetric(make_log: Make, good_policy: Policy) -> None:
    log = make_log(1_000, cost=True)
    evaluator = Evaluator(log)
    a, b = (
        evaluator.evaluate("good", target_of(log, good_policy)),
        evaluator.evaluate("c", np.tile([0, 0, 1.0], (1000, 1))),
    )
    for name in ("quality", "cost", "utility"):
        ab, ba = evaluator.difference(a, b, name), evaluator.difference(b, a, name)
        for how in ESTIMATORS:
            assert ab[how].normal.mean == pytest.approx(-ba[how].normal.mean)
            assert ab[how].normal.low == pytest.approx(-ba[how].normal.high)
            assert ab[how].bootstrap.low == pytest.approx(-ba[how].bootstrap.high)
    assert evaluator.difference(a, a, "quality")["dr"].normal.half_width == 0.0
    assert evaluator.difference(a, b, "quality")["dr"].normal.covers(VALUE - 0.5)


def test_a_refused_policy_has_no_estimates(make_log: Make) -> None:
    log = make_log(500, action_dist=(0.5, 0.5, 0.0))
    found = Evaluator(log).evaluate("c", np.tile([0.0, 0.0, 1.0], (500, 1)))
    assert found.refusal is not None and "exploration_share" in found.refusal
    assert found.estimates == {} and found.values == {}
    assert found.support is not None and found.support.outside == 1.0


def test_too_little_feedback_is_named_in_the_refusal(make_log: Make, good_policy: Policy) -> None:
    log = make_log(600, missing=0.95)
    found = Evaluator(log).evaluate("good", target_of(log, good_policy))
    assert found.refusal is not None and "rows have feedback" in found.refusal


def test_the_effective_sample_size_counts_observed_rows_only(
    make_log: Make, good_policy: Policy
) -> None:
    log = make_log(900)
    half = replace(log, quality=np.where(np.arange(900) % 2, np.nan, log.quality))
    full, part = (Evaluator(of).support(target_of(of, good_policy)) for of in (log, half))
    assert full is not None and part is not None
    assert part.ess == pytest.approx(0.5 * full.ess, rel=0.1)
    assert (part.rows, part.observed) == (900, 450)
    # All rows check the propensities, those without an outcome too.
    assert part.mean_weight == full.mean_weight


def test_a_measure_observed_in_few_rows_is_not_estimated(
    make_log: Make, good_policy: Policy
) -> None:
    log = make_log(600, cost=True)
    log = replace(log, cost_usd=np.where(np.arange(600) < 20, log.cost_usd, np.nan))
    evaluator = Evaluator(log)
    found = evaluator.evaluate("good", target_of(log, good_policy))
    assert found.refusal is None and list(found.estimates) == ["quality", "utility"]
    assert "cost: observed in too few rows for an estimate" in found.warnings


def test_a_measure_that_was_never_observed_is_left_out(make_log: Make) -> None:
    assert Evaluator(make_log(100)).measures == ["quality"]
    assert Evaluator(make_log(100, cost=True)).measures == ["quality", "cost", "utility"]
    log = make_log(100)
    silent = replace(log, quality=np.where(np.arange(100) < 50, log.quality, np.nan))
    assert Evaluator(silent, first=50).measures == []


def test_few_sessions_give_a_warning(make_log: Make, good_policy: Policy) -> None:
    log = replace(make_log(600), session=np.arange(600) % 12)
    assert (
        "12 sessions are few for an interval"
        in Evaluator(log).evaluate("good", target_of(log, good_policy)).warnings
    )
    assert Evaluator(make_log(600)).evaluate("good", target_of(log, good_policy)).warnings == []


def test_a_guarantee_needs_the_largest_possible_weight(make_log: Make, good_policy: Policy) -> None:
    log = make_log(40_000)
    known = Evaluator(log).evaluate("good", target_of(log, good_policy)).estimates["quality"]
    assert known["dr"].guaranteed is not None and known["dm"].guaranteed is None
    assert known["dr"].guaranteed.half_width > known["dr"].normal.half_width
    without_pmf = replace(log, action_dist=None)
    assert (
        Evaluator(without_pmf)
        .evaluate("good", target_of(log, good_policy))
        .estimates["quality"]["dr"]
        .guaranteed
        is None
    )


def test_wrong_propensities_give_a_warning(make_log: Make, good_policy: Policy) -> None:
    log = make_log(2_000, action_dist=(0.6, 0.3, 0.1))
    assert Evaluator(log).evaluate("good", target_of(log, good_policy)).warnings == []
    wrong = replace(log, propensity=np.full(2_000, 1 / 3), action_dist=np.full((2_000, 3), 1 / 3))
    warnings = Evaluator(wrong).evaluate("good", target_of(log, good_policy)).warnings
    assert any(warning.startswith("the mean weight is") for warning in warnings)


def test_the_same_arguments_give_the_same_numbers(make_log: Make, good_policy: Policy) -> None:
    log = make_log(400)
    a, b, c = (
        Evaluator(log, seed=seed).evaluate("good", target_of(log, good_policy))
        for seed in (0, 0, 1)
    )
    assert a.estimates == b.estimates
    assert a.estimates["quality"]["dr"].bootstrap != c.estimates["quality"]["dr"].bootstrap
    assert math.isfinite(a.estimates["quality"]["dr"].bootstrap.low)


def test_a_guarantee_counts_the_range_that_is_possible(make_log: Make, good_policy: Policy) -> None:
    """The range is not that of the rewards: a weight of 0 makes a value of IPS 0."""
    log = make_log(2_000)
    close = replace(log, quality=0.9 + 0.1 * log.quality)
    policy = Evaluator(close).evaluate("good", target_of(close, good_policy))
    found = policy.estimates["quality"]["ips"].guaranteed
    values = policy.values["quality"]["ips"]
    least = empirical_bernstein(values, log.session, 0.9 / (1 / 3) * 1.0)
    assert found is not None and found.half_width >= least.half_width


def test_a_guarantee_that_holds_every_possible_value_is_left_out(make_log: Make) -> None:
    evaluator = Evaluator(make_log(60))
    logged = evaluator.evaluate("logged", None).estimates["quality"]["dr"]
    assert logged.guaranteed is None
    more = Evaluator(make_log(2_000)).evaluate("logged", None).estimates["quality"]["dr"]
    assert more.guaranteed is not None and more.guaranteed.low > 0.0

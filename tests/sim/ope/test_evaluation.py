from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from sim.errors import InputError
from sim.ope import read_parquet as files
from sim.ope.bandit_log import BanditLog
from sim.ope.evaluation import Evaluation, compare_with_log, evaluate, not_identified
from sim.play.candidate import Candidate

Make = Callable[..., BanditLog]
LINUCB = Candidate.of("linucb", {"alpha": 0.1})
FIXED = Candidate.of("fixed", {"arm": "c"}, label="always c")


@pytest.fixture(scope="module")
def found(make_log: Make) -> Evaluation:
    return evaluate(files.history_of(make_log(2_000, cost=True)), [LINUCB, FIXED])


def by_label(found: Evaluation, label: str, how: str = "dr", measure: str = "quality") -> float:
    (one,) = [v for v in found.policies if v.label == label]
    return one.estimates[measure][how].normal.mean


def test_policies_are_evaluated_beside_the_logging_policy(found: Evaluation) -> None:
    assert found.first == 1_000
    assert [one.label for one in found.policies] == ["logged", "linucb", "always c"]
    assert all(one.refusal is None for one in found.policies)
    assert by_label(found, "always c") == pytest.approx(0.5, abs=0.06)
    assert by_label(found, "logged") == pytest.approx(1.6 / 3, abs=0.04)
    assert by_label(found, "linucb") > 0.68
    assert by_label(found, "always c", measure="cost") == pytest.approx(0.0035, rel=0.05)


def test_each_policy_is_compared_with_the_baseline_and_the_others(found: Evaluation) -> None:
    assert [one.label for one in found.differences] == [
        "linucb - logged",
        "always c - logged",
        "linucb - always c",
    ]
    apart = found.differences[2].estimates["quality"]["dr"].normal
    assert apart.mean == pytest.approx(by_label(found, "linucb") - by_label(found, "always c"))
    assert apart.low > 0.0


def test_another_baseline(make_log: Make, found: Evaluation) -> None:
    turned = evaluate(found.history, [LINUCB, FIXED], baseline="always c")
    assert [one.label for one in turned.differences] == [
        "logged - always c",
        "linucb - always c",
    ]
    ours = turned.differences[0].estimates["quality"]["dr"].normal
    theirs = found.differences[1].estimates["quality"]["dr"].normal
    assert (ours.mean, ours.low) == pytest.approx((-theirs.mean, -theirs.high))


def test_the_zero_router_costs_as_much_and_does_not_look_at_prompts(found: Evaluation) -> None:
    assert [one.label for one in found.zero_routers] == ["logged", "linucb", "always c"]
    zero = {one.label: one for one in found.zero_routers}
    # All models are as good on average, so the best mix is the cheapest one.
    assert zero["linucb"].quality.mean == pytest.approx(0.55, abs=0.05)
    assert zero["linucb"].difference.low > 0.0
    assert zero["linucb"].difference.mean == pytest.approx(
        by_label(found, "linucb") - zero["linucb"].quality.mean
    )


def test_without_costs_there_is_no_zero_router(make_log: Make) -> None:
    found = evaluate(files.history_of(make_log(400)), [FIXED])
    assert found.zero_routers == []
    assert all(list(one.estimates) == ["quality"] for one in found.policies)


def test_a_refused_policy_is_in_no_difference(make_log: Make) -> None:
    log = make_log(600, action_dist=(0.5, 0.5, 0.0), cost=True)
    found = evaluate(files.history_of(log), [LINUCB, FIXED])
    (refused,) = [one for one in found.policies if one.label == "always c"]
    assert refused.refusal is not None and refused.estimates == {}
    assert not any("always c" in one.label for one in found.differences)
    assert not any("always c" in one.label for one in found.zero_routers)


def test_a_cost_that_was_observed_in_few_rows_is_not_compared(make_log: Make) -> None:
    log = make_log(800, cost=True)
    known = (np.arange(800) >= 400) & (np.arange(800) < 430)
    history = files.history_of(replace(log, cost_usd=np.where(known, log.cost_usd, np.nan)))
    found = evaluate(history, [FIXED])
    assert list(found.policies[1].estimates) == ["quality", "utility"]
    assert list(found.differences[0].estimates) == ["quality", "utility"]
    assert found.zero_routers == []


def test_the_fraction_is_the_share_that_policies_learn_from(make_log: Make) -> None:
    history = files.history_of(make_log(400))
    whole = evaluate(history, [FIXED], fraction=0.0)
    assert (whole.first, len(whole.evaluator.evaluated)) == (0, 400)
    assert evaluate(history, [FIXED], fraction=0.75).first == 300


def test_a_log_without_enough_rows_or_quality_is_refused(make_log: Make) -> None:
    with pytest.raises(InputError, match=r"--log: 2 decisions are too few"):
        evaluate(files.history_of(make_log(2)), [FIXED])
    silent = replace(make_log(100), quality=np.full(100, np.nan))
    with pytest.raises(InputError, match="no evaluated decision has feedback on quality"):
        evaluate(files.history_of(silent), [FIXED])


def test_a_comparison_with_another_log_adds_both_errors(make_log: Make, found: Evaluation) -> None:
    other = make_log(500, seed=77, action_dist=(0.0, 0.0, 1.0))
    apart = compare_with_log(found, other, "of=c")
    assert apart.mean.mean == pytest.approx(other.quality.mean())
    assert apart.differences["always c"].covers(0.0)
    assert not apart.differences["linucb"].covers(0.0)
    own = found.evaluator.interval(found.policies[2].values["quality"]["snips"]).half_width
    wide = apart.differences["always c"].half_width
    assert wide == pytest.approx(np.hypot(own, apart.mean.half_width))
    silent = replace(other, quality=np.full(500, np.nan))
    with pytest.raises(InputError, match="--compare: no decision there has feedback"):
        compare_with_log(found, silent, "of=c")


def test_a_policy_of_which_only_its_own_log_is_known_is_refused() -> None:
    one = not_identified("logged:behavior=bts")
    assert one.refusal is not None and "is not identified" in one.refusal
    assert one.estimates == {} and one.support is None

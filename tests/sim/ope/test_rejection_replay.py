from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from banditroute.core.pool import Model
from sim.ope import read_parquet as files
from sim.ope import rejection_replay
from sim.ope.bandit_log import BanditLog
from sim.ope.logged_requests import DecisionHistory
from sim.ope.rejection_replay import LEAST_ACCEPTED, replay
from sim.ope.target_policy import train
from sim.play.candidate import Candidate

Make = Callable[..., BanditLog]
ONLY_C = Candidate.of("fixed", {"arm": "c"})


def priced(log: BanditLog, price: float = 1.0) -> DecisionHistory:
    """Return a history whose k-th model costs k times `price`, US dollars per million requests."""
    history = files.history_of(log)
    models = tuple(Model(n, k * price, 0.0, k) for k, n in enumerate(log.models, 1))
    one = np.ones(len(log))
    batch = replace(history.requests.batch, input_tokens=one, input_bound=one)
    return replace(
        history,
        requests=replace(history.requests, batch=batch, model_sets=[(np.arange(len(log)), models)]),
    )


@pytest.mark.parametrize("learning", [True, False])
def test_on_a_uniform_log_a_fixed_policy_gets_the_mean_of_its_rows(
    make_log: Make, learning: bool
) -> None:
    log = make_log(600)
    found = replay(files.history_of(log), ONLY_C, first=100, learning=learning)
    rows = np.flatnonzero(log.chosen == 2)
    rows = rows[rows >= 100]
    assert found.rows.tolist() == rows.tolist()
    assert (found.evaluated, found.refusal) == (500, None)
    assert found.outside == pytest.approx(0.0)
    assert found.estimates["quality"].mean == pytest.approx(log.quality[rows].mean())


def test_a_row_of_a_likely_model_is_accepted_less_often(make_log: Make) -> None:
    """A matching row is accepted with c / p, or contexts with a sure choice would count for more."""
    log = make_log(1_200, action_dist=(0.2, 0.3, 0.5))
    found = replay(files.history_of(log), ONLY_C, first=0)
    assert len(found.rows) == pytest.approx(1_200 * 0.2, rel=0.15)
    assert set(log.chosen[found.rows].tolist()) == {2}
    again = replay(files.history_of(log), ONLY_C, first=0)
    assert again.rows.tolist() == found.rows.tolist()
    assert (
        replay(files.history_of(log), ONLY_C, first=0, seed=1).rows.tolist() != found.rows.tolist()
    )


def test_the_truth_of_a_random_policy_is_inside(make_log: Make) -> None:
    covered = 0
    for seed in range(10):
        history = files.history_of(make_log(500, seed, action_dist=(0.2, 0.3, 0.5)))
        found = replay(history, Candidate.of("random"), first=0, learning=False, seed=seed)
        covered += found.estimates["quality"].covers((0.8 + 0.3 + 2 * 0.5) / 4 * 2 / 3 + 0.5 / 3)
    assert covered >= 8


def test_only_accepted_rows_are_learned_from(
    make_log: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = make_log(300)
    history, folds = files.history_of(log), []

    def kept(*arguments: Any, **named: Any) -> Any:
        folds.append(train(*arguments, **named))
        return folds[-1]

    monkeypatch.setattr(rejection_replay, "train", kept)
    for learning in (True, False):
        found = replay(history, Candidate.of("linucb"), first=100, learning=learning)
        assert folds[-1].learned == 100 + learning * len(found.rows)
        # The outcome of a rejected row changes no later choice.
        rejected = np.setdiff1d(np.arange(100, 300), found.rows)
        quality = log.quality.copy()
        quality[rejected] = 1.0 - quality[rejected]
        other = files.history_of(replace(log, quality=quality))
        again = replay(other, Candidate.of("linucb"), first=100, learning=learning)
        assert again.rows.tolist() == found.rows.tolist()


def test_a_learner_learns(make_log: Make) -> None:
    log = make_log(1_500)
    history = files.history_of(log)
    linucb = Candidate.of("linucb", {"alpha": 1.0})
    frozen = replay(history, linucb, first=0, learning=False)
    learner = replay(history, linucb, first=0)
    assert learner.estimates["quality"].low > frozen.estimates["quality"].mean
    assert learner.estimates["quality"].mean > 0.65


@pytest.mark.parametrize("has_pmf", [True, False])
def test_a_log_that_never_chose_a_model_of_the_policy_is_refused(
    make_log: Make, has_pmf: bool
) -> None:
    """Rows that match a log without exploration are a sample of no policy."""
    log = make_log(600, action_dist=(0.5, 0.5, 0.0))
    log = log if has_pmf else replace(log, action_dist=None)
    found = replay(files.history_of(log), Candidate.of("random"), first=0, learning=False)
    assert len(found.rows) >= LEAST_ACCEPTED
    assert found.refusal is not None and "exploration_share" in found.refusal
    assert found.estimates == {}
    if has_pmf:
        assert found.outside == pytest.approx(1 / 3)
    else:
        assert "rows were accepted, 300 are expected" in found.refusal


@pytest.mark.parametrize("has_pmf", [True, False])
def test_a_log_that_chose_every_model_is_not_refused(make_log: Make, has_pmf: bool) -> None:
    for seed in range(4):
        log = make_log(400, seed, action_dist=(0.5, 0.3, 0.2))
        log = log if has_pmf else replace(log, action_dist=None)
        assert replay(files.history_of(log), Candidate.of("random"), first=0).refusal is None


def test_few_accepted_rows_are_refused(make_log: Make) -> None:
    found = replay(files.history_of(make_log(200)), ONLY_C, first=100)
    assert len(found.rows) < LEAST_ACCEPTED and found.estimates == {}
    assert found.refusal is not None
    assert found.refusal.startswith(f"{len(found.rows)} of 100 rows are what the policy would")
    assert "least propensity of the log is 0.33" in found.refusal


def test_missing_outcomes_are_made_up_for(make_log: Make) -> None:
    """Outcomes of the worse contexts are missing, so the mean of the others would be too high."""
    log = make_log(2_500)
    rng = np.random.default_rng(0)
    # With `a` alone, quality is 0.8 where the feature is positive, and 0.3 elsewhere.
    lost = rng.random(2_500) < np.where(log.features[:, 0] > 0.0, 0.1, 0.7)
    history = files.history_of(replace(log, quality=np.where(lost, np.nan, log.quality)))
    found = replay(history, Candidate.of("fixed", {"arm": "a"}), first=0)
    plain = np.nanmean(history.log.quality[found.rows])
    assert plain > 0.62
    assert found.estimates["quality"].mean == pytest.approx(0.55, abs=0.05)


def test_a_measure_observed_in_few_rows_is_left_out(make_log: Make) -> None:
    log = make_log(600, cost=True)
    log = replace(log, cost_usd=np.where(np.arange(600) < 100, log.cost_usd, np.nan))
    assert list(replay(files.history_of(log), ONLY_C, first=0).estimates) == ["quality", "utility"]


@pytest.mark.parametrize("rate", [1.2e-6, 2e-6])
def test_a_budget_is_kept_and_rejected_rows_cost_nothing(make_log: Make, rate: float) -> None:
    log = make_log(900)
    # Each model costs what its price says: 1, 2 or 3 dollars per million tokens, one token each.
    log = replace(log, cost_usd=1e-6 * (1.0 + log.chosen))
    history = priced(log)
    found = replay(history, Candidate.of("random"), first=0, learning=False, budget_rate_usd=rate)
    spent = log.cost_usd[found.rows].cumsum()
    allowed = 3e-6 + rate * np.arange(1, len(found.rows) + 1)
    assert (spent <= allowed + 1e-12).all()
    assert len(found.rows) > 100
    # A rejected row does not add to the budget: the mean cost of accepted rows is the rate.
    assert spent[-1] / len(found.rows) == pytest.approx(rate, rel=0.15)


def test_a_change_of_prices_reaches_a_budget_with_the_next_accepted_row(
    make_log: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = make_log(300)
    history = priced(replace(log, cost_usd=1e-6 * (1.0 + log.chosen)))
    ((_, models),) = history.requests.model_sets
    doubled = tuple(replace(m, input_price=2.0 * m.input_price, price_id=9) for m in models)
    model_sets = [(np.arange(150), models), (np.arange(150, 300), doubled)]
    calls: list[tuple[int, bool]] = []
    plain = rejection_replay.ReplayBudget.decide

    def spy(self: Any, router: Any, batch: Any, *, changed: bool = False) -> Any:
        calls.append((self._count, changed))
        return plain(self, router, batch, changed=changed)

    monkeypatch.setattr(rejection_replay.ReplayBudget, "decide", spy)
    history = replace(history, requests=replace(history.requests, model_sets=model_sets))
    found = replay(history, ONLY_C, first=0, learning=False, budget_rate_usd=1e-5)
    after = [k for k, i in enumerate(found.rows.tolist()) if i >= 150][0]
    assert all(changed for count, changed in calls if count == after and changed is not False)
    row = int(found.rows[after])
    assert row > 150  # so that rows before it were rejected
    assert [changed for _, changed in calls[150 : row + 1]] == [True] * (row - 149)
    assert not calls[row + 1][1]

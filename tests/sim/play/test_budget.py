"""A replay's budget: a cap that holds, money that is used, and quality bought with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from banditroute.core.pool import PRIOR_OUTPUT_TOKENS, ModelSpec
from banditroute.decide.columns import RequestBatch
from banditroute.features.embedding import make_embedder
from policies import PACINGS, make_pacing
from policies.base import Float64
from sim.data.synthetic import COST_USD, generate
from sim.measure.baselines import References
from sim.play.budget import ReplayBudget
from sim.play.candidate import Candidate
from sim.play.player import Choice
from sim.play.replay import Experiment, Split, run
from sim.play.router_player import RouterPlayer
from sim.play.trace import Trace


@pytest.fixture(scope="module")
def plan() -> Experiment:
    data = generate(rows=800, seed=3).dataset
    embedder = make_embedder("hashing")
    return Experiment(
        dataset=data,
        features=embedder.features(list(data.prompts)),
        embedder=embedder.identity,
        split=Split(),
        preference=(1.0, 0.0, 0.0),
    )


LINUCB = Candidate.of("linucb")


def references_of(trace: Trace, rate: float | None = None) -> References:
    world = trace.world
    return References.of(world.models, world.quality, world.cost_usd, budget_rate_usd=rate)


@pytest.mark.parametrize("rate", [2e-4, 4e-4])
@pytest.mark.parametrize("mode", PACINGS)
def test_a_cap_is_held_and_used(plan: Experiment, rate: float, mode: str) -> None:
    paced = run(replace(plan, budget_rate_usd=rate), replace(LINUCB, pacing=mode), seed=0)
    assert run(plan, LINUCB, seed=0).cost_usd > 1.1 * rate
    assert 0.9 < paced.cost_usd / rate <= 1.0 and paced.refused == 0.0
    if mode == "history":
        assert paced.cost_usd / rate > 0.95
        assert paced.quality > references_of(paced).zero_router().quality_at(paced.cost_usd) + 0.03


def test_rate_that_does_not_bind_changes_nothing(plan: Experiment) -> None:
    free = run(plan, LINUCB, seed=1)
    paced = run(replace(plan, budget_rate_usd=10 * COST_USD.max()), LINUCB, seed=1)
    assert paced.digest == free.digest


def test_more_money_buys_no_less(plan: Experiment) -> None:
    levels = [
        run(replace(plan, budget_rate_usd=rate), LINUCB, seed=2).quality
        for rate in (1.5e-4, 4.5e-4)
    ]
    assert np.diff(levels)[0] > 0.05


@pytest.mark.parametrize("mode", PACINGS)
def test_requests_that_no_money_is_left_for_are_refused_and_score_0(
    plan: Experiment, mode: str
) -> None:
    """Half of what the cheapest model costs: the cap holds, the requests cannot all be served."""
    rate = 0.5 * float(plan.dataset.cost_usd[:, 0].mean())
    paced = run(replace(plan, budget_rate_usd=rate), replace(LINUCB, pacing=mode), seed=0)
    assert paced.cost_usd <= rate
    assert 0.3 < paced.refused < 0.7
    assert paced.share.sum() == pytest.approx(1.0 - paced.refused)
    assert paced.quality < 0.7 * references_of(paced).quality[0] / 0.5
    assert references_of(paced, rate).oracle[1] <= rate * (1 + 1e-9)


def player_of(plan: Experiment, policy: Candidate, prior: dict[str, float]) -> RouterPlayer:
    specs = [
        ModelSpec(name=name, input_price=0.0, output_price=1e6 * cost / PRIOR_OUTPUT_TOKENS)
        for name, cost in prior.items()
    ]
    return RouterPlayer(
        specs=specs,
        candidate=policy,
        dim=plan.features.shape[1],
        embedder=plan.embedder,
        preference=plan.preference,
        rng=np.random.default_rng(0),
    )


def ask(
    player: RouterPlayer, plan: Experiment, row: int, reservation_usd: Float64 | None
) -> RequestBatch:
    asks = player.requests(plan.features[[row]], np.array([40.0]))
    return replace(asks, reservation_usd=None if reservation_usd is None else reservation_usd[None])


def spending(
    player: RouterPlayer,
    budget: ReplayBudget,
    plan: Experiment,
    reservation_usd: Float64,
    rows: list[int],
) -> Float64:
    """Return what each request was predicted to cost, which is what it is billed."""
    spent = []
    for row in rows:
        decided = budget.decide(player.updated_router(), ask(player, plan, row, reservation_usd))
        spent.append(float(decided.scored.cost_usd[0, decided.chosen[0]]))
        budget.settle(decided, spent[-1])
    return np.array(spent)


def test_a_rate_out_of_reach_does_not_buy_off_all_trying(plan: Experiment) -> None:
    """All models seem to cost more than the rate: the second cheapest is still tried at times."""
    prior = {"small": 3e-4, "coder": 4e-4, "large": 1e-3}
    player = player_of(plan, Candidate.of("thompson"), prior)
    budget = ReplayBudget(make_pacing("history"), 2e-4, None, advance_usd=1.0)
    reservation_usd = np.full(3, 1e-5)
    spending(player, budget, plan, reservation_usd, list(range(400)))
    asks = ask(player, plan, 400, reservation_usd)
    decided = budget.decide(player.updated_router(), asks)
    assert decided.pmf[0, 0] > 0.8 and decided.pmf[0, 1] > 0.02


@pytest.mark.parametrize("requests", [400, None])
def test_spend_lands_at_the_rate_where_one_price_turns_all_choices(
    plan: Experiment, requests: int | None
) -> None:
    """One prompt and a law without chance: the two prices about the step are mixed."""
    prior = {"small": 1e-4, "large": 1e-3}
    player = player_of(plan, Candidate.of("linucb", {"alpha": 0.0}), prior)
    for price in (0, 1) * 4:
        models = [model for k, model in enumerate(prior) if k == price]
        asks = replace(ask(player, plan, 0, None), models=[frozenset(models)])
        decided = player.updated_router().decide(asks)
        choice = Choice(models[0], propensity=1.0, note=(decided, 0))
        player.feed(choice, quality=(0.5, 0.9)[price], cost_usd=decided.scored.cost_usd[0, price])
    budget = ReplayBudget(make_pacing("history"), 4e-4, requests, advance_usd=1e-2)
    reservation_usd = np.array([1.5e-4, 1.5e-3])
    spent = spending(player, budget, plan, reservation_usd, [0] * 400)
    assert min(spent) < 2e-4 and max(spent) > 8e-4
    assert 0.95 < spent.mean() / 4e-4 < 1.02
    assert requests is None or 0.98 < spent.mean() / 4e-4 <= 1.0


def test_money_that_each_request_brings_is_never_spent_ahead_of_the_advance(
    plan: Experiment,
) -> None:
    prior = {"small": 1e-4, "coder": 3e-4, "large": 1e-3}
    for mode in PACINGS:
        player = player_of(plan, Candidate.of("thompson"), prior)
        budget = ReplayBudget(make_pacing(mode), 3e-4, None, advance_usd=2e-3)
        spent = spending(player, budget, plan, np.array([2e-4, 6e-4, 2e-3]), list(range(300)))
        assert (spent.cumsum() <= 3e-4 * np.arange(1, 301) + 2e-3).all()
        assert spent.sum() > 0.8 * 300 * 3e-4


def test_the_next_budget_starts_from_what_the_last_one_saw(plan: Experiment) -> None:
    player = player_of(plan, LINUCB, {"small": 1e-4, "coder": 3e-4, "large": 1e-3})
    first = ReplayBudget(make_pacing("history"), 2e-4, 100)
    spending(player, first, plan, np.array([2e-4, 6e-4, 2e-3]), list(range(100)))
    second = first.next(50)
    assert second.cap.limit_nano == 10**9 * 50 * 2e-4 and second.cap.spent_nano == 0
    assert len(second.recent) == 100 and second.pacing is first.pacing


def test_the_last_requests_are_priced_as_from_now_on_when_the_offer_changes(
    plan: Experiment,
) -> None:
    player = player_of(plan, LINUCB, {"small": 1e-4, "coder": 3e-4, "large": 1e-3})
    budget = ReplayBudget(make_pacing("history"), 2e-4, 100)
    spending(player, budget, plan, np.array([2e-4, 6e-4, 2e-3]), list(range(5)))
    budget.reprice(np.array([1e-4, 6e-4]))
    for asks in budget.recent:
        assert asks.reservation_usd is not None and asks.reservation_usd.tolist() == [[1e-4, 6e-4]]
    budget.reprice(None)
    assert all(asks.reservation_usd is None for asks in budget.recent)

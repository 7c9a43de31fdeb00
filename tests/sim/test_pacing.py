"""Pacing: spend lands at the rate where it binds, and quality is bought with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from banditroute.embedding import make_embedder
from banditroute.pool import PRIOR_OUTPUT_TOKENS, ModelSpec
from policies.price import Price
from sim.pacing import Pacer
from sim.replay import Contender, Experiment, Replayer, Split, run
from sim.synthetic import COST, generate


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


LINUCB = Contender(label="linucb", name="linucb", params={})


@pytest.mark.parametrize("rate", [2e-4, 4e-4])
def test_spend_lands_at_a_binding_rate(plan: Experiment, rate: float) -> None:
    paced = run(replace(plan, budget_rate=rate), LINUCB, seed=0)
    assert run(plan, LINUCB, seed=0).cost > 1.1 * rate
    assert 0.9 < paced.cost / rate < 1.03
    assert paced.quality > paced.references.zero(paced.cost) + 0.03


def test_rate_that_does_not_bind_changes_nothing(plan: Experiment) -> None:
    free = run(plan, LINUCB, seed=1)
    paced = run(replace(plan, budget_rate=10 * COST.max()), LINUCB, seed=1)
    assert paced.digest == free.digest


def test_price_is_zero_before_anything_was_seen() -> None:
    assert Pacer(rate=1e-4).price == 0.0


def test_more_money_buys_no_less(plan: Experiment) -> None:
    levels = [
        run(replace(plan, budget_rate=rate), LINUCB, seed=2).quality for rate in (1.5e-4, 4.5e-4)
    ]
    assert np.diff(levels)[0] > 0.05


def test_a_rate_out_of_reach_does_not_buy_off_all_trying(plan: Experiment) -> None:
    """All models seem to cost more than the rate: the second cheapest is still tried at times."""
    prior = {"small": 3e-4, "coder": 4e-4, "large": 1e-3}
    specs = [
        ModelSpec(name=name, input_price=0.0, output_price=1e6 * cost / PRIOR_OUTPUT_TOKENS)
        for name, cost in prior.items()
    ]
    replayer = Replayer(
        specs=specs,
        contender=Contender("thompson", "thompson", {}),
        dim=plan.features.shape[1],
        embedder=plan.embedder,
        preference=plan.preference,
        rng=np.random.default_rng(0),
    )
    pacer = Pacer(rate=2e-4)
    for row in range(400):
        decisions = replayer.decide(plan.features[row], 40.0, price=Price.flat(1, pacer.price))
        pacer.observe(decisions, float(decisions.cost[0, decisions.chosen[0]]))
    assert decisions.pmf[0, 0] > 0.8 and decisions.pmf[0, 1] > 0.02


def test_spend_lands_at_the_rate_where_one_price_turns_all_choices(plan: Experiment) -> None:
    """One prompt and a law without chance: either side of the step is far from the rate."""
    prior = {"small": 1e-4, "large": 1e-3}
    specs = [
        ModelSpec(name=name, input_price=0.0, output_price=1e6 * cost / PRIOR_OUTPUT_TOKENS)
        for name, cost in prior.items()
    ]
    replayer = Replayer(
        specs=specs,
        contender=Contender("linucb", "linucb", {"alpha": 0.0}),
        dim=plan.features.shape[1],
        embedder=plan.embedder,
        preference=plan.preference,
        rng=np.random.default_rng(0),
    )
    for price in (0.0, 1e3) * 4:
        decisions = replayer.decide(plan.features[0], 40.0, price=Price.flat(1, price))
        chosen = int(decisions.chosen[0])
        replayer.feed(decisions, quality=(0.5, 0.9)[chosen], cost=decisions.cost[0, chosen])
    pacer, spent = Pacer(rate=4e-4), []
    for _ in range(400):
        decisions = replayer.decide(plan.features[0], 40.0, price=Price.flat(1, pacer.price))
        spent.append(float(decisions.cost[0, decisions.chosen[0]]))
        pacer.observe(decisions, spent[-1])
    assert min(spent) < 2e-4 and max(spent) > 8e-4
    assert 0.97 < np.mean(spent[100:]) / 4e-4 < 1.03

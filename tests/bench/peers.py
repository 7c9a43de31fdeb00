"""Two published bandit libraries on the very streams that `sim.replay.run` gives our router.

The same seed gives the same order of rows, the same learned and scored halves and the same cost
priors. Of each row a peer sees the features, and then the quality and cost of the model that it
chose; it goes on learning while it is scored. Neither library is changed: what it lacks, it lacks.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from mabwiser.mab import MAB, LearningPolicy
from pareto_bandit import BanditRouter, FeatureService
from pareto_bandit.budget_pacer import BudgetPacer
from pareto_bandit.config import BEST_K3_TABULA_RASA_HPARAMS, DEFAULT_PCA_PATH

from banditroute.embedding import make_embedder
from banditroute.pool import ModelSpec, default_tau_cost
from policies.base import Float32, Float64
from sim.datasets import Dataset
from sim.prices import drawn
from sim.replay import Experiment
from sim.trace import Trace
from sim.world import World

MAB_ALPHA = 0.1


class ParetoBandit:
    """ParetoBandit's router, started cold with the parameters that its authors chose for that.

    Parameters
    ----------
    experiment : its features, of any length, are the contexts.
    specs : the models and their drawn prices.
    seed : breaks ties.
    forgets : with the factor that goes with those parameters, or not at all.

    Notes
    -----
    A model's price per 1k tokens is its drawn output price, for input and output alike: all that
    our router is told of cost, which is its mean cost up to the drawn error. Its cost penalty
    lambda_c is w_c / w_q, as in our utility; its scale of cost stays the package's own, the
    logarithm between two market prices, so the same weight is another point on its trade-off. A
    budget rate is the target of its pacer, which is told what each answer really cost.
    """

    name = "paretobandit"

    def __init__(
        self,
        experiment: Experiment,
        specs: Sequence[ModelSpec],
        seed: int,
        *,
        forgets: bool = True,
    ) -> None:
        logging.getLogger("pareto_bandit").setLevel(logging.ERROR)
        quality, cost, _ = experiment.preference
        rate = experiment.budget_rate
        self._columns = {spec.name: k for k, spec in enumerate(specs)}
        self._router = BanditRouter.create(
            model_registry={spec.name: _market_price(spec) for spec in specs},
            priors="none",
            feature_service=FeatureService.for_precomputed(experiment.features.shape[1]),
            alpha=BEST_K3_TABULA_RASA_HPARAMS["alpha"],
            forgetting_factor=BEST_K3_TABULA_RASA_HPARAMS["forgetting_factor"] if forgets else 1.0,
            cost_penalty=cost / quality,
            budget_pacer=None if rate is None else BudgetPacer(rate),
            bandit_seed=seed,
        )

    def offer(self, specs: Sequence[ModelSpec], *, gone: Collection[str] = ()) -> None:
        """Take up new models and other prices; the package has no way to drain one."""
        for spec in specs:
            known = spec.name in self._router.registry
            if spec.name in gone:
                self._router.registry.pop(spec.name, None)
            elif known:
                self._router.update_model_pricing(spec.name, **_market_price(spec))
            else:
                self._router.register_model(spec.name, **_market_price(spec))

    def decide_name(self, x: Float64) -> str:
        """Return the name of the model for features x[d]."""
        name, self._log = self._router.route(x)
        return str(name)

    def decide(self, x: Float64) -> int:
        """Return the model for features x[d]."""
        return self._columns[self.decide_name(x)]

    def feed(self, quality: float, cost: float) -> None:
        """Learn from the answer to the last decision."""
        # The log holds its own estimate, from the words of the prompt; the bill replaces it.
        self._log.cost_usd = cost
        self._router.process_feedback(self._log.request_id, quality)


def _market_price(spec: ModelSpec) -> dict[str, float]:
    return {"input_cost_per_m": spec.output_price, "output_cost_per_m": spec.output_price}


class Mabwiser:
    """MABWiser's LinUCB on the reward q - (w_c / w_q) min(c / tau, 1), updated row by row.

    Parameters
    ----------
    experiment : its features are the contexts; a budget rate is refused.
    specs : the models and their drawn prices, which only set tau as for our router.
    seed : of the first choice, which it cannot make itself before anything was learned.

    Notes
    -----
    The ridge is 1: with any other, its inverse of an arm without rewards is not the inverse.
    """

    name = "mabwiser"

    def __init__(self, experiment: Experiment, specs: Sequence[ModelSpec], seed: int) -> None:
        if experiment.budget_rate is not None:
            raise ValueError("mabwiser has no budget control")
        quality, cost, _ = experiment.preference
        self._weight, self._tau = cost / quality, default_tau_cost(list(specs))
        self._arms = list(range(len(specs)))
        ucb = LearningPolicy.LinUCB(alpha=MAB_ALPHA, l2_lambda=1.0)
        self._mab = MAB(self._arms, ucb, seed=seed)
        self._first: int | None = int(np.random.default_rng([seed, 1]).integers(len(specs)))

    def decide(self, x: Float64) -> int:
        """Return the model for features x[d]."""
        self._x = x[None]
        self._chosen = self._mab.predict(self._x) if self._first is None else self._first
        return self._chosen

    def feed(self, quality: float, cost: float) -> None:
        """Learn from the answer to the last decision."""
        reward = quality - self._weight * min(cost / self._tau, 1.0)
        learn = self._mab.partial_fit if self._first is None else self._mab.fit
        learn([self._chosen], [reward], self._x)
        self._first = None


PEERS = {kind.name: kind for kind in (ParetoBandit, Mabwiser)}


def run(experiment: Experiment, name: str, seed: int) -> Trace:
    """Replay a peer under one seed, as `sim.replay.run` does a policy; there is no digest."""
    data = experiment.dataset
    learned, scored = experiment.split.rows(data, np.random.default_rng([seed, 0]))
    peer = PEERS[name](experiment, experiment.prices or drawn(data, seed=seed), seed)
    features = experiment.features.astype(np.float64)
    order = np.concatenate([learned, scored])
    chosen = np.zeros(len(order), dtype=np.intp)
    for at, row in enumerate(order.tolist()):
        arm = chosen[at] = peer.decide(features[row])
        peer.feed(float(data.quality[row, arm]), float(data.cost[row, arm]))
    unknown = np.full(len(scored), np.nan)
    return Trace(
        label=name,
        seed=seed,
        world=World.still(data, scored),
        chosen=chosen[len(learned) :],
        propensity=unknown,
        entropy=unknown,
    )


def pareto_features(dataset: Dataset, folder: Path) -> Float32:
    """Return ParetoBandit's own features[n, 26]: MiniLM, the 25 components it ships, intercept.

    Parameters
    ----------
    dataset : its prompts.
    folder : where they are kept from one run to the next; MiniLM takes milliseconds a prompt.
    """
    kept = folder / f"paretobandit-{dataset.digest()[:16]}.npy"
    if kept.exists():
        found: Float32 = np.load(kept, allow_pickle=False)
        return found
    prompts = list(dataset.prompts)
    vectors = dict(zip(prompts, make_embedder("minilm").vectors(prompts), strict=True))
    service = FeatureService(
        custom_encoder=vectors.__getitem__, embedding_dim=384, pca_path=DEFAULT_PCA_PATH
    )
    features = np.array(service.extract_features_batch(prompts), dtype=np.float32)
    np.save(kept, features)
    return features

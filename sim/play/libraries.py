"""Two published bandit libraries as players, on the very worlds that our router gets.

They are an extra and may be missing. Neither is changed: what it lacks, it lacks.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from banditroute.core.pool import ModelSpec, default_tau_cost_usd
from policies.base import Float32, Float64
from sim.play.player import Choice, Player

MAB_ALPHA = 0.1


class ParetoBandit:
    """ParetoBandit's router, started cold with the parameters that its authors chose for that.

    Parameters
    ----------
    specs : the models first on offer, and their drawn prices.
    params : ``alpha`` and ``forgetting_factor``, where they are not to be the authors'.
    dim : number of features, of any kind.
    preference : weights of (quality, cost, latency).
    rate : US dollars per request, the target of its pacer; None for no pacer.
    seed : breaks ties.

    Notes
    -----
    A model's price per 1k tokens is its drawn output price, for input and output alike: all that
    our router is told of cost, which is its mean cost up to the drawn error. Its cost penalty
    lambda_c is w_c / w_q, as in our utility; its scale of cost stays the package's own, the
    logarithm between two market prices, so the same weight is another point on its trade-off. Its
    pacer is told what each answer really cost, but has no cap; it hears of it with the feedback,
    and never where there is none.
    """

    name = "paretobandit"
    package = "pareto_bandit"
    params = ("alpha", "forgetting_factor")
    budgets = True

    def __init__(
        self,
        specs: Sequence[ModelSpec],
        *,
        params: Mapping[str, object],
        dim: int,
        preference: tuple[float, float, float],
        rate: float | None,
        seed: int,
    ) -> None:
        package = import_module(self.package)
        pacer = import_module(f"{self.package}.budget_pacer")
        authors = import_module(f"{self.package}.config").BEST_K3_TABULA_RASA_HPARAMS
        logging.getLogger(self.package).setLevel(logging.ERROR)
        quality, cost, _ = preference
        self._router = package.BanditRouter.create(
            model_registry={spec.name: _market_price(spec) for spec in specs},
            priors="none",
            feature_service=package.FeatureService.for_precomputed(dim),
            **{key: params.get(key, authors[key]) for key in self.params},
            cost_penalty=cost / quality,
            budget_pacer=None if rate is None else pacer.BudgetPacer(rate),
            bandit_seed=seed,
        )

    def begin(self, requests: int) -> None:
        """Go on: its pacer knows no horizon."""

    def offer(
        self,
        specs: Sequence[ModelSpec],
        *,
        draining: Collection[str] = (),
        worst: Mapping[str, float] | None = None,
    ) -> None:
        """Take up new models and other prices; the package has no way to drain one."""
        for spec in specs:
            if spec.name in draining:
                self._router.registry.pop(spec.name, None)
            elif spec.name in self._router.registry:
                self._router.update_model_pricing(spec.name, **_market_price(spec))
            else:
                self._router.register_model(spec.name, **_market_price(spec))

    def decide(self, x: Float32, tokens: Float64) -> list[Choice]:
        """Decide one request after the other."""
        routed = [self._router.route(row) for row in x.astype(np.float64)]
        return [Choice(str(name), note=log) for name, log in routed]

    def bill(self, choice: Choice, cost: float) -> None:
        """Put the bill in the log, which holds the package's own estimate."""
        choice.note.cost_usd = cost

    def feed(self, choice: Choice, *, quality: float, cost: float) -> None:
        """Learn from feedback on an answer."""
        self._router.process_feedback(choice.note.request_id, quality)

    def digest(self) -> str:
        """Return nothing: there is no fold."""
        return ""


def _market_price(spec: ModelSpec) -> dict[str, float]:
    return {"input_cost_per_m": spec.output_price, "output_cost_per_m": spec.output_price}


class Mabwiser:
    """MABWiser's LinUCB on the reward q - (w_c / w_q) min(c / tau, 1), updated row by row.

    Parameters
    ----------
    specs : the models first on offer; their drawn prices only set tau, as for our router.
    params : ``alpha``.
    dim : number of features, of any kind.
    preference : weights of (quality, cost, latency).
    rate : of no use to it.
    seed : of the choices that it cannot make itself, before anything was learned.

    Notes
    -----
    The ridge is 1: with any other, its inverse of an arm without rewards is not the inverse. It has
    no budget control.
    """

    name = "mabwiser"
    package = "mabwiser"
    params = ("alpha",)
    budgets = False

    def __init__(
        self,
        specs: Sequence[ModelSpec],
        *,
        params: Mapping[str, object],
        dim: int,
        preference: tuple[float, float, float],
        rate: float | None,
        seed: int,
    ) -> None:
        package = import_module("mabwiser.mab")
        quality, cost, _ = preference
        self._weight, self._tau = cost / quality, default_tau_cost_usd(list(specs))
        arms = [spec.name for spec in specs]
        ucb = package.LearningPolicy.LinUCB(alpha=params.get("alpha", MAB_ALPHA), l2_lambda=1.0)
        self._mab = package.MAB(arms, ucb, seed=seed)
        self._rng = np.random.default_rng([seed, 1])
        self._fitted = False

    def begin(self, requests: int) -> None:
        """Go on: it knows no horizon."""

    def offer(
        self,
        specs: Sequence[ModelSpec],
        *,
        draining: Collection[str] = (),
        worst: Mapping[str, float] | None = None,
    ) -> None:
        """Take up new models and drop others, with what they taught; prices mean nothing to it."""
        for spec in specs:
            if spec.name in draining and spec.name in self._mab.arms:
                self._mab.remove_arm(spec.name)
            elif spec.name not in draining and spec.name not in self._mab.arms:
                self._mab.add_arm(spec.name)

    def decide(self, x: Float32, tokens: Float64) -> list[Choice]:
        """Decide one request after the other."""
        made = []
        for row in x.astype(np.float64)[:, None]:
            if self._fitted:
                name = self._mab.predict(row)
            else:
                name = self._mab.arms[int(self._rng.integers(len(self._mab.arms)))]
            made.append(Choice(name, note=row))
        return made

    def bill(self, choice: Choice, cost: float) -> None:
        """Do nothing: it knows of cost by feedback alone."""

    def feed(self, choice: Choice, *, quality: float, cost: float) -> None:
        """Learn from feedback on an answer, unless the model was dropped meanwhile."""
        if choice.model not in self._mab.arms:
            return
        reward = quality - self._weight * min(cost / self._tau, 1.0)
        learn = self._mab.partial_fit if self._fitted else self._mab.fit
        learn([choice.model], [reward], choice.note)
        self._fitted = True

    def digest(self) -> str:
        """Return nothing: there is no fold."""
        return ""


LIBRARIES: dict[str, type[ParetoBandit] | type[Mabwiser]] = {
    kind.name: kind for kind in (ParetoBandit, Mabwiser)
}


def check(name: str, params: Mapping[str, object]) -> None:
    """Refuse, as a ValueError, a peer that is not installed or a parameter that it lacks."""
    kind = LIBRARIES[name]
    for key, value in params.items():
        if key not in kind.params:
            raise ValueError(f"{key}: unknown parameter of {name}; valid: {', '.join(kind.params)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0.0:
            raise ValueError(f"{key}: not a valid value: {value!r}")
    if find_spec(kind.package) is None:
        raise ValueError(f"name: {name} is not installed: pip install 'banditroute[peers]'")


def make(name: str, specs: Sequence[ModelSpec], **rest: Any) -> Player:
    """Return the peer `name`; see its class for the rest."""
    return LIBRARIES[name](specs, **rest)

"""Two published bandit libraries as players, in the very worlds that our router plays.

They are an extra and may be missing. Neither is changed: what a library lacks is not added here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from banditroute.core.pool import ModelSpec, default_tau_cost_usd
from policies.base import Float32, Float64
from sim.play.player import Choice, ModelsOnOffer

MAB_ALPHA = 0.1
"""Default of `Mabwiser`'s ``alpha``."""


@dataclass
class Library:
    """What a library starts with, and what none has: a horizon and a fold.

    Parameters
    ----------
    specs : sequence of ModelSpec
        The models first on offer, and their drawn prices.
    params : mapping of str to object
        Values of the class's `parameters`, in place of the default ones.
    dim : int
        Number of features, of any kind.
    preference : tuple of float
        Weights of (quality, cost, latency).
    rate_usd : float or None
        US dollars per request of a budget, None for no budget.
    seed : int
        Of what the library draws.
    """

    specs: Sequence[ModelSpec]
    params: Mapping[str, object]
    dim: int
    preference: tuple[float, float, float]
    rate_usd: float | None
    seed: int

    def __post_init__(self) -> None:
        """Start the library."""
        raise NotImplementedError

    def begin(self, requests: int) -> None:
        """See `Player.begin`; a library has no horizon."""

    def digest(self) -> str:
        """Return "": there is no fold."""
        return ""


class ParetoBandit(Library):
    """ParetoBandit's router, started cold with the parameters that its authors chose for that.

    Notes
    -----
    A model's price of input and output tokens alike is its drawn output price. That is all that our
    router knows of cost at the start: the model's mean cost, up to the drawn error. The library's
    cost penalty lambda_c is w_c / w_q, as in our utility. Its scale of cost stays its own, the
    logarithm between two market prices, so the same weight is another point on its trade-off. Its
    pacer, whose target is the rate, has no cap. It gets the real cost of an answer only with the
    feedback on it. The seed breaks ties.
    """

    name = "paretobandit"
    package = "pareto_bandit"
    parameters = ("alpha", "forgetting_factor")
    budgets = True

    def __post_init__(self) -> None:
        """Start the library."""
        package = import_module(self.package)
        pacer = import_module(f"{self.package}.budget_pacer")
        authors = import_module(f"{self.package}.config").BEST_K3_TABULA_RASA_HPARAMS
        logging.getLogger(self.package).setLevel(logging.ERROR)
        quality, cost, _ = self.preference
        self._router = package.BanditRouter.create(
            model_registry={spec.name: _market_price(spec) for spec in self.specs},
            priors="none",
            feature_service=package.FeatureService.for_precomputed(self.dim),
            **{key: self.params.get(key, authors[key]) for key in self.parameters},
            cost_penalty=cost / quality,
            budget_pacer=None if self.rate_usd is None else pacer.BudgetPacer(self.rate_usd),
            bandit_seed=self.seed,
        )

    def offer(self, offer: ModelsOnOffer) -> None:
        """See `Player.offer`; a draining model is removed, since the library cannot drain one."""
        for spec in offer.specs:
            if spec.name in offer.draining:
                self._router.registry.pop(spec.name, None)
            elif spec.name in self._router.registry:
                self._router.update_model_pricing(spec.name, **_market_price(spec))
            else:
                self._router.register_model(spec.name, **_market_price(spec))

    def decide(self, x: Float32, prompt_bytes: Float64) -> list[Choice]:
        """See `Player.decide`; one request after the other."""
        routed = [self._router.route(row) for row in x.astype(np.float64)]
        return [Choice(str(name), note=log) for name, log in routed]

    def bill(self, choice: Choice, cost_usd: float) -> None:
        """See `Player.bill`; the cost replaces the library's own estimate in its log."""
        choice.note.cost_usd = cost_usd

    def feed(self, choice: Choice, *, quality: float, cost_usd: float) -> None:
        """See `Player.feed`."""
        self._router.process_feedback(choice.note.request_id, quality)


def _market_price(spec: ModelSpec) -> dict[str, float]:
    return {"input_cost_per_m": spec.output_price, "output_cost_per_m": spec.output_price}


class Mabwiser(Library):
    """MABWiser's LinUCB on the reward q - (w_c / w_q) min(c / tau, 1), updated row by row.

    Notes
    -----
    The ridge is 1: with any other, its inverse of an arm without rewards is not the inverse. Drawn
    prices only set tau, as for our router. There is no budget control, so the rate is not used. The
    seed is also that of the choices before anything was learned, which the library cannot make.
    """

    name = "mabwiser"
    package = "mabwiser"
    parameters = ("alpha",)
    budgets = False

    def __post_init__(self) -> None:
        """Start the library."""
        package = import_module(f"{self.package}.mab")
        quality, cost, _ = self.preference
        self._weight, self._tau_cost_usd = cost / quality, default_tau_cost_usd(list(self.specs))
        alpha = self.params.get("alpha", MAB_ALPHA)
        ucb = package.LearningPolicy.LinUCB(alpha=alpha, l2_lambda=1.0)
        self._mab = package.MAB([spec.name for spec in self.specs], ucb, seed=self.seed)
        self._rng = np.random.default_rng([self.seed, 1])
        self._fitted = False

    def offer(self, offer: ModelsOnOffer) -> None:
        """See `Player.offer`; a draining model is removed with what was learned of it."""
        for spec in offer.specs:
            if spec.name in offer.draining and spec.name in self._mab.arms:
                self._mab.remove_arm(spec.name)
            elif spec.name not in offer.draining and spec.name not in self._mab.arms:
                self._mab.add_arm(spec.name)

    def decide(self, x: Float32, prompt_bytes: Float64) -> list[Choice]:
        """See `Player.decide`; one request after the other."""
        made = []
        for row in x.astype(np.float64)[:, None]:
            if self._fitted:
                name = self._mab.predict(row)
            else:
                name = self._mab.arms[int(self._rng.integers(len(self._mab.arms)))]
            made.append(Choice(name, note=row))
        return made

    def bill(self, choice: Choice, cost_usd: float) -> None:
        """See `Player.bill`; the library learns of cost by feedback alone."""

    def feed(self, choice: Choice, *, quality: float, cost_usd: float) -> None:
        """See `Player.feed`; feedback on a model that was removed meanwhile is lost."""
        if choice.model not in self._mab.arms:
            return
        reward = quality - self._weight * min(cost_usd / self._tau_cost_usd, 1.0)
        learn = self._mab.partial_fit if self._fitted else self._mab.fit
        learn([choice.model], [reward], choice.note)
        self._fitted = True


LIBRARIES: dict[str, type[ParetoBandit] | type[Mabwiser]] = {
    kind.name: kind for kind in (ParetoBandit, Mabwiser)
}
"""The libraries by the name that ``--policy`` takes."""


def check(name: str, params: Mapping[str, object]) -> None:
    """Check that a library is installed and takes these parameters.

    Parameters
    ----------
    name : str
        A key of `LIBRARIES`.
    params : mapping of str to object
        Parameters by name.

    Raises
    ------
    ValueError
        With the offending field first.
    """
    kind = LIBRARIES[name]
    for key, value in params.items():
        if key not in kind.parameters:
            raise ValueError(
                f"{key}: unknown parameter of {name}; valid: {', '.join(kind.parameters)}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0.0:
            raise ValueError(f"{key}: not a valid value: {value!r}")
    if find_spec(kind.package) is None:
        raise ValueError(f"name: {name} is not installed: pip install 'banditroute[peers]'")

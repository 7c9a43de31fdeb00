"""Two published bandit libraries as players, in the very worlds that our router plays.

They are an extra and may be missing. Neither is changed: what a library lacks is not added here.
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
"""Default of `Mabwiser`'s ``alpha``."""


class ParetoBandit:
    """ParetoBandit's router, started cold with the parameters that its authors chose for that.

    Parameters
    ----------
    specs : sequence of ModelSpec
        The models first on offer, and their drawn prices.
    params : mapping of str to object
        ``alpha`` and ``forgetting_factor``, in place of the authors'.
    dim : int
        Number of features, of any kind.
    preference : tuple of float
        Weights of (quality, cost, latency).
    rate_usd : float or None
        US dollars per request, the target of its pacer; None for no pacer.
    seed : int
        Breaks ties.

    Notes
    -----
    A model's price of input and output tokens alike is its drawn output price. That is all that our
    router knows of cost at the start: the model's mean cost, up to the drawn error. The library's
    cost penalty lambda_c is w_c / w_q, as in our utility. Its scale of cost stays its own, the
    logarithm between two market prices, so the same weight is another point on its trade-off. Its
    pacer has no cap, and gets the real cost of an answer only with the feedback on it.
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
        rate_usd: float | None,
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
            budget_pacer=None if rate_usd is None else pacer.BudgetPacer(rate_usd),
            bandit_seed=seed,
        )

    def begin(self, requests: int) -> None:
        """See `Player.begin`; the pacer has no horizon."""

    def offer(
        self,
        specs: Sequence[ModelSpec],
        *,
        draining: Collection[str] = (),
        reservation_usd: Mapping[str, float] | None = None,
    ) -> None:
        """See `Player.offer`; a draining model is removed, since the library cannot drain one."""
        for spec in specs:
            if spec.name in draining:
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

    def digest(self) -> str:
        """Return "": there is no fold."""
        return ""


def _market_price(spec: ModelSpec) -> dict[str, float]:
    return {"input_cost_per_m": spec.output_price, "output_cost_per_m": spec.output_price}


class Mabwiser:
    """MABWiser's LinUCB on the reward q - (w_c / w_q) min(c / tau, 1), updated row by row.

    Parameters
    ----------
    specs : sequence of ModelSpec
        The models first on offer. Their drawn prices only set tau, as for our router.
    params : mapping of str to object
        ``alpha``.
    dim : int
        Not used.
    preference : tuple of float
        Weights of (quality, cost, latency).
    rate_usd : float or None
        Not used: the library has no budget control.
    seed : int
        Of the choices before anything was learned, which the library cannot make.

    Notes
    -----
    The ridge is 1: with any other, its inverse of an arm without rewards is not the inverse.
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
        rate_usd: float | None,
        seed: int,
    ) -> None:
        package = import_module("mabwiser.mab")
        quality, cost, _ = preference
        self._weight, self._tau_cost_usd = cost / quality, default_tau_cost_usd(list(specs))
        arms = [spec.name for spec in specs]
        ucb = package.LearningPolicy.LinUCB(alpha=params.get("alpha", MAB_ALPHA), l2_lambda=1.0)
        self._mab = package.MAB(arms, ucb, seed=seed)
        self._rng = np.random.default_rng([seed, 1])
        self._fitted = False

    def begin(self, requests: int) -> None:
        """See `Player.begin`; the library has no horizon."""

    def offer(
        self,
        specs: Sequence[ModelSpec],
        *,
        draining: Collection[str] = (),
        reservation_usd: Mapping[str, float] | None = None,
    ) -> None:
        """See `Player.offer`; a draining model is removed with what was learned of it."""
        for spec in specs:
            if spec.name in draining and spec.name in self._mab.arms:
                self._mab.remove_arm(spec.name)
            elif spec.name not in draining and spec.name not in self._mab.arms:
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

    def digest(self) -> str:
        """Return "": there is no fold."""
        return ""


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
        if key not in kind.params:
            raise ValueError(f"{key}: unknown parameter of {name}; valid: {', '.join(kind.params)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0.0:
            raise ValueError(f"{key}: not a valid value: {value!r}")
    if find_spec(kind.package) is None:
        raise ValueError(f"name: {name} is not installed: pip install 'banditroute[peers]'")


def make(name: str, specs: Sequence[ModelSpec], **parameters: Any) -> Player:
    """Return a library as a player.

    Parameters
    ----------
    name : str
        A key of `LIBRARIES`.
    specs : sequence of ModelSpec
        The models first on offer.
    **parameters : Any
        The other parameters of its class.
    """
    return LIBRARIES[name](specs, **parameters)

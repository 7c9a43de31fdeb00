"""Published libraries as players: what they get, with stand-ins of the same interface."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from banditroute.core.pool import ModelSpec
from sim.play import libraries
from sim.play.player import Choice, ModelsOnOffer, Player

X = np.array([[0.5, 1.0], [0.25, 1.0]], dtype=np.float32)
TOKENS = np.array([10.0, 20.0])
Made = Callable[..., Player]


def spec(name: str, price: float) -> ModelSpec:
    return ModelSpec(name=name, input_price=0.0, output_price=price)


SPECS = [spec("a", 1.0), spec("b", 2.0)]


def made(name: str, **rest: Any) -> Player:
    given = {"params": {}, "dim": 2, "preference": (0.8, 0.2, 0.0), "rate_usd": None, "seed": 3}
    return libraries.LIBRARIES[name](SPECS, **(given | rest))


@dataclass
class Router:
    """Stands in for ParetoBandit's router: chooses the first model, and keeps the feedback."""

    given: dict[str, Any]
    registry: dict[str, Any]
    feedback: list[Any] = field(default_factory=list)

    @classmethod
    def create(cls, *, model_registry: dict[str, Any], **given: Any) -> Router:
        made = cls(given, dict(model_registry))
        ROUTERS.append(made)
        return made

    def route(self, x: np.ndarray) -> tuple[str, SimpleNamespace]:
        assert x.dtype == np.float64
        return next(iter(self.registry)), SimpleNamespace(
            request_id=len(self.feedback), cost_usd=0.0
        )

    def process_feedback(self, request_id: int, reward: float) -> None:
        self.feedback.append((request_id, reward))

    def register_model(self, name: str, **prices: float) -> None:
        self.registry[name] = prices

    update_model_pricing = register_model


ROUTERS: list[Router] = []


@pytest.fixture
def pareto(monkeypatch: pytest.MonkeyPatch) -> list[Router]:
    package, pacer, config = (ModuleType(name) for name in ("p", "pacer", "config"))
    package.BanditRouter = Router  # type: ignore[attr-defined]
    package.FeatureService = SimpleNamespace(for_precomputed=lambda dim: f"of {dim}")  # type: ignore[attr-defined]
    pacer.BudgetPacer = lambda rate: f"paced at {rate}"  # type: ignore[attr-defined]
    config.BEST_K3_TABULA_RASA_HPARAMS = {"alpha": 0.05, "forgetting_factor": 0.997}  # type: ignore[attr-defined]
    for name, module in (("", package), (".budget_pacer", pacer), (".config", config)):
        monkeypatch.setitem(sys.modules, f"pareto_bandit{name}", module)
    ROUTERS.clear()
    return ROUTERS


def test_paretobandit_starts_with_its_authors_parameters_and_our_preference(
    pareto: list[Router],
) -> None:
    made("paretobandit", rate_usd=1e-3, params={"forgetting_factor": 1})
    (router,) = pareto
    assert router.given == {
        "priors": "none",
        "feature_service": "of 2",
        "alpha": 0.05,
        "forgetting_factor": 1,
        "cost_penalty": 0.25,
        "budget_pacer": "paced at 0.001",
        "bandit_seed": 3,
    }
    assert router.registry["b"] == {"input_cost_per_m": 2.0, "output_cost_per_m": 2.0}


def test_paretobandit_is_told_bills_feedback_and_offers(pareto: list[Router]) -> None:
    player = made("paretobandit")
    first, second = player.decide(X, TOKENS)
    assert first.model == "a" and np.isnan(first.propensity) and player.digest() == ""
    player.bill(first, 0.5)
    player.feed(second, quality=0.7, cost_usd=0.1)
    assert first.note.cost_usd == 0.5 and pareto[0].feedback == [(second.note.request_id, 0.7)]
    player.offer(ModelsOnOffer([spec("a", 1.0), spec("b", 4.0), spec("c", 3.0)], draining={"a"}))
    assert list(pareto[0].registry) == ["b", "c"]
    assert pareto[0].registry["b"]["output_cost_per_m"] == 4.0
    player.offer(ModelsOnOffer([spec("a", 1.0), spec("b", 4.0), spec("c", 3.0)]))
    assert list(pareto[0].registry) == ["b", "c", "a"]


class Mab:
    """Stands in for MABWiser: chooses the last arm, and keeps the calls that teach it."""

    def __init__(self, arms: list[str], policy: Any, *, seed: int) -> None:
        self.arms, self.policy, self.feedback = list(arms), policy, []

    def predict(self, x: np.ndarray) -> str:
        assert self.feedback
        return self.arms[-1]

    def fit(self, arms: list[str], rewards: list[float], x: np.ndarray) -> None:
        self.feedback.append(("fit", arms, rewards, x.tolist()))

    def partial_fit(self, arms: list[str], rewards: list[float], x: np.ndarray) -> None:
        self.feedback.append(("partial_fit", arms, rewards, x.tolist()))

    def add_arm(self, arm: str) -> None:
        self.arms.append(arm)

    def remove_arm(self, arm: str) -> None:
        self.arms.remove(arm)


@pytest.fixture
def mab(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("mab")
    module.MAB = Mab  # type: ignore[attr-defined]
    module.LearningPolicy = SimpleNamespace(LinUCB=lambda **given: given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mabwiser", ModuleType("mabwiser"))
    monkeypatch.setitem(sys.modules, "mabwiser.mab", module)


@pytest.mark.usefixtures("mab")
def test_mabwiser_learns_utility_and_is_asked_once_it_was_taught() -> None:
    player = made("mabwiser")
    (first,) = player.decide(X[:1], TOKENS[:1])
    assert first.model in ("a", "b")
    # tau is what 512 output tokens of the most expensive model cost.
    player.feed(first, quality=0.9, cost_usd=0.5 * 512 * 2.0 / 1e6)
    (second,) = player.decide(X[1:], TOKENS[1:])
    player.feed(second, quality=0.4, cost_usd=1.0)
    calls = player._mab.feedback  # type: ignore[attr-defined]
    assert [call[0] for call in calls] == ["fit", "partial_fit"]
    assert calls[0][1:] == ([first.model], [pytest.approx(0.9 - 0.25 * 0.5)], [[0.5, 1.0]])
    assert (second.model, calls[1][2]) == ("b", [pytest.approx(0.4 - 0.25)])


@pytest.mark.usefixtures("mab")
def test_mabwiser_forgets_a_model_that_is_drained_and_late_feedback_on_it() -> None:
    player = made("mabwiser")
    player.offer(ModelsOnOffer([*SPECS, spec("c", 1.0)], draining={"a"}))
    assert player._mab.arms == ["b", "c"]  # type: ignore[attr-defined]
    player.feed(Choice("a", note=X[:1]), quality=1.0, cost_usd=0.0)
    assert player._mab.feedback == []  # type: ignore[attr-defined]

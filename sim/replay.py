"""Replay: the daemon's own router and fold, driven in process over logged rows.

Per decision it does what the daemon does, in the same order: score one request from the newest
snapshot, draw, then fold the quality and the cost of the chosen model. The labels of the other
models are never shown to anything but the references.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from banditroute.fold import Event, Fold
from banditroute.frame import Asks, Decisions
from banditroute.pool import Charter, Model, ModelSpec, PoolOptions, default_tau_cost
from banditroute.router import Purse, Router
from policies import Outcome, make_pacing
from policies.base import Float32, Float64
from policies.price import Price
from sim.datasets import Dataset
from sim.errors import InputError
from sim.pacing import Budget, following
from sim.prices import drawn
from sim.trace import Trace
from sim.world import World

POOL = "replay"
_SHUFFLE, _DRAWS = 0, 1


@dataclass(frozen=True, slots=True)
class Split:
    """Which rows are learned from first, and which are then scored while learning goes on.

    Attributes
    ----------
    learn, test : names of splits in the data; both or none.
    fraction : without names, the share of the shuffled rows that come before the scored ones.
    """

    learn: str | None = None
    test: str | None = None
    fraction: float = 0.5

    def rows(
        self, dataset: Dataset, rng: np.random.Generator
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return (learned, scored) rows in shuffled order.

        Raises
        ------
        InputError
            For a split that the data does not have, or when no row is left to score.
        """
        if self.learn is None or self.test is None:
            order = rng.permutation(len(dataset))
            cut = round(self.fraction * len(dataset))
            if cut == len(dataset):
                raise InputError(f"--learn-fraction: {self.fraction:g} leaves no row to score")
            return order[:cut], order[cut:]
        parts = []
        for option, name in (("--learn-split", self.learn), ("--test-split", self.test)):
            rows = np.flatnonzero(np.array(dataset.split) == name)
            if len(rows) == 0:
                known = ", ".join(repr(one) for one in sorted(set(dataset.split)))
                raise InputError(f"{option}: {dataset.name} has no split {name!r}; it has {known}")
            parts.append(rng.permutation(rows))
        return parts[0], parts[1]


@dataclass(frozen=True, slots=True)
class Experiment:
    """Everything about a replay but the policy and the seed.

    Attributes
    ----------
    dataset : complete data, without NaN.
    features : float32[n, d], computed once by the embedder.
    embedder : identity of that embedder.
    split : which rows are learned from and which are scored.
    preference : weights of (quality, cost, latency), sum 1.
    prices : one spec per model, or None to draw a cost prior for every seed.
    budget_rate : US dollars per request, or None. Learned and scored rows are a budget each, of
        the rate times their number; what a model may have to be paid is its largest cost in the
        data, and a request that finds no money for any is refused and scores 0.
    """

    dataset: Dataset
    features: Float32
    embedder: str
    split: Split
    preference: tuple[float, float, float]
    prices: Sequence[ModelSpec] | None = None
    budget_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy as asked for: its label in reports, its name and its parameters.

    `prior` is a `banditroute.prior.Prior` as text, "" for none; `reset_on_drift` as in a pool;
    `pacing` is the mode that prices a budget's money.
    """

    label: str
    name: str
    params: dict[str, object]
    prior: str = ""
    reset_on_drift: bool = False
    pacing: str = "history"


class Replayer:
    """One pool in process: a router, and the fold that it scores from.

    Parameters
    ----------
    specs : the models and their prices.
    contender : the policy.
    dim, embedder : of the features.
    preference : weights of (quality, cost, latency), sum 1.
    rng : source of the router's uniforms.
    """

    def __init__(
        self,
        *,
        specs: Sequence[ModelSpec],
        contender: Contender,
        dim: int,
        embedder: str,
        preference: tuple[float, float, float],
        rng: np.random.Generator,
    ) -> None:
        options = PoolOptions(reset_on_drift=contender.reset_on_drift)
        charter = Charter(
            policy=contender.name,
            params=contender.params,
            embedder=embedder,
            dim=dim,
            tau_cost=options.tau_cost or default_tau_cost(list(specs)),
            tau_latency_ms=options.tau_latency_ms,
            prior=contender.prior,
        )
        self.fold = Fold(charter)
        self._append(kind="policy_started", payload=charter.payload())
        self.router = Router(options=options, snapshot=self.fold.snapshot(), models=[], rng=rng)
        self.offer(specs)
        self._preference = preference
        self._weights = np.array([preference])

    def offer(self, specs: Sequence[ModelSpec], *, draining: Collection[str] = ()) -> None:
        """Choose from these models at these prices from now on; a new one is added to the log."""
        for spec in specs:
            if spec.name not in self.fold.policy.arms:
                self._append(kind="model_added", payload={"name": spec.name})
        models = [
            Model(
                spec.name,
                spec.input_price,
                spec.output_price,
                price_id=k,
                draining=spec.name in draining,
            )
            for k, spec in enumerate(specs, start=1)
        ]
        self.router.swap(snapshot=self.fold.snapshot(), models=models)

    def decide(
        self,
        x: Float32,
        tokens: float,
        *,
        price: Price | None = None,
        purse: Purse | None = None,
        worst: Float64 | None = None,
    ) -> Decisions:
        """Decide one request of features x[d] and `tokens` bytes, from all that was learned.

        Parameters
        ----------
        price, purse : see `Router.decide`.
        worst : see `ask`.
        """
        return self.ready().decide(self.ask(x, tokens, worst=worst), price=price, purse=purse)

    def ready(self) -> Router:
        """Return the router, scoring from all that was learned."""
        self.router.swap(snapshot=self.fold.snapshot())
        return self.router

    def ask(self, x: Float32, tokens: float, *, worst: Float64 | None = None) -> Asks:
        """Return one request of features x[d] and `tokens` bytes.

        Parameters
        ----------
        worst : float64[K], US dollars to reserve, where the models' prices do not tell.
        """
        return Asks(
            features=x[None],
            preference=self._weights,
            input_tokens=np.array([tokens / 4.0]),
            input_bound=np.array([tokens]),
            worst=None if worst is None else worst[None],
        )

    def feed(self, decisions: Decisions, *, quality: float, cost: float) -> None:
        """Fold the outcome of the one decision, as the daemon logs it from one feedback."""
        frame, chosen = decisions.frame, int(decisions.chosen[0])
        input_cost = float(decisions.input_cost[0, chosen])
        output = float(frame.output_prior[chosen])
        for field, value in (("quality", quality), ("cost", cost)):
            outcome = Outcome(
                seq=self.fold.version + 1,
                decision_id="",
                arm=frame.models[chosen].name,
                x=decisions.asks.features[0],
                field=field,
                value=value,
                cost=cost,
                propensity=float(decisions.pmf[0, chosen]),
                preference=self._preference,
                cost_prior=input_cost + output,
                input_cost=input_cost,
            )
            self._append(kind="feedback", outcome=outcome)
        if self.router.options.reset_on_drift:
            for arm, trigger in self.fold.drift.alarms().items():
                self._append(kind="reset", payload={"arm": arm, "trigger_seq": trigger})

    def _append(
        self,
        *,
        kind: str,
        outcome: Outcome | None = None,
        payload: dict[str, object] | None = None,
    ) -> None:
        self.fold.apply(
            Event(
                seq=self.fold.version + 1,
                pool=POOL,
                kind=kind,
                outcome=outcome,
                embedder=self.fold.charter.embedder,
                payload=payload or {},
            )
        )


def run(experiment: Experiment, contender: Contender, seed: int) -> Trace:
    """Replay one policy under one seed; the same arguments give the same bits."""
    data = experiment.dataset
    learned, scored = experiment.split.rows(data, np.random.default_rng([seed, _SHUFFLE]))
    replayer = Replayer(
        specs=experiment.prices or drawn(data, seed=seed),
        contender=contender,
        dim=experiment.features.shape[1],
        embedder=experiment.embedder,
        preference=experiment.preference,
        rng=np.random.default_rng([seed, _DRAWS]),
    )
    rate, worst = experiment.budget_rate, data.cost.max(axis=0)
    budget = Budget(make_pacing(contender.pacing), rate, len(learned)) if rate else None
    chosen = np.empty(len(data), dtype=np.intp)
    propensity, entropy = np.full((2, len(data)), np.nan)
    for part in (learned, scored):
        if budget is not None and part is scored:
            budget = following(budget, len(scored))
        for row in part.tolist():
            tokens = float(len(data.prompts[row].encode("utf-8", "surrogatepass")))
            asks = replayer.ask(experiment.features[row], tokens, worst=worst)
            router = replayer.ready()
            decisions = budget.decide(router, asks) if budget else router.decide(asks)
            arm = chosen[row] = int(decisions.chosen[0])
            if arm < 0:
                continue
            pmf = decisions.pmf[0]
            propensity[row] = pmf[arm]
            entropy[row] = entr(pmf).sum()
            cost = float(data.cost[row, arm])
            replayer.feed(decisions, quality=float(data.quality[row, arm]), cost=cost)
            if budget:
                budget.settle(decisions, cost)
    return Trace(
        label=contender.label,
        seed=seed,
        world=World.still(data, scored),
        chosen=chosen[scored],
        propensity=propensity[scored],
        entropy=entropy[scored],
        digest=replayer.fold.digest(),
    )


def run_all(
    experiment: Experiment,
    contenders: Sequence[Contender],
    seeds: Sequence[int],
    *,
    jobs: int = 1,
    on_done: Callable[[], None] = lambda: None,
) -> list[Trace]:
    """Replay every policy under every seed, in processes when `jobs` is above 1.

    Parameters
    ----------
    experiment, contenders, seeds : what to run; the result does not depend on `jobs`.
    jobs : number of processes.
    on_done : called after each run.

    Returns
    -------
    list of Trace
        By policy, then by seed.
    """
    tasks = [(contender, seed) for contender in contenders for seed in seeds]
    if jobs <= 1 or len(tasks) == 1:
        runs = []
        for contender, seed in tasks:
            runs.append(run(experiment, contender, seed))
            on_done()
        return runs
    executor = ProcessPoolExecutor(
        max_workers=min(jobs, len(tasks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_enter,
        initargs=(experiment,),
    )
    try:
        futures = [executor.submit(_run, contender, seed) for contender, seed in tasks]
        for future in as_completed(futures):
            future.result()
            on_done()
        return [future.result() for future in futures]
    except BaseException:
        for process in list((executor._processes or {}).values()):
            process.terminate()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_experiment: Experiment | None = None


def _enter(experiment: Experiment) -> None:
    global _experiment
    _experiment = experiment
    # The parent alone answers Ctrl-C, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(contender: Contender, seed: int) -> Trace:
    assert _experiment is not None, f"worker {os.getpid()} was not set up"
    return run(_experiment, contender, seed)

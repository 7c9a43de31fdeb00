"""The decision: features -> eligibility -> scores -> penalty -> pmf -> draw.

The router is pure: it holds an immutable snapshot, the models of one pool and an injected random
generator, and touches neither SQL nor a clock. The daemon and the simulator run this very object.
Everything is columnar; a single request is a batch of one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from banditroute.pool import NANO, Charter, Model, PoolOptions
from policies import Policy
from policies.base import Arrays, Bools, Float32, Float64
from policies.cost import CostModel, LatencyModel
from policies.exploration import shares, trial_shares
from policies.laws import draw
from policies.preference import penalty

REASONS = (
    "eligible",
    "draining",
    "capability",
    "context_length",
    "not_allowed",
    "max_cost_usd",
    "max_latency_ms",
    "budget",
    "exploration_cost",
)
"""Why a model was left out, in the order of the checks; the log stores the index."""

_CODE = {reason: code for code, reason in enumerate(REASONS)}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a fold published: enough to score, never enough to learn. Immutable once built.

    `version` is the log position that it covers; `drift` is what `policies.drift.Drift` published.
    """

    version: int
    charter: Charter
    policy: Policy
    cost: CostModel
    latency: LatencyModel
    drift: Arrays

    def alarms(self) -> dict[str, int]:
        """Return the models whose drift alarm stands, and the log position that raised it."""
        pairs = zip(self.policy.arms, self.drift["trigger"].tolist(), strict=True)
        return {name: trigger for name, trigger in pairs if trigger}


@dataclass(frozen=True, slots=True)
class Asks:
    """A batch of n requests, as columns; a limit that no row sets is None.

    Attributes
    ----------
    features : float32[n, d].
    preference : float64[n, 3], weights of (quality, cost, latency).
    input_tokens : float64[n], for the prediction of cost.
    input_bound : float64[n], for the reservation; at least `input_tokens`.
    max_output_tokens : float64[n], inf where the request sets none.
    max_cost_usd, max_latency_ms : float64[n], inf where the request sets none.
    models : per row the allowed names, or None for all.
    requires : per row the capabilities that a model must have.
    """

    features: Float32
    preference: Float64
    input_tokens: Float64
    input_bound: Float64
    max_output_tokens: Float64 | None = None
    max_cost_usd: Float64 | None = None
    max_latency_ms: Float64 | None = None
    models: Sequence[frozenset[str] | None] | None = None
    requires: Sequence[frozenset[str]] | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """The columns of a decision: the pool's models that the snapshot knows, and their prices."""

    snapshot: Snapshot
    models: tuple[Model, ...]
    columns: NDArray[np.intp] | None
    input_price: Float64
    output_price: Float64
    output_prior: Float64
    output_limit: Float64
    context_length: Float64
    draining: Bools
    names_json: str
    prices_json: str

    @classmethod
    def of(cls, snapshot: Snapshot, models: Sequence[Model]) -> Frame:
        """Align `models` with the arms of `snapshot`; a model that it does not know waits."""
        position = {name: k for k, name in enumerate(snapshot.policy.arms)}
        known = sorted((m for m in models if m.name in position), key=lambda m: position[m.name])
        columns = np.array([position[m.name] for m in known], dtype=np.intp)
        whole = len(known) == len(position)
        return cls(
            snapshot=snapshot,
            models=tuple(known),
            columns=None if whole else columns,
            input_price=np.array([m.input_price for m in known]) / 1e6,
            output_price=np.array([m.output_price for m in known]) / 1e6,
            output_prior=np.array([m.prior_output_tokens * m.output_price / 1e6 for m in known]),
            output_limit=np.array([float(m.output_limit) for m in known]),
            context_length=np.array([float(m.context_length or np.inf) for m in known]),
            draining=np.array([m.draining for m in known], dtype=np.bool_),
            names_json=json.dumps([m.name for m in known]),
            prices_json=json.dumps([m.price_id for m in known]),
        )


@dataclass(frozen=True, slots=True)
class Decisions:
    """n decisions over the K models of a frame, with every input of their pmf.

    Attributes
    ----------
    verdict : uint8[n, K], index into `REASONS`.
    scores : named float32[n, K], what the policy's law reads.
    mean, std : float32[n, K], estimated quality.
    cost, latency, penalty : float64[n, K]: US dollars, milliseconds, quality units.
    explore : float64[n, K], absolute exploration shares; zeros when there are none.
    pmf : float64[n, K], the exact law of the draw.
    u : float64[n], the uniform that was drawn.
    chosen : int[n], column of the chosen model, -1 where none is eligible.
    reserved_nano : int64[n, K], worst cost in nano-dollars.
    max_output : float64[n, K], output tokens that the reservation covers.
    """

    frame: Frame
    asks: Asks
    verdict: NDArray[np.uint8]
    scores: dict[str, Float32]
    mean: Float32
    std: Float32
    cost: Float64
    latency: Float64
    penalty: Float64
    explore: Float64
    pmf: Float64
    u: Float64
    chosen: NDArray[np.intp]
    input_cost: Float64
    reserved_nano: NDArray[np.int64]
    max_output: Float64
    price_of_money: float
    spend_rate: float

    def fallbacks(self) -> list[list[str]]:
        """Return, per row, the eligible models that were not chosen, best utility first.

        What a policy that reads the preference makes of it shows in its law alone.
        """
        names = [model.name for model in self.frame.models]
        own = self.frame.snapshot.policy.reads_preference
        worst_last = -self.pmf if own else self.penalty - self.mean
        order = np.argsort(worst_last, axis=1, kind="stable").tolist()
        rows = zip(order, self.verdict.tolist(), self.chosen.tolist(), strict=True)
        return [
            [names[k] for k in ranked if verdict[k] == 0 and k != chosen]
            for ranked, verdict, chosen in rows
        ]


class Router:
    """Decides for one pool.

    Parameters
    ----------
    options : the pool's settings.
    snapshot : what to score from; `swap` replaces it.
    models : the pool's models with the prices in force.
    rng : source of the uniforms.
    """

    def __init__(
        self,
        *,
        options: PoolOptions,
        snapshot: Snapshot,
        models: Sequence[Model],
        rng: np.random.Generator,
    ) -> None:
        self.options = options
        self.frame = Frame.of(snapshot, models)
        self._all_models = tuple(models)
        self._rng = rng
        self._trials = self._find_trials()
        self._spend_sum = 0.0
        self._spend_count = 0.0

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot in use."""
        return self.frame.snapshot

    def swap(
        self, *, snapshot: Snapshot | None = None, models: Sequence[Model] | None = None
    ) -> None:
        """Use another snapshot or other models from the next decision on."""
        if models is not None:
            self._all_models = tuple(models)
        same_arms = (
            snapshot is not None
            and models is None
            and snapshot.policy.arms == self.snapshot.policy.arms
        )
        if same_arms and snapshot is not None:
            self.frame = replace(self.frame, snapshot=snapshot)
        else:
            self.frame = Frame.of(snapshot or self.snapshot, self._all_models)
        self._trials = self._find_trials()

    def _find_trials(self) -> list[tuple[Bools, float]]:
        """Return the columns that are tried as such, and the share of each such group.

        Newcomers came after the policy had learned and have hardly been tried; suspects were
        found worse by a drift alarm, and nobody would see them recover.
        """
        options, snapshot = self.options, self.snapshot
        view = snapshot.policy.view
        new: Bools = (view["born"] > 0) & (view["pulls"] < options.newcomer_pulls)
        groups = [(new, options.newcomer_share)]
        if options.reset_on_drift:
            groups.append((snapshot.drift["suspect"], options.recheck_share))
        if self.frame.columns is not None:
            groups = [(arms[self.frame.columns], share) for arms, share in groups]
        return [(arms, share) for arms, share in groups if share > 0.0 and arms.any()]

    def decide(self, asks: Asks, *, price_of_money: float = 0.0) -> Decisions:
        """Choose a model for every row of `asks`.

        Parameters
        ----------
        asks : n requests.
        price_of_money : the budget's price lambda, in quality units per US dollar.
        """
        frame, options = self.frame, self.options
        charter = frame.snapshot.charter
        n = len(asks.features)
        scores, mean, std, latency = self._score(asks)
        input_cost = asks.input_tokens[:, None] * frame.input_price
        cost = self._cost(asks, input_cost)
        max_output = np.empty_like(cost)
        max_output[:] = frame.output_limit
        if asks.max_output_tokens is not None:
            max_output = np.minimum(max_output, asks.max_output_tokens[:, None])
        worst = asks.input_bound[:, None] * frame.input_price + max_output * frame.output_price
        # Up to the next nano-dollar, but not for the noise in the last bits of a product.
        reserved = np.ceil(worst * NANO - 1e-3).astype(np.int64)
        verdict = self._verdict(asks, worst, latency)
        fine = penalty(
            cost,
            latency,
            asks.preference,
            tau_cost=charter.tau_cost,
            tau_latency=charter.tau_latency_ms,
            price_of_money=price_of_money,
        )
        if frame.snapshot.policy.reads_preference:
            weighed = frame.snapshot.policy.weighed(asks.features, asks.preference)
            fine -= weighed if frame.columns is None else weighed[:, frame.columns]
        law = type(frame.snapshot.policy).pmf
        pmf = law(scores, verdict == 0, fine)
        # Rows without an eligible model spend nothing and do not count.
        own_cost, served = float(np.vdot(pmf, cost)), float(pmf.sum())
        rate = (
            self._spend_sum / self._spend_count if self._spend_count else own_cost / (served or 1)
        )
        explore = np.zeros(pmf.shape)
        if options.exploration_share > 0.0:
            explore, excluded = shares(
                pmf,
                verdict == 0,
                cost,
                share=options.exploration_share,
                cost_share=options.exploration_cost_share,
                spend_rate=rate,
                min_propensity=options.min_propensity,
            )
            verdict[excluded] = _CODE["exploration_cost"]
        for arms, share in self._trials:
            explore = trial_shares(
                pmf,
                verdict == 0,
                cost,
                explore,
                arms=arms,
                share=share,
                cost_share=options.exploration_cost_share,
                spend_rate=rate,
            )
        if options.exploration_share > 0.0 or self._trials:
            pmf = law(scores, verdict == 0, fine, explore)
        self._spend_sum += own_cost
        self._spend_count += served
        u = self._rng.random(n)
        return Decisions(
            frame=frame,
            asks=asks,
            verdict=verdict,
            scores=scores,
            mean=mean,
            std=std,
            cost=cost,
            latency=latency,
            penalty=fine,
            explore=explore,
            pmf=pmf,
            u=u,
            chosen=draw(pmf, u),
            input_cost=input_cost,
            reserved_nano=reserved,
            max_output=max_output,
            price_of_money=price_of_money,
            spend_rate=rate,
        )

    def _score(self, asks: Asks) -> tuple[dict[str, Float32], Float32, Float32, Float64]:
        frame, snapshot = self.frame, self.frame.snapshot
        scores, mean, std = snapshot.policy.assess(asks.features, asks.preference)
        latency = snapshot.latency.predict(len(asks.features))
        if frame.columns is not None:
            scores = {name: value[:, frame.columns] for name, value in scores.items()}
            mean, std = mean[:, frame.columns], std[:, frame.columns]
            latency = latency[:, frame.columns]
        return scores, mean, std, latency

    def _cost(self, asks: Asks, input_cost: Float64) -> Float64:
        frame, model = self.frame, self.frame.snapshot.cost
        output_prior = frame.output_prior
        cost = model.predict(asks.features, input_cost, output_prior, columns=frame.columns)
        if asks.max_output_tokens is not None:
            ceiling = asks.max_output_tokens[:, None] * frame.output_price
            cost = np.minimum(cost, input_cost + ceiling)
        return cost

    def _verdict(self, asks: Asks, worst: Float64, latency: Float64) -> NDArray[np.uint8]:
        """Return the index of the first reason against each model, 0 where there is none."""
        frame = self.frame
        verdict = np.zeros(worst.shape, dtype=np.uint8)

        def reject(reason: str, where: Bools) -> None:
            verdict[(verdict == 0) & where] = _CODE[reason]

        if frame.draining.any():
            reject("draining", np.broadcast_to(frame.draining, worst.shape))
        if asks.requires is not None:
            lacking = [[not r <= m.capabilities for m in frame.models] for r in asks.requires]
            reject("capability", np.array(lacking, dtype=np.bool_).reshape(worst.shape))
        if np.isfinite(frame.context_length).any():
            reject("context_length", asks.input_tokens[:, None] > frame.context_length)
        if asks.models is not None:
            barred = [
                [allow is not None and m.name not in allow for m in frame.models]
                for allow in asks.models
            ]
            reject("not_allowed", np.array(barred, dtype=np.bool_).reshape(worst.shape))
        if asks.max_cost_usd is not None:
            reject("max_cost_usd", worst > asks.max_cost_usd[:, None])
        if asks.max_latency_ms is not None:
            reject("max_latency_ms", latency > asks.max_latency_ms[:, None])
        return verdict

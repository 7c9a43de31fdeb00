"""The decision: features -> eligibility -> scores -> penalty -> pmf -> draw.

The router is pure: it holds an immutable snapshot, the models of one pool and an injected random
generator, and touches neither SQL nor a clock. The daemon and the simulator run this very object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from banditroute.core.pool import NANO, Model, PoolOptions
from banditroute.decide.columns import Decisions, ModelColumns, RequestBatch, Snapshot
from banditroute.decide.reasons import BUDGET, CODES
from policies.base import Bools, Float32, Float64
from policies.exploration import shares, spend, trial_shares
from policies.laws import draw
from policies.pacing.base import Window
from policies.pacing.price import Price, cheapest, poor, priced
from policies.preference import penalty


class Purse(Protocol):
    """What the requests of one call may spend; one request after the other takes from it."""

    def headroom(self, row: int) -> int:
        """Return the nano-dollars that the reservation of a request may take now."""

    def spare(self, row: int) -> int:
        """Return how much of that is for other models than the cheapest.

        The rest is kept for the cheapest answers to later requests.
        """

    def take(self, row: int, nano: int) -> None:
        """Take the reservation of a request."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """n requests as the snapshot and the price rows see them; see `Decisions` for the columns.

    `worst` is the reservation[n, K] in US dollars, `reserved` the same in nano-dollars; `verdict`
    knows nothing of budgets yet.
    """

    scores: dict[str, Float32]
    mean: Float32
    std: Float32
    latency: Float64
    input_cost: Float64
    cost: Float64
    penalty: Float64
    worst: Float64
    reserved: NDArray[np.int64]
    max_output: Float64
    verdict: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Draft:
    """n requests, scored and priced: all that choosing reads."""

    scores: dict[str, Float32]
    mean: Float32
    cost: Float64
    penalty: Float64
    verdict: NDArray[np.uint8]
    price: Price

    def row(self, i: int) -> _Draft:
        at = slice(i, i + 1)
        return _Draft(
            {name: value[at] for name, value in self.scores.items()},
            self.mean[at],
            self.cost[at],
            self.penalty[at],
            self.verdict[at],
            self.price.take(at),
        )


@dataclass(frozen=True, slots=True)
class _Choice:
    """Of n requests: what is left out and why, exploration shares, the law without and with them,
    float64[n, K] each, and the spend rate[n, 1].
    """

    verdict: NDArray[np.uint8]
    explore: Float64
    exploit: Float64
    pmf: Float64
    rate: Float64

    def replace(self, i: int, by: _Choice) -> None:
        """Put the one row of `by` in the place of row i."""
        for name in self.__slots__:
            getattr(self, name)[i] = getattr(by, name)[0]


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
        self.frame = ModelColumns.of(snapshot, models)
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
            self.frame = ModelColumns.of(snapshot or self.snapshot, self._all_models)
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

    def worst(self, asks: RequestBatch) -> NDArray[np.int64]:
        """Return the nano-dollars[n, K] that each model's reservation would take."""
        return self._reserve(asks)[1]

    def decide(
        self, asks: RequestBatch, *, price: Price | None = None, purse: Purse | None = None
    ) -> Decisions:
        """Choose a model for every row of `asks`.

        Parameters
        ----------
        asks : n requests.
        price : the price of money; None means that it costs nothing.
        purse : where reservations are taken from, in the order of the rows; None means that no
            budget applies. A row that it does not cover is filtered and chosen for anew, so the
            pmf is the law that the draw followed.
        """
        frame = self.frame
        n = len(asks.features)
        seen = self._see(asks)
        price = price or Price.none(n)
        draft = _Draft(seen.scores, seen.mean, seen.cost, seen.penalty, seen.verdict, price)
        choice = self._choose(draft)
        u = self._rng.random(n)
        chosen = draw(choice.pmf, u)
        if purse is not None:
            dearest = seen.reserved.max(axis=1, initial=0).tolist()
            for i, arm in enumerate(chosen.tolist()):
                # What earlier rows took may leave too little for all models of this one.
                if min(purse.headroom(i), purse.spare(i)) < dearest[i]:
                    short = self._short(draft, i, seen.reserved[i], purse)
                    if short.any():
                        draft.verdict[i, short] = BUDGET
                        again = self._choose(draft.row(i))
                        choice.replace(i, again)
                        arm = chosen[i] = draw(again.pmf, u[i : i + 1])[0]
                if arm >= 0:
                    purse.take(i, seen.reserved[i, arm].item())
        # Rows without an eligible model spend nothing and do not count.
        self._spend_sum += float(np.vdot(choice.exploit, seen.cost))
        self._spend_count += float(choice.exploit.sum())
        return Decisions(
            frame=frame,
            asks=asks,
            verdict=choice.verdict,
            scores=seen.scores,
            mean=seen.mean,
            std=seen.std,
            cost=seen.cost,
            latency=seen.latency,
            penalty=seen.penalty,
            explore=choice.explore,
            pmf=choice.pmf,
            u=u,
            chosen=chosen,
            input_cost=seen.input_cost,
            reserved_nano=seen.reserved,
            max_output=seen.max_output,
            price=price,
            spend_rate=choice.rate[:, 0],
            exploration_usd=spend(choice.exploit, choice.verdict == 0, seen.cost, choice.explore),
        )

    def window(self, asks: RequestBatch) -> Window:
        """Score requests as `decide` would now, for whoever prices money; nothing is drawn."""
        seen = self._see(asks)
        return Window(
            kind=type(self.snapshot.policy),
            scores=seen.scores,
            eligible=seen.verdict == 0,
            penalty=seen.penalty,
            mean=seen.mean,
            cost=seen.cost,
            worst=seen.worst,
        )

    def _see(self, asks: RequestBatch) -> _Seen:
        frame, snapshot = self.frame, self.snapshot
        policy_identity = snapshot.policy_identity
        scores, mean, std, latency = self._score(asks)
        input_cost = asks.input_tokens[:, None] * frame.input_price
        cost = self._cost(asks, input_cost)
        worst, reserved, max_output = self._reserve(asks)
        fine = penalty(
            cost,
            latency,
            asks.preference,
            tau_cost=policy_identity.tau_cost,
            tau_latency=policy_identity.tau_latency_ms,
        )
        if snapshot.policy.reads_preference:
            weighed = snapshot.policy.weighed(asks.features, asks.preference)
            fine -= weighed if frame.columns is None else weighed[:, frame.columns]
        return _Seen(
            scores=scores,
            mean=mean,
            std=std,
            latency=latency,
            input_cost=input_cost,
            cost=cost,
            penalty=fine,
            worst=worst,
            reserved=reserved,
            max_output=max_output,
            verdict=self._verdict(asks, worst, latency),
        )

    @staticmethod
    def _short(draft: _Draft, i: int, reserved: NDArray[np.int64], purse: Purse) -> Bools:
        """Return which eligible models[K] of a row the purse does not cover."""
        eligible: Bools = draft.verdict[i] == 0
        headroom, spare = purse.headroom(i), purse.spare(i)
        room = np.full(len(eligible), min(spare, headroom))
        if spare < headroom and eligible.any():
            # Nothing is kept for a cheapest model whose own reservation does not fit.
            fits = eligible & (reserved <= headroom)
            room[cheapest(draft.cost[i : i + 1], fits[None])] = headroom
        return eligible & (reserved > room)

    def _choose(self, draft: _Draft) -> _Choice:
        options, kind, price = self.options, type(self.snapshot.policy), draft.price
        verdict, cost = draft.verdict.copy(), draft.cost
        verdict[poor(draft.mean, cost, verdict == 0, price.gain)] = CODES["price_of_money"]
        scores, fine = draft.scores, draft.penalty
        pmf = exploit = priced(kind, scores, verdict == 0, fine, cost, price)
        explore = np.zeros(pmf.shape)
        if self._spend_count:
            own = self._spend_sum / self._spend_count
        else:
            own = float(np.vdot(pmf, cost)) / (float(pmf.sum()) or 1.0)
        rate = np.where(np.isnan(price.rate), own, price.rate)
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
            verdict[excluded] = CODES["exploration_cost"]
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
            pmf = priced(kind, scores, verdict == 0, fine, cost, price, explore)
        return _Choice(verdict, explore, exploit, pmf, rate)

    def _reserve(self, asks: RequestBatch) -> tuple[Float64, NDArray[np.int64], Float64]:
        """Return the worst case[n, K] in US dollars and nano-dollars, and its output tokens."""
        frame = self.frame
        max_output = np.empty((len(asks.features), len(frame.models)))
        max_output[:] = frame.output_limit
        if asks.max_output_tokens is not None:
            max_output = np.minimum(max_output, asks.max_output_tokens[:, None])
        worst = asks.worst
        if worst is None:
            worst = asks.input_bound[:, None] * frame.input_price + max_output * frame.output_price
        # Up to the next nano-dollar, but not for the noise in the last bits of a product.
        return worst, np.ceil(worst * NANO - 1e-3).astype(np.int64), max_output

    def _score(self, asks: RequestBatch) -> tuple[dict[str, Float32], Float32, Float32, Float64]:
        frame, snapshot = self.frame, self.frame.snapshot
        scores, mean, std = snapshot.policy.assess(asks.features, asks.preference)
        latency = snapshot.latency.predict(len(asks.features))
        if frame.columns is not None:
            scores = {name: value[:, frame.columns] for name, value in scores.items()}
            mean, std = mean[:, frame.columns], std[:, frame.columns]
            latency = latency[:, frame.columns]
        return scores, mean, std, latency

    def _cost(self, asks: RequestBatch, input_cost: Float64) -> Float64:
        frame, model = self.frame, self.frame.snapshot.cost
        output_prior = frame.output_prior
        cost = model.predict(asks.features, input_cost, output_prior, columns=frame.columns)
        if asks.max_output_tokens is not None:
            ceiling = asks.max_output_tokens[:, None] * frame.output_price
            cost = np.minimum(cost, input_cost + ceiling)
        return cost

    def _verdict(self, asks: RequestBatch, worst: Float64, latency: Float64) -> NDArray[np.uint8]:
        """Return the index of the first reason against each model, 0 where there is none."""
        frame = self.frame
        verdict = np.zeros(worst.shape, dtype=np.uint8)

        def reject(reason: str, where: Bools) -> None:
            verdict[(verdict == 0) & where] = CODES[reason]

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

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
from banditroute.decide.columns import (
    Decisions,
    ModelColumns,
    RequestBatch,
    ScoredBatch,
    Snapshot,
)
from banditroute.decide.reasons import BUDGET, CODES
from policies.base import Bools, Float32, Float64
from policies.exploration import exploration_usd, shares, trial_shares
from policies.laws import draw
from policies.pacing.price import Price, below_gain, cheapest, priced
from policies.preference import penalty


class Purse(Protocol):
    """What the requests of one call may reserve; one request after the other takes from it."""

    def headroom(self, row: int) -> int:
        """Return the nano-dollars that the reservation of a request may take now."""

    def spare(self, row: int) -> int:
        """Return how many of these nano-dollars models other than the cheapest may take.

        The rest is kept for the cheapest answers to later requests.
        """

    def take(self, row: int, nano: int) -> None:
        """Take the reservation of a request, in nano-dollars."""


@dataclass(frozen=True, slots=True)
class _Law:
    """The law of n requests, and what it was made from.

    Attributes
    ----------
    reasons : uint8[n, K]
        Why a model is left out, 0 where it is not.
    explore : float64[n, K]
        Exploration shares.
    exploit, pmf : float64[n, K]
        The law without and with exploration.
    spend_rate_usd : float64[n, 1]
        US dollars per request that exploration's budget is a share of.
    """

    reasons: NDArray[np.uint8]
    explore: Float64
    exploit: Float64
    pmf: Float64
    spend_rate_usd: Float64

    def replace_row(self, i: int, by: _Law) -> None:
        """Put the one row of `by` in the place of row i."""
        for name in self.__slots__:
            getattr(self, name)[i] = getattr(by, name)[0]


class Router:
    """Decides for one pool.

    Parameters
    ----------
    options : PoolOptions
        The pool's settings.
    snapshot : Snapshot
        What to score from; `swap` replaces it.
    models : sequence of Model
        The pool's models with the prices in force.
    rng : numpy.random.Generator
        Source of the uniforms.
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
        self.columns = ModelColumns.of(snapshot, models)
        self._all_models = tuple(models)
        self._rng = rng
        self._trials = self._find_trials()
        self._spend_sum_usd = 0.0
        self._spend_count = 0.0

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot in use."""
        return self.columns.snapshot

    def swap(
        self, *, snapshot: Snapshot | None = None, models: Sequence[Model] | None = None
    ) -> None:
        """Use another snapshot or other models from the next score on."""
        if models is not None:
            self._all_models = tuple(models)
        snapshot = snapshot or self.snapshot
        if models is None and snapshot.policy.arms == self.snapshot.policy.arms:
            self.columns = replace(self.columns, snapshot=snapshot)
        else:
            self.columns = ModelColumns.of(snapshot, self._all_models)
        self._trials = self._find_trials()

    def score(self, requests: RequestBatch) -> ScoredBatch:
        """Score requests; nothing is drawn, and no budget is asked.

        Parameters
        ----------
        requests : RequestBatch
            n requests.

        Returns
        -------
        ScoredBatch
            For `choose`; it holds the worst case that a budget must cover.
        """
        columns, snapshot = self.columns, self.columns.snapshot
        scores, mean, std, latency_ms = self._estimate(requests)
        input_cost_usd = requests.input_tokens[:, None] * columns.input_token_usd
        cost_usd = self._cost_usd(requests, input_cost_usd)
        reservation_usd, max_output_tokens = self._reservation_usd(requests)
        fine = penalty(
            cost_usd,
            latency_ms,
            requests.preference,
            tau_cost_usd=snapshot.policy_identity.tau_cost_usd,
            tau_latency_ms=snapshot.policy_identity.tau_latency_ms,
        )
        if snapshot.policy.reads_preference:
            weighed = snapshot.policy.weighed(requests.features, requests.preference)
            fine -= weighed if columns.arm_index is None else weighed[:, columns.arm_index]
        return ScoredBatch(
            columns=columns,
            requests=requests,
            trials=self._trials,
            reasons=self._reasons(requests, reservation_usd, latency_ms),
            scores=scores,
            mean=mean,
            std=std,
            cost_usd=cost_usd,
            latency_ms=latency_ms,
            penalty=fine,
            input_cost_usd=input_cost_usd,
            reservation_usd=reservation_usd,
            # Up to the next nano-dollar, but not for the noise in the last bits of a product.
            reservation_nano=np.ceil(reservation_usd * NANO - 1e-3).astype(np.int64),
            max_output_tokens=max_output_tokens,
        )

    def choose(
        self, scored: ScoredBatch, *, price: Price | None = None, purse: Purse | None = None
    ) -> Decisions:
        """Choose a model for every request that was scored.

        Parameters
        ----------
        scored : ScoredBatch
            From `score`, of this router.
        price : Price or None
            The price of money; None means that it costs nothing.
        purse : Purse or None
            Where reservations are taken from, in the order of the rows; None means that no budget
            applies. A row that it does not cover is filtered and chosen for anew, so the pmf is
            the law that the draw followed.

        Returns
        -------
        Decisions
            With every input of their laws.
        """
        n = len(scored.mean)
        price = price or Price.none(n)
        law = self._law(scored, slice(None), scored.reasons, price)
        u = self._rng.random(n)
        chosen = draw(law.pmf, u)
        if purse is not None:
            self._reserve(scored, law, price, purse, u, chosen)
        # Rows without an eligible model spend nothing and do not count.
        self._spend_sum_usd += float(np.vdot(law.exploit, scored.cost_usd))
        self._spend_count += float(law.exploit.sum())
        return Decisions(
            scored=scored,
            reasons=law.reasons,
            explore=law.explore,
            pmf=law.pmf,
            u=u,
            chosen=chosen,
            price=price,
            spend_rate_usd=law.spend_rate_usd[:, 0],
            exploration_usd=exploration_usd(
                law.exploit, law.reasons == 0, scored.cost_usd, law.explore
            ),
        )

    def decide(
        self,
        requests: RequestBatch,
        *,
        price: Price | None = None,
        purse: Purse | None = None,
    ) -> Decisions:
        """Score and choose in one call; see `score` and `choose`."""
        return self.choose(self.score(requests), price=price, purse=purse)

    def _reserve(
        self,
        scored: ScoredBatch,
        law: _Law,
        price: Price,
        purse: Purse,
        u: Float64,
        chosen: NDArray[np.intp],
    ) -> None:
        """Take the reservations of all rows; a row that is not covered is drawn anew in place."""
        most_nano = scored.reservation_nano.max(axis=1, initial=0).tolist()
        for i, arm in enumerate(chosen.tolist()):
            # What earlier rows took may leave too little for all models of this one.
            if min(purse.headroom(i), purse.spare(i)) < most_nano[i]:
                short = self._short(scored, i, purse)
                if short.any():
                    row = slice(i, i + 1)
                    reasons = scored.reasons[row].copy()
                    reasons[0, short] = BUDGET
                    again = self._law(scored, row, reasons, price.take(row))
                    law.replace_row(i, again)
                    arm = chosen[i] = draw(again.pmf, u[row])[0]
            if arm >= 0:
                purse.take(i, scored.reservation_nano[i, arm].item())

    @staticmethod
    def _short(scored: ScoredBatch, i: int, purse: Purse) -> Bools:
        """Return which eligible models[K] of a row the purse does not cover."""
        eligible: Bools = scored.reasons[i] == 0
        reservation_nano = scored.reservation_nano[i]
        headroom, spare = purse.headroom(i), purse.spare(i)
        room = np.full(len(eligible), min(spare, headroom))
        if spare < headroom and eligible.any():
            # Nothing is kept for a cheapest model whose own reservation does not fit.
            fits = eligible & (reservation_nano <= headroom)
            room[cheapest(scored.cost_usd[i : i + 1], fits[None])] = headroom
        short: Bools = eligible & (reservation_nano > room)
        return short

    def _law(
        self, scored: ScoredBatch, rows: slice, reasons: NDArray[np.uint8], price: Price
    ) -> _Law:
        """Return the law of some rows; `reasons` and `price` are of these rows alone."""
        options, kind = self.options, type(scored.columns.snapshot.policy)
        scores = {name: value[rows] for name, value in scored.scores.items()}
        cost_usd, fine = scored.cost_usd[rows], scored.penalty[rows]
        reasons = reasons.copy()
        reasons[below_gain(scored.mean[rows], cost_usd, reasons == 0, price.gain)] = CODES[
            "price_of_money"
        ]
        pmf = exploit = priced(kind, scores, reasons == 0, fine, cost_usd, price)
        explore = np.zeros(pmf.shape)
        if self._spend_count:
            own_usd = self._spend_sum_usd / self._spend_count
        else:
            own_usd = float(np.vdot(pmf, cost_usd)) / (float(pmf.sum()) or 1.0)
        spend_rate_usd = np.where(np.isnan(price.rate_usd), own_usd, price.rate_usd)
        if options.exploration_share > 0.0:
            explore, excluded = shares(
                pmf,
                reasons == 0,
                cost_usd,
                share=options.exploration_share,
                cost_share=options.exploration_cost_share,
                spend_rate_usd=spend_rate_usd,
                min_propensity=options.min_propensity,
            )
            reasons[excluded] = CODES["exploration_cost"]
        for arms, share in scored.trials:
            explore = trial_shares(
                pmf,
                reasons == 0,
                cost_usd,
                explore,
                arms=arms,
                share=share,
                cost_share=options.exploration_cost_share,
                spend_rate_usd=spend_rate_usd,
            )
        if options.exploration_share > 0.0 or scored.trials:
            pmf = priced(kind, scores, reasons == 0, fine, cost_usd, price, explore)
        return _Law(reasons, explore, exploit, pmf, spend_rate_usd)

    def _find_trials(self) -> list[tuple[Bools, float]]:
        """Return the groups of models on trial, and the share of probability of each group.

        Newcomers came after the policy had learned, and have few outcomes. Suspects were found
        worse by a drift alarm; without trials their recovery would never be seen.
        """
        options, snapshot = self.options, self.snapshot
        view = snapshot.policy.view
        newcomers: Bools = (view["born"] > 0) & (view["pulls"] < options.newcomer_pulls)
        groups = [(newcomers, options.newcomer_share)]
        if options.reset_on_drift:
            groups.append((snapshot.drift["suspect"], options.recheck_share))
        if self.columns.arm_index is not None:
            groups = [(arms[self.columns.arm_index], share) for arms, share in groups]
        return [(arms, share) for arms, share in groups if share > 0.0 and arms.any()]

    def _reservation_usd(self, requests: RequestBatch) -> tuple[Float64, Float64]:
        """Return the worst case in US dollars and its output tokens, float64[n, K] each."""
        columns = self.columns
        max_output_tokens = np.empty((len(requests.features), len(columns.models)))
        max_output_tokens[:] = columns.output_limit_tokens
        if requests.max_output_tokens is not None:
            limit = requests.max_output_tokens[:, None]
            max_output_tokens = np.minimum(max_output_tokens, limit)
        reservation_usd = requests.reservation_usd
        if reservation_usd is None:
            input_usd = requests.input_bound[:, None] * columns.input_token_usd
            reservation_usd = input_usd + max_output_tokens * columns.output_token_usd
        return reservation_usd, max_output_tokens

    def _estimate(
        self, requests: RequestBatch
    ) -> tuple[dict[str, Float32], Float32, Float32, Float64]:
        """Return the scores, mean and std of quality, and the latency in ms, each [n, K]."""
        columns, snapshot = self.columns, self.columns.snapshot
        scores, mean, std = snapshot.policy.assess(requests.features, requests.preference)
        latency_ms = snapshot.latency.predict(len(requests.features))
        if columns.arm_index is not None:
            scores = {name: value[:, columns.arm_index] for name, value in scores.items()}
            mean, std = mean[:, columns.arm_index], std[:, columns.arm_index]
            latency_ms = latency_ms[:, columns.arm_index]
        return scores, mean, std, latency_ms

    def _cost_usd(self, requests: RequestBatch, input_cost_usd: Float64) -> Float64:
        """Return the predicted cost, float64[n, K]; no answer is longer than its limit."""
        columns = self.columns
        cost_usd = columns.snapshot.cost.predict(
            requests.features, input_cost_usd, columns.output_prior_usd, columns=columns.arm_index
        )
        if requests.max_output_tokens is not None:
            ceiling_usd = requests.max_output_tokens[:, None] * columns.output_token_usd
            cost_usd = np.minimum(cost_usd, input_cost_usd + ceiling_usd)
        return cost_usd

    def _reasons(
        self, requests: RequestBatch, reservation_usd: Float64, latency_ms: Float64
    ) -> NDArray[np.uint8]:
        """Return the index of the first reason against each model, 0 where there is none."""
        columns = self.columns
        reasons = np.zeros(reservation_usd.shape, dtype=np.uint8)

        def reject(reason: str, where: Bools) -> None:
            reasons[(reasons == 0) & where] = CODES[reason]

        if columns.draining.any():
            reject("draining", np.broadcast_to(columns.draining, reasons.shape))
        if requests.requires is not None:
            lacking = [
                [not needed <= model.capabilities for model in columns.models]
                for needed in requests.requires
            ]
            reject("capability", np.array(lacking, dtype=np.bool_).reshape(reasons.shape))
        if np.isfinite(columns.context_length).any():
            reject("context_length", requests.input_tokens[:, None] > columns.context_length)
        if requests.models is not None:
            barred = [
                [allowed is not None and model.name not in allowed for model in columns.models]
                for allowed in requests.models
            ]
            reject("not_allowed", np.array(barred, dtype=np.bool_).reshape(reasons.shape))
        if requests.max_cost_usd is not None:
            reject("max_cost_usd", reservation_usd > requests.max_cost_usd[:, None])
        if requests.max_latency_ms is not None:
            reject("max_latency_ms", latency_ms > requests.max_latency_ms[:, None])
        return reasons

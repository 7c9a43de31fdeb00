"""A replay's budget: what is left of it, and the mode that prices it, as a ledger holder has them.

A purse holds the hard cap by reservations, in nano-dollars; whatever a mode may believe, no answer
leaves that the purse does not cover. Bills are settled at once here.
"""

from __future__ import annotations

import math
from collections import deque
from copy import deepcopy
from dataclasses import dataclass, field, replace

import numpy as np

from banditroute.core.pool import NANO
from banditroute.decide.columns import Decisions, RequestBatch
from banditroute.decide.router import Router
from policies import Pacing
from policies.base import Float64
from policies.pacing.base import WINDOW, Money


@dataclass(slots=True)
class Cap:
    """A purse of one budget; all in nano-dollars, `keep` what is kept for cheapest answers."""

    limit: int
    spent: int = 0
    keep: int = 0

    def headroom(self, row: int) -> int:
        """Return what is not spent or reserved yet."""
        return self.limit - self.spent

    def spare(self, row: int) -> int:
        """Return what models other than the cheapest may take of that."""
        return self.limit - self.spent - self.keep

    def take(self, row: int, nano: int) -> None:
        """Take a reservation."""
        self.spent += nano

    def settle(self, nano: int, cost: float) -> None:
        """Give back what a reservation was too much."""
        self.spent += math.ceil(cost * NANO - 1e-3) - nano


@dataclass(slots=True)
class ReplayBudget:
    """Money for a stretch of requests, spent at a rate.

    Attributes
    ----------
    pacing : the mode; it outlives a budget, and knows its requests.
    rate : US dollars per request.
    requests : how many there will be, all of whose money may be spent at any time; None when
        nobody knows: each then brings its own money, beside an advance.
    advance : US dollars that may be spent ahead of time where the number is not known.
    recent : the last requests, whoever paid for them.
    """

    pacing: Pacing
    rate: float
    requests: int | None
    advance: float = 0.0
    recent: deque[RequestBatch] = field(default_factory=lambda: deque(maxlen=WINDOW))
    cap: Cap = field(init=False)
    _count: int = 0

    def __post_init__(self) -> None:
        limit = self.advance if self.requests is None else self.rate * self.requests
        self.cap = Cap(math.floor(limit * NANO))

    def decide(self, router: Router, asks: RequestBatch, *, changed: bool = False) -> Decisions:
        """Decide one request at the terms of now.

        Parameters
        ----------
        changed : whether a price row or a model has changed since the last one.
        """
        if self.requests is None:
            self.cap.limit = math.floor((self.advance + self.rate * (self._count + 1)) * NANO)
        if changed or self._count == 0 or self.pacing.due(self.pacing.count):
            scored = router.score(RequestBatch.join([*self.recent] or [asks]))
            self.pacing.solve(scored.window(), self._money())
        self.recent.append(asks)
        self._count += 1
        terms = self.pacing.terms
        self.cap.keep = int(terms.keep_usd * NANO)
        decisions = router.decide(asks, price=terms.rows(1), purse=self.cap)
        chosen = int(decisions.chosen[0])
        if chosen >= 0:
            reserved = decisions.scored.reservation_nano[0, chosen] / NANO
            self.pacing.charge(float(decisions.scored.cost_usd[0, chosen]), float(reserved))
        return decisions

    def fork(self) -> ReplayBudget:
        """Return a budget in the same state, which goes its own way from here."""
        twin = replace(self, pacing=deepcopy(self.pacing), recent=self.recent.copy())
        twin.cap, twin._count = replace(self.cap), self._count
        return twin

    def reserve(self, worst: Float64 | None) -> None:
        """Price the last requests as from now on, where other models are on offer, or dearer ones.

        Parameters
        ----------
        worst : float64[K], US dollars to reserve for each model; None where tokens tell.
        """
        for k, asks in enumerate(self.recent):
            n = len(asks.features)
            self.recent[k] = replace(
                asks, reservation_usd=None if worst is None else np.tile(worst, (n, 1))
            )

    def settle(self, decisions: Decisions, cost: float) -> None:
        """Take in what the answer to a decision has cost."""
        nano = int(decisions.scored.reservation_nano[0, decisions.chosen[0]])
        self.cap.settle(nano, cost)
        self.pacing.settle(nano / NANO, cost)

    def _money(self) -> Money:
        left = self.cap.headroom(0) / NANO
        requests = math.inf if self.requests is None else self.requests - self._count
        return Money(
            left_usd=left, cap_usd=self.cap.limit / NANO, requests=requests, rate_usd=self.rate
        )


def following(before: ReplayBudget, requests: int) -> ReplayBudget:
    """Return the budget of the next stretch, which knows the requests of the one before."""
    return ReplayBudget(before.pacing, before.rate, requests, recent=before.recent)

"""The budget of a replay: the money that is left, and the mode of pacing that sets its price.

A hard cap by reservations, in nano-dollars, holds whatever the mode believes: a request is never
answered by a model whose reservation the cap does not cover. Answers are billed at once here.
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
    """The hard cap of one budget, as the `Purse` of a router that decides one request at a time.

    Attributes
    ----------
    limit_nano : int
        What may be spent in all.
    spent_nano : int
        What was paid, and what is reserved.
    keep_nano : int
        What models other than a request's cheapest must leave.
    """

    limit_nano: int
    spent_nano: int = 0
    keep_nano: int = 0

    def headroom(self, row: int) -> int:
        """Return the nano-dollars that are neither spent nor reserved."""
        return self.limit_nano - self.spent_nano

    def spare(self, row: int) -> int:
        """Return the nano-dollars of these that models other than the cheapest may reserve."""
        return self.limit_nano - self.spent_nano - self.keep_nano

    def take(self, row: int, nano: int) -> None:
        """Reserve nano-dollars."""
        self.spent_nano += nano

    def settle(self, reserved_nano: int, cost_usd: float) -> None:
        """Replace a reservation by what the answer cost."""
        self.spent_nano += math.ceil(cost_usd * NANO - 1e-3) - reserved_nano


@dataclass(slots=True)
class ReplayBudget:
    """Money for a stretch of requests, to be spent at a rate.

    Attributes
    ----------
    pacing : Pacing
        The mode. It outlives the budget, and remembers earlier requests.
    rate_usd : float
        US dollars per request.
    requests : int or None
        The number of requests, whose whole money may be spent at any time. None where it is not
        known: then each request adds its own money to an advance.
    advance_usd : float
        US dollars that may be spent ahead of time where the number is not known.
    recent : deque of RequestBatch
        The last requests, those before this budget included.
    """

    pacing: Pacing
    rate_usd: float
    requests: int | None
    advance_usd: float = 0.0
    recent: deque[RequestBatch] = field(default_factory=lambda: deque(maxlen=WINDOW))
    cap: Cap = field(init=False)
    _count: int = 0

    def __post_init__(self) -> None:
        """Set the cap."""
        limit_usd = self.advance_usd
        if self.requests is not None:
            limit_usd = self.rate_usd * self.requests
        self.cap = Cap(math.floor(limit_usd * NANO))

    def decide(self, router: Router, request: RequestBatch, *, changed: bool = False) -> Decisions:
        """Decide one request at the current price of money, and reserve what it may cost.

        Parameters
        ----------
        router : Router
            Scores and decides.
        request : RequestBatch
            A batch of one.
        changed : bool
            Whether a price row or a model has changed since the last request.
        """
        if self.requests is None:
            limit_usd = self.advance_usd + self.rate_usd * (self._count + 1)
            self.cap.limit_nano = math.floor(limit_usd * NANO)
        if changed or self._count == 0 or self.pacing.due(self.pacing.count):
            scored = router.score(RequestBatch.join([*self.recent] or [request]))
            self.pacing.solve(scored.window(), self._money())
        self.recent.append(request)
        self._count += 1
        terms = self.pacing.terms
        self.cap.keep_nano = int(terms.keep_usd * NANO)
        decisions = router.decide(request, price=terms.rows(1), purse=self.cap)
        chosen = int(decisions.chosen[0])
        if chosen >= 0:
            reserved_usd = decisions.scored.reservation_nano[0, chosen] / NANO
            self.pacing.charge(float(decisions.scored.cost_usd[0, chosen]), float(reserved_usd))
        return decisions

    def fork(self) -> ReplayBudget:
        """Return a copy, which goes its own way from here."""
        twin = replace(self, pacing=deepcopy(self.pacing), recent=self.recent.copy())
        twin.cap, twin._count = replace(self.cap), self._count
        return twin

    def next(self, requests: int) -> ReplayBudget:
        """Return the budget of the next stretch of requests, which remembers this one's."""
        return ReplayBudget(self.pacing, self.rate_usd, requests, recent=self.recent)

    def reprice(self, reservation_usd: Float64 | None) -> None:
        """Let the last requests reserve what the next ones do, after a change of models or prices.

        Parameters
        ----------
        reservation_usd : float64[K] or None
            What an answer of each model reserves; None where that follows from tokens.
        """
        for k, request in enumerate(self.recent):
            n = len(request.features)
            rows = None if reservation_usd is None else np.tile(reservation_usd, (n, 1))
            self.recent[k] = replace(request, reservation_usd=rows)

    def settle(self, decisions: Decisions, cost_usd: float) -> None:
        """Replace the reservation of a decision by what the answer cost."""
        reserved_nano = int(decisions.scored.reservation_nano[0, decisions.chosen[0]])
        self.cap.settle(reserved_nano, cost_usd)
        self.pacing.settle(reserved_nano / NANO, cost_usd)

    def _money(self) -> Money:
        requests = math.inf if self.requests is None else self.requests - self._count
        return Money(
            left_usd=self.cap.headroom(0) / NANO,
            cap_usd=self.cap.limit_nano / NANO,
            requests=requests,
            rate_usd=self.rate_usd,
        )

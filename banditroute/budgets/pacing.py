"""The price of money in the daemon: the pacing of each budget, fed from this process.

A price is not a part of any policy's state. Each holder solves it from the last requests that it
saw, and from the money that SQL says is left, divided by the number of holders. After a restart the
last requests are read from the log. A cap must never depend on anything in this module.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from sqlalchemy import Engine

from banditroute.budgets.leases import Leases
from banditroute.budgets.reservation import LocalLease, Reservations
from banditroute.core import clock
from banditroute.core.budget import ROLLING, Budget
from banditroute.core.pool import NANO
from banditroute.decide.columns import Decisions, RequestBatch
from banditroute.decide.router import Router
from banditroute.store import ledger
from banditroute.store.ledger import WindowCourse
from banditroute.store.log import Log
from policies import Pacing, make_pacing
from policies.pacing.base import WARM, WINDOW, Money
from policies.pacing.price import Price, PriceTerms

logger = logging.getLogger("banditroute")

NONE = "none"
"""`Budget.pacing` of a budget whose money has no price."""

RESTS = 30.0
"""Duty cycle: after a solve that took t seconds, wait at least RESTS * t, unless a price row
changes."""

IDLE_RESTS = 1_000.0
"""Factor on that wait for a budget without new requests, because there may be many of them."""

RECENT_S = 300.0
"""Seconds of past traffic from which future traffic is forecast."""

WINDOWS = 3
"""Leases (one per window) whose late settlements still correct the pacing."""

_FREE = PriceTerms()


@dataclass(slots=True)
class PacedBudget:
    """A budget's pacing, and the requests and settlements that it is fed with.

    Attributes
    ----------
    budget : Budget
        The budget.
    pacing : Pacing
        Its pacing; a thread uses it during a solve.
    since_us : int
        When this was made, in microseconds since the epoch: earlier decisions are in the log alone.
    recalled : bool
        Whether the requests of earlier decisions have been read from the log.
    recent : deque of (RequestBatch, int)
        The last requests: a batch, and the row in it.
    arrivals : deque of (float, int)
        Monotonic time in seconds, and the requests that came within one second of it.
    ended_nano : dict of int to (int, int)
        By lease, the nano-dollars that its settled decisions had reserved, and those that they
        cost; `pacing` knows of them.
    solved_count : int
        `pacing.count` at the last solve, -1 before.
    solving : bool
        Whether a solve is under way.
    asked : bool
        Whether a request has come since the last solve.
    rest_until_s, idle_until_s : float
        Monotonic times before which `refresh` does not solve again: with new requests, and without.
    prices_json : str
        The price rows at the last solve.
    charges_usd : list of (float, float)
        Predicted cost and reservation in US dollars of decisions that `pacing` does not know of
        yet, because a solve is under way.
    """

    budget: Budget
    pacing: Pacing
    since_us: int
    recalled: bool = False
    recent: deque[tuple[RequestBatch, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    arrivals: deque[tuple[float, int]] = field(default_factory=deque)
    ended_nano: dict[int, tuple[int, int]] = field(default_factory=dict)
    solved_count: int = -1
    solving: bool = False
    asked: bool = False
    rest_until_s: float = 0.0
    idle_until_s: float = 0.0
    prices_json: str = ""
    charges_usd: list[tuple[float, float]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of decisions charged, or waiting to be."""
        return self.pacing.count + len(self.charges_usd)

    def flush(self) -> None:
        """Charge the decisions that wait; never during a solve."""
        for cost_usd, reserved_usd in self.charges_usd:
            self.pacing.charge(cost_usd, reserved_usd)
        self.charges_usd.clear()

    def count_arrivals(self, now_s: float, count: int) -> None:
        """Note that `count` requests came at a monotonic time; forget those of long ago."""
        if self.arrivals and now_s - self.arrivals[-1][0] < 1.0:
            first_s, before = self.arrivals[-1]
            self.arrivals[-1] = first_s, before + count
        else:
            self.arrivals.append((now_s, count))
        while now_s - self.arrivals[0][0] > RECENT_S:
            self.arrivals.popleft()

    def requests_per_s(self, now_s: float, span_s: float) -> float:
        """Return recent requests per second.

        Parameters
        ----------
        now_s : float
            Monotonic time.
        span_s : float
            Seconds that are to be forecast. A burst of a second says little about a month, so
            traffic is averaged over at least a sixtieth of the span, between 1 s and 60 s.
        """
        arrivals = list(self.arrivals)  # a copy: a solve's thread reads it while requests arrive
        if not arrivals:
            return 0.0
        least_s = min(max(span_s / 60.0, 1.0), 60.0)
        return sum(count for _, count in arrivals) / max(now_s - arrivals[0][0], least_s)


class MoneyPrices:
    """The price of money of each budget.

    Parameters
    ----------
    engine : Engine
        The database, for reading.
    leases : Leases
        The leases of this process.
    wall_us : callable
        Returns the time in microseconds since the epoch, UTC.
    monotonic_s : callable
        Returns the monotonic time in seconds.
    """

    def __init__(
        self,
        engine: Engine,
        leases: Leases,
        *,
        wall_us: Callable[[], int] = clock.now_us,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._log, self._leases = engine, Log(engine), leases
        self._wall_us, self._monotonic_s = wall_us, monotonic_s
        self._paced: dict[int, PacedBudget] = {}
        self._early_solves: set[asyncio.Task[None]] = set()
        # The last price that `price` made for equal rows: it is the same for most calls.
        self._last_price: tuple[PriceTerms, int, Price] = _FREE, 1, _FREE.rows(1)

    def terms(self, budget: Budget) -> PriceTerms:
        """Return what money costs now in a budget."""
        paced = self._paced.get(budget.id)
        return paced.pacing.terms if paced else _FREE

    def prices(self) -> dict[tuple[str, str], float]:
        """Return the price of money by (pool, budget), in quality units per US dollar."""
        return {
            (paced.budget.pool, paced.budget.name): paced.pacing.terms.high
            for paced in self._paced.values()
        }

    def price(self, reservations: Reservations, n: int) -> Price:
        """Return the price of money of a call's n rows.

        Where several budgets apply to a row, the highest of their prices counts.
        """
        rows = [self._highest(reservations.leases_of(i)) for i in range(n)]
        if all(terms is rows[0] for terms in rows):
            if self._last_price[:2] != (rows[0], n):
                self._last_price = rows[0], n, rows[0].rows(n)
            return self._last_price[2]
        return Price(
            *(
                np.array([[getattr(terms, name)] for terms in rows])
                for name in Price.__dataclass_fields__
            )
        )

    def observe(self, reservations: Reservations, router: Router, decided: Decisions) -> None:
        """Charge decisions to the pacing of their budgets.

        For the first requests of a budget it also starts solves, more often than `refresh` does.

        Parameters
        ----------
        reservations : Reservations
            What the decisions have reserved.
        router : Router
            The router that decided.
        decided : Decisions
            The decisions.
        """
        chosen = decided.chosen.tolist()
        now_s = self._monotonic_s()
        picked = np.arange(len(chosen)), decided.chosen
        costs_usd = decided.scored.cost_usd[picked].tolist()
        reserved_nano = decided.scored.reservation_nano[picked].tolist()
        arrived: dict[int, int] = {}
        for i, arm in enumerate(chosen):
            for lease in reservations.leases_of(i):
                paced = self._paced_budget(lease.budget)
                if paced is None:
                    continue
                arrived[lease.budget.id] = arrived.get(lease.budget.id, 0) + 1
                paced.recent.append((decided.scored.requests, i))
                paced.ended_nano.setdefault(lease.lease_id, (0, 0))
                if arm >= 0:
                    paced.charges_usd.append((costs_usd[i], reserved_nano[i] / NANO))
        for budget_id, requests in arrived.items():
            paced = self._paced[budget_id]
            paced.count_arrivals(now_s, requests)
            paced.asked = True
            count = paced.count
            early = count <= WARM and count > paced.solved_count and paced.pacing.due(count)
            if paced.solving:
                continue
            if paced.pacing.moves:
                paced.flush()
            if early:
                task = asyncio.create_task(self._solve(paced, router))
                self._early_solves.add(task)
                task.add_done_callback(self._early_solves.discard)

    async def refresh(self, pool: str, router: Router | None) -> None:
        """Solve the prices of a pool's budgets that are due; to be called every second.

        Parameters
        ----------
        pool : str
            The pool.
        router : Router or None
            Its router; None while the pool has none.
        """
        budgets = {budget.id: budget for budget in self._leases.budgets(pool)}
        for budget_id, paced in list(self._paced.items()):
            if paced.budget.pool != pool:
                continue
            budget = budgets.get(budget_id)
            if budget is None or budget.pacing == NONE:
                del self._paced[budget_id]
                if budget is not None:
                    self._leases.local_lease(budget).keep_nano = 0
                continue
            if _pacing_settings(budget) != _pacing_settings(paced.budget):
                # The new pacing starts with the same requests, and without an account of what was
                # charged and settled before.
                self._paced[budget_id] = replace(
                    paced, pacing=_make_pacing(budget), solving=False, charges_usd=[]
                )
            self._paced[budget_id].budget = budget
        if router is None:
            return
        for budget in budgets.values():
            own = self._paced_budget(budget)
            if own is None:
                continue
            if not own.recalled:
                await self._recall(own, router)
            due = self._monotonic_s() >= (own.rest_until_s if own.asked else own.idle_until_s)
            if own.recent and (due or own.prices_json != router.columns.prices_json):
                await self._solve(own, router)

    def _paced_budget(self, budget: Budget) -> PacedBudget | None:
        """Return the pacing of a budget, made now if it is new; None where money has no price."""
        if budget.pacing == NONE:
            return None
        if budget.id not in self._paced:
            self._paced[budget.id] = PacedBudget(budget, _make_pacing(budget), self._wall_us())
        return self._paced[budget.id]

    def _highest(self, leases: Sequence[LocalLease]) -> PriceTerms:
        """Return the terms of a row: the highest price, the highest gain and the lowest rate."""
        terms = [self.terms(lease.budget) for lease in leases]
        if len(terms) == 1:
            return terms[0]
        if not terms:
            return _FREE
        top = max(terms, key=lambda own: own.high)
        rates_usd = [own.rate_usd for own in terms if not math.isnan(own.rate_usd)]
        return PriceTerms(
            low=top.low,
            high=top.high,
            share=top.share,
            gain=max(own.gain for own in terms),
            rate_usd=min(rates_usd, default=math.nan),
        )

    async def _solve(self, paced: PacedBudget, router: Router) -> None:
        """Solve a price in a thread, unless a solve is under way; a failure leaves it as it is."""
        if paced.solving:
            return
        paced.flush()
        paced.solving, paced.asked = True, False
        began_s, paced.prices_json = time.perf_counter(), router.columns.prices_json
        try:
            lease = self._leases.local_lease(paced.budget)
            await asyncio.to_thread(self._solve_now, paced, router, lease)
        except Exception:
            logger.exception("budget %s keeps its price of money", paced.budget.name)
        finally:
            paced.solving = False
            took_s = time.perf_counter() - began_s
            paced.rest_until_s = self._monotonic_s() + RESTS * took_s
            paced.idle_until_s = self._monotonic_s() + IDLE_RESTS * RESTS * took_s

    def _solve_now(self, paced: PacedBudget, router: Router, lease: LocalLease) -> None:
        now_us, budget, pacing = self._wall_us(), paced.budget, paced.pacing
        recent = [batch.row(i) for batch, i in list(paced.recent)]
        with self._engine.connect() as connection:
            course = ledger.course(connection, budget, now_us=now_us)
            ended_nano = ledger.ended_nano(connection, tuple(paced.ended_nano))
        for lease_id, (reserved_nano, cost_nano) in ended_nano.items():
            before = paced.ended_nano.get(lease_id, (0, 0))
            more_nano = reserved_nano - before[0], cost_nano - before[1]
            if any(more_nano):
                pacing.settle(more_nano[0] / NANO, more_nano[1] / NANO)
            paced.ended_nano[lease_id] = reserved_nano, cost_nano
        while len(paced.ended_nano) > WINDOWS:
            del paced.ended_nano[min(paced.ended_nano)]
        money = self._money(paced, course, now_us)
        paced.solved_count = pacing.count
        window = router.score(RequestBatch.join(recent)).window() if recent else None
        terms = pacing.solve(window, money)
        unspent_nano = budget.cap_nano - course.settled_nano - course.running_nano
        lease.beyond_nano = max(unspent_nano - lease.left_nano, 0) // course.holders
        lease.keep_nano = int(terms.keep_usd * NANO)

    def _money(self, paced: PacedBudget, course: WindowCourse, now_us: int) -> Money:
        """Return the money left for this holder, and the requests that it must last for."""
        budget, cap_usd = paced.budget, paced.budget.cap_nano / NANO
        running_nano = paced.pacing.expected_share * course.running_nano
        left_nano = budget.cap_nano - course.settled_nano - running_nano
        left_usd = left_nano / NANO / course.holders
        rate_usd = math.nan if budget.rate_nano is None else budget.rate_nano / NANO
        requests = math.inf
        end_us = budget.resets_at_us(now_us)
        span_s = (budget.span_us if end_us is None else end_us - course.window_start_us) / 1e6
        requests_per_s = paced.requests_per_s(self._monotonic_s(), span_s)
        if budget.rate_nano is not None:
            return Money(left_usd=left_usd, cap_usd=cap_usd, requests=math.inf, rate_usd=rate_usd)
        if budget.expected_requests is not None:
            requests = max(budget.expected_requests - course.requests, 1) / course.holders
        elif budget.period == ROLLING and requests_per_s > 0.0:
            # In a rolling window money comes back at the rate at which it was spent.
            rate_usd = cap_usd / (requests_per_s * span_s) / course.holders
        elif end_us is not None and requests_per_s > 0.0:
            requests = max(requests_per_s * (end_us - now_us) / 1e6, 1.0)
        return Money(left_usd=left_usd, cap_usd=cap_usd, requests=requests, rate_usd=rate_usd)

    async def _recall(self, paced: PacedBudget, router: Router) -> None:
        """Read from the log the last requests that the budget applied to, before this process."""
        pool, embedder = paced.budget.pool, router.snapshot.policy_identity.embedder
        rows = await asyncio.to_thread(
            self._log.recent, pool, embedder=embedder, before_us=paced.since_us, limit=WINDOW
        )
        paced.recalled = True
        for row in rows:
            if len(paced.recent) == WINDOW:
                break
            if paced.budget.applies_to(json.loads(row.tags) if row.tags else None):
                tokens = np.array([row.input_tokens])
                preference = np.array([(row.w_quality, row.w_cost, row.w_latency)])
                features = np.frombuffer(row.features, dtype="<f4")[None]
                paced.recent.appendleft((RequestBatch(features, preference, tokens, tokens), 0))


def _make_pacing(budget: Budget) -> Pacing:
    floor = budget.quality_floor
    if floor is not None and budget.pacing == "history":
        return make_pacing(budget.pacing, quality_floor=floor)
    return make_pacing(budget.pacing)


def _pacing_settings(budget: Budget) -> tuple[str, float | None]:
    """Return the settings of a budget that its pacing was made for."""
    return budget.pacing, budget.quality_floor

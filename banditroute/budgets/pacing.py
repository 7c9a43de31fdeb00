"""The price of money in the daemon: each budget's mode of pacing, fed from this process.

The price is no policy's state. Each holder solves it from the requests that it saw last and the
money that SQL says is left, divided among those who hold leases; after a restart it looks back
into the log. A cap never depends on anything here.
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
from banditroute.core.budget import ROLLING, Budget
from banditroute.core.clock import now_us
from banditroute.core.pool import NANO
from banditroute.decide.columns import Decisions, RequestBatch
from banditroute.decide.router import Router
from banditroute.store import ledger
from banditroute.store.ledger import WindowCourse
from banditroute.store.log import Log
from policies import Pacing, make_pacing
from policies.pacing.base import WARM, WINDOW, Money, PriceTerms
from policies.pacing.price import Price

logger = logging.getLogger("banditroute")

NONE = "none"
RESTS = 30.0
"""After a solve of a second nothing is solved for so many, unless a price row changes."""

IDLE_RESTS = 1_000.0
"""How many times as long, where no request has come since: there may be many such budgets."""

RECENT_S = 300.0
"""How far back traffic is looked at for a forecast."""

WINDOWS = 3
"""Of how many windows answers are still heard of."""


@dataclass(slots=True)
class PacedBudget:
    """A budget's mode, and what it is fed; charges wait while a thread is solving.

    `since` is when it was made, microseconds UTC: what was decided before is in the log alone.
    `ended` is what was told of leases: the reservations of settled decisions, and their cost.
    """

    budget: Budget
    pacing: Pacing
    since: int
    remembers: bool = False
    recent: deque[tuple[RequestBatch, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    arrivals: deque[tuple[float, int]] = field(default_factory=deque)
    ended: dict[int, tuple[int, int]] = field(default_factory=dict)
    solved_at: int = -1
    solving: bool = False
    asked: bool = False
    rest_until: float = 0.0
    idle_until: float = 0.0
    prices: str = ""
    later: list[tuple[float, float]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.pacing.count + len(self.later)

    def flush(self) -> None:
        for cost, reserved in self.later:
            self.pacing.charge(cost, reserved)
        self.later.clear()

    def arrived(self, clock: float, count: int) -> None:
        if self.arrivals and clock - self.arrivals[-1][0] < 1.0:
            since, before = self.arrivals[-1]
            self.arrivals[-1] = since, before + count
        else:
            self.arrivals.append((clock, count))
        while clock - self.arrivals[0][0] > RECENT_S:
            self.arrivals.popleft()

    def per_second(self, clock: float, span_s: float) -> float:
        """Return recent requests per second, for a forecast over `span_s` seconds."""
        seen = list(self.arrivals)  # requests go on arriving beside this thread
        if not seen:
            return 0.0
        # A burst of a second says little about a month.
        least = min(max(span_s / 60.0, 1.0), 60.0)
        return sum(count for _, count in seen) / max(clock - seen[0][0], least)


class MoneyPrices:
    """Prices of money by budget.

    Parameters
    ----------
    engine : the database, for reading.
    treasury : the slices of this process.
    now, clock : microseconds since the epoch, and monotonic seconds.
    """

    def __init__(
        self,
        engine: Engine,
        treasury: Leases,
        *,
        now: Callable[[], int] = now_us,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._log, self._treasury = engine, Log(engine), treasury
        self._now, self._clock = now, clock
        self._paces: dict[int, PacedBudget] = {}
        self._soon: set[asyncio.Task[None]] = set()
        self._last: tuple[PriceTerms, int, Price] = _FREE, 1, _FREE.rows(1)

    def terms(self, budget: Budget) -> PriceTerms:
        """Return what money costs in a budget by now."""
        pace = self._paces.get(budget.id)
        return pace.pacing.terms if pace else _FREE

    def prices(self) -> dict[tuple[str, str], float]:
        """Return the price of money by pool and budget, in quality units per US dollar."""
        return {
            (pace.budget.pool, pace.budget.name): pace.pacing.terms.high
            for pace in self._paces.values()
        }

    def price(self, purse: Reservations, n: int) -> Price:
        """Return the price of money of a call's rows: of the budgets that hold one, the highest."""
        rows = [self._dearest(purse.held(i)) for i in range(n)]
        if all(one is rows[0] for one in rows):
            if self._last[:2] != (rows[0], n):
                self._last = rows[0], n, rows[0].rows(n)
            return self._last[2]
        return Price(
            *(
                np.array([[getattr(one, name)] for one in rows])
                for name in Price.__dataclass_fields__
            )
        )

    def observe(self, purse: Reservations, router: Router, decided: Decisions) -> None:
        """Take in what was decided, and see that young prices are solved often."""
        chosen = decided.chosen.tolist()
        clock = self._clock()
        at = np.arange(len(chosen)), decided.chosen
        costs, reserved = (
            decided.scored.cost_usd[at].tolist(),
            decided.scored.reservation_nano[at].tolist(),
        )
        fresh: dict[int, int] = {}
        for i, arm in enumerate(chosen):
            for one in purse.held(i):
                pace = self._pace(one.budget)
                if pace is None:
                    continue
                fresh[one.budget.id] = fresh.get(one.budget.id, 0) + 1
                pace.recent.append((decided.scored.requests, i))
                pace.ended.setdefault(one.lease_id, (0, 0))
                if arm >= 0:
                    pace.later.append((costs[i], reserved[i] / NANO))
        for key, arrived in fresh.items():
            pace = self._paces[key]
            pace.arrived(clock, arrived)
            pace.asked = True
            count = pace.count
            young = count <= WARM and count > pace.solved_at and pace.pacing.due(count)
            if pace.solving:
                continue
            if pace.pacing.moves:
                pace.flush()
            if young:
                task = asyncio.create_task(self._solve(pace, router))
                self._soon.add(task)
                task.add_done_callback(self._soon.discard)

    async def refresh(self, pool: str, router: Router | None) -> None:
        """Once a second: solve the prices of a pool's budgets anew where requests came."""
        known = {one.id: one for one in self._treasury.budgets(pool)}
        for key, pace in list(self._paces.items()):
            if pace.budget.pool != pool:
                continue
            budget = known.get(key)
            if budget is None or budget.pacing == NONE:
                del self._paces[key]
                if budget is not None:
                    self._treasury.slice(budget).keep = 0
                continue
            if _shape(budget) != _shape(pace.budget):
                # Another mode, of the same requests; what was settled before is not its affair.
                self._paces[key] = replace(pace, pacing=_mode(budget), solving=False, later=[])
            self._paces[key].budget = budget
        if router is None:
            return
        for budget in known.values():
            paced = self._pace(budget)
            if paced is None:
                continue
            if not paced.remembers:
                await self._remember(paced, router)
            moved = paced.prices != router.columns.prices_json
            due = self._clock() >= (paced.rest_until if paced.asked else paced.idle_until)
            if paced.recent and (moved or due):
                await self._solve(paced, router)

    def _pace(self, budget: Budget) -> PacedBudget | None:
        if budget.pacing == NONE:
            return None
        if budget.id not in self._paces:
            self._paces[budget.id] = PacedBudget(budget, _mode(budget), self._now())
        return self._paces[budget.id]

    def _dearest(self, held: Sequence[LocalLease]) -> PriceTerms:
        terms = [self.terms(one.budget) for one in held]
        if len(terms) == 1:
            return terms[0]
        if not terms:
            return _FREE
        top = max(terms, key=lambda one: one.high)
        rates = [one.rate_usd for one in terms if not math.isnan(one.rate_usd)]
        return PriceTerms(
            low=top.low,
            high=top.high,
            share=top.share,
            gain=max(one.gain for one in terms),
            rate_usd=min(rates, default=math.nan),
        )

    async def _solve(self, pace: PacedBudget, router: Router) -> None:
        if pace.solving:
            return
        pace.flush()
        pace.solving, pace.asked = True, False
        began, pace.prices = time.perf_counter(), router.columns.prices_json
        try:
            slice_ = self._treasury.slice(pace.budget)
            await asyncio.to_thread(self._solve_now, pace, router, slice_)
        except Exception:
            logger.exception("budget %s keeps its price of money", pace.budget.name)
        finally:
            pace.solving = False
            took = time.perf_counter() - began
            pace.rest_until = self._clock() + RESTS * took
            pace.idle_until = self._clock() + IDLE_RESTS * RESTS * took

    def _solve_now(self, pace: PacedBudget, router: Router, held: LocalLease) -> None:
        now, budget, pacing = self._now(), pace.budget, pace.pacing
        recent = [asks.row(i) for asks, i in list(pace.recent)]
        with self._engine.connect() as connection:
            course = ledger.course(connection, budget, now_us=now)
            found = ledger.ended_nano(connection, tuple(pace.ended))
        for lease_id, (reserved, cost) in found.items():
            before = pace.ended.get(lease_id, (0, 0))
            more = reserved - before[0], cost - before[1]
            if any(more):
                pacing.settle(more[0] / NANO, more[1] / NANO)
            pace.ended[lease_id] = reserved, cost
        while len(pace.ended) > WINDOWS:
            del pace.ended[min(pace.ended)]
        money = self._money(pace, course, now)
        pace.solved_at = pacing.count
        window = router.score(RequestBatch.join(recent)).window() if recent else None
        terms = pacing.solve(window, money)
        elsewhere = budget.cap_nano - course.settled_nano - course.running_nano
        held.beyond = max(elsewhere - held.left, 0) // course.holders
        held.keep = int(terms.keep_usd * NANO)

    def _money(self, pace: PacedBudget, course: WindowCourse, now: int) -> Money:
        """Return what is left for this holder, and for how many requests of its own."""
        budget, cap = pace.budget, pace.budget.cap_nano / NANO
        expected = pace.pacing.expected_share * course.running_nano
        left = (budget.cap_nano - course.settled_nano - expected) / NANO / course.holders
        rate = math.nan if budget.rate_nano is None else budget.rate_nano / NANO
        requests = math.inf
        ends = budget.resets_at_us(now)
        span_s = (budget.span_us if ends is None else ends - course.window_start_us) / 1e6
        traffic = pace.per_second(self._clock(), span_s)
        if budget.rate_nano is not None:
            return Money(left_usd=left, cap_usd=cap, requests=math.inf, rate_usd=rate)
        if budget.expected_requests is not None:
            requests = max(budget.expected_requests - course.requests, 1) / course.holders
        elif budget.period == ROLLING and traffic > 0.0:
            # Money comes back as it went: what lasts is a rate.
            rate = cap / (traffic * span_s) / course.holders
        elif ends is not None and traffic > 0.0:
            requests = max(traffic * (ends - now) / 1e6, 1.0)
        return Money(left_usd=left, cap_usd=cap, requests=requests, rate_usd=rate)

    async def _remember(self, pace: PacedBudget, router: Router) -> None:
        """Look back into the log for the requests that the budget held last."""
        pool, embedder = pace.budget.pool, router.snapshot.policy_identity.embedder
        rows = await asyncio.to_thread(
            self._log.recent, pool, embedder=embedder, before_us=pace.since, limit=WINDOW
        )
        pace.remembers = True
        for row in rows:
            if len(pace.recent) == WINDOW:
                break
            if pace.budget.applies_to(json.loads(row.tags) if row.tags else None):
                tokens = np.array([row.input_tokens])
                weights = row.w_quality, row.w_cost, row.w_latency
                features = np.frombuffer(row.features, dtype="<f4")[None]
                pace.recent.appendleft(
                    (RequestBatch(features, np.array([weights]), tokens, tokens), 0)
                )


_FREE = PriceTerms()


def _mode(budget: Budget) -> Pacing:
    floor = budget.quality_floor
    if floor is not None and budget.pacing == "history":
        return make_pacing(budget.pacing, quality_floor=floor)
    return make_pacing(budget.pacing)


def _shape(budget: Budget) -> tuple[str, float | None]:
    """Return what another mode has to be made for."""
    return budget.pacing, budget.quality_floor

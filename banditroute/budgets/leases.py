"""The slices that this process holds of budgets, and what each call takes from them.

A slice is leased in SQL before a cent of it is spent, so a request that fits is held to its budgets
by a few comparisons of integers. Renewals run beside the requests that still fit; only one that
does not waits for its own. Whatever goes wrong here costs a retry, never money: the transaction
that logs a decision refuses what its lease does not cover.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from banditroute.budgets.reservation import NO_LIMIT, LocalLease, Reservations
from banditroute.core.budget import Budget
from banditroute.core.clock import now_us
from banditroute.store import ledger
from banditroute.store.budgets import load_budgets
from banditroute.store.ledger import BudgetSums, Holder
from banditroute.store.writer import Writer

logger = logging.getLogger("banditroute")

LEASE_S, SAFE_S, IDLE_S = 15.0, 10.0, 3.0
"""How long others leave a lease alone; how long its holder trusts it; when an idle one ends."""

DENIED_S = 0.2


@dataclass(frozen=True, slots=True)
class _Known:
    """The budgets of a pool: those that hold every request, and those of a tag's value."""

    all: list[Budget]
    everyone: list[Budget]
    tagged: dict[tuple[str, str | None], list[Budget]]

    @classmethod
    def of(cls, budgets: list[Budget]) -> _Known:
        tagged: dict[tuple[str, str | None], list[Budget]] = {}
        for one in budgets:
            if one.scope_tag is not None:
                tagged.setdefault((one.scope_tag, one.scope_value), []).append(one)
        return cls(budgets, [one for one in budgets if one.scope_tag is None], tagged)

    def of_rows(self, tags: Sequence[Mapping[str, str] | None]) -> list[list[Budget]]:
        """Return the budgets that hold each request, however many there are."""
        if not self.tagged:
            return [self.everyone] * len(tags)
        return [
            [
                *self.everyone,
                *(b for pair in (own or {}).items() for b in self.tagged.get(pair, ())),
            ]
            for own in tags
        ]


@dataclass(slots=True)
class _Desk:
    """One renewal of a budget at a time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    task: asyncio.Task[None] | None = None


class Leases:
    """The slices of this process.

    Parameters
    ----------
    engine : the database.
    writer : the one writer of this process.
    now : microseconds since the epoch, UTC.
    clock : monotonic seconds.
    """

    def __init__(
        self,
        engine: Engine,
        writer: Writer,
        *,
        now: Callable[[], int] = now_us,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._writer, self._now, self._clock = engine, writer, now, clock
        self._alone = engine.dialect.name == "sqlite"
        self.holder = Holder(f"{os.getpid()}-{uuid.uuid4().hex[:12]}", boot_id())
        self._by_pool: dict[str, _Known] = {}
        self._slices: dict[int, LocalLease] = {}
        self._former: list[LocalLease] = []
        self._desks: dict[int, _Desk] = {}
        self._read: dict[int, tuple[float, BudgetSums]] = {}
        self._reading = asyncio.Lock()

    async def start(self) -> None:
        """Close what earlier holders have left open, and read the budgets."""

        def work(connection: Connection) -> list[Budget]:
            ledger.reclaim(connection, self.holder, now_us=self._now(), alone=self._alone)
            ledger.recount(connection)
            return load_budgets(connection)

        self._adopt(await self._writer.write(work))

    async def stop(self) -> None:
        """Give back what is left, and what renewals that are under way will bring."""
        tasks = [desk.task for desk in self._desks.values() if desk.task is not None]
        await asyncio.gather(*tasks)
        ids = [one.lease_id for one in [*self._slices.values(), *self._former]]
        self._slices.clear()
        self._former.clear()
        if ids:
            now = self._now()
            await self._writer.write(lambda connection: ledger.close(connection, ids, now_us=now))

    def budgets(self, pool: str) -> list[Budget]:
        """Return the budgets of a pool as this process knows them."""
        known = self._by_pool.get(pool)
        return known.all if known else []

    async def reload(self) -> None:
        """Take over the budgets as SQL has them."""

        def read() -> list[Budget]:
            with self._engine.connect() as connection:
                return load_budgets(connection)

        async with self._reading:  # an older state must not be taken over after a newer one
            self._adopt(await asyncio.to_thread(read))

    async def refresh(self) -> None:
        """Once a second: see changes, keep used leases, and end idle ones and those of the dead."""
        await self.reload()
        if not self._by_pool:
            return
        now, clock = self._now(), self._clock()
        ending = []
        for one in [*self._slices.values(), *self._former]:
            over = one in self._former or not one.window <= now < one.until
            if one.pending == 0 and (over or clock - one.used_at > IDLE_S):
                ending.append(one)
        for one in ending:
            self._forget(one)
        leased = [one for one in ending if one.lease_id]
        ids = [one.lease_id for one in leased]

        def work(connection: Connection) -> None:
            ledger.close(connection, ids, now_us=now)
            if not self._alone:
                ledger.reclaim(connection, self.holder, now_us=now, alone=False)

        if ids or not self._alone:
            try:
                await self._writer.write(work)
            except BaseException:
                # Perhaps they are still open: whoever comes for them, or the next time, finds them.
                self._former += leased
                raise
        # At once, so that they share a commit.
        await asyncio.gather(
            *(
                self._renew(one.budget, 0) if one.deadline - clock < SAFE_S / 2 else self._trim(one)
                for one in list(self._slices.values())
                if one.deadline - clock < SAFE_S / 2 or one.left > 2 * one.goal
            )
        )

    async def sums(self, budget: Budget, *, stale_s: float = 0.0) -> BudgetSums:
        """Return what the SQL rows of a budget's current window add up to.

        Parameters
        ----------
        stale_s : how many seconds ago they may have been read.
        """
        known = self._read.get(budget.id)
        if known is not None and known[0] + stale_s > self._clock():
            return known[1]
        now = self._now()

        def read() -> BudgetSums:
            with self._engine.connect() as connection:
                return ledger.sums(connection, budget, now_us=now)

        found = await asyncio.to_thread(read)
        self._read[budget.id] = self._clock(), found
        return found

    async def purse(
        self, pool: str, tags: Sequence[Mapping[str, str] | None], worst: Sequence[int]
    ) -> Reservations | None:
        """Return what the rows of a call may spend, None where no budget holds any of them.

        Parameters
        ----------
        tags : of each row.
        worst : nano-dollars of the dearest reservation that each row may take.
        """
        known = self._by_pool.get(pool)
        if not known:
            return None
        held = known.of_rows(tags)
        need = _needs(held, worst)
        if not need:
            return None
        waited = False
        # Others may have taken what this call has just waited for.
        for _ in range(3):
            short = [(one, nano) for one, nano in need if not self._covers(one, nano)]
            if not short:
                break
            waited = True
            # Whoever asked may go away; what was leased meanwhile must be known here.
            renewals = asyncio.gather(*(self._renew(one, nano) for one, nano in short))
            renewals.add_done_callback(_heard)
            await asyncio.shield(renewals)
        if waited and not {one.id for one in self.budgets(pool)}.issuperset(
            one.id for one, _ in need
        ):
            # One was dropped while this waited, and nobody is held to it any more.
            return await self.purse(pool, tags, worst)
        slices, clock = {}, self._clock()
        for budget, nano in need:
            one_held = slices[budget.id] = self.slice(budget)
            one_held.used_at = clock
            one_held.goal = one_held.ideal(nano)
            if one_held.left < one_held.goal // 2:
                self._renew_beside(budget, nano)
        if held[0] is known.everyone:
            shared = list(slices.values())
            return Reservations([shared] * len(tags), self._clock)
        return Reservations([[slices[one.id] for one in of_row] for of_row in held], self._clock)

    def lost(self, lease_ids: Sequence[int]) -> None:
        """Let go of slices whose leases the log has refused."""
        for one in [*self._slices.values(), *self._former]:
            if one.lease_id in lease_ids:
                self._forget(one)

    def refunded(self) -> None:
        """Say that money came back: what was denied may be had now."""
        self._read.clear()
        for one in self._slices.values():
            one.denied_until = 0.0

    def _adopt(self, budgets: Sequence[Budget]) -> None:
        by_pool: dict[str, list[Budget]] = {}
        for one in budgets:
            by_pool.setdefault(one.pool, []).append(one)
        known = {one.id: one for one in budgets}
        for key, held in list(self._slices.items()):
            if key in known:
                if known[key].cap_nano > held.budget.cap_nano:
                    held.denied_until = held.rest_until = 0.0
                held.budget = known[key]
            else:
                del self._slices[key]
        self._by_pool = {pool: _Known.of(own) for pool, own in by_pool.items()}

    def slice(self, budget: Budget) -> LocalLease:
        """Return the slice of the current window, an empty one where nothing is leased."""
        now, known = self._now(), self._slices.get(budget.id)
        if known is not None and known.window <= now < known.until:
            return known
        if known is not None:
            self._former.append(known)
        ends, window = budget.resets_at_us(now), budget.window_start_us(now)
        # A clock that is set back leads into a window that this process still has a lease of.
        again = [one for one in self._former if (one.budget.id, one.window) == (budget.id, window)]
        for one in again:
            self._former.remove(one)
        new = LocalLease(0, budget, window, NO_LIMIT if ends is None else ends)
        self._slices[budget.id] = again[0] if again else new
        return self._slices[budget.id]

    def _covers(self, budget: Budget, need: int) -> bool:
        """Whether a call needs no renewal, or would get nothing by one."""
        one, clock = self.slice(budget), self._clock()
        return (one.left >= need and clock < one.deadline) or clock < one.denied_until

    def _renew_beside(self, budget: Budget, need: int) -> None:
        desk = self._desks.setdefault(budget.id, _Desk())
        busy = desk.lock.locked() or not (desk.task is None or desk.task.done())
        if not busy and self._clock() >= self.slice(budget).rest_until:
            desk.task = asyncio.create_task(self._renew_quietly(budget, need))

    async def _renew_quietly(self, budget: Budget, need: int) -> None:
        try:
            await self._renew(budget, 0, ideal_for=need)
        except Exception:
            logger.exception("a lease of budget %s could not be renewed", budget.name)

    async def _renew(self, budget: Budget, need: int, *, ideal_for: int = 0) -> None:
        """Lease so much that `need` nano-dollars are there, and more where there is plenty."""
        desk = self._desks.setdefault(budget.id, _Desk())
        async with desk.lock:
            if need and self._covers(budget, need):
                return
            one, clock, now = self.slice(budget), self._clock(), self._now()
            stale = clock >= one.deadline
            left = 0 if stale else one.left
            wanted, ideal = max(need - left, 0), max(one.ideal(max(need, ideal_for)) - left, 0)
            until = now + int(LEASE_S * 1e6)
            got = await self._writer.write(
                lambda connection: ledger.lease(
                    connection,
                    budget,
                    self.holder,
                    need_nano=wanted,
                    ideal_nano=ideal,
                    now_us=now,
                    reclaim_at_us=until,
                )
            )
            if not got.id:
                await self.reload()
                return
            current = self._slices.get(budget.id)
            if current is not one:
                # It was idle, or its window ended, while this was under way. Of one window this
                # process has one lease: it is closed here unless another slice goes on with it.
                one.lease_id = got.id
                others = current is not None and current.window == one.window
                if not others and one not in self._former:
                    self._former.append(one)
                return
            one.left = (
                got.granted_nano
                if got.fresh or got.id != one.lease_id
                else one.left + got.granted_nano
            )
            one.lease_id, one.deadline = got.id, clock + SAFE_S
            rested = self._clock() + DENIED_S
            if got.granted_nano < wanted:
                one.denied_until = rested
            if got.granted_nano < ideal // 4:
                one.rest_until = rested

    async def _trim(self, one: LocalLease) -> None:
        """Give back what a single large call had leased."""
        extra = one.left - one.goal
        if extra <= 0:  # requests have taken it since somebody looked
            return
        one.left -= extra
        try:
            await self._writer.write(
                lambda connection: ledger.give_back(connection, one.lease_id, extra)
            )
        except BaseException:
            one.left += extra
            raise

    def _forget(self, one: LocalLease) -> None:
        if self._slices.get(one.budget.id) is one:
            del self._slices[one.budget.id]
        if one in self._former:
            self._former.remove(one)


def _heard(done: asyncio.Future[Any]) -> None:
    """Take note of a failure that its caller may not be there to hear of."""
    if not done.cancelled():
        done.exception()


def _needs(held: Sequence[Sequence[Budget]], worst: Sequence[int]) -> list[tuple[Budget, int]]:
    """Return the budgets that hold any row, with the most that their rows may take together."""
    need: dict[int, tuple[Budget, int]] = {}
    for of_row, nano in zip(held, worst, strict=True):
        for one in of_row:
            ceiling = one.request_ceiling_nano
            fits = nano if ceiling is None else min(nano, ceiling)
            need[one.id] = one, fits + (need[one.id][1] if one.id in need else 0)
    return list(need.values())


def boot_id() -> str:
    """Return what tells one boot of this machine from the next, or something never seen twice."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return uuid.uuid4().hex

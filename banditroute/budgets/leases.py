"""The leases that this process holds of budgets, and how they are renewed and given back.

Money is leased in SQL before a cent of it is spent, so a request that fits its budgets costs a few
comparisons of integers. Renewals run beside such requests; only a request that does not fit waits
for a renewal. A fault in this module may cost a retry, but never money: the transaction that logs
a decision refuses what its leases do not cover.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from banditroute.budgets.reservation import NO_LIMIT, LocalLease, Reservations
from banditroute.core import clock
from banditroute.core.budget import Budget
from banditroute.store import ledger
from banditroute.store.budgets import load_budgets
from banditroute.store.ledger import BudgetSums, Holder
from banditroute.store.writer import Writer

logger = logging.getLogger("banditroute")

LEASE_S = 15.0
"""Seconds after a renewal for which other holders leave the lease alone."""

SAFE_S = 10.0
"""Seconds after a renewal for which its holder reserves from the lease; well below `LEASE_S`."""

IDLE_S = 3.0
"""Seconds without a request after which a lease is given back."""

DENIED_S = 0.2
"""Seconds to wait with the next renewal after one that got too little."""

ATTEMPTS = 3
"""Renewals that a call waits for, because other calls may take what it has waited for."""


@dataclass(frozen=True, slots=True)
class _PoolBudgets:
    """The budgets of a pool, by the requests that they apply to.

    Attributes
    ----------
    all : list of Budget
        All of them.
    untagged : list of Budget
        Those that apply to every request.
    by_tag : dict of (str, str) to list of Budget
        Those that apply to requests with a tag, by its name and value.
    """

    all: list[Budget]
    untagged: list[Budget]
    by_tag: dict[tuple[str, str | None], list[Budget]]

    @classmethod
    def of(cls, budgets: list[Budget]) -> _PoolBudgets:
        by_tag: dict[tuple[str, str | None], list[Budget]] = {}
        for budget in budgets:
            if budget.scope_tag is not None:
                by_tag.setdefault((budget.scope_tag, budget.scope_value), []).append(budget)
        return cls(budgets, [budget for budget in budgets if budget.scope_tag is None], by_tag)

    def of_rows(self, tags: Sequence[Mapping[str, str] | None]) -> list[list[Budget]]:
        """Return the budgets that apply to each request.

        The time that it takes does not grow with the number of tagged budgets.
        """
        if not self.by_tag:
            return [self.untagged] * len(tags)
        return [
            [
                *self.untagged,
                *(b for pair in (own or {}).items() for b in self.by_tag.get(pair, ())),
            ]
            for own in tags
        ]


@dataclass(slots=True)
class _Renewal:
    """The renewals of one budget's lease: one at a time.

    Attributes
    ----------
    lock : asyncio.Lock
        Held while SQL is asked.
    task : asyncio.Task or None
        The last renewal that no request waits for.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    task: asyncio.Task[None] | None = None


class Leases:
    """The leases of this process.

    Parameters
    ----------
    engine : Engine
        The database.
    writer : Writer
        The one writer of this process.
    wall_us : callable
        Returns the time in microseconds since the epoch, UTC.
    monotonic_s : callable
        Returns the monotonic time in seconds.
    """

    def __init__(
        self,
        engine: Engine,
        writer: Writer,
        *,
        wall_us: Callable[[], int] = clock.now_us,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._writer = engine, writer
        self._wall_us, self._monotonic_s = wall_us, monotonic_s
        self._alone = engine.dialect.name == "sqlite"
        self.holder = Holder(f"{os.getpid()}-{uuid.uuid4().hex[:12]}", boot_id())
        self._by_pool: dict[str, _PoolBudgets] = {}
        # By budget the lease of its current window. Former ones still wait to be closed in SQL.
        self._current: dict[int, LocalLease] = {}
        self._former: list[LocalLease] = []
        self._renewals: dict[int, _Renewal] = {}
        # By budget its newest sums, and the monotonic time of that reading.
        self._last_sums: dict[int, tuple[float, BudgetSums]] = {}
        self._reloading = asyncio.Lock()

    async def start(self) -> None:
        """Close the leases that earlier holders have left open, and read the budgets."""

        def work(connection: Connection) -> list[Budget]:
            now_us = self._wall_us()
            ledger.reclaim(connection, self.holder, now_us=now_us, alone=self._alone)
            ledger.recount(connection)
            return load_budgets(connection)

        self._adopt(await self._writer.write(work))

    async def stop(self) -> None:
        """Give back what is left of all leases, once the renewals under way have ended."""
        tasks = [renewal.task for renewal in self._renewals.values() if renewal.task is not None]
        await asyncio.gather(*tasks)
        ids = [lease.lease_id for lease in [*self._current.values(), *self._former]]
        self._current.clear()
        self._former.clear()
        if ids:
            now_us = self._wall_us()
            await self._writer.write(
                lambda connection: ledger.close(connection, ids, now_us=now_us)
            )

    def budgets(self, pool: str) -> list[Budget]:
        """Return the budgets of a pool, as this process read them last."""
        pool_budgets = self._by_pool.get(pool)
        return pool_budgets.all if pool_budgets else []

    async def reload(self) -> None:
        """Take over the budgets as SQL has them."""

        def read() -> list[Budget]:
            with self._engine.connect() as connection:
                return load_budgets(connection)

        # An older reading must not undo what a newer one has taken over.
        async with self._reloading:
            self._adopt(await asyncio.to_thread(read))

    async def refresh(self) -> None:
        """Take over changes, renew leases in use, give back idle ones; to be called every second.

        Where several holders share the database, it also closes the leases of those that died.
        """
        await self.reload()
        if not self._by_pool:
            return
        now_us, now_s = self._wall_us(), self._monotonic_s()
        ending = []
        for lease in [*self._current.values(), *self._former]:
            in_window = lease.window_start_us <= now_us < lease.window_end_us
            over = lease in self._former or not in_window
            if lease.pending == 0 and (over or now_s - lease.used_at_s > IDLE_S):
                ending.append(lease)
        for lease in ending:
            self._forget(lease)
        await self._close([lease for lease in ending if lease.lease_id], now_us)
        renewals: list[Coroutine[Any, Any, None]] = []
        for lease in list(self._current.values()):
            if lease.deadline_s - now_s < SAFE_S / 2:
                renewals.append(self._renew(lease.budget, 0))
            elif lease.left_nano > 2 * lease.goal_nano:
                renewals.append(self._trim(lease))
        await asyncio.gather(*renewals)  # together, so that they share a commit

    async def sums(self, budget: Budget, *, stale_s: float = 0.0) -> BudgetSums:
        """Return what the SQL rows of a budget's current window add up to.

        Parameters
        ----------
        budget : Budget
            The budget.
        stale_s : float
            Seconds that may have passed since the rows were read.
        """
        last = self._last_sums.get(budget.id)
        if last is not None and last[0] + stale_s > self._monotonic_s():
            return last[1]
        now_us = self._wall_us()

        def read() -> BudgetSums:
            with self._engine.connect() as connection:
                return ledger.sums(connection, budget, now_us=now_us)

        sums = await asyncio.to_thread(read)
        self._last_sums[budget.id] = self._monotonic_s(), sums
        return sums

    async def reservations(
        self,
        pool: str,
        tags: Sequence[Mapping[str, str] | None],
        most_nano: Sequence[int],
    ) -> Reservations | None:
        """Return what the requests of a call may reserve; wait for SQL only if leases are short.

        Parameters
        ----------
        pool : str
            The pool of all requests.
        tags : sequence of (mapping of str to str, or None)
            The tags of each request.
        most_nano : sequence of int
            Nano-dollars of the largest reservation that each request may take.

        Returns
        -------
        Reservations or None
            Nothing is taken yet; None where no budget applies to any request.
        """
        pool_budgets = self._by_pool.get(pool)
        if pool_budgets is None:
            return None
        by_row = pool_budgets.of_rows(tags)
        needs = _needs(by_row, most_nano)
        if not needs:
            return None
        waited = False
        for _ in range(ATTEMPTS):
            short = [(budget, nano) for budget, nano in needs if not self._covers(budget, nano)]
            if not short:
                break
            waited = True
            # Shielded: even if the caller is cancelled, what was leased must be counted here.
            renewals = asyncio.gather(*(self._renew(budget, nano) for budget, nano in short))
            renewals.add_done_callback(_retrieve_exception)
            await asyncio.shield(renewals)
        if waited:
            ids = {budget.id for budget in self.budgets(pool)}
            if not ids.issuperset(budget.id for budget, _ in needs):
                # A budget was dropped meanwhile: it applies to no request any more.
                return await self.reservations(pool, tags, most_nano)
        leases, now_s = {}, self._monotonic_s()
        for budget, nano in needs:
            lease = leases[budget.id] = self.local_lease(budget)
            lease.used_at_s = now_s
            lease.goal_nano = lease.ideal_nano(nano)
            if lease.left_nano < lease.goal_nano // 2:
                self._renew_beside(budget, nano)
        if by_row[0] is pool_budgets.untagged:
            shared = list(leases.values())
            return Reservations([shared] * len(tags), self._monotonic_s)
        return Reservations(
            [[leases[budget.id] for budget in budgets] for budgets in by_row], self._monotonic_s
        )

    def lost(self, lease_ids: Sequence[int]) -> None:
        """Forget leases from which SQL has refused a reservation."""
        for lease in [*self._current.values(), *self._former]:
            if lease.lease_id in lease_ids:
                self._forget(lease)

    def refunded(self) -> None:
        """Clear the back-off after refused renewals: budget has been freed."""
        self._last_sums.clear()
        for lease in self._current.values():
            lease.denied_until_s = 0.0

    def local_lease(self, budget: Budget) -> LocalLease:
        """Return the lease of a budget's current window; an empty one where nothing is leased."""
        now_us, current = self._wall_us(), self._current.get(budget.id)
        if current is not None and current.window_start_us <= now_us < current.window_end_us:
            return current
        if current is not None:
            self._former.append(current)
        start_us, end_us = budget.window_start_us(now_us), budget.resets_at_us(now_us)
        # When the clock is set back, the window may be one of which there is still a lease.
        again = [
            lease
            for lease in self._former
            if (lease.budget.id, lease.window_start_us) == (budget.id, start_us)
        ]
        for lease in again:
            self._former.remove(lease)
        new = LocalLease(0, budget, start_us, NO_LIMIT if end_us is None else end_us)
        self._current[budget.id] = again[0] if again else new
        return self._current[budget.id]

    def _adopt(self, budgets: Sequence[Budget]) -> None:
        """Use these budgets, all of the database, from the next call on."""
        by_pool: dict[str, list[Budget]] = {}
        for budget in budgets:
            by_pool.setdefault(budget.pool, []).append(budget)
        by_id = {budget.id: budget for budget in budgets}
        for budget_id, lease in list(self._current.items()):
            if budget_id in by_id:
                if by_id[budget_id].cap_nano > lease.budget.cap_nano:
                    lease.denied_until_s = lease.rest_until_s = 0.0
                lease.budget = by_id[budget_id]
            else:
                del self._current[budget_id]
        self._by_pool = {pool: _PoolBudgets.of(own) for pool, own in by_pool.items()}

    def _covers(self, budget: Budget, need_nano: int) -> bool:
        """Return whether a call needs no renewal, or would get nothing by one."""
        lease, now_s = self.local_lease(budget), self._monotonic_s()
        fits = lease.left_nano >= need_nano and now_s < lease.deadline_s
        return fits or now_s < lease.denied_until_s

    def _renew_beside(self, budget: Budget, need_nano: int) -> None:
        """Start a renewal that no request waits for, unless one is under way or due later."""
        renewal = self._renewals.setdefault(budget.id, _Renewal())
        busy = renewal.lock.locked() or not (renewal.task is None or renewal.task.done())
        if not busy and self._monotonic_s() >= self.local_lease(budget).rest_until_s:
            renewal.task = asyncio.create_task(self._renew_quietly(budget, need_nano))

    async def _renew_quietly(self, budget: Budget, need_nano: int) -> None:
        try:
            await self._renew(budget, 0, ideal_for_nano=need_nano)
        except Exception:
            logger.exception("a lease of budget %s could not be renewed", budget.name)

    async def _renew(self, budget: Budget, need_nano: int, *, ideal_for_nano: int = 0) -> None:
        """Top up the lease of a budget and move its deadline.

        Parameters
        ----------
        budget : Budget
            The budget.
        need_nano : int
            Nano-dollars that the lease must hold afterwards, if the budget has as many. With 0 it
            is renewed even if it covers its requests.
        ideal_for_nano : int
            Nano-dollars of a call for which `LocalLease.ideal_nano` is wished for.
        """
        renewal = self._renewals.setdefault(budget.id, _Renewal())
        async with renewal.lock:
            if need_nano and self._covers(budget, need_nano):
                return
            lease, now_s, now_us = self.local_lease(budget), self._monotonic_s(), self._wall_us()
            left_nano = 0 if now_s >= lease.deadline_s else lease.left_nano
            wish_nano = lease.ideal_nano(max(need_nano, ideal_for_nano))
            more_needed_nano = max(need_nano - left_nano, 0)
            more_wished_nano = max(wish_nano - left_nano, 0)
            granted = await self._writer.write(
                lambda connection: ledger.lease(
                    connection,
                    budget,
                    self.holder,
                    need_nano=more_needed_nano,
                    ideal_nano=more_wished_nano,
                    now_us=now_us,
                    reclaim_at_us=now_us + int(LEASE_S * 1e6),
                )
            )
            if not granted.id:  # the budget has been dropped
                await self.reload()
                return
            current = self._current.get(budget.id)
            if current is not lease:
                # Meanwhile the lease was idle, or its window ended. In SQL a process has one lease
                # of a window. It must be closed, unless another local lease goes on with it.
                lease.lease_id = granted.id
                goes_on = current is not None and current.window_start_us == lease.window_start_us
                if not goes_on and lease not in self._former:
                    self._former.append(lease)
                return
            if granted.fresh or granted.id != lease.lease_id:
                lease.left_nano = granted.granted_nano
            else:
                lease.left_nano += granted.granted_nano
            lease.lease_id, lease.deadline_s = granted.id, now_s + SAFE_S
            try_again_s = self._monotonic_s() + DENIED_S
            if granted.granted_nano < more_needed_nano:
                lease.denied_until_s = try_again_s
            if granted.granted_nano < more_wished_nano // 4:
                lease.rest_until_s = try_again_s

    async def _trim(self, lease: LocalLease) -> None:
        """Give back what the lease holds beyond its goal, such as after a single large call."""
        extra_nano = lease.left_nano - lease.goal_nano
        if extra_nano <= 0:  # requests have reserved it since the lease was looked at
            return
        lease.left_nano -= extra_nano
        try:
            await self._writer.write(
                lambda connection: ledger.give_back(connection, lease.lease_id, extra_nano)
            )
        except BaseException:
            lease.left_nano += extra_nano
            raise

    async def _close(self, leases: Sequence[LocalLease], now_us: int) -> None:
        """Close leases in SQL, and those of dead holders where there may be other holders."""
        ids = [lease.lease_id for lease in leases]

        def work(connection: Connection) -> None:
            ledger.close(connection, ids, now_us=now_us)
            if not self._alone:
                ledger.reclaim(connection, self.holder, now_us=now_us, alone=False)

        if not ids and self._alone:
            return
        try:
            await self._writer.write(work)
        except BaseException:
            # Perhaps they are still open in SQL: the next call for their window, or the next
            # refresh, takes them up.
            self._former += leases
            raise

    def _forget(self, lease: LocalLease) -> None:
        """Never reserve from the lease again."""
        if self._current.get(lease.budget.id) is lease:
            del self._current[lease.budget.id]
        if lease in self._former:
            self._former.remove(lease)


def _retrieve_exception(done: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a future, which asyncio else logs when its caller is cancelled."""
    if not done.cancelled():
        done.exception()


def _needs(
    by_row: Sequence[Sequence[Budget]], most_nano: Sequence[int]
) -> list[tuple[Budget, int]]:
    """Return the budgets that apply to any row, with the most that their rows may reserve.

    Parameters
    ----------
    by_row : sequence of sequences of Budget
        The budgets that apply to each row.
    most_nano : sequence of int
        Nano-dollars of the largest reservation of each row.

    Returns
    -------
    list of (Budget, int)
        Each budget once, with the sum in nano-dollars over its rows.
    """
    needs: dict[int, tuple[Budget, int]] = {}
    for budgets, row_nano in zip(by_row, most_nano, strict=True):
        for budget in budgets:
            nano = budget.ceiled(row_nano)
            needs[budget.id] = budget, nano + (needs[budget.id][1] if budget.id in needs else 0)
    return list(needs.values())


def boot_id() -> str:
    """Return the id of this boot of the machine, or a random id where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return uuid.uuid4().hex

"""The ledger: what budgets have leased, what decisions have reserved, and what decisions cost.

A holder is a process. It leases money of a budget, durably, before it spends any of it. Each
decision reserves its worst-case cost from a lease, in the transaction that logs the decision.
Feedback settles a reservation to the real cost. The ledger does not trust a holder's memory: a
reservation from a lease that is closed, or has too little left, fails. So no pause, wrong clock or
crash of a holder can overspend a cap.

`amount - returned` of a lease is the money that its budget lacks, whether the lease is open or
closed. So the free money of a window is its cap minus one sum over its few leases. The transactions
that write reservations also update the counts on lease rows; `recount` computes these counts again
from the reservations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    func,
    insert,
    or_,
    select,
    update,
)

from banditroute.core.budget import ROLLING, Budget
from banditroute.core.errors import Unavailable
from banditroute.store.bulk import insert_many
from banditroute.store.tables import budgets, leases, reservations

OPEN, SETTLED, CANCELLED = "open", "settled", "cancelled"
COUNTED = ("drawn_nano", "requests", "ended_nano", "returned_nano")
"""Columns of a lease that are sums over its reservations."""

_lease, _reservation = leases.c, reservations.c
_RESERVE = (
    "UPDATE leases SET drawn_nano = drawn_nano + ?, requests = requests + ? "
    "WHERE id = ? AND closed_at IS NULL AND drawn_nano + ? <= amount_nano"
)
_RESERVE_BY_STYLE = {"qmark": _RESERVE, "pyformat": _RESERVE.replace("?", "%s")}


class Reservation(NamedTuple):
    """What a decision reserves from one budget.

    Attributes
    ----------
    decision_id : str
        The decision.
    budget_id, lease_id : int
        The budget, and the lease that the money comes from.
    window_start_us : int
        Start of the budget's window; on a rolling window the time of the decision.
    reserved_nano : int
        Worst-case cost, in nano-dollars.
    expires_at_us : int
        Time after which the reservation is shown as expired, if it has not settled.
    """

    decision_id: str
    budget_id: int
    lease_id: int
    window_start_us: int
    reserved_nano: int
    expires_at_us: int


class Holder(NamedTuple):
    """A process that leases money of budgets.

    Attributes
    ----------
    name : str
        A name that no other process has or had.
    boot : str
        Boot id of its machine; a restart of the machine changes it.
    """

    name: str
    boot: str


class Lease(NamedTuple):
    """The result of topping up a holder's lease.

    Attributes
    ----------
    id : int
        Id of the lease; 0 if the budget has been dropped.
    granted_nano : int
        Nano-dollars by which the lease has grown.
    fresh : bool
        True if the lease was new or closed, so that `granted_nano` is all that it has left.
    """

    id: int
    granted_nano: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class BudgetSums:
    """Sums over the reservations and leases of a budget's window.

    Attributes
    ----------
    cap_nano : int
        The cap.
    settled_nano : int
        Real cost of answers, overruns included.
    reserved_nano : int
        Worst-case costs of decisions that have neither settled nor expired.
    expired_nano : int
        Worst-case costs of expired decisions; they count in full until they settle.
    leased_nano : int
        Money in open leases that no decision has reserved.
    lost_nano : int
        Money in leases of a machine that went down; it may be spent, so it counts as used.
    overruns_nano : int
        Cost of answers above their reservations.
    requests : int
        Decisions in the window, without cancelled ones.
    oldest_us : int or None
        In a rolling window the time of its first decision, else the start of the window; None
        without decisions.
    """

    cap_nano: int
    settled_nano: int
    reserved_nano: int
    expired_nano: int
    leased_nano: int
    lost_nano: int
    overruns_nano: int
    requests: int
    oldest_us: int | None

    @property
    def used_nano(self) -> int:
        """Nano-dollars that are settled, reserved, expired, leased or lost."""
        ended_nano = self.settled_nano + self.expired_nano + self.lost_nano
        return ended_nano + self.reserved_nano + self.leased_nano

    @property
    def free_nano(self) -> int:
        """Nano-dollars that can still be leased."""
        return max(self.cap_nano - self.used_nano, 0)


class WindowCourse(NamedTuple):
    """What a budget's window has spent so far.

    Attributes
    ----------
    window_start_us : int
        Start of the window, 0 for a rolling one.
    settled_nano : int
        Settled costs and lost leases.
    running_nano : int
        Reserved by decisions that have not settled.
    requests : int
        Decisions in the window.
    holders : int
        Number of holders with an open lease, at least 1.
    """

    window_start_us: int
    settled_nano: int
    running_nano: int
    requests: int
    holders: int


class LeaseLost(Unavailable):
    """Leases are closed, or have too little left for a reservation.

    Parameters
    ----------
    lease_ids : sequence of int
        Ids of these leases.
    """

    def __init__(self, lease_ids: Sequence[int]) -> None:
        super().__init__("a lease of a budget is closed or used up; nothing was decided")
        self.lease_ids = tuple(lease_ids)


def free_nano(connection: Connection, budget: Budget, *, now_us: int) -> int:
    """Return nano-dollars of the current window that are not leased; negative after overruns."""
    if budget.period == ROLLING:
        window_sums = sums(connection, budget, now_us=now_us)
        return window_sums.cap_nano - window_sums.used_nano
    leased = select(func.coalesce(func.sum(_lease.amount_nano - _lease.returned_nano), 0)).where(
        _lease.budget_id == budget.id, _lease.window_start == budget.window_start_us(now_us)
    )
    return budget.cap_nano - int(connection.execute(leased).scalar_one())


def lease(
    connection: Connection,
    budget: Budget,
    holder: Holder,
    *,
    need_nano: int,
    ideal_nano: int,
    now_us: int,
    reclaim_at_us: int,
) -> Lease:
    """Top up the holder's lease of the current window.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    budget : Budget
        The budget; its cap is read again, because the caller's copy may be out of date.
    holder : Holder
        The process that leases.
    need_nano : int
        Nano-dollars that are needed now; they are granted as far as they are free.
    ideal_nano : int
        Nano-dollars that would last for a while. Unless `need_nano` is higher, at most a quarter
        of the free money is granted, so that some is left for other holders.
    now_us : int
        The time.
    reclaim_at_us : int
        When other holders may close the lease.

    Returns
    -------
    Lease
        The id of the lease, and what was granted.
    """
    newest = select(budgets.c.cap_nano).where(budgets.c.id == budget.id)
    cap = connection.execute(newest).scalar()
    if cap is None:
        return Lease(0, 0, True)
    budget = replace(budget, cap_nano=cap)
    window_start_us = budget.window_start_us(now_us)
    available_nano = max(free_nano(connection, budget, now_us=now_us), 0)
    spare_nano = min(ideal_nano, available_nano // 4)
    grant_nano = min(available_nano, max(need_nano, spare_nano))
    mine = and_(
        _lease.budget_id == budget.id,
        _lease.window_start == window_start_us,
        _lease.holder == holder.name,
    )
    current = connection.execute(select(leases).where(mine)).first()
    if current is None:
        row = dict.fromkeys(COUNTED, 0) | {
            "budget_id": budget.id,
            "holder": holder.name,
            "boot": holder.boot,
            "window_start": window_start_us,
            "amount_nano": grant_nano,
            "opened_at": now_us,
            "reclaim_at": reclaim_at_us,
        }
        new = connection.execute(insert(leases).returning(_lease.id), row).scalar_one()
        return Lease(int(new), grant_nano, True)
    changed = {
        "amount_nano": current.amount_nano + grant_nano,
        "reclaim_at": reclaim_at_us,
        "closed_at": None,
    }
    connection.execute(update(leases).where(_lease.id == current.id).values(changed))
    return Lease(current.id, grant_nano, current.closed_at is not None)


def give_back(connection: Connection, lease_id: int, part_nano: int) -> None:
    """Give `part_nano` nano-dollars, above 0, of an open lease back to its budget.

    Nothing changes if the lease is closed or has less than that left.
    """
    if part_nano <= 0:  # a negative part would take more of the budget
        raise ValueError(f"part_nano: above 0, not {part_nano}")
    covered = and_(
        _lease.id == lease_id,
        _lease.closed_at.is_(None),
        _lease.amount_nano - _lease.drawn_nano >= part_nano,
    )
    smaller = {"amount_nano": _lease.amount_nano - part_nano}
    connection.execute(update(leases).where(covered).values(smaller))


def close(connection: Connection, lease_ids: Sequence[int], *, now_us: int) -> None:
    """Close leases: give back what is left of them, and refuse later reservations."""
    is_open = _lease.id.in_(lease_ids) & _lease.closed_at.is_(None)
    ended = {"amount_nano": _lease.drawn_nano, "closed_at": now_us}
    connection.execute(update(leases).where(is_open).values(ended))


def reclaim(connection: Connection, holder: Holder, *, now_us: int, alone: bool) -> None:
    """Close the leases that other holders have left behind.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    holder : Holder
        The caller; its own leases stay open.
    now_us : int
        The time.
    alone : bool
        True if no other holder can be running, as on SQLite: all other leases are closed. False:
        those whose time to reclaim has passed are closed.

    Notes
    -----
    On SQLite a power loss may erase the last decisions, because their commits need not be on disk.
    So a lease from an earlier boot of the machine counts in full. A crash of the process erases no
    decision, so what was left of its lease goes back.
    """
    others = and_(_lease.closed_at.is_(None), _lease.holder != holder.name)
    if not alone:
        ended = {"amount_nano": _lease.drawn_nano, "closed_at": now_us}
        connection.execute(update(leases).where(others, _lease.reclaim_at < now_us).values(ended))
        return
    kept = case((_lease.boot == holder.boot, _lease.drawn_nano), else_=_lease.amount_nano)
    connection.execute(update(leases).where(others).values(amount_nano=kept, closed_at=now_us))


def reserve(connection: Connection, batch: Sequence[Reservation]) -> None:
    """Write reservations and take their money from their leases, all of them or none.

    Raises
    ------
    LeaseLost
        If a lease is closed or has too little left; the caller must roll back the transaction.
    """
    if not batch:
        return
    by_lease: dict[int, list[int]] = defaultdict(list)
    for reservation in batch:
        by_lease[reservation.lease_id].append(reservation.reserved_nano)
    statement = _RESERVE_BY_STYLE[connection.dialect.paramstyle]
    lost = []
    for lease_id, amounts_nano in by_lease.items():
        total_nano = sum(amounts_nano)
        # The driver runs this directly, for speed: every decision under a budget waits for it.
        updated = connection.exec_driver_sql(
            statement, (total_nano, len(amounts_nano), lease_id, total_nano)
        )
        if updated.rowcount != 1:
            lost.append(lease_id)
    if lost:
        raise LeaseLost(lost)
    rows = [
        (
            reservation.decision_id,
            reservation.budget_id,
            reservation.lease_id,
            reservation.window_start_us,
            reservation.reserved_nano,
            None,  # settled_nano
            0,  # overrun_nano
            OPEN,
            reservation.expires_at_us,
        )
        for reservation in batch
    ]
    insert_many(connection, reservations, rows)


def sums(connection: Connection, budget: Budget, *, now_us: int) -> BudgetSums:
    """Return the sums over the rows of the current window."""
    if budget.period == ROLLING:
        since_us = now_us - budget.span_us
        reserved_in_window = _reservation.window_start > since_us
        leased_in_window = or_(_lease.closed_at.is_(None), _lease.closed_at > since_us)
    else:
        start_us = budget.window_start_us(now_us)
        reserved_in_window = _reservation.window_start == start_us
        leased_in_window = _lease.window_start == start_us
    status, reserved = _reservation.status, _reservation.reserved_nano
    running, overdue = _reservation.expires_at >= now_us, _reservation.expires_at < now_us
    of_reservations = select(
        func.min(case((status != CANCELLED, _reservation.window_start))).label("oldest_us"),
        _total(_reservation.settled_nano, status == SETTLED).label("settled_nano"),
        _total(reserved, (status == OPEN) & running).label("reserved_nano"),
        _total(reserved, (status == OPEN) & overdue).label("expired_nano"),
        _total(_reservation.overrun_nano, status == SETTLED).label("overruns_nano"),
        _total(1, status != CANCELLED).label("requests"),
    ).where(_reservation.budget_id == budget.id, reserved_in_window)
    left = _lease.amount_nano - _lease.drawn_nano
    of_leases = select(
        _total(left, _lease.closed_at.is_(None)).label("leased_nano"),
        _total(left, _lease.closed_at > 0).label("lost_nano"),
    ).where(_lease.budget_id == budget.id, leased_in_window)
    totals: dict[str, Any] = {
        name: value if value is None else int(value)
        for query in (of_reservations, of_leases)
        for name, value in connection.execute(query).mappings().one().items()
    }
    return BudgetSums(cap_nano=budget.cap_nano, **totals)


def course(connection: Connection, budget: Budget, *, now_us: int) -> WindowCourse:
    """Return what the current window has spent so far, from the counts on lease rows."""
    if budget.period == ROLLING:
        total = sums(connection, budget, now_us=now_us)
        settled = total.settled_nano + total.lost_nano
        running = total.reserved_nano + total.expired_nano
        requests, start_us = total.requests, 0
    else:
        start_us = budget.window_start_us(now_us)
        lost = case((_lease.closed_at > 0, _lease.amount_nano - _lease.drawn_nano), else_=0)
        parts = (
            _lease.ended_nano - _lease.returned_nano + lost,
            _lease.drawn_nano - _lease.ended_nano,
            _lease.requests,
        )
        of_window = (_lease.budget_id == budget.id, _lease.window_start == start_us)
        totals = select(*(func.coalesce(func.sum(part), 0) for part in parts)).where(*of_window)
        settled, running, requests = connection.execute(totals).one()
    holding = (_lease.budget_id == budget.id, _lease.closed_at.is_(None))
    holders = select(func.count(_lease.holder.distinct())).where(*holding)
    return WindowCourse(
        window_start_us=start_us,
        settled_nano=int(settled),
        running_nano=int(running),
        requests=int(requests),
        holders=max(int(connection.execute(holders).scalar_one()), 1),
    )


def ended_nano(connection: Connection, lease_ids: Collection[int]) -> dict[int, tuple[int, int]]:
    """Return {lease id: (reserved, cost)} of settled and cancelled decisions, in nano-dollars."""
    counts = select(_lease.id, _lease.ended_nano, _lease.returned_nano)
    rows = connection.execute(counts.where(_lease.id.in_(lease_ids)))
    return {row.id: (row.ended_nano, row.ended_nano - row.returned_nano) for row in rows}


def recount(connection: Connection) -> None:
    """Set the counts on lease rows to the sums of their reservations."""
    has_ended = _reservation.status.in_((SETTLED, CANCELLED))
    back = case(
        (_reservation.status == SETTLED, _reservation.reserved_nano - _reservation.settled_nano),
        (_reservation.status == CANCELLED, _reservation.reserved_nano),
        else_=0,
    )
    recounted = (
        select(
            _lease.id,
            func.coalesce(func.sum(_reservation.reserved_nano), 0).label("drawn_nano"),
            func.count(_reservation.decision_id).label("requests"),
            _total(_reservation.reserved_nano, has_ended).label("ended_nano"),
            func.coalesce(func.sum(back), 0).label("returned_nano"),
        )
        .select_from(leases.outerjoin(reservations, _reservation.lease_id == _lease.id))
        .group_by(_lease.id)
    )
    stored = {row.id: row._mapping for row in connection.execute(select(leases))}
    for row in connection.execute(recounted).mappings().all():
        counts = {name: int(row[name]) for name in COUNTED}
        if any(stored[row["id"]][name] != value for name, value in counts.items()):
            connection.execute(update(leases).where(_lease.id == row["id"]).values(counts))


def forget(connection: Connection, budget_id: int) -> None:
    """Delete the leases and reservations of a budget that is dropped."""
    connection.execute(reservations.delete().where(_reservation.budget_id == budget_id))
    connection.execute(leases.delete().where(_lease.budget_id == budget_id))


def _total(column: ColumnElement[Any] | int, where: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(case((where, column), else_=0)), 0)

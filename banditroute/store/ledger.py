"""The ledger: what budgets have leased out, what decisions have reserved, and what they cost.

A holder leases a slice of a budget, durably, before it spends a cent of it; each decision draws its
worst case from a lease in the very transaction that logs it; feedback settles that to what it
really cost. Nothing here trusts a holder's memory: a lease that is closed or would be overdrawn
refuses the draw, so no pause, clock or crash of a holder can overspend a cap.

Of a lease, `amount - returned` is what its budget has given away for it, open or closed, so that
free money is one sum over the few leases of a window. What is counted on lease rows is kept by the
same transactions that write the reservations, and `recount` holds the two against each other.
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
"""Columns of a lease that its reservations tell."""


_lease, _held = leases.c, reservations.c
_DRAW = (
    "UPDATE leases SET drawn_nano = drawn_nano + ?, requests = requests + ? "
    "WHERE id = ? AND closed_at IS NULL AND drawn_nano + ? <= amount_nano"
)
_DRAWN = (_DRAW.replace("?", "%s"), _DRAW)


class Draw(NamedTuple):
    """A reservation of a decision from one budget, in nano-dollars; times in microseconds."""

    decision_id: str
    budget_id: int
    lease_id: int
    window_start: int
    nano: int
    expires_at: int


class Holder(NamedTuple):
    """Who leases: a process by a name of its own, and the boot of the machine it runs on."""

    name: str
    boot: str


class Lease(NamedTuple):
    """What a holder was granted of a budget, in nano-dollars.

    `fresh` says that nothing but `granted` is left of what it had before; an `id` of 0 that the
    budget is no more.
    """

    id: int
    granted: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class BudgetSums:
    """A budget's window as the SQL rows have it, in nano-dollars.

    Attributes
    ----------
    settled : what answers really cost, overruns included.
    reserved : worst cases of decisions that have not settled.
    expired : those that nobody has settled in time; they count in full until somebody does.
    leased : what holders have leased and not drawn.
    lost : what a machine that went down had leased and may have spent.
    overruns : what answers cost above their reservations.
    requests : decisions in the window, cancelled ones left out.
    oldest : when the first of them was taken (on a rolling window) or the window began.
    """

    cap: int
    settled: int
    reserved: int
    expired: int
    leased: int
    lost: int
    overruns: int
    requests: int
    oldest: int | None

    @property
    def used(self) -> int:
        """All that is not free."""
        return self.settled + self.reserved + self.expired + self.leased + self.lost

    @property
    def free(self) -> int:
        """What can still be leased."""
        return max(self.cap - self.used, 0)


class WindowCourse(NamedTuple):
    """How far a window has come: nano-dollars settled (or lost), those of reservations that are
    not, decisions, and how many holders share what is left.
    """

    window: int
    settled: int
    running: int
    requests: int
    holders: int


class LeaseLost(Unavailable):
    """A draw from leases that are no longer open, or hold too little."""

    def __init__(self, lease_ids: Sequence[int]) -> None:
        super().__init__("a lease of a budget has ended; nothing was decided")
        self.lease_ids = tuple(lease_ids)


def free(connection: Connection, budget: Budget, *, now: int) -> int:
    """Return the nano-dollars of the current window that nobody has; below 0 after overruns."""
    if budget.period == ROLLING:
        known = sums(connection, budget, now=now)
        return known.cap - known.used
    given = select(func.coalesce(func.sum(_lease.amount_nano - _lease.returned_nano), 0)).where(
        _lease.budget_id == budget.id, _lease.window_start == budget.window_start_us(now)
    )
    return budget.cap_nano - int(connection.execute(given).scalar_one())


def lease(
    connection: Connection,
    budget: Budget,
    holder: Holder,
    *,
    need: int,
    ideal: int,
    now: int,
    until: int,
) -> Lease:
    """Top up the holder's lease of the current window.

    Parameters
    ----------
    need : nano-dollars that are wanted at once; all that is free is given, if need be.
    ideal : nano-dollars that save another visit soon; near the cap less, so that what one holder
        keeps is not what another one lacks.
    until : microseconds, UTC; from then on others may close the lease.

    Notes
    -----
    The cap is the one in SQL: whoever asks may not have heard yet that it was changed.
    """
    newest = select(budgets.c.cap_nano).where(budgets.c.id == budget.id)
    cap = connection.execute(newest).scalar()
    if cap is None:
        return Lease(0, 0, True)
    budget = replace(budget, cap_nano=cap)
    window = budget.window_start_us(now)
    available = max(free(connection, budget, now=now), 0)
    grant = min(available, max(need, min(ideal, available // 4)))
    mine = and_(
        _lease.budget_id == budget.id,
        _lease.window_start == window,
        _lease.holder == holder.name,
    )
    known = connection.execute(select(leases).where(mine)).first()
    if known is None:
        row = {
            "budget_id": budget.id,
            "holder": holder.name,
            "boot": holder.boot,
            "window_start": window,
            "amount_nano": grant,
            "drawn_nano": 0,
            "requests": 0,
            "ended_nano": 0,
            "returned_nano": 0,
            "opened_at": now,
            "reclaim_at": until,
        }
        new = connection.execute(insert(leases).returning(_lease.id), row).scalar_one()
        return Lease(int(new), grant, True)
    changed = {"amount_nano": known.amount_nano + grant, "reclaim_at": until, "closed_at": None}
    connection.execute(update(leases).where(_lease.id == known.id).values(changed))
    return Lease(known.id, grant, known.closed_at is not None)


def give_back(connection: Connection, lease_id: int, nano: int) -> None:
    """Return a part of what is left of a lease, above 0; less would take more of the budget."""
    if nano <= 0:
        raise ValueError(f"nano: above 0, not {nano}")
    covered = and_(
        _lease.id == lease_id,
        _lease.closed_at.is_(None),
        _lease.amount_nano - _lease.drawn_nano >= nano,
    )
    smaller = {"amount_nano": _lease.amount_nano - nano}
    connection.execute(update(leases).where(covered).values(smaller))


def close(connection: Connection, lease_ids: Sequence[int], *, now: int) -> None:
    """Give back what is left of leases; nothing can be drawn from them any more."""
    open_ones = _lease.id.in_(lease_ids) & _lease.closed_at.is_(None)
    ended = {"amount_nano": _lease.drawn_nano, "closed_at": now}
    connection.execute(update(leases).where(open_ones).values(ended))


def reclaim(connection: Connection, holder: Holder, *, now: int, alone: bool) -> None:
    """Close the leases that other holders have left behind.

    Parameters
    ----------
    alone : whether no other holder can be alive, as on SQLite; else a lease is left alone until
        the time that its holder was given is over.

    Notes
    -----
    Whoever is alone may have lost decisions to a loss of power, as their commits need not survive
    one. So a lease of an earlier boot of the machine counts in full; one of a process that died
    lacks nothing, and what it had left goes back.
    """
    others = and_(_lease.closed_at.is_(None), _lease.holder != holder.name)
    if not alone:
        ended = {"amount_nano": _lease.drawn_nano, "closed_at": now}
        connection.execute(update(leases).where(others, _lease.reclaim_at < now).values(ended))
        return
    kept = case((_lease.boot == holder.boot, _lease.drawn_nano), else_=_lease.amount_nano)
    connection.execute(update(leases).where(others).values(amount_nano=kept, closed_at=now))


def draw(connection: Connection, draws: Sequence[Draw]) -> None:
    """Reserve, or raise `LeaseLost` and write nothing that counts."""
    if not draws:
        return
    by_lease: dict[int, list[int]] = defaultdict(list)
    for one in draws:
        by_lease[one.lease_id].append(one.nano)
    lost = []
    for lease_id, nanos in by_lease.items():
        nano = sum(nanos)
        # By the driver itself: this is in the way of every decision that a budget holds.
        taken = connection.exec_driver_sql(
            _DRAWN[connection.dialect.paramstyle == "qmark"],
            (nano, len(nanos), lease_id, nano),
        )
        if taken.rowcount != 1:
            lost.append(lease_id)
    if lost:
        raise LeaseLost(lost)
    rows = [
        (one.decision_id, one.budget_id, one.lease_id, one.window_start, one.nano, None, 0, OPEN)
        + (one.expires_at,)
        for one in draws
    ]
    insert_many(connection, reservations, rows)


def sums(connection: Connection, budget: Budget, *, now: int) -> BudgetSums:
    """Return what the rows of the current window add up to."""
    rolling = budget.period == ROLLING
    since = budget.window_start_us(now)
    within = _held.window_start > now - budget.span_us if rolling else _held.window_start == since
    recent = or_(_lease.closed_at.is_(None), _lease.closed_at > now - budget.span_us)
    its = recent if rolling else _lease.window_start == since
    ours = (_held.budget_id == budget.id, within)
    spent = select(
        _total(_held.settled_nano, _held.status == SETTLED),
        _total(_held.reserved_nano, (_held.status == OPEN) & (_held.expires_at >= now)),
        _total(_held.reserved_nano, (_held.status == OPEN) & (_held.expires_at < now)),
        _total(_held.overrun_nano, _held.status == SETTLED),
        func.coalesce(func.sum(case((_held.status != CANCELLED, 1), else_=0)), 0),
        func.min(case((_held.status != CANCELLED, _held.window_start))),
    ).where(*ours)
    left = _lease.amount_nano - _lease.drawn_nano
    held = select(_total(left, _lease.closed_at.is_(None)), _total(left, _lease.closed_at > 0))
    settled, reserved, expired, overruns, requests, oldest = connection.execute(spent).one()
    leased, lost = connection.execute(held.where(_lease.budget_id == budget.id, its)).one()
    return BudgetSums(
        cap=budget.cap_nano,
        settled=int(settled),
        reserved=int(reserved),
        expired=int(expired),
        leased=int(leased),
        lost=int(lost),
        overruns=int(overruns),
        requests=int(requests),
        oldest=oldest,
    )


def course(connection: Connection, budget: Budget, *, now: int) -> WindowCourse:
    """Return how far the current window has come, from what lease rows count."""
    if budget.period == ROLLING:
        known = sums(connection, budget, now=now)
        settled, running = known.settled + known.lost, known.reserved + known.expired
        requests, window = known.requests, 0
    else:
        window = budget.window_start_us(now)
        lost = case((_lease.closed_at > 0, _lease.amount_nano - _lease.drawn_nano), else_=0)
        parts = (
            _lease.ended_nano - _lease.returned_nano + lost,
            _lease.drawn_nano - _lease.ended_nano,
            _lease.requests,
        )
        of_window = (_lease.budget_id == budget.id, _lease.window_start == window)
        added = select(*(func.coalesce(func.sum(part), 0) for part in parts)).where(*of_window)
        settled, running, requests = connection.execute(added).one()
    holding = (_lease.budget_id == budget.id, _lease.closed_at.is_(None))
    holders = select(func.count(_lease.holder.distinct())).where(*holding)
    return WindowCourse(
        window=window,
        settled=int(settled),
        running=int(running),
        requests=int(requests),
        holders=max(int(connection.execute(holders).scalar_one()), 1),
    )


def ended(connection: Connection, lease_ids: Collection[int]) -> dict[int, tuple[int, int]]:
    """Return what the settled decisions of leases had reserved and what they cost."""
    known = select(_lease.id, _lease.ended_nano, _lease.returned_nano)
    rows = connection.execute(known.where(_lease.id.in_(lease_ids)))
    return {row.id: (row.ended_nano, row.ended_nano - row.returned_nano) for row in rows}


def recount(connection: Connection) -> None:
    """Bring what lease rows count to what the reservations say."""
    over = _held.status.in_((SETTLED, CANCELLED))
    back = case(
        (_held.status == SETTLED, _held.reserved_nano - _held.settled_nano),
        (_held.status == CANCELLED, _held.reserved_nano),
        else_=0,
    )
    told = (
        select(
            _lease.id,
            func.coalesce(func.sum(_held.reserved_nano), 0).label("drawn_nano"),
            func.count(_held.decision_id).label("requests"),
            _total(_held.reserved_nano, over).label("ended_nano"),
            func.coalesce(func.sum(back), 0).label("returned_nano"),
        )
        .select_from(leases.outerjoin(reservations, _held.lease_id == _lease.id))
        .group_by(_lease.id)
    )
    known = {row.id: row._mapping for row in connection.execute(select(leases))}
    for row in connection.execute(told).mappings().all():
        counted = {name: int(row[name]) for name in COUNTED}
        if any(known[row["id"]][name] != value for name, value in counted.items()):
            at = _lease.id == row["id"]
            connection.execute(update(leases).where(at).values(counted))


def forget(connection: Connection, budget_id: int) -> None:
    """Drop the ledger of a budget that is no more."""
    connection.execute(reservations.delete().where(_held.budget_id == budget_id))
    connection.execute(leases.delete().where(_lease.budget_id == budget_id))


def _total(column: ColumnElement[Any], where: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(case((where, column), else_=0)), 0)

"""How reservations end: settled to what was paid, or given back.

One that nobody settles in time needs no hand to end it: it goes on counting in full, and is shown
as expired, until somebody settles it after all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, or_, select, update

from banditroute.store.ledger import CANCELLED, OPEN, SETTLED
from banditroute.store.tables import (
    comparisons,
    decisions,
    events,
    feedback,
    leases,
    reservations,
)

_lease, _held = leases.c, reservations.c


def settle(connection: Connection, costs: Mapping[str, int]) -> None:
    """Settle what decisions have reserved to what they cost, {decision id: nano-dollars}.

    A decision settles once; what it reserved and did not cost goes back to the window that it was
    taken from. What it cost above that is an overrun, and so is all of what one cost that had been
    cancelled: its reservation was given back long ago.
    """
    if not costs:
        return
    found = connection.execute(
        select(reservations).where(
            _held.decision_id.in_(list(costs)), _held.status.in_((OPEN, CANCELLED))
        )
    ).all()
    ended = []
    for row in found:
        cost = costs[row.decision_id]
        covered = 0 if row.status == CANCELLED else row.reserved_nano
        ended.append(_End(row, SETTLED, cost, overrun=max(cost - covered, 0), back=covered - cost))
    _write(connection, ended)


def cancel(connection: Connection, decision_id: str, *, now_us: int) -> str:
    """Give back what a decision reserved that was never used; return what became of that.

    Returns
    -------
    ``cancelled``; ``duplicate`` when it is already; ``unknown``; ``conflict`` when feedback says
    that it was used.
    """
    known = select(decisions.c.cancelled_at).where(decisions.c.id == decision_id)
    row = connection.execute(known).first()
    if row is None:
        return "unknown"
    if row.cancelled_at is not None:
        return "duplicate"
    said = (
        select(feedback.c.id).where(feedback.c.decision_id == decision_id),
        # Of it alone, in a comparison, or with its session; a default is nobody's word.
        select(events.c.seq).where(events.c.decision_id == decision_id, events.c.kind != "default"),
        select(comparisons.c.id).where(
            or_(
                comparisons.c.decision_id == decision_id,
                comparisons.c.preferred_over == decision_id,
            )
        ),
    )
    if any(connection.execute(one.limit(1)).first() is not None for one in said):
        return "conflict"
    at = decisions.c.id == decision_id
    connection.execute(update(decisions).where(at).values(cancelled_at=now_us))
    held = select(reservations).where(_held.decision_id == decision_id, _held.status == OPEN)
    _write(
        connection,
        [
            _End(row, CANCELLED, 0, overrun=0, back=row.reserved_nano)
            for row in connection.execute(held).all()
        ],
    )
    return "cancelled"


@dataclass(frozen=True, slots=True)
class _End:
    """How a reservation ended: at which cost, how far above it, and what went back."""

    row: Any
    status: str
    cost: int
    overrun: int
    back: int


def _write(connection: Connection, ended: Sequence[_End]) -> None:
    if not ended:
        return
    back: dict[int, int] = defaultdict(int)
    over: dict[int, int] = defaultdict(int)
    for one in ended:
        back[one.row.lease_id] += one.back
        if one.row.status != CANCELLED:
            over[one.row.lease_id] += one.row.reserved_nano
    rows = [
        {
            "decision": one.row.decision_id,
            "budget": one.row.budget_id,
            "status": one.status,
            "settled_nano": one.cost,
            "overrun_nano": one.overrun,
        }
        for one in ended
    ]
    connection.execute(_ENDED, rows)
    returned = [{"lease": at, "nano": nano, "ended": over[at]} for at, nano in back.items()]
    connection.execute(_RETURNED, returned)


_ENDED = (
    update(reservations)
    .where(_held.decision_id == bindparam("decision"), _held.budget_id == bindparam("budget"))
    .values({name: bindparam(name) for name in ("status", "settled_nano", "overrun_nano")})
)
_RETURNED = (
    update(leases)
    .where(_lease.id == bindparam("lease"))
    .values(
        returned_nano=_lease.returned_nano + bindparam("nano"),
        ended_nano=_lease.ended_nano + bindparam("ended"),
    )
)

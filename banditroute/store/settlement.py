"""The end of reservations: settled to the real cost, or given back.

A reservation that has not settled in time is shown as expired and goes on counting in full. No
clock ends it; feedback may settle it at any later time.
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

_lease, _reservation = leases.c, reservations.c


def settle(connection: Connection, costs_nano: Mapping[str, int]) -> None:
    """Settle the reservations of decisions to what they cost.

    A decision settles once. What it reserved and did not cost goes back to the window that it came
    from. What it cost above its reservation is an overrun. The whole cost of a cancelled decision
    is an overrun, because its reservation was given back when it was cancelled.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    costs_nano : mapping
        Cost in nano-dollars by decision id.
    """
    if not costs_nano:
        return
    rows = connection.execute(
        select(reservations).where(
            _reservation.decision_id.in_(list(costs_nano)),
            _reservation.status.in_((OPEN, CANCELLED)),
        )
    ).all()
    ends = []
    for row in rows:
        cost_nano = costs_nano[row.decision_id]
        covered_nano = 0 if row.status == CANCELLED else row.reserved_nano
        overrun_nano = max(cost_nano - covered_nano, 0)
        ends.append(_End(row, SETTLED, cost_nano, overrun_nano, covered_nano - cost_nano))
    _write(connection, ends)


def cancel(connection: Connection, decision_id: str, *, now_us: int) -> str:
    """Cancel a decision that was never used: give back what it reserved.

    Returns
    -------
    str
        ``cancelled``; ``duplicate`` if it is cancelled already; ``unknown``; ``conflict`` if
        feedback shows that it was used.
    """
    cancelled_at = select(decisions.c.cancelled_at).where(decisions.c.id == decision_id)
    row = connection.execute(cancelled_at).first()
    if row is None:
        return "unknown"
    if row.cancelled_at is not None:
        return "duplicate"
    uses = (
        select(feedback.c.id).where(feedback.c.decision_id == decision_id),
        # Events of its own, of a comparison or of its session; a default is not feedback.
        select(events.c.seq).where(events.c.decision_id == decision_id, events.c.kind != "default"),
        select(comparisons.c.id).where(
            or_(
                comparisons.c.decision_id == decision_id,
                comparisons.c.preferred_over == decision_id,
            )
        ),
    )
    if any(connection.execute(use.limit(1)).first() is not None for use in uses):
        return "conflict"
    unused = update(decisions).where(decisions.c.id == decision_id)
    connection.execute(unused.values(cancelled_at=now_us))
    reserved = select(reservations).where(
        _reservation.decision_id == decision_id, _reservation.status == OPEN
    )
    rows = connection.execute(reserved).all()
    _write(connection, [_End(row, CANCELLED, 0, 0, row.reserved_nano) for row in rows])
    return "cancelled"


@dataclass(frozen=True, slots=True)
class _End:
    """How a reservation ends.

    Attributes
    ----------
    row : row of `reservations`
        The reservation as it was.
    status : str
        What it is now.
    cost_nano : int
        What the answer cost.
    overrun_nano : int
        The part of the cost that was not reserved.
    back_nano : int
        What goes back to the lease; below 0 for an overrun.
    """

    row: Any
    status: str
    cost_nano: int
    overrun_nano: int
    back_nano: int


def _write(connection: Connection, ends: Sequence[_End]) -> None:
    """Write how reservations end, and add that to the counts of their leases."""
    if not ends:
        return
    back_nano: dict[int, int] = defaultdict(int)
    ended_nano: dict[int, int] = defaultdict(int)
    for end in ends:
        back_nano[end.row.lease_id] += end.back_nano
        if end.row.status != CANCELLED:
            ended_nano[end.row.lease_id] += end.row.reserved_nano
    rows = [
        {
            "decision": end.row.decision_id,
            "budget": end.row.budget_id,
            "status": end.status,
            "settled_nano": end.cost_nano,
            "overrun_nano": end.overrun_nano,
        }
        for end in ends
    ]
    connection.execute(_END, rows)
    counts = [
        {"lease": lease_id, "back": nano, "ended": ended_nano[lease_id]}
        for lease_id, nano in back_nano.items()
    ]
    connection.execute(_COUNT, counts)


_END = (
    update(reservations)
    .where(
        _reservation.decision_id == bindparam("decision"),
        _reservation.budget_id == bindparam("budget"),
    )
    .values({name: bindparam(name) for name in ("status", "settled_nano", "overrun_nano")})
)
_COUNT = (
    update(leases)
    .where(_lease.id == bindparam("lease"))
    .values(
        returned_nano=_lease.returned_nano + bindparam("back"),
        ended_nano=_lease.ended_nano + bindparam("ended"),
    )
)

"""A slice of a budget in this process, and what one call takes from the slices that hold it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from banditroute.core.budget import ROLLING, Budget
from banditroute.store.ledger import Reservation

NO_LIMIT = 2**62
MANY = 512
"""Requests that a slice should last for, where the budget is far from its cap."""


@dataclass(slots=True, eq=False)
class LocalLease:
    """What this process has of one budget's window; see `Treasury`.

    Attributes
    ----------
    left : nano-dollars that no decision has taken.
    until : end of the window, microseconds UTC.
    deadline : on the monotonic clock; from then on nothing is taken.
    denied_until : on that clock; until then more would hardly be given to a request that needs it.
    rest_until : the same of renewals that nobody waits for.
    used_at : on that clock, when a call last came for it.
    typical : what a request took, smoothed.
    pending : decisions that took from it and are not in the log yet.
    goal : nano-dollars that it should hold to last for a while, as calls were of late.
    beyond, keep : nano-dollars of the budget that lie elsewhere, as was last seen, and what is to
        be left of both for the cheapest answers to later requests.
    """

    lease_id: int
    budget: Budget
    window: int
    until: int
    left: int = 0
    deadline: float = 0.0
    denied_until: float = 0.0
    rest_until: float = 0.0
    used_at: float = 0.0
    typical: float = 0.0
    pending: int = 0
    goal: int = 0
    beyond: int = 0
    keep: int = 0

    def ideal(self, need: int) -> int:
        """Return what it should hold to last for a while."""
        return max(self.budget.cap_nano // 16, MANY * max(int(self.typical), need // 4))


class Reservations:
    """What the rows of one call may spend; implements `router.Purse`.

    Parameters
    ----------
    slices : per row, of the budgets that hold it.
    clock : monotonic seconds.
    """

    def __init__(self, slices: Sequence[Sequence[LocalLease]], clock: Callable[[], float]) -> None:
        self._slices, self._clock = slices, clock
        # Nano-dollars of each row that is neither in the log nor given back.
        self._taken: list[int | None] = [None] * len(slices)

    def headroom(self, row: int) -> int:
        """See `router.Purse`."""
        least, now = NO_LIMIT, self._clock()
        for one in self._slices[row]:
            left = one.left if now < one.deadline else 0
            ceiling = one.budget.request_ceiling_nano
            if ceiling is not None and ceiling < left:
                left = ceiling
            if left < least:
                least = left
        return least

    def spare(self, row: int) -> int:
        """See `router.Purse`."""
        least = NO_LIMIT
        for one in self._slices[row]:
            if one.keep:
                least = min(least, one.left + one.beyond - one.keep)
        return least

    def held(self, row: int) -> Sequence[LocalLease]:
        """Return the slices of the budgets that hold a row."""
        return self._slices[row]

    def take(self, row: int, nano: int) -> None:
        """See `router.Purse`."""
        self._taken[row] = nano
        for one in self._slices[row]:
            one.left -= nano
            one.pending += 1
            one.typical += 0.05 * (nano - one.typical)

    def tightest(self, row: int) -> Budget:
        """Return the budget that leaves the least to a row."""

        def room(one: LocalLease) -> int:
            ceiling = one.budget.request_ceiling_nano
            return one.left if ceiling is None else min(ceiling, one.left)

        return min(self._slices[row], key=room).budget

    def draws(self, row: int, decision_id: str, *, now: int, expires_at: int) -> list[Reservation]:
        """Return the reservations of the decision that was taken for a row."""
        nano = self._taken[row]
        assert nano is not None, "nothing was taken for this row"
        return [
            Reservation(
                decision_id,
                one.budget.id,
                one.lease_id,
                now if one.budget.period == ROLLING else one.window,
                nano,
                expires_at,
            )
            for one in self._slices[row]
        ]

    def logged(self, row: int) -> None:
        """Say that the decision of a row is in the log."""
        self._taken[row] = None
        for one in self._slices[row]:
            one.pending -= 1

    def undo(self, row: int) -> None:
        """Give back what a row took whose decision is not in the log."""
        nano, self._taken[row] = self._taken[row], None
        for one in self._slices[row]:
            one.left += nano or 0
            one.pending -= 1

    def undo_all(self) -> None:
        """Give back what all rows took whose decisions are not in the log."""
        for row, nano in enumerate(self._taken):
            if nano is not None:
                self.undo(row)

"""A lease of a budget in the memory of this process, and what one call reserves from its leases.

Nothing here touches SQL. A request that fits its budgets costs a few comparisons of integers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from banditroute.core.budget import ROLLING, Budget
from banditroute.store.ledger import Reservation

NO_LIMIT = 2**62
"""Nano-dollars where no budget applies; end in microseconds of a window that never ends."""

LEASE_REQUESTS = 512
"""Requests that a lease should last for, while its budget is far from its cap."""

_SMOOTHING = 0.05
"""Weight of the newest reservation in `LocalLease.typical_nano`."""


@dataclass(slots=True, eq=False)
class LocalLease:
    """What this process has leased of one window of a budget; see `Leases`.

    Attributes
    ----------
    lease_id : int
        Id of the lease in SQL, 0 before there is one.
    budget : Budget
        The budget.
    window_start_us, window_end_us : int
        The window, in microseconds since the epoch.
    left_nano : int
        Nano-dollars that no decision has reserved.
    deadline_s : float
        From this monotonic time on nothing is reserved from the lease.
    denied_until_s : float
        Before this monotonic time no request waits for a larger lease: the last renewal got less
        than was needed.
    rest_until_s : float
        Before this monotonic time the lease is not renewed beside requests that fit: the last
        renewal got little.
    used_at_s : float
        Monotonic time of the last call that the budget applied to.
    typical_nano : float
        Exponentially smoothed reservation of a request.
    pending : int
        Decisions that have reserved from the lease and are not in the log yet.
    goal_nano : int
        Nano-dollars that the lease should hold, after the last call; see `ideal_nano`.
    beyond_nano : int
        This process's share of the budget's money outside its lease, when the price of money was
        solved last.
    keep_nano : int
        Nano-dollars of `left_nano` and `beyond_nano` that only the cheapest answers may use.
    """

    lease_id: int
    budget: Budget
    window_start_us: int
    window_end_us: int
    left_nano: int = 0
    deadline_s: float = 0.0
    denied_until_s: float = 0.0
    rest_until_s: float = 0.0
    used_at_s: float = 0.0
    typical_nano: float = 0.0
    pending: int = 0
    goal_nano: int = 0
    beyond_nano: int = 0
    keep_nano: int = 0

    def ideal_nano(self, need_nano: int) -> int:
        """Return the nano-dollars that would last for a while.

        Parameters
        ----------
        need_nano : int
            The most that a call may reserve. A reservation is assumed to take a quarter of it, or
            `typical_nano` where that is more.
        """
        request_nano = max(int(self.typical_nano), need_nano // 4)
        return max(self.budget.cap_nano // 16, LEASE_REQUESTS * request_nano)


class Reservations:
    """What the requests of one call may reserve, and have reserved; implements `Purse`.

    A row that has taken money must end in `logged` or `undo`, or the money is lost to the leases.

    Parameters
    ----------
    leases : sequence of sequences of LocalLease
        Per row, the leases of the budgets that apply to it.
    monotonic_s : callable
        Returns the monotonic time in seconds.
    """

    def __init__(
        self, leases: Sequence[Sequence[LocalLease]], monotonic_s: Callable[[], float]
    ) -> None:
        self._leases, self._monotonic_s = leases, monotonic_s
        # Per row the nano-dollars that it reserved; None before, and after `logged` or `undo`.
        self._taken_nano: list[int | None] = [None] * len(leases)

    def headroom(self, row: int) -> int:
        """See `Purse.headroom`."""
        least_nano, now_s = NO_LIMIT, self._monotonic_s()
        for lease in self._leases[row]:
            room_nano = lease.left_nano if now_s < lease.deadline_s else 0
            ceiling_nano = lease.budget.request_ceiling_nano
            if ceiling_nano is not None and ceiling_nano < room_nano:
                room_nano = ceiling_nano
            if room_nano < least_nano:
                least_nano = room_nano
        return least_nano

    def spare(self, row: int) -> int:
        """See `Purse.spare`."""
        least_nano = NO_LIMIT
        for lease in self._leases[row]:
            if lease.keep_nano:
                least_nano = min(least_nano, lease.left_nano + lease.beyond_nano - lease.keep_nano)
        return least_nano

    def take(self, row: int, nano: int) -> None:
        """See `Purse.take`."""
        self._taken_nano[row] = nano
        for lease in self._leases[row]:
            lease.left_nano -= nano
            lease.pending += 1
            lease.typical_nano += _SMOOTHING * (nano - lease.typical_nano)

    def leases_of(self, row: int) -> Sequence[LocalLease]:
        """Return the leases of the budgets that apply to a row."""
        return self._leases[row]

    def tightest(self, row: int) -> Budget:
        """Return the budget that leaves the least to a row."""
        return min(self._leases[row], key=lambda own: own.budget.ceiled(own.left_nano)).budget

    def of_decision(
        self, row: int, decision_id: str, *, now_us: int, expires_at_us: int
    ) -> list[Reservation]:
        """Return what a row has reserved, as the ledger stores it.

        Parameters
        ----------
        row : int
            The row; `take` was called for it.
        decision_id : str
            Id of its decision.
        now_us : int
            Time of the decision, from which it counts in a rolling window.
        expires_at_us : int
            When the reservation is shown as expired unless it has settled.

        Returns
        -------
        list of Reservation
            One for each budget that applies.
        """
        nano = self._taken_nano[row]
        assert nano is not None, "nothing was taken for this row"
        return [
            Reservation(
                decision_id,
                lease.budget.id,
                lease.lease_id,
                now_us if lease.budget.period == ROLLING else lease.window_start_us,
                nano,
                expires_at_us,
            )
            for lease in self._leases[row]
        ]

    def logged(self, row: int) -> None:
        """Keep what a row has reserved: its decision is in the log."""
        self._taken_nano[row] = None
        for lease in self._leases[row]:
            lease.pending -= 1

    def undo(self, row: int) -> None:
        """Give back what a row has reserved: its decision is not in the log."""
        nano, self._taken_nano[row] = self._taken_nano[row], None
        for lease in self._leases[row]:
            lease.left_nano += nano or 0
            lease.pending -= 1

    def undo_all(self) -> None:
        """Give back what all rows have reserved, but for those that are logged or undone."""
        for row, nano in enumerate(self._taken_nano):
            if nano is not None:
                self.undo(row)

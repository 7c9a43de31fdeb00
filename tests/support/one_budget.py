"""The ledger of one budget, for tests that drive it step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, select

from banditroute.core.budget import Budget
from banditroute.store import budgets, ledger, settlement
from banditroute.store.engine import WRITER, set_durability
from banditroute.store.ledger import BudgetSums, Holder, Reservation

HOUR = 3_600_000_000
NOON = 500_000 * HOUR
A, B = Holder("a", "boot-1"), Holder("b", "boot-1")
LATER = NOON + 15_000_000


class Ledger:
    """The ledger of one budget; each step is a transaction."""

    def __init__(self, engine: Engine, **fields: Any) -> None:
        self.engine, self.now = engine, NOON
        terms = {"cap_nano": 1_000, "period": "total"} | fields
        self.budget: Budget = self.write(
            lambda one: budgets.add_budget(one, "p", "b", terms, now_us=NOON)
        )

    def write(self, work: Callable[[Connection], Any]) -> Any:
        with self.engine.connect().execution_options(**WRITER) as connection:
            set_durability(connection, full=False)  # nothing here loses power
            with connection.begin():
                return work(connection)

    def lease(self, holder: Holder = A, need_nano: int = 0, ideal_nano: int = 0) -> ledger.Lease:
        until = self.now + 15_000_000
        found: ledger.Lease = self.write(
            lambda one: ledger.lease(
                one,
                self.budget,
                holder,
                need_nano=need_nano,
                ideal_nano=ideal_nano,
                now_us=self.now,
                reclaim_at_us=until,
            )
        )
        return found

    def reserve(
        self, lease_id: int, *amounts_nano: int, name: str = "d", expires_at_us: int = LATER
    ) -> None:
        rolling = self.budget.period == "rolling"
        at = self.now if rolling else self.budget.window_start_us(self.now)
        wanted = [
            Reservation(f"{name}{i}", self.budget.id, lease_id, at, nano, expires_at_us)
            for i, nano in enumerate(amounts_nano)
        ]
        self.write(lambda one: ledger.reserve(one, wanted))

    def settle(self, **costs: int) -> None:
        self.write(lambda one: settlement.settle(one, costs))

    def sums(self) -> BudgetSums:
        with self.engine.connect() as connection:
            return ledger.sums(connection, self.budget, now_us=self.now)

    def free_nano(self) -> int:
        with self.engine.connect() as connection:
            return ledger.free_nano(connection, self.budget, now_us=self.now)

    def rows(self, table: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(table)))

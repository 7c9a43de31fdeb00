"""Make, change, top up, show and drop budgets, and cancel decisions.

A change is in SQL before it is answered. The store refuses a cap below what is spent already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection

from banditroute.budgets.leases import Leases
from banditroute.contract.schemas import BudgetChange, NewBudget
from banditroute.core import clock
from banditroute.core.budget import Budget, nanos
from banditroute.core.errors import UnknownBudget
from banditroute.service.pools import Pools
from banditroute.service.views import budget_view
from banditroute.store import budgets, settlement
from banditroute.store.writer import Writer


class BudgetService:
    """Budgets as the HTTP API works on them.

    Parameters
    ----------
    pools : Pools
        The pools.
    leases : Leases
        The leases of this process, which follow at once; other replicas follow within a second.
    writer : Writer
        The one writer of this process.
    """

    def __init__(self, *, pools: Pools, leases: Leases, writer: Writer) -> None:
        self._pools, self._leases, self._writer = pools, leases, writer

    async def list(self, pool: str) -> list[dict[str, Any]]:
        """Return the budgets of a pool, with the money that is spent, reserved and free."""
        await self._pools.find(pool)
        await self._leases.reload()
        return [await self._view(budget) for budget in self._leases.budgets(pool)]

    async def show(self, pool: str, name: str) -> dict[str, Any]:
        """Return one budget; see `list`."""
        for view in await self.list(pool):
            if view["name"] == name:
                return view
        raise UnknownBudget(pool, name)

    async def add(self, new: NewBudget) -> dict[str, Any]:
        """Make a budget; it applies from the next decision on, and counts no earlier ones."""
        await self._pools.find(new.pool)
        fields = columns(new.model_dump()) | {
            "period": new.window,
            "rolling_s": new.rolling_s,
            "scope_tag": new.tag,
            "scope_value": new.value,
        }
        now_us = clock.now_us()
        return await self._write(
            lambda connection: budgets.add_budget(
                connection, new.pool, new.name, fields, now_us=now_us
            )
        )

    async def change(self, pool: str, name: str, change: BudgetChange) -> dict[str, Any]:
        """Change a budget, or add to its cap."""
        await self._pools.find(pool)
        fields = columns(change.model_dump(include=change.model_fields_set))
        top_up_nano, now_us = nanos(change.top_up_usd or 0.0), clock.now_us()
        return await self._write(
            lambda connection: budgets.change_budget(
                connection, pool, name, fields, top_up_nano=top_up_nano, now_us=now_us
            )
        )

    async def drop(self, pool: str, name: str) -> dict[str, Any]:
        """Drop a budget, and return it as it was."""
        last = await self.show(pool, name)
        await self._writer.write(lambda connection: budgets.drop_budget(connection, pool, name))
        await self._leases.reload()
        return last

    async def cancel(self, decision_id: str) -> str:
        """Give back what an unused decision reserved; return the status of `settlement.cancel`."""
        now_us = clock.now_us()
        status = await self._writer.write(
            lambda connection: settlement.cancel(connection, decision_id, now_us=now_us)
        )
        self._leases.refunded()
        return status

    async def _write(self, work: Callable[[Connection], Budget]) -> dict[str, Any]:
        budget = await self._writer.write(work)
        await self._leases.reload()
        return await self._view(budget)

    async def _view(self, budget: Budget) -> dict[str, Any]:
        sums = await self._leases.sums(budget)
        return budget_view(budget, sums, now_us=clock.now_us())


def columns(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a request as columns of a budget's row, money in nano-dollars.

    Parameters
    ----------
    fields : mapping
        Fields of `NewBudget` or `BudgetChange`, by name; those without a column are left out.
    """
    row = {name: fields[name] for name in _SAME_NAME if name in fields}
    for name, column in _USD_TO_NANO.items():
        if name in fields:
            row[column] = None if fields[name] is None else nanos(fields[name])
    return row


_SAME_NAME = ("pacing", "expected_requests", "quality_floor")
_USD_TO_NANO = {
    "cap_usd": "cap_nano",
    "request_ceiling_usd": "request_ceiling_nano",
    "rate_usd": "rate_nano",
}

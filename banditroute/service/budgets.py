"""Budgets over HTTP: made, changed, topped up, shown and dropped; decisions cancelled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection

from banditroute.budgets.leases import Leases
from banditroute.contract.schemas import BudgetChange, NewBudget
from banditroute.core.budget import Budget, nanos
from banditroute.core.clock import now_us
from banditroute.core.errors import UnknownBudget
from banditroute.service.pools import Pools
from banditroute.service.views import budget_view
from banditroute.store import budgets, settlement
from banditroute.store.writer import Writer


class BudgetService:
    """What a daemon does with budgets beside holding to them.

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
        """Return the budgets of a pool with the sums of their rows."""
        await self._pools.find(pool)
        await self._leases.reload()
        return [await self._shown(one) for one in self._leases.budgets(pool)]

    async def show(self, pool: str, name: str) -> dict[str, Any]:
        """Return one budget with the sums of its rows."""
        for one in await self.list(pool):
            if one["name"] == name:
                return one
        raise UnknownBudget(pool, name)

    async def add(self, new: NewBudget) -> dict[str, Any]:
        """Make a budget; it holds from the next decision on and knows nothing of earlier ones."""
        await self._pools.find(new.pool)
        fields = columns(new.model_dump()) | {
            "period": new.window,
            "rolling_s": new.rolling_s,
            "scope_tag": new.tag,
            "scope_value": new.value,
        }
        now = now_us()
        return await self._write(
            lambda connection: budgets.add_budget(
                connection, new.pool, new.name, fields, now_us=now
            )
        )

    async def change(self, pool: str, name: str, change: BudgetChange) -> dict[str, Any]:
        """Change a budget, or add to its cap."""
        await self._pools.find(pool)
        fields = columns(change.model_dump(include=change.model_fields_set))
        more, now = nanos(change.top_up_usd or 0.0), now_us()
        return await self._write(
            lambda connection: budgets.change_budget(
                connection, pool, name, fields, top_up_nano=more, now_us=now
            )
        )

    async def drop(self, pool: str, name: str) -> dict[str, Any]:
        """Drop a budget and return what it was."""
        last = await self.show(pool, name)
        await self._writer.write(lambda connection: budgets.drop_budget(connection, pool, name))
        await self._leases.reload()
        return last

    async def cancel(self, decision_id: str) -> str:
        """Give back what a decision reserved that was never used; see `settlement.cancel`."""
        now = now_us()
        became = await self._writer.write(
            lambda connection: settlement.cancel(connection, decision_id, now_us=now)
        )
        self._leases.refunded()
        return became

    async def _write(self, work: Callable[[Connection], Budget]) -> dict[str, Any]:
        written = await self._writer.write(work)
        await self._leases.reload()
        return await self._shown(written)

    async def _shown(self, budget: Budget) -> dict[str, Any]:
        return budget_view(budget, await self._leases.sums(budget), now=now_us())


def columns(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a budget's row among fields of the wire, money in nano-dollars."""
    found = {name: fields[name] for name in _AS_THEY_ARE if name in fields}
    for name, column in _MONEY.items():
        if name in fields:
            found[column] = None if fields[name] is None else nanos(fields[name])
    return found


_AS_THEY_ARE = ("pacing", "expected_requests", "quality_floor")
_MONEY = {
    "cap_usd": "cap_nano",
    "request_ceiling_usd": "request_ceiling_nano",
    "rate_usd": "rate_nano",
}

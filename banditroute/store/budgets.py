"""Budgets in SQL: added, changed and dropped in the transaction of the check that allows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from banditroute.core.budget import MOST_USD, Budget
from banditroute.core.errors import CapBelowSpend, Exists, InvalidValue, UnknownBudget
from banditroute.core.pool import NANO
from banditroute.store import ledger
from banditroute.store.tables import budgets

_COLUMNS = [budgets.c[name] for name in Budget.__dataclass_fields__]


def load_budgets(connection: Connection) -> list[Budget]:
    """Return all budgets, in the order in which they were added."""
    rows = connection.execute(select(*_COLUMNS).order_by(budgets.c.id))
    return [Budget(*row) for row in rows]


def find_budget(connection: Connection, pool: str, name: str) -> Budget:
    """Return a budget; raise `UnknownBudget` when there is none."""
    named = (budgets.c.pool == pool, budgets.c.name == name)
    row = None
    if "\0" not in name:  # PostgreSQL will not even look for a NUL
        row = connection.execute(select(*_COLUMNS).where(*named)).first()
    if row is None:
        raise UnknownBudget(pool, name)
    return Budget(*row)


def add_budget(
    connection: Connection, pool: str, name: str, fields: Mapping[str, Any], *, now_us: int
) -> Budget:
    """Add a budget with the given columns; raise `Exists` when its name is taken."""
    named = (budgets.c.pool == pool, budgets.c.name == name)
    if connection.execute(select(budgets.c.id).where(*named)).first() is not None:
        raise Exists(f"pool {pool!r} has a budget {name!r}", param="name")
    row = {"pool": pool, "name": name, "created_at": now_us} | dict(fields)
    connection.execute(insert(budgets), row)
    return find_budget(connection, pool, name)


def change_budget(
    connection: Connection,
    pool: str,
    name: str,
    fields: Mapping[str, Any],
    *,
    top_up_nano: int = 0,
    now_us: int,
) -> Budget:
    """Set columns of a budget and add to its cap.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    pool, name : str
        The budget.
    fields : mapping
        New values by column.
    top_up_nano : int
        Nano-dollars to add to the cap.
    now_us : int
        The time.

    Returns
    -------
    Budget
        As it is now.

    Raises
    ------
    UnknownBudget
        When the pool has no such budget.
    CapBelowSpend
        If the new cap is below the money that is already spent, reserved or leased.
    InvalidValue
        When the cap would be too large, or the quality floor has no pacing that meets it.
    """
    before = find_budget(connection, pool, name)
    cap_nano = int(fields.get("cap_nano", before.cap_nano)) + top_up_nano
    if cap_nano > MOST_USD * NANO:
        raise InvalidValue(
            f"a cap is at most {MOST_USD:,.0f} US dollars, this would be {cap_nano / NANO:,.9g}",
            param="top_up_usd",
        )
    floor = fields.get("quality_floor", before.quality_floor)
    if floor is not None and fields.get("pacing", before.pacing) != "history":
        raise InvalidValue("goes with pacing 'history'", param="quality_floor")
    used_nano = ledger.sums(connection, before, now_us=now_us).used_nano
    if cap_nano < before.cap_nano and used_nano > cap_nano:
        raise CapBelowSpend(
            f"cap_usd: {used_nano / NANO:.9g} US dollars of the window are spent, reserved or "
            f"leased; a cap of {cap_nano / NANO:.9g} is below that",
            param="cap_usd",
        )
    values = dict(fields) | {"cap_nano": cap_nano}
    connection.execute(update(budgets).where(budgets.c.id == before.id).values(values))
    return find_budget(connection, pool, name)


def drop_budget(connection: Connection, pool: str, name: str) -> Budget:
    """Drop a budget and its ledger and return it; feedback keeps what decisions cost."""
    budget = find_budget(connection, pool, name)
    ledger.forget(connection, budget.id)
    connection.execute(budgets.delete().where(budgets.c.id == budget.id))
    return budget

"""Budgets in SQL: made, changed and dropped in one transaction with the check that allows it."""

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
    """Return all budgets, in the order in which they were made."""
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
    connection: Connection, pool: str, name: str, fields: Mapping[str, Any], *, now: int
) -> Budget:
    """Make a budget of the given columns; raise `Exists` when its name is taken."""
    named = (budgets.c.pool == pool, budgets.c.name == name)
    if connection.execute(select(budgets.c.id).where(*named)).first() is not None:
        raise Exists(f"pool {pool!r} has a budget {name!r}", param="name")
    row = {"pool": pool, "name": name, "created_at": now} | dict(fields)
    connection.execute(insert(budgets), row)
    return find_budget(connection, pool, name)


def change_budget(
    connection: Connection,
    pool: str,
    name: str,
    fields: Mapping[str, Any],
    *,
    top_up: int = 0,
    now: int,
) -> Budget:
    """Set columns of a budget and add `top_up` nano-dollars to its cap.

    Raises
    ------
    UnknownBudget
        When the pool has no such budget.
    CapBelowSpend
        When the cap would be below what is spent, reserved and leased by now.
    InvalidValue
        When the cap would be too large, or the quality floor has no pacing that meets it.
    """
    before = find_budget(connection, pool, name)
    cap = int(fields.get("cap_nano", before.cap_nano)) + top_up
    if cap > MOST_USD * NANO:
        message = f"a cap is at most {MOST_USD:,.0f} US dollars, this would be {cap / NANO:,.9g}"
        raise InvalidValue(message, param="top_up_usd")
    floor = fields.get("quality_floor", before.quality_floor)
    if floor is not None and fields.get("pacing", before.pacing) != "history":
        raise InvalidValue("goes with pacing 'history'", param="quality_floor")
    used = ledger.sums(connection, before, now=now).used
    if cap < before.cap_nano and used > cap:
        raise CapBelowSpend(
            f"cap_usd: {used / NANO:.9g} US dollars of the window are spent, reserved or leased; "
            f"a cap of {cap / NANO:.9g} is below that",
            param="cap_usd",
        )
    at = budgets.c.id == before.id
    connection.execute(update(budgets).where(at).values(dict(fields) | {"cap_nano": cap}))
    return find_budget(connection, pool, name)


def drop_budget(connection: Connection, pool: str, name: str) -> Budget:
    """Drop a budget and its ledger; what decisions cost stays with their feedback."""
    known = find_budget(connection, pool, name)
    ledger.forget(connection, known.id)
    connection.execute(budgets.delete().where(budgets.c.id == known.id))
    return known

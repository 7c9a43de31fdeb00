"""Pools, their models and their dated prices. A price never changes: a new row takes over."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, and_, func, insert, select, update

from banditroute.core.pool import Model, ModelSpec
from banditroute.store.log import append_event
from banditroute.store.tables import models, pools, prices


def ensure_pool(
    connection: Connection, name: str, *, options: dict[str, Any] | None, now_us: int
) -> bool:
    """Create the pool if it is missing, else set its options; return whether it was created.

    Parameters
    ----------
    options : None leaves those of a pool that is there, and gives a new one none.
    """
    text = json.dumps(options or {})
    at = pools.c.name == name
    known = connection.execute(select(pools.c.options).where(at)).first()
    if known is None:
        row = {"name": name, "options": text, "revision": 1, "created_at": now_us}
        connection.execute(insert(pools), row)
    elif options is not None and known.options != text:
        connection.execute(update(pools).where(at).values(options=text))
    return known is None


def add_model(
    connection: Connection,
    pool: str,
    spec: ModelSpec,
    *,
    source: str,
    now_us: int,
    prior: str = "",
    optimism: float = 0.0,
) -> bool:
    """Add a model with its first price and its event; one that drains comes back.

    Parameters
    ----------
    prior : text of a `banditroute.learn.prior.Prior` that teaches it; "" for none.
    optimism : without one, how much better than the mean a model that was never here is taken
        for; 0 says nothing of it.

    Returns
    -------
    False if the model is there and active; nothing has changed then.
    """
    at = and_(models.c.pool == pool, models.c.name == spec.name)
    known = connection.execute(select(models.c.draining).where(at)).first()
    if known is not None and not known.draining:
        return False
    columns = {
        "max_output_tokens": spec.max_output_tokens,
        "context_length": spec.context_length,
        "capabilities": json.dumps(sorted(spec.capabilities)),
        "draining": False,
    }
    if known is None:
        row = columns | {"pool": pool, "name": spec.name, "created_at": now_us}
        connection.execute(insert(models), row)
    else:
        connection.execute(update(models).where(at).values(**columns))
    set_price(connection, pool, spec, source=source, now_us=now_us)
    append_event(
        connection, pool=pool, kind="model_added", payload={"name": spec.name}, now_us=now_us
    )
    told: dict[str, object] = {}
    if prior:
        told = {"prior": prior}
    elif optimism and known is None:
        told = {"optimism": optimism}
    if told:
        payload = {"arm": spec.name} | told
        append_event(connection, pool=pool, kind="prior", payload=payload, now_us=now_us)
    return True


def set_price(
    connection: Connection, pool: str, spec: ModelSpec, *, source: str, now_us: int
) -> None:
    """Add a dated price row that holds from now on."""
    row = {
        "pool": pool,
        "model": spec.name,
        "input_price": spec.input_price,
        "output_price": spec.output_price,
        "source": source,
        "valid_from": now_us,
    }
    connection.execute(insert(prices), row)
    _touch(connection, pool)


def describe_model(connection: Connection, pool: str, spec: ModelSpec) -> None:
    """Set what a model can do; its price and its learning stay."""
    at = and_(models.c.pool == pool, models.c.name == spec.name)
    values = {
        "max_output_tokens": spec.max_output_tokens,
        "context_length": spec.context_length,
        "capabilities": json.dumps(sorted(spec.capabilities)),
    }
    connection.execute(update(models).where(at).values(**values))
    _touch(connection, pool)


def drain_model(connection: Connection, pool: str, name: str, *, now_us: int) -> None:
    """Choose the model no more; what it has taught stays."""
    at = and_(models.c.pool == pool, models.c.name == name)
    connection.execute(update(models).where(at).values(draining=True))
    append_event(connection, pool=pool, kind="model_drained", payload={"name": name}, now_us=now_us)
    _touch(connection, pool)


def file_price(connection: Connection, pool: str, name: str) -> tuple[float, float] | None:
    """Return the price that the settings file set last, None if it never did."""
    query = (
        select(prices.c.input_price, prices.c.output_price)
        .where(prices.c.pool == pool, prices.c.model == name, prices.c.source == "file")
        .order_by(prices.c.id.desc())
    )
    row = connection.execute(query).first()
    return (row.input_price, row.output_price) if row else None


def load_pools(connection: Connection) -> dict[str, tuple[int, dict[str, Any], list[Model]]]:
    """Return {name: (revision, options, models with the prices in force)}."""
    newest = select(func.max(prices.c.id)).group_by(prices.c.pool, prices.c.model)
    joined = select(models, prices.c.id, prices.c.input_price, prices.c.output_price).join(
        prices, and_(prices.c.pool == models.c.pool, prices.c.model == models.c.name)
    )
    found: dict[str, list[Model]] = {}
    for row in connection.execute(joined.where(prices.c.id.in_(newest)).order_by(models.c.id)):
        model = Model(
            name=row.name,
            input_price=row.input_price,
            output_price=row.output_price,
            price_id=row.id_1,
            max_output_tokens=row.max_output_tokens,
            context_length=row.context_length,
            capabilities=frozenset(json.loads(row.capabilities)),
            draining=row.draining,
        )
        found.setdefault(row.pool, []).append(model)
    return {
        row.name: (row.revision, json.loads(row.options), found.get(row.name, []))
        for row in connection.execute(select(pools))
    }


def revisions(connection: Connection) -> dict[str, int]:
    """Return the revision of each pool, to see cheaply whether any changed."""
    return {row.name: row.revision for row in connection.execute(select(pools))}


def _touch(connection: Connection, pool: str) -> None:
    at = pools.c.name == pool
    connection.execute(update(pools).where(at).values(revision=pools.c.revision + 1))

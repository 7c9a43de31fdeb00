"""Pools, their models and their dated prices. A price row never changes: a new one is added."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, insert, select, update

from banditroute.core.pool import Model, ModelSpec
from banditroute.store.log import append_event
from banditroute.store.tables import models, pools, prices


def ensure_pool(
    connection: Connection, name: str, *, options: dict[str, Any] | None, now_us: int
) -> bool:
    """Create a pool if it is missing, else set its options.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    name : str
        The pool.
    options : dict or None
        Options that differ from the defaults; None keeps those of an existing pool.
    now_us : int
        The time.

    Returns
    -------
    bool
        Whether the pool was created.
    """
    text = json.dumps(options or {})
    is_pool = pools.c.name == name
    current = connection.execute(select(pools.c.options).where(is_pool)).first()
    if current is None:
        row = {"name": name, "options": text, "revision": 1, "created_at": now_us}
        connection.execute(insert(pools), row)
    elif options is not None and current.options != text:
        connection.execute(update(pools).where(is_pool).values(options=text))
    return current is None


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
    """Add a model, its price and its event, or put a drained model back into use.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    pool : str
        The pool.
    spec : ModelSpec
        The model.
    source : str
        Where the price comes from: ``file`` or ``api``.
    now_us : int
        The time.
    prior : str
        Text of a `banditroute.learn.prior.Prior` that the model starts from; "" for none.
    optimism : float
        How far above the mean quality a new model without a prior starts; 0: no optimism.

    Returns
    -------
    bool
        True if the model was added or put back into use. False if it was in use already; nothing
        has changed then.
    """
    is_model = _is_model(pool, spec.name)
    current = connection.execute(select(models.c.draining).where(is_model)).first()
    if current is not None and not current.draining:
        return False
    columns = _properties(spec) | {"draining": False}
    if current is None:
        row = columns | {"pool": pool, "name": spec.name, "created_at": now_us}
        connection.execute(insert(models), row)
    else:
        connection.execute(update(models).where(is_model).values(**columns))
    set_price(connection, pool, spec, source=source, now_us=now_us)
    append_event(
        connection, pool=pool, kind="model_added", payload={"name": spec.name}, now_us=now_us
    )
    if prior or (optimism and current is None):
        start: dict[str, Any] = {"prior": prior} if prior else {"optimism": optimism}
        payload = {"arm": spec.name} | start
        append_event(connection, pool=pool, kind="prior", payload=payload, now_us=now_us)
    return True


def set_price(
    connection: Connection, pool: str, spec: ModelSpec, *, source: str, now_us: int
) -> None:
    """Add a price row that applies from `now_us` on."""
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
    """Set the properties of a model; keep its price and what the policy learned about it."""
    described = update(models).where(_is_model(pool, spec.name)).values(**_properties(spec))
    connection.execute(described)
    _touch(connection, pool)


def drain_model(connection: Connection, pool: str, name: str, *, now_us: int) -> None:
    """Take a model out of use; keep what the policy learned about it."""
    connection.execute(update(models).where(_is_model(pool, name)).values(draining=True))
    append_event(connection, pool=pool, kind="model_drained", payload={"name": name}, now_us=now_us)
    _touch(connection, pool)


def file_price(connection: Connection, pool: str, name: str) -> tuple[float, float] | None:
    """Return the newest (input, output) price from the settings file, None if there is none."""
    query = (
        select(prices.c.input_price, prices.c.output_price)
        .where(prices.c.pool == pool, prices.c.model == name, prices.c.source == "file")
        .order_by(prices.c.id.desc())
    )
    row = connection.execute(query).first()
    return (row.input_price, row.output_price) if row else None


def load_pools(connection: Connection) -> dict[str, tuple[int, dict[str, Any], list[Model]]]:
    """Return {name: (revision, options, models with their current prices)}."""
    newest = select(func.max(prices.c.id)).group_by(prices.c.pool, prices.c.model)
    price = prices.c.id.label("price_id"), prices.c.input_price, prices.c.output_price
    joined = select(models, *price).join(
        prices, and_(prices.c.pool == models.c.pool, prices.c.model == models.c.name)
    )
    models_by_pool: dict[str, list[Model]] = {}
    for row in connection.execute(joined.where(prices.c.id.in_(newest)).order_by(models.c.id)):
        fields = {name: getattr(row, name) for name in Model.__dataclass_fields__}
        fields["capabilities"] = frozenset(json.loads(row.capabilities))
        models_by_pool.setdefault(row.pool, []).append(Model(**fields))
    return {
        row.name: (row.revision, json.loads(row.options), models_by_pool.get(row.name, []))
        for row in connection.execute(select(pools))
    }


def revisions(connection: Connection) -> dict[str, int]:
    """Return the revision of each pool; it grows with each change of models or prices."""
    return {row.name: row.revision for row in connection.execute(select(pools))}


def _touch(connection: Connection, pool: str) -> None:
    newer = update(pools).where(pools.c.name == pool).values(revision=pools.c.revision + 1)
    connection.execute(newer)


def _is_model(pool: str, model: str) -> ColumnElement[bool]:
    return and_(models.c.pool == pool, models.c.name == model)


def _properties(spec: ModelSpec) -> dict[str, Any]:
    return {
        "max_output_tokens": spec.max_output_tokens,
        "context_length": spec.context_length,
        "capabilities": json.dumps(sorted(spec.capabilities)),
    }

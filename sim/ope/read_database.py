"""The log of a daemon as a bandit log, with all that a target needs to decide its requests anew.

Reads only. An outcome counts if it came from feedback: a default that stands for a reward which
never came is a missing outcome here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import NANO, Model
from banditroute.decide.columns import RequestBatch
from banditroute.decide.reasons import REASONS
from banditroute.learn.learner import counting
from banditroute.store.decision_row import Logged, decode
from banditroute.store.log import Log
from banditroute.store.pools import load_pools
from banditroute.store.tables import decisions, events, feedback, prices
from policies.base import Float64
from sim.errors import InputError
from sim.ope.bandit_log import BanditLog, sessions
from sim.ope.logged_requests import DecisionHistory, LoggedRequests

ARRIVED = 99.0
"""Decisions younger than the delay of this percentile of feedback are left out, judged or not:
to keep those of them that were judged would be to prefer what is judged quickly."""
MOST_YOUNG = 0.5

# What the logging policy itself left out is open to another one.
_OPEN = np.isin(REASONS, ("eligible", "exploration_cost", "price_of_money"))


def read(
    store: Log,
    pool: str,
    *,
    since: int | None = None,
    tags: Mapping[str, str] | None = None,
) -> DecisionHistory:
    """Read the decisions of a pool and what came of them.

    Parameters
    ----------
    since : microseconds since the epoch, UTC; None for all.
    tags : only decisions that carry all of these.

    Raises
    ------
    InputError
        For a pool whose policy never started, or when no decision is left.
    """
    found = store.policy_identity(pool)
    if found is None:
        known = ", ".join(store.started_pools()) or "none"
        raise InputError(f"--pool: the log has no policy of {pool!r}; it has those of: {known}")
    policy_identity = found[1]
    with store.engine.connect() as connection:
        rows = _decisions(connection, pool, since)
        quality, cost, delays, newest = _outcomes(connection, pool)
        models = _models(connection, pool)
    rows = [row for row in rows if _tagged(row, tags or {})]
    last, notes = _arrived(rows, delays, newest)
    kept, left_out = _worth_judging(rows, policy_identity, last)
    if not kept:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(f"--log: no decision of pool {pool!r} is left ({why or 'it has none'})")
    decoded = [decode(row) for row in kept]
    names = list(dict.fromkeys(name for one in decoded for name in one.arms))
    return DecisionHistory(
        log=_columns(pool, kept, decoded, names, quality, cost, left_out, notes),
        requests=_requests(kept, decoded, models),
        ids=[row["id"] for row in kept],
        policy_identity=policy_identity,
        events=list(counting(store, pool)),
    )


def _decisions(connection: Connection, pool: str, since: int | None) -> list[dict[str, Any]]:
    query = select(decisions).where(decisions.c.pool == pool).order_by(decisions.c.id)
    if since is not None:
        query = query.where(decisions.c.created_at >= since)
    return [dict(row) for row in connection.execute(query).mappings()]


def _outcomes(
    connection: Connection, pool: str
) -> tuple[dict[str, float], dict[str, float], list[int], int]:
    """Return quality and cost by decision, how late each quality was, and when the last came.

    Late feedback counts too: it is not learned, but it is true.
    """
    made = decisions.c.created_at.label("made_at")
    said = (
        select(feedback, made)
        .join(decisions, decisions.c.id == feedback.c.decision_id)
        .where(decisions.c.pool == pool)
        .order_by(feedback.c.id)
    )
    learned = (
        select(events.c.decision_id, events.c.value, events.c.created_at, made)
        .join(decisions, decisions.c.id == events.c.decision_id)
        .where(events.c.pool == pool, events.c.kind == "feedback", events.c.field == "quality")
    )
    quality: dict[str, float] = {}
    cost: dict[str, float] = {}
    delays: list[int] = []
    newest = 0
    for event in connection.execute(learned):
        quality[event.decision_id] = float(event.value)
        newest = max(newest, event.created_at)
        delays.append(event.created_at - event.made_at)
    for row in connection.execute(said):
        if row.quality is not None and row.decision_id not in quality:
            quality[row.decision_id] = float(row.quality)
            newest = max(newest, row.received_at)
            delays.append(row.received_at - row.made_at)
        if row.cost_nano is not None:
            cost.setdefault(row.decision_id, row.cost_nano / NANO)
    return quality, cost, delays, newest


def _models(connection: Connection, pool: str) -> dict[int, Model]:
    """Return the models of a pool at each price row, by its id."""
    now = {model.name: model for model in load_pools(connection).get(pool, (0, {}, []))[2]}
    found = {}
    for row in connection.execute(select(prices).where(prices.c.pool == pool)):
        known = now.get(row.model)
        limits = (known.max_output_tokens, known.context_length) if known else (None, None)
        found[row.id] = Model(row.model, row.input_price, row.output_price, row.id, *limits)
    return found


def _tagged(row: Mapping[str, Any], tags: Mapping[str, str]) -> bool:
    own = json.loads(row["tags"] or "{}") if tags else {}
    return all(own.get(key) == value for key, value in tags.items())


def _arrived(
    rows: Sequence[Mapping[str, Any]], delays: Sequence[int], newest: int
) -> tuple[int | None, list[str]]:
    """Return the time after which decisions are too young for feedback, and what to say of it."""
    if not delays:
        return None, []
    late = int(np.percentile(delays, ARRIVED))
    young = sum(row["created_at"] > newest - late for row in rows)
    if young <= MOST_YOUNG * len(rows):
        return newest - late, []
    # Judged in one go, or the log is too short: age then says nothing of what is missing.
    return newest, ["feedback is as late as the log is long: some that is missing may still come"]


def _worth_judging(
    rows: Sequence[dict[str, Any]], policy_identity: PolicyIdentity, last: int | None
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the rows that say something of a policy, and why others do not."""
    kept, left_out = [], Counter[str]()
    for row in rows:
        choice = _OPEN[np.frombuffer(row["verdict"], dtype=np.uint8)]
        if row["cancelled_at"] is not None:
            left_out["cancelled"] += 1
        elif row["overridden_by"] is not None:
            left_out["overridden"] += 1
        elif row["embedder"] != policy_identity.embedder:
            left_out["of another embedder"] += 1
        elif choice.sum() < 2:
            left_out["pinned: only one model was open"] += 1
        elif last is not None and row["created_at"] > last:
            left_out["too young for feedback"] += 1
        else:
            kept.append(row)
    return kept, dict(left_out)


def _columns(
    pool: str,
    rows: Sequence[Mapping[str, Any]],
    decoded: Sequence[Logged],
    names: Sequence[str],
    quality: Mapping[str, float],
    cost: Mapping[str, float],
    left_out: Mapping[str, int],
    notes: Sequence[str],
) -> BanditLog:
    at = {name: k for k, name in enumerate(names)}
    action_dist = np.zeros((len(rows), len(names)))
    open_to = np.zeros(action_dist.shape, dtype=np.bool_)
    for i, one in enumerate(decoded):
        columns = [at[name] for name in one.arms]
        action_dist[i, columns] = one.pmf
        open_to[i, columns] = _OPEN[one.verdict]
    if left_out:
        alone = "requests with a choice of fewer than two models are not part of any estimate"
        notes = [alone, *notes]
    return BanditLog(
        name=pool,
        models=tuple(names),
        features=np.stack([one.features for one in decoded]),
        chosen=np.array([at[row["model"]] for row in rows]),
        propensity=np.array([row["propensity"] for row in rows]),
        action_dist=action_dist,
        open=open_to,
        quality=np.array([quality.get(row["id"], np.nan) for row in rows]),
        cost_usd=np.array([cost.get(row["id"], np.nan) for row in rows]),
        preference=_floats(rows, "w_quality", "w_cost", "w_latency"),
        tau_cost_usd=_floats(rows, "tau_cost")[:, 0],
        session=sessions([row["session_id"] for row in rows]),
        left_out=left_out,
        notes=notes,
    )


def _requests(
    rows: Sequence[Mapping[str, Any]], decoded: Sequence[Logged], models: Mapping[int, Model]
) -> LoggedRequests:
    tokens = _floats(rows, "input_tokens")[:, 0]
    stretches: dict[tuple[int, ...], list[int]] = {}
    for i, one in enumerate(decoded):
        stretches.setdefault(tuple(one.prices), []).append(i)
    return LoggedRequests(
        asks=RequestBatch(
            features=np.stack([one.features for one in decoded]),
            preference=_floats(rows, "w_quality", "w_cost", "w_latency"),
            input_tokens=tokens,
            input_bound=tokens,
            max_output_tokens=_limits(rows, decoded, models),
            models=[_open(one) for one in decoded],
        ),
        frames=[
            (np.array(at), tuple(models[price] for price in key)) for key, at in stretches.items()
        ],
        spend_rate_usd=_floats(rows, "spend_rate")[:, 0],
        priced=sum(bool(one.price.high.any() or one.price.gain.any()) for one in decoded),
    )


def _limits(
    rows: Sequence[Mapping[str, Any]], decoded: Sequence[Logged], models: Mapping[int, Model]
) -> Float64:
    """Return the requests' own limits of output, float64[n], inf for none.

    The log has the least of the request's and the chosen model's. The latter is none of the other
    models' business: what a target does may not depend on what was chosen.
    """
    found = np.full(len(rows), np.inf)
    for i, (row, one) in enumerate(zip(rows, decoded, strict=True)):
        chosen = models[one.prices[one.arms.index(row["model"])]]
        if row["max_output_tokens"] < chosen.output_limit:
            found[i] = row["max_output_tokens"]
    return found


def _open(one: Logged) -> frozenset[str]:
    pairs = zip(one.arms, _OPEN[one.verdict].tolist(), strict=True)
    return frozenset(name for name, is_open in pairs if is_open)


def _floats(rows: Sequence[Mapping[str, Any]], *names: str) -> Float64:
    return np.array([[row[name] for name in names] for row in rows], dtype=np.float64)

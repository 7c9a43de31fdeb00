"""Feedback: what the caller sent is stored once, and what may be learned becomes events.

Exactly-once by (decision, key). Each of quality, cost and latency is learned from the first
accepted row that carries it; late, superseded and overridden feedback is stored, never learned.
Money settles with the first cost that is told, learned or not.
What is said of two decisions is in comparisons.py, of a whole session in sessions.py.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, exists, select, update

from banditroute.core.errors import InvalidValue
from banditroute.core.pool import NANO
from banditroute.store.bulk import columns, insert_many
from banditroute.store.settlement import settle
from banditroute.store.tables import decisions, events, feedback, models, prices

_COPIED = (
    "pool",
    "embedder",
    "features",
    "propensity",
    "w_quality",
    "w_cost",
    "w_latency",
    "cost_prior",
    "input_cost",
)
_OWN = ("id", "model", "expires_at", "arms", "prices", "overridden_by", "cancelled_at")
_LINKS = ("prompt_hash", "session_id")
_FEEDBACK, _EVENT = columns(feedback), columns(events)
DECISION = [decisions.c[name] for name in (*_OWN, *_LINKS, *_COPIED)]
"""What feedback and its events need of a decision."""
_BY_ID = select(*DECISION).where(decisions.c.id.in_(bindparam("ids", expanding=True)))
_SENT = select(feedback).where(feedback.c.decision_id.in_(bindparam("ids", expanding=True)))
WAITING = (
    decisions.c.overridden_by.is_(None),
    decisions.c.cancelled_at.is_(None),
    ~exists().where(events.c.decision_id == decisions.c.id, events.c.field == "quality"),
)
"""Conditions of a decision that has something to learn from a quality, and has none yet."""
_RATED = select(events.c.decision_id).where(
    events.c.decision_id.in_(bindparam("ids", expanding=True)), events.c.field == "quality"
)

DEFAULTS_AT_ONCE = 512
_IDS_AT_ONCE = 10_000  # SQLite allows some 32,000 variables in a statement


class FeedbackResult(NamedTuple):
    """What became of a post: its status, the field that is to blame for it, and how many
    decisions of a session learned from it."""

    status: str
    param: str | None = None
    decisions: int | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """One piece of feedback as sent; None is a field that was not."""

    decision_id: str
    key: str
    source: str | None = None
    quality: float | None = None
    cost_usd: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_ms: float | None = None
    model: str | None = None

    def digest(self) -> str:
        """Return a digest of the payload, to tell a retry from a contradiction."""
        payload = (
            self.source,
            self.quality,
            self.cost_usd,
            self.input_tokens,
            self.output_tokens,
            self.latency_ms,
            self.model,
        )
        return hashlib.blake2b(repr(payload).encode(), digest_size=16).hexdigest()

    @property
    def has_cost(self) -> bool:
        """Whether it says what the answer cost, in dollars or in tokens."""
        tokens = self.input_tokens is not None and self.output_tokens is not None
        return self.cost_usd is not None or tokens


def record(connection: Connection, posts: Sequence[Post], *, now_us: int) -> list[str]:
    """Store `posts` in order and append their events; return the status of each.

    Returns
    -------
    list of ``accepted``, ``duplicate``, ``superseded``, ``late``, ``unknown`` or ``conflict``.

    Raises
    ------
    InvalidValue
        For a model that the pool does not have, with the row of its post; nothing has been
        written then.
    """
    ids = list({post.decision_id for post in posts})
    found = decisions_of(connection, ids)
    rated = _rated_by_session(connection, posts, found)
    sent: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in connection.execute(_SENT.order_by(feedback.c.id), {"ids": ids}).mappings():
        sent[row["decision_id"]].append(dict(row))
    rates = _Prices(connection)
    rows: list[dict[str, Any]] = []
    learned: list[dict[str, Any]] = []
    statuses: list[str] = []
    overridden: dict[str, str] = {}
    paid: dict[str, int] = {}
    for position, post in enumerate(posts):
        decision = found.get(post.decision_id)
        if decision is None:
            statuses.append("unknown")
            continue
        earlier = sent[post.decision_id]
        digest = post.digest()
        same = next((row for row in earlier if row["key"] == post.key), None)
        if same is not None:
            statuses.append("duplicate" if same["digest"] == digest else "conflict")
            continue
        if post.model is not None and post.model != decision["model"]:
            _check_model(connection, decision, post.model, position)
            decision["overridden_by"] = overridden[post.decision_id] = post.model
        fresh = _fresh_fields(post, earlier)
        if post.decision_id in rated and "quality" in fresh:
            fresh.remove("quality")
        late = now_us > decision["expires_at"]
        carries = post.quality is not None or post.has_cost or post.latency_ms is not None
        unused = decision["cancelled_at"] is not None
        known = unused or (carries and not fresh)
        status = "late" if late else "superseded" if known else "accepted"
        cost, input_cost = _cost(post, decision, rates)
        stored = _row(post, cost, digest=digest, status=status, now_us=now_us)
        if status == "accepted" and decision["overridden_by"] is None:
            learned += _outcomes(post, decision, fresh, cost, input_cost, earlier, now_us)
        if stored["cost_nano"] is not None:
            # Whoever tells first; even what is too late to be learned was paid.
            paid.setdefault(post.decision_id, stored["cost_nano"])
        rows.append(stored)
        earlier.append(stored)
        statuses.append(status)
    for decision_id, model in overridden.items():
        at = decisions.c.id == decision_id
        connection.execute(update(decisions).where(at).values(overridden_by=model))
    insert_many(connection, feedback, [[row[name] for name in _FEEDBACK] for row in rows])
    append_outcomes(connection, learned)
    settle(connection, paid)
    return statuses


def decisions_of(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the decisions by id, each with the columns of `DECISION`; unknown ids are left out."""
    rows = connection.execute(_BY_ID, {"ids": ids}).mappings()
    return {row["id"]: dict(row) for row in rows}


def _rated_by_session(
    connection: Connection, posts: Sequence[Post], found: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """Return the decisions whose quality is learned, of those that a session may have given it.

    Without sessions the rows of feedback tell all, and nothing is asked.
    """
    asked = {post.decision_id for post in posts if post.quality is not None}
    ids = [one for one in asked if one in found and found[one]["session_id"] is not None]
    return set(connection.execute(_RATED, {"ids": ids}).scalars()) if ids else set()


def append_outcomes(connection: Connection, outcomes: Sequence[Mapping[str, Any]]) -> None:
    """Append events that are outcomes; each has the columns that `outcome_columns` begins."""
    insert_many(connection, events, [[row.get(name) for name in _EVENT] for row in outcomes])


def _row(
    post: Post, cost: float | None, *, digest: str, status: str, now_us: int
) -> dict[str, Any]:
    return {
        "decision_id": post.decision_id,
        "key": post.key,
        "source": post.source,
        "quality": post.quality,
        "cost_nano": None if cost is None else ceil_nano(cost),
        "input_tokens": post.input_tokens,
        "output_tokens": post.output_tokens,
        "latency_ms": post.latency_ms,
        "model": post.model,
        "digest": digest,
        "status": status,
        "received_at": now_us,
    }


def ceil_nano(cost: float) -> int:
    """Return US dollars as nano-dollars, rounded up but for the noise of the product."""
    return math.ceil(round(cost * NANO, 3))


def _fresh_fields(post: Post, earlier: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the fields of `post` that no earlier accepted row carries."""
    accepted = [row for row in earlier if row["status"] == "accepted"]
    fields = []
    if post.quality is not None and all(row["quality"] is None for row in accepted):
        fields.append("quality")
    if post.has_cost and all(row["cost_nano"] is None for row in accepted):
        fields.append("cost")
    if post.latency_ms is not None and all(row["latency_ms"] is None for row in accepted):
        fields.append("latency")
    return fields


def _cost(
    post: Post, decision: Mapping[str, Any], rates: _Prices
) -> tuple[float | None, float | None]:
    """Return (cost, its input part if tokens were sent) in US dollars."""
    if post.input_tokens is None or post.output_tokens is None:
        return post.cost_usd, None
    name = decision["overridden_by"] or decision["model"]
    input_price, output_price = rates.of(decision, name)
    input_cost = post.input_tokens * input_price / 1e6
    by_tokens = input_cost + post.output_tokens * output_price / 1e6
    return by_tokens if post.cost_usd is None else post.cost_usd, input_cost


def _outcomes(
    post: Post,
    decision: Mapping[str, Any],
    fresh: Sequence[str],
    cost: float | None,
    input_cost: float | None,
    earlier: Iterable[Mapping[str, Any]],
    now_us: int,
) -> list[dict[str, Any]]:
    sent = (row for row in earlier if row["status"] == "accepted")
    known = next((row["cost_nano"] / NANO for row in sent if row["cost_nano"] is not None), cost)
    values = {"quality": post.quality, "cost": cost, "latency": post.latency_ms}
    shared = outcome_columns(decision) | {"kind": "feedback", "created_at": now_us, "cost": known}
    if input_cost is not None:
        # The tokens that were really read tell the output part of the cost exactly.
        output_prior = decision["cost_prior"] - decision["input_cost"]
        shared |= {"input_cost": input_cost, "cost_prior": input_cost + output_prior}
    return [shared | {"field": field, "value": values[field]} for field in fresh]


def outcome_columns(decision: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of an event that come from its decision: the row is self-contained."""
    own = {"decision_id": decision["id"], "arm": decision["model"]}
    return own | {name: decision[name] for name in _COPIED}


def _check_model(connection: Connection, decision: Mapping[str, Any], model: str, row: int) -> None:
    known = select(models.c.name).where(models.c.pool == decision["pool"], models.c.name == model)
    if connection.execute(known).first() is None:
        raise InvalidValue(f"pool has no model {model!r}", param="model", row=row)


def default_expired(
    connection: Connection,
    *,
    pool: str,
    quality: float,
    now_us: int,
    since_us: int = 0,
    limit: int = DEFAULTS_AT_ONCE,
) -> int:
    """Append a ``default`` event for decisions that expired without a quality.

    Returns
    -------
    How many; fewer than `limit` means that all that expired in [`since_us`, `now_us`) have one.
    """
    expired = (
        select(*DECISION)
        .where(
            decisions.c.pool == pool,
            decisions.c.expires_at >= since_us,
            decisions.c.expires_at < now_us,
            *WAITING,
        )
        .order_by(decisions.c.expires_at, decisions.c.id)
        .limit(limit)
    )
    found = connection.execute(expired).mappings().all()
    costs = known_costs_usd(connection, [row["id"] for row in found])
    told = {"kind": "default", "field": "quality", "value": quality, "created_at": now_us}
    append_outcomes(
        connection,
        [outcome_columns(dict(row)) | told | {"cost": costs.get(row["id"])} for row in found],
    )
    return len(found)


def known_costs_usd(connection: Connection, ids: Sequence[str]) -> dict[str, float]:
    """Return the US dollars that accepted feedback told first of decisions, where any did."""
    told = (
        select(feedback.c.decision_id, feedback.c.cost_nano)
        .where(
            feedback.c.decision_id.in_(bindparam("ids", expanding=True)),
            feedback.c.status == "accepted",
            feedback.c.cost_nano.is_not(None),
        )
        .order_by(feedback.c.id.desc())
    )
    costs: dict[str, float] = {}
    for at in range(0, len(ids), _IDS_AT_ONCE):
        for row in connection.execute(told, {"ids": list(ids[at : at + _IDS_AT_ONCE])}):
            costs[row.decision_id] = row.cost_nano / NANO
    return costs


class _Prices:
    """Price rows by decision; a row never changes, so each is read once per batch."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[int, tuple[float, float]] = {}

    def of(self, decision: Mapping[str, Any], model: str) -> tuple[float, float]:
        """Return (input, output) US dollars per million tokens of `model` for a decision."""
        arms = json.loads(decision["arms"])
        if model in arms:
            price_id = json.loads(decision["prices"])[arms.index(model)]
        else:
            newest = select(prices.c.id).where(
                prices.c.pool == decision["pool"], prices.c.model == model
            )
            latest = newest.order_by(prices.c.valid_from.desc(), prices.c.id.desc())
            price_id = self._connection.execute(latest).scalars().first()
        if price_id not in self._known:
            row = self._connection.execute(select(prices).where(prices.c.id == price_id)).one()
            self._known[price_id] = (row.input_price, row.output_price)
        return self._known[price_id]

"""Feedback on single decisions: stored once, and learned through events of the log.

(decision, key) identifies a piece of feedback. Each of quality, cost and latency is learned from
the first accepted row that has it. Late, superseded and overridden feedback is stored, but never
learned. The first cost that is sent settles the decision's reservations, learned or not.
Comparisons of two decisions are in comparisons.py, feedback on sessions in sessions.py.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping, bindparam, exists, select, update

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
_COLUMN = {"quality": "quality", "cost": "cost_nano", "latency": "latency_ms"}
"""The column that holds a field of `Post.fields`."""
_EVENT = columns(events)
_in_order = itemgetter(*columns(feedback))
DECISION = [decisions.c[name] for name in (*_OWN, *_LINKS, *_COPIED)]
"""The columns of a decision that feedback and its events need."""
_BY_ID = select(*DECISION).where(decisions.c.id.in_(bindparam("ids", expanding=True)))
_SENT = select(feedback).where(feedback.c.decision_id.in_(bindparam("ids", expanding=True)))
UNRATED = (
    decisions.c.overridden_by.is_(None),
    decisions.c.cancelled_at.is_(None),
    ~exists().where(events.c.decision_id == decisions.c.id, events.c.field == "quality"),
)
"""Conditions for a decision that can still learn a quality: not rated, overridden or cancelled."""
_RATED = select(events.c.decision_id).where(
    events.c.decision_id.in_(bindparam("ids", expanding=True)), events.c.field == "quality"
)

DEFAULTS_AT_ONCE = 512
_IDS_AT_ONCE = 10_000  # SQLite allows some 32,000 variables in a statement


class FeedbackResult(NamedTuple):
    """The result of storing a piece of feedback.

    Attributes
    ----------
    status : str
        ``accepted``, ``duplicate``, ``superseded``, ``late``, ``unknown`` or ``conflict``.
    param : str or None
        The field that caused ``unknown`` or ``conflict``.
    decisions : int or None
        Feedback on a session: number of its decisions that learned the quality.
    """

    status: str
    param: str | None = None
    decisions: int | None = None


class Post(NamedTuple):
    """Feedback on a decision as the caller sent it; None stands for a field that was not sent.

    Attributes
    ----------
    decision_id : str
        The decision.
    key : str
        Tells pieces of feedback on the same decision apart; a retry sends the same key.
    source : str or None
        Who judged.
    quality : float or None
        In [0, 1].
    cost_usd : float or None
        US dollars.
    input_tokens, output_tokens : int or None
        Numbers of tokens. The cost is computed from them if `cost_usd` is None.
    latency_ms : float or None
        Milliseconds.
    model : str or None
        The model that answered, if it is not the chosen one.
    """

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
        """Return a digest of the payload, which tells a retry from a contradiction."""
        payload = self[2:]  # all but the decision and the key
        return hashlib.blake2b(repr(payload).encode(), digest_size=16).hexdigest()

    def fields(self) -> list[str]:
        """Return which of quality, cost and latency were sent; tokens are a cost too."""
        tokens = self.input_tokens is not None and self.output_tokens is not None
        sent = {
            "quality": self.quality is not None,
            "cost": self.cost_usd is not None or tokens,
            "latency": self.latency_ms is not None,
        }
        return [name for name, is_sent in sent.items() if is_sent]


def record(connection: Connection, posts: Sequence[Post], *, now_us: int) -> list[str]:
    """Store feedback in order and append its events.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    posts : sequence of Post
        The feedback.
    now_us : int
        The time.

    Returns
    -------
    list of str
        The status of each post, see `FeedbackResult`.

    Raises
    ------
    InvalidValue
        If a post names a model that the pool does not have; the error names the row of the post.
        Nothing has been written then.
    """
    ids = list({post.decision_id for post in posts})
    decisions_by_id = decisions_of(connection, ids)
    rated = _rated_by_session(connection, posts, decisions_by_id)
    earlier_by_id: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for stored in connection.execute(_SENT.order_by(feedback.c.id), {"ids": ids}).mappings():
        earlier_by_id[stored["decision_id"]].append(dict(stored))
    price_rows = _Prices(connection)
    rows: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    statuses: list[str] = []
    overridden: dict[str, str] = {}
    costs_nano: dict[str, int] = {}
    for position, post in enumerate(posts):
        decision = decisions_by_id.get(post.decision_id)
        if decision is None:
            statuses.append("unknown")
            continue
        earlier = earlier_by_id[post.decision_id]
        digest = post.digest()
        same_key = next((row for row in earlier if row["key"] == post.key), None)
        if same_key is not None:
            statuses.append("duplicate" if same_key["digest"] == digest else "conflict")
            continue
        if post.model is not None and post.model != decision["model"]:
            _check_model(connection, decision, post.model, position)
            decision["overridden_by"] = overridden[post.decision_id] = post.model
        sent = post.fields()
        accepted = [row for row in earlier if row["status"] == "accepted"]
        fresh = [name for name in sent if all(row[_COLUMN[name]] is None for row in accepted)]
        if post.decision_id in rated and "quality" in fresh:
            fresh.remove("quality")
        cancelled = decision["cancelled_at"] is not None
        if now_us > decision["expires_at"]:
            status = "late"
        elif cancelled or (sent and not fresh):
            status = "superseded"
        else:
            status = "accepted"
        cost_usd, input_cost_usd = _cost_usd(post, decision, price_rows)
        row = post._asdict() | {
            "cost_nano": None if cost_usd is None else ceil_nano(cost_usd),
            "digest": digest,
            "status": status,
            "received_at": now_us,
        }
        if status == "accepted" and decision["overridden_by"] is None:
            outcomes += _outcomes(post, decision, fresh, cost_usd, input_cost_usd, accepted, now_us)
        if row["cost_nano"] is not None:
            # The first cost settles the reservations, even if it is late: the money is spent.
            costs_nano.setdefault(post.decision_id, row["cost_nano"])
        rows.append(row)
        earlier.append(row)
        statuses.append(status)
    for decision_id, model in overridden.items():
        override = update(decisions).where(decisions.c.id == decision_id)
        connection.execute(override.values(overridden_by=model))
    insert_many(connection, feedback, list(map(_in_order, rows)))
    append_outcomes(connection, outcomes)
    settle(connection, costs_nano)
    return statuses


def decisions_of(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return {id: row} with the columns of `DECISION`; ids without a decision are left out."""
    rows = connection.execute(_BY_ID, {"ids": ids}).mappings()
    return {row["id"]: dict(row) for row in rows}


def _rated_by_session(
    connection: Connection, posts: Sequence[Post], by_id: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """Return which decisions of `posts` with a quality have learned a quality already.

    The query is limited to decisions of a session. Feedback on a session leaves no feedback row of
    a decision; every other quality has such a row, which `record` sees.
    """
    get_quality = {post.decision_id for post in posts if post.quality is not None}
    in_session = {name for name, row in by_id.items() if row["session_id"] is not None}
    ids = list(get_quality & in_session)
    return set(connection.execute(_RATED, {"ids": ids}).scalars()) if ids else set()


def append_outcomes(connection: Connection, outcomes: Sequence[Mapping[str, Any]]) -> None:
    """Append events; each row has the columns of `outcome_columns` and those of its kind."""
    insert_many(connection, events, [[row.get(name) for name in _EVENT] for row in outcomes])


def ceil_nano(cost_usd: float) -> int:
    """Return US dollars as nano-dollars, rounded up.

    A fraction below 0.0005 nano-dollars is treated as rounding noise and dropped.
    """
    return math.ceil(round(cost_usd * NANO, 3))


def _cost_usd(
    post: Post, decision: Mapping[str, Any], price_rows: _Prices
) -> tuple[float | None, float | None]:
    """Return (cost, cost of the input tokens) in US dollars; None where the post lacks numbers."""
    if post.input_tokens is None or post.output_tokens is None:
        return post.cost_usd, None
    model = decision["overridden_by"] or decision["model"]
    input_price, output_price = price_rows.of(decision, model)
    input_cost_usd = post.input_tokens * input_price / 1e6
    by_tokens_usd = input_cost_usd + post.output_tokens * output_price / 1e6
    return by_tokens_usd if post.cost_usd is None else post.cost_usd, input_cost_usd


def _outcomes(
    post: Post,
    decision: Mapping[str, Any],
    fresh: Sequence[str],
    cost_usd: float | None,
    input_cost_usd: float | None,
    accepted: Iterable[Mapping[str, Any]],
    now_us: int,
) -> list[dict[str, Any]]:
    """Return an event for each field in `fresh`, with the first accepted cost of the decision."""
    costs_nano = (row["cost_nano"] for row in accepted if row["cost_nano"] is not None)
    first_usd = next((nano / NANO for nano in costs_nano), cost_usd)
    values = {"quality": post.quality, "cost": cost_usd, "latency": post.latency_ms}
    shared = outcome_columns(decision)
    shared |= {"kind": "feedback", "created_at": now_us, "cost": first_usd}
    if input_cost_usd is not None:
        # The input cost is exact now, so that cost minus input cost is the cost of the output.
        output_prior_usd = decision["cost_prior"] - decision["input_cost"]
        shared |= {"input_cost": input_cost_usd, "cost_prior": input_cost_usd + output_prior_usd}
    return [shared | {"field": field, "value": values[field]} for field in fresh]


def outcome_columns(decision: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that an event copies from its decision: a fold reads no decisions."""
    own = {"decision_id": decision["id"], "arm": decision["model"]}
    return own | {name: decision[name] for name in _COPIED}


def _check_model(connection: Connection, decision: Mapping[str, Any], model: str, row: int) -> None:
    named = (models.c.pool == decision["pool"], models.c.name == model)
    if connection.execute(select(models.c.name).where(*named)).first() is None:
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

    Parameters
    ----------
    connection : Connection
        In a transaction.
    pool : str
        The pool of the decisions.
    quality : float
        Value of the events, in [0, 1].
    now_us, since_us : int
        Decisions that expired in [`since_us`, `now_us`) get an event.
    limit : int
        Events to append at most.

    Returns
    -------
    int
        Number of events appended; below `limit`, no such decision is left.
    """
    expired = (
        select(*DECISION)
        .where(
            decisions.c.pool == pool,
            decisions.c.expires_at >= since_us,
            decisions.c.expires_at < now_us,
            *UNRATED,
        )
        .order_by(decisions.c.expires_at, decisions.c.id)
        .limit(limit)
    )
    rows = connection.execute(expired).mappings().all()
    append_qualities(connection, rows, kind="default", quality=quality, now_us=now_us)
    return len(rows)


def append_qualities(
    connection: Connection,
    rows: Sequence[RowMapping],
    *,
    kind: str,
    quality: float,
    now_us: int,
) -> None:
    """Append an event with the same quality for each of `rows`, which have columns `DECISION`."""
    costs_usd = _costs_usd(connection, [row["id"] for row in rows])
    event = {"kind": kind, "field": "quality", "value": quality, "created_at": now_us}
    append_outcomes(
        connection,
        [outcome_columns(dict(row)) | event | {"cost": costs_usd.get(row["id"])} for row in rows],
    )


def _costs_usd(connection: Connection, ids: Sequence[str]) -> dict[str, float]:
    """Return {decision id: cost} of the first accepted feedback with a cost, in US dollars."""
    newest_first = (
        select(feedback.c.decision_id, feedback.c.cost_nano)
        .where(
            feedback.c.decision_id.in_(bindparam("ids", expanding=True)),
            feedback.c.status == "accepted",
            feedback.c.cost_nano.is_not(None),
        )
        .order_by(feedback.c.id.desc())
    )
    costs_usd: dict[str, float] = {}
    for start in range(0, len(ids), _IDS_AT_ONCE):
        part = list(ids[start : start + _IDS_AT_ONCE])
        # The first row of a decision comes last and overwrites the others.
        for row in connection.execute(newest_first, {"ids": part}):
            costs_usd[row.decision_id] = row.cost_nano / NANO
    return costs_usd


class _Prices:
    """Prices of models at the time of a decision. A price row never changes, so it is cached."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._by_id: dict[int, tuple[float, float]] = {}

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
        if price_id not in self._by_id:
            row = self._connection.execute(select(prices).where(prices.c.id == price_id)).one()
            self._by_id[price_id] = (row.input_price, row.output_price)
        return self._by_id[price_id]

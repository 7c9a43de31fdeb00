"""The log: decisions, and the events that policies fold in order. Feedback is in feedback.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Column, Connection, Engine, Row, Select, Table, func, insert, select

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.learn.fold import Event
from banditroute.learn.learner import Checkpoint
from banditroute.store import ledger
from banditroute.store.bulk import insert_many
from banditroute.store.tables import (
    checkpoints,
    comparisons,
    decisions,
    events,
    feedback,
    session_feedback,
)
from policies import Comparison, Outcome

PAGE = 4096
_FLOAT32 = np.dtype(np.float32)
_REQUEST = ("features", "w_quality", "w_cost", "w_latency", "input_tokens", "tags")


def _columns(table: Table, names: str) -> list[Column[Any]]:
    return [table.c[name] for name in names.split()]


_SENT = _columns(
    feedback, "key source quality cost_nano input_tokens output_tokens latency_ms model status"
)
_COMPARED = _columns(comparisons, "decision_id preferred_over key source status")
_OF_SESSION = _columns(session_feedback, "key source quality decisions")
_LEARNED = _columns(events, "seq kind field value")


def append_event(
    connection: Connection, *, pool: str, kind: str, payload: Mapping[str, Any], now_us: int
) -> int:
    """Append an event that is neither an outcome nor a comparison and return its position."""
    row = {"pool": pool, "kind": kind, "payload": json.dumps(payload), "created_at": now_us}
    return int(connection.execute(insert(events).returning(events.c.seq), row).scalar_one())


def policy_identity(
    connection: Connection, pool: str, *, until: int | None = None
) -> tuple[int, PolicyIdentity] | None:
    """Return position and identity of the newest policy_started at or before `until`."""
    newest = _of_kind("policy_started", pool, until).order_by(events.c.seq.desc()).limit(1)
    row = connection.execute(newest).first()
    return (row.seq, PolicyIdentity.from_payload(json.loads(row.payload))) if row else None


def _of_kind(kind: str, pool: str, until: int | None) -> Select[tuple[int, str]]:
    """Return a query for position and payload of the events of a kind at or before `until`."""
    query = select(events.c.seq, events.c.payload)
    query = query.where(events.c.pool == pool, events.c.kind == kind)
    return query if until is None else query.where(events.c.seq <= until)


def append_resets(
    connection: Connection, *, pool: str, policy: str, alarms: Mapping[str, int], now_us: int
) -> list[int]:
    """Append a reset for each drift alarm that has none.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    pool : str
        The pool.
    policy : str
        Identity of the policy whose detector raised the alarms.
    alarms : mapping
        Position of the event that raised it, by arm.
    now_us : int
        The time.

    Returns
    -------
    list of int
        Positions of the resets.
    """
    of_policy = (
        events.c.pool == pool,
        events.c.policy == policy,
        events.c.trigger_seq.is_not(None),
    )
    answered = select(events.c.arm, events.c.trigger_seq).where(*of_policy)
    has_reset = {(row.arm, row.trigger_seq) for row in connection.execute(answered)}
    rows = [
        {"pool": pool, "kind": "reset", "created_at": now_us, "policy": policy}
        | {"arm": arm, "trigger_seq": trigger}
        | {"payload": json.dumps({"arm": arm, "trigger_seq": trigger})}
        for arm, trigger in alarms.items()
        if (arm, trigger) not in has_reset
    ]
    appended = insert(events).returning(events.c.seq)
    return [int(connection.execute(appended, row).scalar_one()) for row in rows]


class Entry(NamedTuple):
    """A decision to be logged: its row from `decision_row.as_rows`, and its reservations."""

    row: Sequence[Any]
    reservations: Sequence[ledger.Reservation] = ()


def log_decisions(connection: Connection, entries: Sequence[Entry]) -> None:
    """Log decisions and write their reservations, all of them or none.

    Raises
    ------
    LeaseLost
        When a lease does not cover a reservation any more.
    """
    ledger.reserve(connection, [one for entry in entries for one in entry.reservations])
    insert_many(connection, decisions, [entry.row for entry in entries])


def keep_checkpoint(connection: Connection, checkpoint: Checkpoint, *, now_us: int) -> None:
    """Store a checkpoint; if one of its position is stored, it has the same bytes."""
    same_position = (
        (checkpoints.c.pool == checkpoint.pool)
        & (checkpoints.c.policy_seq == checkpoint.policy_seq)
        & (checkpoints.c.seq == checkpoint.seq)
    )
    if connection.execute(select(checkpoints.c.seq).where(same_position)).first() is None:
        row = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
        connection.execute(insert(checkpoints), row | {"created_at": now_us})


class Log:
    """Reads of the log, each on a connection of its own; implements `learner.EventLog`.

    Parameters
    ----------
    engine : Engine
        The database.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def end(self) -> int:
        """Return the position of the newest event, 0 for an empty log."""
        with self.engine.connect() as connection:
            return int(connection.execute(select(func.max(events.c.seq))).scalar() or 0)

    def started_pools(self) -> list[str]:
        """Return the pools that have a policy_started event."""
        started = select(events.c.pool).where(events.c.kind == "policy_started").distinct()
        return sorted(row.pool for row in self._rows(started))

    def events(
        self, *, after: int, until: int | None = None, pool: str | None = None
    ) -> Iterator[Event]:
        """Yield events with after < seq <= until, in order, a page at a time."""
        query = select(*_EVENT).order_by(events.c.seq).limit(PAGE)
        if until is not None:
            query = query.where(events.c.seq <= until)
        if pool is not None:
            query = query.where(events.c.pool == pool)
        while True:
            page = self._rows(query.where(events.c.seq > after))
            for row in page:
                yield _event(row)
            if len(page) < PAGE:
                return
            after = page[-1].seq

    def policy_identity(
        self, pool: str, *, until: int | None = None
    ) -> tuple[int, PolicyIdentity] | None:
        """Return position and identity of the newest policy_started at or before `until`."""
        with self.engine.connect() as connection:
            return policy_identity(connection, pool, until=until)

    def rollbacks(self, pool: str, *, until: int) -> list[tuple[int, int]]:
        """Return (seq, version) of every rollback at or before `until`."""
        rows = self._rows(_of_kind("rollback", pool, until))
        return [(row.seq, int(json.loads(row.payload)["version"])) for row in rows]

    def models_added(self, pool: str, *, until: int) -> list[str]:
        """Return the names of all models added at or before `until`, in order."""
        rows = self._rows(_of_kind("model_added", pool, until).order_by(events.c.seq))
        return [json.loads(row.payload)["name"] for row in rows]

    def checkpoint(
        self, pool: str, *, policy_seq: int, until: int | None
    ) -> tuple[int, bytes] | None:
        """Return (seq, state) of the newest checkpoint at or before `until`."""
        query = select(checkpoints.c.seq, checkpoints.c.state).where(
            checkpoints.c.pool == pool, checkpoints.c.policy_seq == policy_seq
        )
        if until is not None:
            query = query.where(checkpoints.c.seq <= until)
        with self.engine.connect() as connection:
            row = connection.execute(query.order_by(checkpoints.c.seq.desc()).limit(1)).first()
        return (row.seq, row.state) if row else None

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        """Return the row of a decision by column name, None if there is no such decision."""
        query = select(decisions).where(decisions.c.id == decision_id)
        with self.engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return dict(row) if row else None

    def history_of(self, decision: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
        """Return what was sent about a decision and what was learned from it.

        Parameters
        ----------
        decision : mapping
            Its row.

        Returns
        -------
        dict of list of dict
            Rows by column name, in order: ``feedback``, ``comparisons``, ``session_feedback`` and
            ``learned``.
        """
        decision_id, pool, session_id = (decision[name] for name in ("id", "pool", "session_id"))
        pair, session = comparisons.c, session_feedback.c
        of_decision = feedback.c.decision_id == decision_id
        learned = events.c.decision_id == decision_id
        queries = {
            "feedback": select(*_SENT).where(of_decision).order_by(feedback.c.id),
            "comparisons": select(*_COMPARED)
            .where((pair.decision_id == decision_id) | (pair.preferred_over == decision_id))
            .order_by(pair.id),
            "session_feedback": select(*_OF_SESSION)
            .where(session.pool == pool, session.session_id == session_id)
            .order_by(session.id),
            "learned": select(*_LEARNED).where(learned).order_by(events.c.seq),
        }
        with self.engine.connect() as connection:
            return {
                name: [dict(row) for row in connection.execute(query).mappings()]
                for name, query in queries.items()
            }

    def recent(self, pool: str, *, embedder: str, before_us: int, limit: int) -> Sequence[Any]:
        """Return the requests of a pool's last decisions before a time, the newest first."""
        columns = [decisions.c[name] for name in _REQUEST]
        earlier = decisions.c.created_at < before_us
        comparable = (decisions.c.pool == pool, decisions.c.embedder == embedder, earlier)
        query = select(*columns).where(*comparable).order_by(decisions.c.id.desc())
        return self._rows(query.limit(limit))

    def decisions(self, pool: str) -> Iterator[dict[str, Any]]:
        """Yield the decision rows of a pool in the order of their snapshots."""
        order = (decisions.c.version, decisions.c.id)
        query = select(decisions).where(decisions.c.pool == pool).order_by(*order)
        with self.engine.connect() as connection:
            streamed = connection.execution_options(yield_per=PAGE).execute(query)
            yield from (dict(row) for row in streamed.mappings())

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with self.engine.connect() as connection:
            return connection.execute(query).all()


_EVENT = _columns(
    events,
    "seq pool kind payload decision_id arm embedder features field value cost propensity"
    " w_quality w_cost w_latency cost_prior input_cost",
)
"""The columns of an event that a fold may read, in the order in which `_event` unpacks them."""


def _event(row: Sequence[Any]) -> Event:
    """Return a row with the columns `_EVENT` as an event."""
    # Unpacked at once: attributes of a row take several times as long, in a rebuild for each event.
    (
        seq, pool, kind, payload, decision_id, arm, embedder, features, field, value, cost,
        propensity, w_quality, w_cost, w_latency, cost_prior, input_cost,
    ) = row  # fmt: skip
    if kind not in ("feedback", "default", "comparison"):
        return Event(seq, pool, kind, payload=json.loads(payload))
    x, preference = np.frombuffer(features, dtype=_FLOAT32), (w_quality, w_cost, w_latency)
    if kind == "comparison":
        loser = json.loads(payload)
        comparison = Comparison(
            seq=seq,
            decision_id=decision_id,
            over=loser["over"],
            winner=arm,
            loser=loser["arm"],
            x=x,
            propensity=propensity,
            loser_propensity=loser["propensity"],
            preference=preference,
        )
        return Event(seq, pool, kind, embedder=embedder, comparison=comparison)
    outcome = Outcome(  # by position: names would cost a twentieth of this function
        seq,
        decision_id,
        arm,
        x,
        field,
        value,
        cost,
        propensity,
        preference,
        cost_prior,
        input_cost,
    )
    return Event(seq, pool, kind, outcome, embedder)

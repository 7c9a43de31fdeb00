"""The log of a daemon as a bandit log, with all that a policy needs to decide its requests again.

Reads only. An outcome counts only if feedback brought it: a default, which stands for a reward that
never came, is a missing outcome here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import NANO, Model
from banditroute.decide.columns import RequestBatch
from banditroute.decide.reasons import REASONS
from banditroute.learn.learner import effective_events
from banditroute.store.decision_row import Logged, decode
from banditroute.store.log import Log
from banditroute.store.pools import load_pools
from banditroute.store.tables import decisions, events, feedback, prices
from policies.base import Float64
from sim.errors import InputError
from sim.ope.bandit_log import BanditLog, number_sessions
from sim.ope.logged_requests import DecisionHistory, LoggedRequests

ARRIVED = 99.0
"""Percentile of the delays of feedback. Decisions younger than it are left out, with feedback or
without: to keep only those with feedback would prefer outcomes that are quick to arrive."""
MOST_YOUNG = 0.5
"""The largest share of the log that may be left out as too young."""

# A model that the logging policy itself left out is open to another policy.
_OPEN = np.isin(REASONS, ("eligible", "exploration_cost", "price_of_money"))


def read(
    store: Log,
    pool: str,
    *,
    since_us: int | None = None,
    tags: Mapping[str, str] | None = None,
) -> DecisionHistory:
    """Read the decisions of a pool and their outcomes.

    Parameters
    ----------
    store : Log
        The daemon's log.
    pool : str
        Name of the pool.
    since_us : int, optional
        Only decisions from this time on, in microseconds since the epoch.
    tags : mapping of str to str, optional
        Only decisions that carry all of these tags.

    Raises
    ------
    InputError
        If the policy of the pool never started, or if no decision is left.
    """
    started = store.policy_identity(pool)
    if started is None:
        others = ", ".join(store.started_pools()) or "none"
        raise InputError(f"--pool: the log has no policy of {pool!r}; it has those of: {others}")
    policy_identity = started[1]
    with store.engine.connect() as connection:
        rows = _decisions(connection, pool, since_us)
        outcomes = _Outcomes.read(connection, pool)
        models = _models(connection, pool)
    if tags:
        rows = [row for row in rows if tags.items() <= json.loads(row["tags"] or "{}").items()]
    last_us, notes = outcomes.last_old_enough(rows)
    kept, left_out = _select(rows, policy_identity, last_us)
    if not kept:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(f"--log: no decision of pool {pool!r} is left ({why or 'it has none'})")
    if left_out:
        notes.insert(
            0, "requests with a choice of fewer than two models are not part of any estimate"
        )
    decoded = [decode(row) for row in kept]
    return DecisionHistory(
        log=_log(pool, kept, decoded, outcomes, left_out=left_out, notes=notes),
        requests=_requests(kept, decoded, models),
        ids=[row["id"] for row in kept],
        policy_identity=policy_identity,
        events=list(effective_events(store, pool)),
    )


def _decisions(connection: Connection, pool: str, since_us: int | None) -> list[dict[str, Any]]:
    query = select(decisions).where(decisions.c.pool == pool).order_by(decisions.c.id)
    if since_us is not None:
        query = query.where(decisions.c.created_at >= since_us)
    return [dict(row) for row in connection.execute(query).mappings()]


@dataclass(slots=True)
class _Outcomes:
    """What feedback said about the decisions of a pool; the first word on a decision counts.

    Attributes
    ----------
    quality, cost_usd : dict of str to float
        By decision.
    delays_us : list of int
        From a decision to its quality, in microseconds.
    newest_us : int
        When the last quality came, in microseconds since the epoch.
    """

    quality: dict[str, float] = field(default_factory=dict)
    cost_usd: dict[str, float] = field(default_factory=dict)
    delays_us: list[int] = field(default_factory=list)
    newest_us: int = 0

    @classmethod
    def read(cls, connection: Connection, pool: str) -> _Outcomes:
        """Read the outcomes of a pool; late feedback was not learned, but it counts here."""
        outcomes = cls()
        decided_at = decisions.c.created_at.label("decided_at")
        learned = (
            select(events.c.decision_id, events.c.value, events.c.created_at, decided_at)
            .join(decisions, decisions.c.id == events.c.decision_id)
            .where(events.c.pool == pool, events.c.kind == "feedback", events.c.field == "quality")
        )
        received = (
            select(feedback, decided_at)
            .join(decisions, decisions.c.id == feedback.c.decision_id)
            .where(decisions.c.pool == pool)
            .order_by(feedback.c.id)
        )
        for row in connection.execute(learned):
            outcomes._add_quality(row.decision_id, row.value, row.created_at, row.decided_at)
        for row in connection.execute(received):
            if row.quality is not None and row.decision_id not in outcomes.quality:
                outcomes._add_quality(row.decision_id, row.quality, row.received_at, row.decided_at)
            if row.cost_nano is not None:
                outcomes.cost_usd.setdefault(row.decision_id, row.cost_nano / NANO)
        return outcomes

    def _add_quality(self, decision_id: str, value: float, at_us: int, decided_us: int) -> None:
        self.quality[decision_id] = float(value)
        self.newest_us = max(self.newest_us, at_us)
        self.delays_us.append(at_us - decided_us)

    def last_old_enough(self, rows: Sequence[Mapping[str, Any]]) -> tuple[int | None, list[str]]:
        """Return the time after which decisions are too young for feedback, and notes on it.

        The time is in microseconds since the epoch, None if there was no feedback at all.
        """
        if not self.delays_us:
            return None, []
        usual_delay_us = int(np.percentile(self.delays_us, ARRIVED))
        last_us = self.newest_us - usual_delay_us
        young = sum(row["created_at"] > last_us for row in rows)
        if young <= MOST_YOUNG * len(rows):
            return last_us, []
        # All feedback came at one time, or the log is too short: a decision's age then does not
        # say whether its feedback is still to come.
        note = "feedback is as late as the log is long: some that is missing may still come"
        return self.newest_us, [note]


def _models(connection: Connection, pool: str) -> dict[int, Model]:
    """Return the models of a pool by the id of each of their price rows."""
    current = {model.name: model for model in load_pools(connection).get(pool, (0, {}, []))[2]}
    by_price: dict[int, Model] = {}
    for row in connection.execute(select(prices).where(prices.c.pool == pool)):
        model = current.get(row.model)
        limits = (model.max_output_tokens, model.context_length) if model else (None, None)
        by_price[row.id] = Model(row.model, row.input_price, row.output_price, row.id, *limits)
    return by_price


def _select(
    rows: Sequence[dict[str, Any]], policy_identity: PolicyIdentity, last_us: int | None
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the rows that say something about a policy, and the count of others by reason."""
    kept, left_out = [], Counter[str]()
    for row in rows:
        is_open = _OPEN[np.frombuffer(row["verdict"], dtype=np.uint8)]
        if row["cancelled_at"] is not None:
            left_out["cancelled"] += 1
        elif row["overridden_by"] is not None:
            left_out["overridden"] += 1
        elif row["embedder"] != policy_identity.embedder:
            left_out["of another embedder"] += 1
        elif is_open.sum() < 2:
            left_out["pinned: only one model was open"] += 1
        elif last_us is not None and row["created_at"] > last_us:
            left_out["too young for feedback"] += 1
        else:
            kept.append(row)
    return kept, dict(left_out)


def _log(
    pool: str,
    rows: Sequence[Mapping[str, Any]],
    decoded: Sequence[Logged],
    outcomes: _Outcomes,
    *,
    left_out: Mapping[str, int],
    notes: Sequence[str],
) -> BanditLog:
    models = list(dict.fromkeys(name for row in decoded for name in row.arms))
    position = {name: k for k, name in enumerate(models)}
    action_dist = np.zeros((len(rows), len(models)))
    for i, row in enumerate(decoded):
        action_dist[i, [position[name] for name in row.arms]] = row.pmf
    return BanditLog(
        name=pool,
        models=tuple(models),
        features=np.stack([row.features for row in decoded]),
        chosen=np.array([position[row["model"]] for row in rows]),
        propensity=np.array([row["propensity"] for row in rows]),
        action_dist=action_dist,
        quality=np.array([outcomes.quality.get(row["id"], np.nan) for row in rows]),
        cost_usd=np.array([outcomes.cost_usd.get(row["id"], np.nan) for row in rows]),
        preference=_floats(rows, "w_quality", "w_cost", "w_latency"),
        tau_cost_usd=_floats(rows, "tau_cost")[:, 0],
        session=number_sessions([row["session_id"] for row in rows]),
        left_out=left_out,
        notes=notes,
    )


def _requests(
    rows: Sequence[Mapping[str, Any]], decoded: Sequence[Logged], models: Mapping[int, Model]
) -> LoggedRequests:
    tokens = _floats(rows, "input_tokens")[:, 0]
    rows_by_prices: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(decoded):
        rows_by_prices.setdefault(tuple(row.prices), []).append(i)
    return LoggedRequests(
        batch=RequestBatch(
            features=np.stack([row.features for row in decoded]),
            preference=_floats(rows, "w_quality", "w_cost", "w_latency"),
            input_tokens=tokens,
            input_bound=tokens,
            max_output_tokens=_output_limits(rows, decoded, models),
            models=[_open_models(row) for row in decoded],
        ),
        model_sets=[
            (np.array(members), tuple(models[price] for price in price_ids))
            for price_ids, members in rows_by_prices.items()
        ],
        spend_rate_usd=_floats(rows, "spend_rate")[:, 0],
        priced=sum(bool(row.price.high.any() or row.price.gain.any()) for row in decoded),
    )


def _output_limits(
    rows: Sequence[Mapping[str, Any]], decoded: Sequence[Logged], models: Mapping[int, Model]
) -> Float64:
    """Return the requests' own limits of output, in tokens, float64[n], inf for none.

    The log has the smaller of the request's limit and the chosen model's. The limit of the chosen
    model must not reach other models: what a target policy does may not depend on the logged
    choice.
    """
    limits = np.full(len(rows), np.inf)
    for i, (row, decision) in enumerate(zip(rows, decoded, strict=True)):
        chosen = models[decision.prices[decision.arms.index(row["model"])]]
        if row["max_output_tokens"] < chosen.output_limit:
            limits[i] = row["max_output_tokens"]
    return limits


def _open_models(decision: Logged) -> frozenset[str]:
    """Return the models that any policy could have chosen."""
    is_open = _OPEN[decision.verdict].tolist()
    return frozenset(name for name, opened in zip(decision.arms, is_open, strict=True) if opened)


def _floats(rows: Sequence[Mapping[str, Any]], *names: str) -> Float64:
    return np.array([[row[name] for name in names] for row in rows], dtype=np.float64)

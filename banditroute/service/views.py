"""Answers of the HTTP API about models, budgets and faults, from values of the daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from banditroute.contract.schemas import FeedbackRequest
from banditroute.core.budget import ROLLING, Budget
from banditroute.core.clock import iso
from banditroute.core.errors import RouterFault
from banditroute.core.policy_identity import digest
from banditroute.core.pool import NANO, Model, ModelSpec
from banditroute.decide.columns import Decisions, Snapshot
from banditroute.store.decision_row import decode
from banditroute.store.feedback import FeedbackResult
from banditroute.store.ledger import BudgetSums


def model_view(model: Model) -> dict[str, Any]:
    """Return a model as the HTTP API shows it."""
    return {
        "name": model.name,
        "input_price": model.input_price,
        "output_price": model.output_price,
        "price_row": model.price_id,
        "draining": model.draining,
    } | properties_view(model)


def properties_view(model: Model | ModelSpec) -> dict[str, Any]:
    """Return the limits and capabilities of a model, which are all but its prices."""
    return {
        "max_output_tokens": model.max_output_tokens,
        "context_length": model.context_length,
        "capabilities": sorted(model.capabilities),
    }


def policy_view(pool: str, snapshot: Snapshot, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the policy of a pool as the HTTP API shows it.

    Parameters
    ----------
    pool : str
        The pool's name.
    snapshot : Snapshot
        The snapshot that the pool decides from.
    state : mapping
        The status of the learner's fold, see `LearnerLink.status`.
    """
    identity = snapshot.policy_identity
    return {
        "pool": pool,
        "name": identity.policy,
        "params": identity.params,
        **state,
        "tau_cost": identity.tau_cost_usd,
        "tau_latency_ms": identity.tau_latency_ms,
        "embedder": identity.embedder,
        "serving_version": snapshot.version,
        "prior": digest(identity.prior) or None,
    }


def budget_view(budget: Budget, sums: BudgetSums, *, now_us: int) -> dict[str, Any]:
    """Return a budget and its sums as the HTTP API shows them, money in US dollars.

    Parameters
    ----------
    budget : Budget
        The budget.
    sums : BudgetSums
        The sums of its current window.
    now_us : int
        The time.
    """
    reset_us = resets_at_us(budget, sums, now_us)
    money = {
        f"{name}_usd": getattr(sums, f"{name}_nano") / NANO
        for name in ("cap", "settled", "reserved", "expired", "leased", "lost", "free", "overruns")
    }
    ceiling_nano, rate_nano = budget.request_ceiling_nano, budget.rate_nano
    return {
        "name": budget.name,
        "pool": budget.pool,
        "window": budget.period,
        "rolling_s": budget.rolling_s,
        "tag": budget.scope_tag,
        "value": budget.scope_value,
        "request_ceiling_usd": None if ceiling_nano is None else ceiling_nano / NANO,
        "pacing": budget.pacing,
        "expected_requests": budget.expected_requests,
        "rate_usd": None if rate_nano is None else rate_nano / NANO,
        "quality_floor": budget.quality_floor,
        **money,
        "requests": sums.requests,
        "resets_at": None if reset_us is None else iso(reset_us),
    }


def resets_at_us(budget: Budget, sums: BudgetSums, now_us: int) -> int | None:
    """Return when a budget has more money without any settlement; None if it never has.

    A rolling window frees what its oldest decision cost, other windows start anew.
    """
    if budget.period == ROLLING:
        return None if sums.oldest_us is None else sums.oldest_us + budget.span_us
    return budget.resets_at_us(now_us)


def route_views(
    decided: Decisions, columns: Mapping[str, Sequence[Any]], *, expires_at_us: int
) -> list[dict[str, Any]]:
    """Return the answer to each request that has a model, in order.

    Parameters
    ----------
    decided : Decisions
        All decisions of a pool's requests.
    columns : mapping of str to sequence
        From `decision_row.encode`: the columns of those that chose a model.
    expires_at_us : int
        From this time on feedback is late.

    Returns
    -------
    list of dict
        An answer for each row of `columns`.
    """
    snapshot, expires_at = decided.scored.columns.snapshot, iso(expires_at_us)
    fallbacks_of_rows = (
        names for k, names in zip(decided.chosen, decided.fallbacks(), strict=True) if k >= 0
    )
    rows = zip(
        columns["id"],
        columns["model"],
        fallbacks_of_rows,
        columns["propensity"],
        columns["max_output_tokens"],
        columns["reserved_nano"],
        strict=True,
    )
    return [
        {
            "decision_id": decision_id,
            "model": model,
            "fallbacks": fallbacks,
            "propensity": propensity,
            "max_output_tokens": max_output_tokens,
            "policy": snapshot.policy_identity.id,
            "policy_version": snapshot.version,
            "reserved_cost_usd": reserved_nano / NANO,
            "expires_at": expires_at,
        }
        for decision_id, model, fallbacks, propensity, max_output_tokens, reserved_nano in rows
    ]


def decision_view(row: Mapping[str, Any], history: Mapping[str, Any]) -> dict[str, Any]:
    """Return why a decision was taken, and the feedback on it.

    Parameters
    ----------
    row : mapping
        The decision's row by column name.
    history : mapping
        The feedback that was sent on it and what was learned from that, by kind.
    """
    shown = {name: value for name, value in row.items() if name not in _BINARY}
    for name in ("created_at", "expires_at", "cancelled_at"):
        shown[name] = None if shown[name] is None else iso(shown[name])
    shown["tags"] = from_json(row["tags"]) if row["tags"] else None
    shown["models"] = decode(row).explain()
    return {**shown, **history}


def outcome_view(outcome: FeedbackResult) -> dict[str, Any]:
    """Return the status of a piece of feedback; of a session also how many decisions it rated."""
    count = {} if outcome.decisions is None else {"decisions": outcome.decisions}
    return {"status": outcome.status} | count


def result_view(request: FeedbackRequest, outcome: FeedbackResult) -> dict[str, Any]:
    """Return the status of a row of a batch of feedback, and the ids that it was sent with."""
    subject: dict[str, Any]
    if request.session_id:
        subject = {"session_id": request.session_id}
    else:
        subject = {"decision_id": request.decision_id}
    key = request.key or request.source or "default"
    return {**subject, "key": key, **outcome_view(outcome)}


def fault_view(fault: RouterFault) -> dict[str, Any]:
    """Return a fault as the HTTP API shows it, alone or in the place of a decision."""
    return error_body(
        fault.message, type=fault.type, param=fault.param, code=fault.code, **fault.detail
    )


_BINARY = {
    "features",
    "score_names",
    "scores",
    "estimates",
    "terms",
    "verdict",
    "arms",
    "prices",
}
"""Columns of a decision whose content is the field ``models`` of its view."""


def error_body(
    message: str, *, type: str, code: str, param: str | None = None, **detail: Any
) -> dict[str, Any]:
    """Return the body of an error in the shape of the OpenAI API.

    Parameters
    ----------
    message : str
        One sentence for a person.
    type, code : str
        See `RouterFault`.
    param : str or None
        The field that is wrong.
    **detail : Any
        More keys of the error.
    """
    return {"error": {"message": message, "type": type, "param": param, "code": code, **detail}}

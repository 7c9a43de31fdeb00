"""Answers of the HTTP API about models, budgets and faults, from values of the daemon."""

from __future__ import annotations

from typing import Any

from banditroute.core.budget import ROLLING, Budget
from banditroute.core.clock import iso
from banditroute.core.errors import RouterFault
from banditroute.core.pool import NANO, Model, ModelSpec
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
    """Return what a model can do, its price left out."""
    return {
        "max_output_tokens": model.max_output_tokens,
        "context_length": model.context_length,
        "capabilities": sorted(model.capabilities),
    }


def budget_view(budget: Budget, sums: BudgetSums, *, now: int) -> dict[str, Any]:
    """Return a budget and its sums as the HTTP API shows them, money in US dollars."""
    resets = resets_at(budget, sums, now)
    money = {
        f"{name}_usd": getattr(sums, name) / NANO
        for name in ("cap", "settled", "reserved", "expired", "leased", "lost", "free", "overruns")
    }
    ceiling, rate = budget.request_ceiling_nano, budget.rate_nano
    return {
        "name": budget.name,
        "pool": budget.pool,
        "window": budget.period,
        "rolling_s": budget.rolling_s,
        "tag": budget.scope_tag,
        "value": budget.scope_value,
        "request_ceiling_usd": None if ceiling is None else ceiling / NANO,
        "pacing": budget.pacing,
        "expected_requests": budget.expected_requests,
        "rate_usd": None if rate is None else rate / NANO,
        "quality_floor": budget.quality_floor,
        **money,
        "requests": sums.requests,
        "resets_at": None if resets is None else iso(resets),
    }


def resets_at(budget: Budget, sums: BudgetSums, now: int) -> int | None:
    """Return when money comes back by itself, microseconds UTC; None: it never does."""
    if budget.period == ROLLING:
        return None if sums.oldest is None else sums.oldest + budget.span_us
    return budget.resets_at_us(now)


def fault_view(fault: RouterFault) -> dict[str, Any]:
    """Return a fault as the HTTP API shows it, alone or in the place of a decision."""
    return error_body(
        fault.message, type=fault.type, param=fault.param, code=fault.code, **fault.detail
    )


def error_body(
    message: str, *, type: str, code: str, param: str | None = None, **detail: Any
) -> dict[str, Any]:
    """Return the body of an error in the OpenAI shape, and the detail if any."""
    return {"error": {"message": message, "type": type, "param": param, "code": code, **detail}}

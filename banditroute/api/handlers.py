"""What each endpoint does: a parsed body in, the content of an answer out.

A handler calls the service and nothing else. It never parses, and knows a status only where one
endpoint has several.
"""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from banditroute.api.answers import json_answer
from banditroute.contract import schemas
from banditroute.core.errors import (
    Conflict,
    InvalidValue,
    NotReady,
    RouterFault,
    UnknownDecision,
    UnknownSession,
)
from banditroute.service import onboarding
from banditroute.service.service import Service
from banditroute.service.views import decision_view, outcome_view, result_view

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


async def route(request: Request, service: Service, body: schemas.RouteRequest) -> bytes:
    """POST /v1/route."""
    return await service.route([body], **_ids(request))


async def route_batch(request: Request, service: Service, body: schemas.RouteBatch) -> bytes:
    """POST /v1/route/batch."""
    return await service.route(body.requests, batch=True, **_ids(request))


async def feedback(request: Request, service: Service, body: schemas.FeedbackRequest) -> Any:
    """POST /v1/feedback."""
    (outcome,) = await service.feedback([body])
    if outcome.status == "unknown":
        field = outcome.param or "decision_id"
        if field == "session_id":
            raise UnknownSession(getattr(body, field))
        raise UnknownDecision(getattr(body, field), param=field)
    if outcome.status == "conflict":
        raise Conflict("other feedback was sent under the same key", param=outcome.param)
    return json_answer(outcome_view(outcome), 202 if outcome.status == "late" else 200)


async def feedback_batch(request: Request, service: Service, body: schemas.FeedbackBatch) -> Any:
    """POST /v1/feedback/batch."""
    try:
        outcomes = await service.feedback(body.feedback)
    except RouterFault as fault:
        if fault.row is not None:
            fault.param = f"feedback[{fault.row}].{fault.param}"
        raise
    return {"results": list(map(result_view, body.feedback, outcomes))}


async def decision(request: Request, service: Service) -> Any:
    """GET /v1/decisions/{id}."""
    decision_id, row = request.path_params["id"], None
    if decision_id.isalnum():  # PostgreSQL will not even look for a NUL
        row = await run_in_threadpool(service.pools.log.decision, decision_id)
    if row is None:
        raise UnknownDecision(decision_id)
    return decision_view(row, await run_in_threadpool(service.pools.log.history_of, row))


async def cancel(request: Request, service: Service) -> Any:
    """POST /v1/decisions/{id}/cancel."""
    decision_id = request.path_params["id"]
    status = await service.budgets.cancel(decision_id) if decision_id.isalnum() else "unknown"
    if status == "unknown":
        raise UnknownDecision(decision_id)
    if status == "conflict":
        raise Conflict("feedback says that it was used", param="id")
    return {"status": status}


async def models(request: Request, service: Service) -> Any:
    """GET /v1/models."""
    return {"data": await service.pools.models(_pool(request))}


async def add_model(request: Request, service: Service, body: schemas.NewModel) -> Any:
    """POST /v1/models."""
    return await onboarding.add_model(service.pools, body)


async def change_model(request: Request, service: Service, body: schemas.ModelChange) -> Any:
    """PATCH /v1/models/{name}."""
    return await service.pools.change_model(_pool(request), _name(request), body)


async def drain_model(request: Request, service: Service) -> Any:
    """DELETE /v1/models/{name}."""
    return await service.pools.drain_model(_pool(request), _name(request))


async def budgets(request: Request, service: Service) -> Any:
    """GET /v1/budgets."""
    return {"data": await service.budgets.list(_pool(request))}


async def add_budget(request: Request, service: Service, body: schemas.NewBudget) -> Any:
    """POST /v1/budgets."""
    return await service.budgets.add(body)


async def budget(request: Request, service: Service) -> Any:
    """GET /v1/budgets/{name}."""
    return await service.budgets.show(_pool(request), _name(request))


async def change_budget(request: Request, service: Service, body: schemas.BudgetChange) -> Any:
    """PATCH /v1/budgets/{name}."""
    return await service.budgets.change(_pool(request), _name(request), body)


async def drop_budget(request: Request, service: Service) -> Any:
    """DELETE /v1/budgets/{name}."""
    return await service.budgets.drop(_pool(request), _name(request))


async def policy(request: Request, service: Service) -> Any:
    """GET /v1/policy."""
    return await service.policy(_pool(request))


async def health(request: Request, service: Service) -> Any:
    """GET /healthz: the process answers; it asks for nothing that a restart would not mend."""
    return {"status": "ok"}


async def ready(request: Request, service: Service) -> Any:
    """GET /readyz: whether decisions can be made and feedback be stored."""
    missing = service.missing()
    if missing:
        raise NotReady("; ".join(missing))
    return {"status": "ready"}


async def metrics(request: Request, service: Service) -> Response:
    """GET /metrics."""
    return Response(service.metrics.render(), media_type=PROMETHEUS)


def _pool(request: Request) -> str:
    return request.query_params.get("pool", "default")


def _name(request: Request) -> str:
    return str(request.path_params["name"])


def _ids(request: Request) -> dict[str, Any]:
    """Return the id of a request and its idempotency key, as `Service.route` takes them."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= 255:
        raise InvalidValue("1 to 255 characters are expected", param="Idempotency-Key")
    return {"request_id": request.scope["request_id"], "idempotency_key": key}

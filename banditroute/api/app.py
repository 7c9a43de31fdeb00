"""The HTTP routes, thin: bytes in, `Service`, bytes out. Hot routes do nothing else."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic_core import from_json, to_json
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from banditroute.api import openapi
from banditroute.api.errors import HANDLERS
from banditroute.contract import schemas
from banditroute.contract.body import parse
from banditroute.core.clock import iso, new_id, now_us
from banditroute.core.errors import (
    Conflict,
    InvalidValue,
    NotReady,
    RouterFault,
    TooLarge,
    UnknownDecision,
    UnknownSession,
)
from banditroute.service import onboarding
from banditroute.service.service import Service
from banditroute.store.decision_row import decode
from banditroute.store.feedback import Became

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def create_app(make_service: Callable[[], Service]) -> Starlette:
    """Return the application; its service is made and started with the app's lifespan."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service = app.state.service = make_service()
        try:
            await service.start()
            yield
        finally:
            await service.stop()

    app = Starlette(
        routes=[
            Route("/v1/route", route, methods=["POST"]),
            Route("/v1/route/batch", route_batch, methods=["POST"]),
            Route("/v1/feedback", feedback, methods=["POST"]),
            Route("/v1/feedback/batch", feedback_batch, methods=["POST"]),
            Route("/v1/decisions/{id}", decision),
            Route("/v1/models", models),
            Route("/v1/models", add_model, methods=["POST"]),
            Route("/v1/models/{name:path}", change_model, methods=["PATCH"]),
            Route("/v1/models/{name:path}", drain_model, methods=["DELETE"]),
            Route("/v1/decisions/{id}/cancel", cancel, methods=["POST"]),
            Route("/v1/budgets", budgets),
            Route("/v1/budgets", add_budget, methods=["POST"]),
            Route("/v1/budgets/{name:path}", budget),
            Route("/v1/budgets/{name:path}", change_budget, methods=["PATCH"]),
            Route("/v1/budgets/{name:path}", drop_budget, methods=["DELETE"]),
            Route("/v1/policy", policy),
            Route("/healthz", health),
            Route("/readyz", ready),
            Route("/metrics", metrics),
            Route("/openapi.json", openapi_document),
            Route("/docs", docs),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.add_middleware(_Envelope)
    return app


async def route(request: Request) -> Response:
    """POST /v1/route"""
    service = _service(request)
    asked = parse(schemas.RouteRequest, await _body(request, service.settings.max_body_bytes))
    answer = await service.route(
        [asked],
        request_id=request.scope["request_id"],
        idempotency_key=_idempotency_key(request),
    )
    return _json(answer)


async def route_batch(request: Request) -> Response:
    """POST /v1/route/batch"""
    service = _service(request)
    body = await _body(request, service.settings.max_batch_body_bytes)
    asked = parse(schemas.RouteBatch, body).requests
    limit = service.settings.max_body_bytes
    _check_texts("requests", asked, body, limit)
    answer = await service.route(
        asked,
        batch=True,
        request_id=request.scope["request_id"],
        idempotency_key=_idempotency_key(request),
    )
    return _json(answer)


async def feedback(request: Request) -> Response:
    """POST /v1/feedback"""
    service = _service(request)
    body = await _body(request, service.settings.max_body_bytes)
    sent = parse(schemas.FeedbackRequest, body)
    (became,) = await service.feedback([sent])
    status, param, _ = became
    if status == "unknown":
        field = param or "decision_id"
        if field == "session_id":
            raise UnknownSession(getattr(sent, field))
        raise UnknownDecision(getattr(sent, field), param=field)
    if status == "conflict":
        raise Conflict("other feedback was sent under the same key", param=param)
    return _json(_outcome(became), status=202 if status == "late" else 200)


async def feedback_batch(request: Request) -> Response:
    """POST /v1/feedback/batch"""
    service = _service(request)
    body = await _body(request, service.settings.max_batch_body_bytes)
    sent = parse(schemas.FeedbackBatch, body).feedback
    try:
        statuses = await service.feedback(sent)
    except RouterFault as fault:
        if fault.row is not None:
            fault.param = f"feedback[{fault.row}].{fault.param}"
        raise
    results = [
        {
            **(
                {"session_id": one.session_id}
                if one.session_id
                else {"decision_id": one.decision_id}
            ),
            "key": one.key or one.source or "default",
            **_outcome(became),
        }
        for one, became in zip(sent, statuses, strict=True)
    ]
    return _json({"results": results})


def _outcome(became: Became) -> dict[str, Any]:
    told: dict[str, Any] = {"status": became.status}
    return told if became.decisions is None else told | {"decisions": became.decisions}


async def decision(request: Request) -> Response:
    """GET /v1/decisions/{id}"""
    service, wanted = _service(request), request.path_params["id"]
    row = None
    if wanted.isalnum():  # PostgreSQL will not even look for a NUL
        row = await run_in_threadpool(service.registry.log.decision, wanted)
    if row is None:
        raise UnknownDecision(wanted)
    sent = await run_in_threadpool(service.registry.log.said, row)
    hidden = {"features", "scores", "estimates", "terms", "verdict", "arms", "prices"}
    shown = {name: value for name, value in row.items() if name not in hidden | {"score_names"}}
    for name in ("created_at", "expires_at", "cancelled_at"):
        shown[name] = None if shown[name] is None else iso(shown[name])
    shown["tags"] = from_json(row["tags"]) if row["tags"] else None
    shown["models"] = decode(row).explain()
    return _json(shown | sent)


async def models(request: Request) -> Response:
    """GET /v1/models"""
    return _json({"data": await _service(request).registry.models(_pool(request))})


async def add_model(request: Request) -> Response:
    """POST /v1/models"""
    service = _service(request)
    limit = service.settings.max_body_bytes
    body = await _body(request, service.settings.max_batch_body_bytes)
    new = parse(schemas.NewModel, body)
    _check_texts("scored", new.scored or [], body, limit)
    return _json(await onboarding.add_model(service.registry, new), 201)


async def change_model(request: Request) -> Response:
    """PATCH /v1/models/{name}"""
    service = _service(request)
    body = await _body(request, service.settings.max_body_bytes)
    change = parse(schemas.ModelChange, body)
    name = request.path_params["name"]
    return _json(await service.registry.change_model(_pool(request), name, change))


async def drain_model(request: Request) -> Response:
    """DELETE /v1/models/{name}"""
    name = request.path_params["name"]
    return _json(await _service(request).registry.drain_model(_pool(request), name))


async def cancel(request: Request) -> Response:
    """POST /v1/decisions/{id}/cancel"""
    wanted = request.path_params["id"]
    status = await _service(request).budgeting.cancel(wanted) if wanted.isalnum() else "unknown"
    if status == "unknown":
        raise UnknownDecision(wanted)
    if status == "conflict":
        raise Conflict("feedback says that it was used", param="id")
    return _json({"status": status})


async def budgets(request: Request) -> Response:
    """GET /v1/budgets"""
    return _json({"data": await _service(request).budgeting.list(_pool(request))})


async def add_budget(request: Request) -> Response:
    """POST /v1/budgets"""
    service = _service(request)
    body = await _body(request, service.settings.max_body_bytes)
    return _json(await service.budgeting.add(parse(schemas.NewBudget, body)), 201)


async def budget(request: Request) -> Response:
    """GET /v1/budgets/{name}"""
    name = request.path_params["name"]
    return _json(await _service(request).budgeting.show(_pool(request), name))


async def change_budget(request: Request) -> Response:
    """PATCH /v1/budgets/{name}"""
    service, name = _service(request), request.path_params["name"]
    body = await _body(request, service.settings.max_body_bytes)
    change = parse(schemas.BudgetChange, body)
    return _json(await service.budgeting.change(_pool(request), name, change))


async def drop_budget(request: Request) -> Response:
    """DELETE /v1/budgets/{name}"""
    name = request.path_params["name"]
    return _json(await _service(request).budgeting.drop(_pool(request), name))


async def policy(request: Request) -> Response:
    """GET /v1/policy"""
    return _json(await _service(request).registry.policy(_pool(request)))


async def health(request: Request) -> Response:
    """GET /healthz: the process answers; nothing that a restart would not mend."""
    return _json({"status": "ok"})


async def ready(request: Request) -> Response:
    """GET /readyz: whether decisions can be made and feedback be stored."""
    missing = _service(request).missing()
    if missing:
        raise NotReady("; ".join(missing))
    return _json({"status": "ready"})


async def metrics(request: Request) -> Response:
    """GET /metrics"""
    return Response(_service(request).metrics.render(), media_type=PROMETHEUS)


async def openapi_document(request: Request) -> Response:
    """GET /openapi.json"""
    return _json(openapi.document())


async def docs(request: Request) -> Response:
    """GET /docs"""
    return HTMLResponse(openapi.page())


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _pool(request: Request) -> str:
    return request.query_params.get("pool", "default")


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= 255:
        raise InvalidValue("1 to 255 characters are expected", param="Idempotency-Key")
    return key


async def _body(request: Request, limit: int) -> bytes:
    """Return the body; one larger than `limit` bytes is refused without reading all of it."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large("body", limit)
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise _too_large("body", limit)
    return b"".join(chunks)


def _check_texts(
    name: str,
    rows: Sequence[schemas.RouteRequest | schemas.ScoredPrompt],
    body: bytes,
    limit: int,
) -> None:
    """Refuse a prompt of many that alone would be too large."""
    if len(body) > limit:
        for i, one in enumerate(rows):
            if len((one.text() or "").encode()) >= limit:
                raise _too_large(f"{name}[{i}].prompt", limit)


def _too_large(param: str, limit: int) -> TooLarge:
    return TooLarge(f"{param}: over {limit:,} bytes", param=param)


def _json(content: Any, status: int = 200) -> Response:
    body = content if isinstance(content, bytes) else to_json(content)
    return Response(body, status_code=status, media_type="application/json")


class _Envelope:
    """Gives every request an id, in and out, and counts the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = next((v for k, v in scope["headers"] if k == b"x-request-id"), b"")[:200]
        sent = sent.replace(b"\0", b"")  # which no PostgreSQL keeps, and no server lets through
        request_id = sent or new_id(now_us()).encode()
        scope["request_id"] = request_id.decode("latin-1")
        began = time.perf_counter()

        async def reply(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-request-id", request_id))
                endpoint = scope.get("endpoint")
                scope["app"].state.service.metrics.answered(
                    getattr(endpoint, "__name__", "none"),
                    message["status"],
                    time.perf_counter() - began,
                )
            await send(message)

        await self.app(scope, receive, reply)

"""Errors as HTTP answers: the one place that knows the status of a fault."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from banditroute.api.answers import json_answer
from banditroute.core.errors import (
    BudgetExceeded,
    Conflict,
    InvalidRequest,
    NoEligibleModel,
    NotFound,
    RouterFault,
    TooLarge,
    Unavailable,
)
from banditroute.service.views import error_body, fault_view

STATUSES: Mapping[type[RouterFault], int] = {
    InvalidRequest: 400,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    NoEligibleModel: 422,
    BudgetExceeded: 429,
    Unavailable: 503,
}
"""HTTP status by class of fault; a class that is not listed has the status of its base."""


def status_of(fault: RouterFault) -> int:
    """Return the HTTP status of a fault."""
    return next(STATUSES[kind] for kind in type(fault).__mro__ if kind in STATUSES)


async def on_fault(request: Request, error: Exception) -> Response:
    """Answer a fault that a handler raised."""
    assert isinstance(error, RouterFault)
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    return json_answer(fault_view(error), status_of(error), headers)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer a path or a method that no route has."""
    assert isinstance(error, HTTPException)
    status, headers = error.status_code, {}
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "http_error")
    if status == 405:
        routes = [r for r in request.app.routes if r.path_regex.match(request.url.path)]
        methods = sorted(set().union(*(r.methods for r in routes)))
        headers["allow"] = ", ".join(methods)
    family = NotFound.type if status == 404 else InvalidRequest.type
    return json_answer(error_body(error.detail, type=family, code=code), status, headers)


async def on_disconnect(request: Request, error: Exception) -> Response:
    """Answer a client that is gone, for the metrics alone."""
    return Response(status_code=499)


async def on_failure(request: Request, error: Exception) -> Response:
    """Answer a defect of the daemon; the server logs its traceback."""
    body = error_body("internal error; see the log", type=Unavailable.type, code="internal")
    return json_answer(body, 500, {"x-request-id": request.scope["request_id"]})


HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    RouterFault: on_fault,
    HTTPException: on_http_error,
    ClientDisconnect: on_disconnect,
    Exception: on_failure,
}
"""The handler of each class of exception, for `starlette.applications.Starlette`."""

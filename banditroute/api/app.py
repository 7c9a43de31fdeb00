"""The Starlette application: the endpoints, the answers to faults, and an id for every request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from banditroute.api import openapi
from banditroute.api.answers import json_answer
from banditroute.api.endpoints import ENDPOINTS
from banditroute.api.errors import HANDLERS
from banditroute.core.clock import new_id, now_us
from banditroute.service.service import Service


def create_app(make_service: Callable[[], Service]) -> Starlette:
    """Return the application; its service is made and started with the app's lifespan.

    Parameters
    ----------
    make_service : callable
        Returns a service that has not been started.

    Returns
    -------
    Starlette
        An ASGI application.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service = app.state.service = make_service()
        try:
            await service.start()
            yield
        finally:
            await service.stop()

    routes = [Route(one.path, one.bound(), methods=[one.method]) for one in ENDPOINTS]
    routes += [Route("/openapi.json", openapi_document), Route("/docs", docs)]
    app = Starlette(routes=routes, exception_handlers=HANDLERS, lifespan=lifespan)
    app.router.redirect_slashes = False
    app.add_middleware(_Envelope)
    return app


async def openapi_document(request: Request) -> Response:
    """GET /openapi.json."""
    return json_answer(openapi.document())


async def docs(request: Request) -> Response:
    """GET /docs."""
    return HTMLResponse(openapi.page())


class _Envelope:
    """Gives every request an id, in and out, and counts the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = next((v for k, v in scope["headers"] if k == b"x-request-id"), b"")[:200]
        sent = sent.replace(b"\0", b"")  # PostgreSQL cannot keep it, and no server lets it through
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

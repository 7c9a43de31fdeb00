"""The endpoints, one row each: the application and the OpenAPI document are made from this table.

To add one, write its body and its answer in `contract.schemas`, its handler in `handlers`, and its
row here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from banditroute.api import handlers
from banditroute.api.answers import json_answer
from banditroute.api.bodies import check_texts, read_body
from banditroute.contract import schemas
from banditroute.contract.body import parse
from banditroute.service.service import Service

_POOL = {
    "name": "pool",
    "in": "query",
    "schema": {"type": "string", "default": "default"},
}
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_ONCE = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key gets the same answer for 24 hours.",
    "schema": {"type": "string", "maxLength": 255},
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path.

    Parameters
    ----------
    method, path : str
        As Starlette has them; a name that may hold slashes is ``{name:path}``.
    handler : callable
        Takes the request, the service and, where there is one, the parsed body; returns the
        content of the answer, or an answer.
    summary : str
        What the document says of it.
    body, answer : type of BaseModel, optional
        The schemas of both.
    parameters : list of dict
        The other parameters, as OpenAPI has them.
    errors : tuple of int
        The statuses of its errors.
    successes : mapping of int to str
        The other statuses; the first is that of content which a handler returns.
    batch : bool
        Whether its body may be as large as a batch.
    texts : str
        The field of the body whose rows hold prompts; each must be small enough for a request.
    """

    method: str
    path: str
    handler: Callable[..., Awaitable[Any]]
    summary: str
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    parameters: tuple[Mapping[str, Any], ...] = ()
    errors: tuple[int, ...] = ()
    successes: Mapping[int, str] = field(default_factory=lambda: {200: "Success"})
    batch: bool = False
    texts: str = ""

    @property
    def operation(self) -> str:
        """The name of the operation: that of the handler in camel case."""
        first, *rest = self.handler.__name__.split("_")
        return first + "".join(word.capitalize() for word in rest)

    def bound(self) -> Callable[[Request], Awaitable[Response]]:
        """Return the function that Starlette calls; it has the handler's name, for the metrics."""
        handler, body, batch, texts = self.handler, self.body, self.batch, self.texts
        status = next(iter(self.successes))

        async def call(request: Request) -> Response:
            service: Service = request.app.state.service
            if body is None:
                content = await handler(request, service)
            else:
                settings = service.settings
                limit = settings.max_batch_body_bytes if batch else settings.max_body_bytes
                raw = await read_body(request, limit)
                parsed = parse(body, raw)
                if texts and len(raw) > settings.max_body_bytes:
                    check_texts(texts, getattr(parsed, texts) or (), settings.max_body_bytes)
                content = await handler(request, service, parsed)
            return content if isinstance(content, Response) else json_answer(content, status)

        call.__name__ = handler.__name__
        return call


ENDPOINTS = (
    Endpoint(
        "POST", "/v1/route", handlers.route, "Choose a model for a prompt",
        schemas.RouteRequest, schemas.RouteAnswer, (_ONCE,), (400, 404, 409, 413, 422, 429, 503),
    ),
    Endpoint(
        "POST", "/v1/route/batch", handlers.route_batch, "Choose for up to 1,024 prompts at once",
        schemas.RouteBatch, schemas.RouteBatchAnswer, (_ONCE,), (400, 404, 409, 413, 503),
        batch=True, texts="requests",
    ),
    Endpoint(
        "POST", "/v1/feedback", handlers.feedback,
        "Report feedback on an answer, a pair of answers, or a session",
        schemas.FeedbackRequest, schemas.FeedbackAnswer, (), (400, 404, 409, 413, 503),
        successes={200: "Stored", 202: "Late: stored, settles money, is not learned"},
    ),
    Endpoint(
        "POST", "/v1/feedback/batch", handlers.feedback_batch, "Report up to 1,024 at once",
        schemas.FeedbackBatch, schemas.FeedbackBatchAnswer, (), (400, 404, 413, 503), batch=True,
    ),
    Endpoint(
        "GET", "/v1/decisions/{id}", handlers.decision, "Explain a decision",
        parameters=(_ID,), errors=(404,),
    ),
    Endpoint(
        "GET", "/v1/models", handlers.models, "List the models of a pool",
        None, schemas.ModelList, (_POOL,), (404,),
    ),
    Endpoint(
        "POST", "/v1/models", handlers.add_model, "Add a model; a missing pool is made",
        schemas.NewModel, schemas.AddedModel, (), (400, 409, 413, 503),
        successes={201: "Added"}, batch=True, texts="scored",
    ),
    Endpoint(
        "PATCH", "/v1/models/{name:path}", handlers.change_model,
        "Change a model; a price gets a new dated row",
        schemas.ModelChange, schemas.ModelAnswer, (_NAME, _POOL), (400, 404, 413, 503),
    ),
    Endpoint(
        "DELETE", "/v1/models/{name:path}", handlers.drain_model,
        "Stop choosing a model; what it taught stays",
        None, schemas.ModelAnswer, (_NAME, _POOL), (404, 503),
    ),
    Endpoint(
        "POST", "/v1/decisions/{id}/cancel", handlers.cancel,
        "Give back what an unused decision reserved",
        None, schemas.CancelAnswer, (_ID,), (404, 409, 503),
    ),
    Endpoint(
        "GET", "/v1/budgets", handlers.budgets, "List the budgets of a pool with what is spent",
        None, schemas.BudgetList, (_POOL,), (404,),
    ),
    Endpoint(
        "POST", "/v1/budgets", handlers.add_budget, "Make a budget",
        schemas.NewBudget, schemas.BudgetAnswer, (), (400, 404, 409, 413, 503),
        successes={201: "Made"},
    ),
    Endpoint(
        "GET", "/v1/budgets/{name:path}", handlers.budget, "Show a budget with what is spent",
        None, schemas.BudgetAnswer, (_NAME, _POOL), (404,),
    ),
    Endpoint(
        "PATCH", "/v1/budgets/{name:path}", handlers.change_budget,
        "Change a budget, or top it up",
        schemas.BudgetChange, schemas.BudgetAnswer, (_NAME, _POOL), (400, 404, 409, 413, 503),
    ),
    Endpoint(
        "DELETE", "/v1/budgets/{name:path}", handlers.drop_budget,
        "Drop a budget and its ledger",
        None, schemas.BudgetAnswer, (_NAME, _POOL), (404, 503),
    ),
    Endpoint(
        "GET", "/v1/policy", handlers.policy, "Name, version and state digest of a pool's policy",
        parameters=(_POOL,), errors=(404, 422, 503),
    ),
    Endpoint("GET", "/healthz", handlers.health, "The process answers"),
    Endpoint("GET", "/readyz", handlers.ready, "Decisions can be made", errors=(503,)),
    Endpoint("GET", "/metrics", handlers.metrics, "Prometheus metrics"),
)  # fmt: skip

"""The OpenAPI document of all routes, and a page that shows it without fetching anything."""

from __future__ import annotations

import html
import json
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from banditroute import __version__
from banditroute.contract import schemas

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

# (method, path, operation id, summary, body, answer, parameters, errors)
_ROUTES: list[
    tuple[str, str, str, str, type[BaseModel] | None, type[BaseModel] | None, list[Any], list[int]]
] = [
    ("post", "/v1/route", "route", "Choose a model for a prompt",
     schemas.RouteRequest, schemas.RouteAnswer, [_ONCE], [400, 404, 409, 413, 422, 429, 503]),
    ("post", "/v1/route/batch", "routeBatch", "Choose for up to 1,024 prompts at once",
     schemas.RouteBatch, schemas.RouteBatchAnswer, [_ONCE], [400, 404, 409, 413, 503]),
    ("post", "/v1/feedback", "feedback", "Say how an answer, one of two, or a session was",
     schemas.FeedbackRequest, schemas.FeedbackAnswer, [], [400, 404, 409, 413, 503]),
    ("post", "/v1/feedback/batch", "feedbackBatch", "The same, up to 1,024 at once",
     schemas.FeedbackBatch, schemas.FeedbackBatchAnswer, [], [400, 404, 413, 503]),
    ("get", "/v1/decisions/{id}", "decision", "Why this model?", None, None, [_ID], [404]),
    ("get", "/v1/models", "models", "List the models of a pool",
     None, schemas.ModelList, [_POOL], [404]),
    ("post", "/v1/models", "addModel", "Add a model; a missing pool is made",
     schemas.NewModel, schemas.AddedModel, [], [400, 409, 413, 503]),
    ("patch", "/v1/models/{name}", "changeModel", "Change a model; a price gets a new dated row",
     schemas.ModelChange, schemas.ModelAnswer, [_NAME, _POOL], [400, 404, 413, 503]),
    ("delete", "/v1/models/{name}", "drainModel", "Choose a model no more",
     None, schemas.ModelAnswer, [_NAME, _POOL], [404, 503]),
    ("post", "/v1/decisions/{id}/cancel", "cancel", "Give back what an unused decision reserved",
     None, schemas.CancelAnswer, [_ID], [404, 409, 503]),
    ("get", "/v1/budgets", "budgets", "List the budgets of a pool with what is spent",
     None, schemas.BudgetList, [_POOL], [404]),
    ("post", "/v1/budgets", "addBudget", "Make a budget",
     schemas.NewBudget, schemas.BudgetAnswer, [], [400, 404, 409, 413, 503]),
    ("get", "/v1/budgets/{name}", "budget", "One budget with what is spent",
     None, schemas.BudgetAnswer, [_NAME, _POOL], [404]),
    ("patch", "/v1/budgets/{name}", "changeBudget", "Change a budget, or top it up",
     schemas.BudgetChange, schemas.BudgetAnswer, [_NAME, _POOL], [400, 404, 409, 413, 503]),
    ("delete", "/v1/budgets/{name}", "dropBudget", "Drop a budget and its ledger",
     None, schemas.BudgetAnswer, [_NAME, _POOL], [404, 503]),
    ("get", "/v1/policy", "policy", "Name, version and state digest of a pool's policy",
     None, None, [_POOL], [404, 422, 503]),
    ("get", "/healthz", "health", "The process answers", None, None, [], []),
    ("get", "/readyz", "ready", "Decisions can be made", None, None, [], [503]),
    ("get", "/metrics", "metrics", "Prometheus metrics", None, None, [], []),
]  # fmt: skip

_SUCCESSES = {
    "addModel": {"201": "Added"},
    "addBudget": {"201": "Made"},
    "feedback": {"200": "Stored", "202": "Late: stored, settles money, is not learned"},
}


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    kinds: set[type[BaseModel]] = {schemas.ErrorAnswer}
    for row in _ROUTES:
        kinds |= {kind for kind in (row[4], row[5]) if kind is not None}
    _, found = models_json_schema(
        [(kind, "validation") for kind in sorted(kinds, key=lambda kind: kind.__name__)],
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for method, path, name, summary, body, answer, parameters, errors in _ROUTES:
        successes = _SUCCESSES.get(name, {"200": "Success"})
        responses: dict[str, Any] = {
            status: {"description": what} | _content(answer) for status, what in successes.items()
        }
        for status in errors:
            responses[str(status)] = {"description": "Error", **_content(schemas.ErrorAnswer)}
        operation: dict[str, Any] = {"operationId": name, "summary": summary}
        if parameters:
            operation["parameters"] = parameters
        if body is not None:
            operation["requestBody"] = {"required": True, **_content(body)}
        paths.setdefault(path, {})[method] = operation | {"responses": responses}
    return {
        "openapi": "3.1.0",
        "info": {"title": "banditroute", "version": __version__},
        "paths": paths,
        "components": {"schemas": found["$defs"]},
    }


def _content(kind: type[BaseModel] | None) -> dict[str, Any]:
    if kind is None:
        return {}
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"content": {"application/json": {"schema": schema}}}


@cache
def page() -> str:
    """Return /docs: every route with its fields, as one page without scripts."""
    shown = document()
    sections = [
        _section(method, path, operation, shown["components"]["schemas"])
        for path, operations in shown["paths"].items()
        for method, operation in operations.items()
    ]
    return _PAGE.replace("{version}", __version__).replace("{sections}", "\n".join(sections))


def _section(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    rows = [
        (parameter["name"], parameter["in"], _kind(parameter["schema"]), parameter.get("required"))
        for parameter in operation.get("parameters", [])
    ]
    body = operation.get("requestBody")
    note = ""
    if body:
        name = body["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[-1]
        schema = schemas[name]
        note = html.escape(schema.get("description", ""))
        required = schema.get("required", [])
        rows += [
            (field, "body", _kind(spec), field in required)
            for field, spec in schema["properties"].items()
        ]
    table = "".join(
        f"<tr><td><code>{html.escape(field)}</code></td><td>{where}</td>"
        f"<td>{html.escape(kind)}</td><td>{'required' if required else ''}</td></tr>"
        for field, where, kind, required in rows
    )
    listing = f"<table>{table}</table>" if rows else ""
    statuses = ", ".join(operation["responses"])
    return (
        f'<section><h2><b class="{method}">{method.upper()}</b> <code>{html.escape(path)}</code>'
        f"</h2><p><strong>{html.escape(operation['summary'])}</strong></p><p>{note}</p>{listing}"
        f"<p class=statuses>Answers: {statuses}</p></section>"
    )


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        kinds = [_kind(option) for option in schema["anyOf"]]
        return " | ".join(kind for kind in kinds if kind != "null")
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    limits = {"minimum": "≥ ", "maximum": "≤ ", "exclusiveMinimum": "> "}
    bounds = [sign + f"{schema[key]:g}" for key, sign in limits.items() if key in schema]
    default = [f"default {json.dumps(schema['default'])}"] if schema.get("default") else []
    return ", ".join([str(schema.get("type", "object")), *bounds, *default])


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>banditroute API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;
     color:#1b1f24;background:#fff}
h2{font-size:1.1rem;margin:0 0 .3rem}section{border-top:1px solid #d0d7de;padding:1.2rem 0}
table{table-layout:fixed}td:nth-child(1){width:32%}td:nth-child(2){width:12%}
td:nth-child(4){width:14%;color:#57606a}b{display:inline-block;min-width:4.2rem;text-align:center;border-radius:4px;color:#fff;
  font-size:.8rem;padding:.1rem .4rem;background:#57606a}
b.post{background:#0b6b3a}b.get{background:#0a58ca}b.patch{background:#8a5a00}
b.delete{background:#a4262c}table{border-collapse:collapse;width:100%}
td{padding:.2rem .8rem .2rem 0;border-top:1px solid #eaeef2;vertical-align:top}
p{margin:.3rem 0}.statuses{color:#57606a;font-size:.9rem}
</style></head><body>
<h1>banditroute API {version}</h1>
<p>The machine-readable document is <a href="/openapi.json">/openapi.json</a>. Errors have the
shape <code>{"error": {"message", "type", "param", "code"}}</code>.</p>
{sections}
</body></html>"""

"""The OpenAPI document of all routes, and a page that shows it without fetching anything."""

from __future__ import annotations

import html
import json
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from banditroute import __version__
from banditroute.api.endpoints import ENDPOINTS, Endpoint
from banditroute.contract import schemas


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    kinds: set[type[BaseModel]] = {schemas.ErrorAnswer}
    for endpoint in ENDPOINTS:
        kinds |= {kind for kind in (endpoint.body, endpoint.answer) if kind is not None}
    _, found = models_json_schema(
        [(kind, "validation") for kind in sorted(kinds, key=lambda kind: kind.__name__)],
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        path = endpoint.path.replace(":path", "")
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "banditroute", "version": __version__},
        "paths": paths,
        "components": {"schemas": found["$defs"]},
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    answer = _content(endpoint.answer)
    responses: dict[str, Any] = {
        str(status): {"description": what} | answer for status, what in endpoint.successes.items()
    }
    for status in endpoint.errors:
        responses[str(status)] = {"description": "Error", **_content(schemas.ErrorAnswer)}
    operation: dict[str, Any] = {"operationId": endpoint.operation, "summary": endpoint.summary}
    if endpoint.parameters:
        operation["parameters"] = list(endpoint.parameters)
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, **_content(endpoint.body)}
    return operation | {"responses": responses}


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


def _section(method: str, path: str, operation: dict[str, Any], definitions: dict[str, Any]) -> str:
    rows = [
        (parameter["name"], parameter["in"], _kind(parameter["schema"]), parameter.get("required"))
        for parameter in operation.get("parameters", [])
    ]
    body = operation.get("requestBody")
    note = ""
    if body:
        name = body["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[-1]
        schema = definitions[name]
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

"""The document: whole, without dangling references, and true; the page: without the network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

from jsonschema import Draft202012Validator
from starlette.routing import Route
from support.served_daemon import Served

from banditroute.api.openapi import document, page

UNDOCUMENTED = {"/openapi.json", "/docs"}


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    ]


def test_it_is_openapi_3_1_and_json() -> None:
    found = json.loads(json.dumps(document(), allow_nan=False))
    assert found["openapi"] == "3.1.0" and found["info"]["title"] == "banditroute"
    assert found["info"]["version"] and found["paths"] and found["components"]["schemas"]


def test_every_reference_resolves_and_every_schema_is_used() -> None:
    found = list(references(document()))
    names = {ref.removeprefix("#/components/schemas/") for ref in found}
    assert all(ref.startswith("#/components/schemas/") for ref in found)
    assert names == set(document()["components"]["schemas"])


def test_every_route_is_documented(served: Served) -> None:
    real = {
        (method.lower(), route.path.replace(":path", ""))
        for route in served.client.app.routes
        if isinstance(route, Route) and route.path not in UNDOCUMENTED
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert {(method, path) for method, path, _ in operations()} == real


def test_operations_have_names_parameters_and_errors() -> None:
    found = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(found)) == len(found)
    for method, path, operation in operations():
        inside = re.findall(r"{(\w+)}", path)
        named = [p["name"] for p in operation.get("parameters", []) if p["in"] == "path"]
        assert named == inside
        assert operation["summary"]
        responses = operation["responses"]
        assert any(code.startswith("2") for code in responses)
        if "requestBody" in operation:
            assert {"400", "413", "503"} <= set(responses), (method, path)
        for code, response in responses.items():
            if not code.startswith("2"):
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}


def test_the_limits_of_fields_are_told() -> None:
    schemas = document()["components"]["schemas"]
    assert schemas["RouteBatch"]["properties"]["requests"]["maxItems"] == 1_024
    assert schemas["FeedbackBatch"]["properties"]["feedback"]["minItems"] == 1
    assert schemas["RouteRequest"]["additionalProperties"] is False
    assert schemas["NewModel"]["properties"]["scored"]["anyOf"][0]["maxItems"] == 1_024
    quality = schemas["FeedbackRequest"]["properties"]["quality"]["anyOf"][0]
    assert (quality["minimum"], quality["maximum"]) == (0, 1)
    assert schemas["FeedbackRequest"]["properties"]["pool"]["default"] == "default"


def test_the_three_shapes_of_feedback_are_told() -> None:
    shown = document()["components"]["schemas"]
    sent, result = shown["FeedbackRequest"], shown["FeedbackResult"]
    assert {"decision_id", "preferred_over", "session_id"} <= sent["properties"].keys()
    assert "`preferred_over`" in sent["description"] and "`session_id`" in sent["description"]
    assert result["required"] == ["key", "status"]
    assert "404" in document()["paths"]["/v1/feedback/batch"]["post"]["responses"]
    for field in ("preferred_over", "session_id"):
        assert f"<code>{field}</code>" in page()


def test_answers_are_what_the_document_says(served: Served) -> None:
    route = served.post("/v1/route", {"prompt": "x"})
    decision = route.json()["decision_id"]
    feedback = {"decision_id": decision, "quality": 1}
    served.post("/v1/route", {"prompt": "x", "session_id": "s"})
    session = {"session_id": "s", "quality": 1}
    scored = [{"prompt": "x", "quality": 1}]
    new = {"name": "new", "input_price": 1, "output_price": 1, "scored": scored}
    answers = {
        ("post", "/v1/route"): route,
        ("post", "/v1/route/batch"): served.post(
            "/v1/route/batch", {"requests": [{"prompt": "x"}, {"prompt": "x", "max_cost_usd": 0}]}
        ),
        ("post", "/v1/feedback"): served.post("/v1/feedback", session),
        ("post", "/v1/feedback/batch"): served.post(
            "/v1/feedback/batch", {"feedback": [feedback, session]}
        ),
        ("get", "/v1/models"): served.client.get("/v1/models"),
        ("post", "/v1/models"): served.post("/v1/models", new),
        ("patch", "/v1/models/{name}"): served.send("PATCH", "/v1/models/new", {"input_price": 2}),
        ("delete", "/v1/models/{name}"): served.client.delete("/v1/models/new"),
    }
    for method, path, operation in operations():
        if (answer := answers.get((method, path))) is None:
            continue
        response = operation["responses"][str(answer.status_code)]
        schema = response["content"]["application/json"]["schema"]
        whole = schema | {"components": document()["components"]}
        Draft202012Validator(whole).validate(answer.json())


def test_both_are_served(served: Served) -> None:
    assert served.get("/openapi.json") == document()
    answer = served.client.get("/docs")
    assert answer.text == page() and answer.headers["content-type"].startswith("text/html")


def test_the_page_fetches_nothing_and_shows_every_route() -> None:
    class Links(HTMLParser):
        found: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in {"script", "link", "img", "iframe"}
            self.found += [value or "" for name, value in attrs if name in {"href", "src"}]

    links = Links()
    links.feed(page())
    assert links.found == ["/openapi.json"]
    assert "//" not in re.sub(r"/\*.*?\*/", "", page())
    assert "url(" not in page() and "@import" not in page()
    for method, path, _ in operations():
        assert f"{method.upper()}</b> <code>{path}</code>" in page()

"""A daemon inside the test's process, on a database that the test can look into."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from sqlalchemy import Engine, select
from starlette.applications import Starlette

from banditroute.learn.learner import rebuild
from banditroute.serve.local import local_app
from banditroute.settings import Settings
from banditroute.store.engine import open_engine
from banditroute.store.log import Log
from banditroute.store.tables import metadata

TABLES = (
    "pools",
    "models",
    "prices",
    "decisions",
    "events",
    "feedback",
    "comparisons",
    "session_feedback",
    "idempotency_keys",
    "budgets",
    "leases",
    "reservations",
)
LEARNED_WITHIN_S = 60.0


class LocalClient:
    """A blocking client whose requests run in the event loop of `portal`, without sockets."""

    def __init__(self, app: Starlette, portal: BlockingPortal) -> None:
        self.app, self.portal = app, portal
        self._http, self._quiet = (
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app, raise_app_exceptions=loud),
                base_url="http://test",
            )
            for loud in (True, False)
        )

    def request(self, method: str, url: str, *, quiet: bool = False, **sent: Any) -> httpx.Response:
        """Send a request; with `quiet` an accident in the daemon is an answer, as on the wire."""
        http = self._quiet if quiet else self._http
        return self.portal.call(partial(http.request, method, url, **sent))

    def get(self, url: str, **sent: Any) -> httpx.Response:
        return self.request("GET", url, **sent)

    def post(self, url: str, **sent: Any) -> httpx.Response:
        return self.request("POST", url, **sent)

    def delete(self, url: str) -> httpx.Response:
        return self.request("DELETE", url)


class Served:
    """HTTP on one side, SQL on the other. An exception in the daemon fails the test."""

    def __init__(self, client: LocalClient, engine: Engine) -> None:
        self.client, self.engine = client, engine
        self.url = engine.url.render_as_string(hide_password=False)
        self.path = Path(engine.url.database or "")  # on SQLite

    def send(self, method: str, url: str, body: Any = None, **headers: str) -> httpx.Response:
        """Send `body`: bytes and text as they are, anything else as JSON."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is None or isinstance(body, bytes | str):
            return self.client.request(method, url, content=body, headers=named)
        return self.client.request(method, url, json=body, headers=named)

    def post(self, url: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.send("POST", url, body, **headers)

    def get(self, url: str) -> Any:
        answer = self.client.get(url)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def route(self, prompt: str = "Why is the sky blue?", **fields: Any) -> Any:
        answer = self.post("/v1/route", {"prompt": prompt} | fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def feedback(self, decision_id: str, **fields: Any) -> str:
        answer = self.post("/v1/feedback", {"decision_id": decision_id} | fields)
        assert answer.status_code in (200, 202), answer.text
        status: str = answer.json()["status"]
        assert (answer.status_code == 202) == (status == "late")
        return status

    def rows(self, table: str) -> list[dict[str, Any]]:
        found = metadata.tables[table]
        serial = [column for column in found.primary_key if column.name in ("id", "seq")]
        order = serial or ([found.c.created_at] if "created_at" in found.c else found.primary_key)
        with self.engine.connect() as connection:
            rows = connection.execute(select(found).order_by(*order)).mappings()
            return [dict(row) for row in rows]

    def counts(self) -> dict[str, int]:
        return {table: len(self.rows(table)) for table in TABLES}

    def learned(self) -> list[tuple[str, float, str]]:
        """Return (field, value, kind) of every outcome event."""
        events = [row for row in self.rows("events") if row["decision_id"] is not None]
        return [(row["field"], row["value"], row["kind"]) for row in events]

    def policy(self, pool: str = "default") -> Any:
        """Return /v1/policy once the learner has folded all events and the router has it."""
        newest = max(row["seq"] for row in self.rows("events") if row["pool"] == pool)
        deadline = time.monotonic() + LEARNED_WITHIN_S
        while True:
            state = self.get(f"/v1/policy?pool={pool}")
            if state["version"] == state["serving_version"] == newest:
                return state
            assert time.monotonic() < deadline, f"{state} has not reached {newest}"
            time.sleep(0.002)

    def rebuilt_digest(self, pool: str = "default") -> str:
        """Return the digest of a fold of the whole log."""
        built = rebuild(Log(self.engine), pool, checkpoints=False)
        assert built is not None
        return built[1].digest()


@contextmanager
def serve(database: Path | str, **settings: Any) -> Iterator[Served]:
    """Run a daemon on a file of SQLite's or on a URL."""
    url = database if isinstance(database, str) else f"sqlite:///{database}"
    configured = Settings(**{"database": url, "publish_ms": 1.0} | settings)
    app = local_app(configured)
    engine = open_engine(url)
    try:
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(app.router.lifespan_context(app)),
        ):
            yield Served(LocalClient(app, portal), engine)
    finally:
        engine.dispose()


def assert_error(answer: httpx.Response, status: int, code: str, param: str | None = None) -> None:
    """Hold an answer against the OpenAI shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    error = answer.json()["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert (error["code"], error["param"]) == (code, param)
    assert isinstance(error["message"], str) and error["message"]
    assert isinstance(error["type"], str) and error["type"].endswith(("_error", "_quota"))
    assert "Traceback" not in answer.text and len(answer.text) < 2_000

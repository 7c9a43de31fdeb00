"""A transport that answers from a script, and clients that use it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx

from banditroute.client import AsyncClient, Client

DECISION = {
    "decision_id": "d1",
    "model": "a/b",
    "fallbacks": ["c"],
    "propensity": 0.5,
    "max_output_tokens": 4096,
    "policy": "linucb-0",
    "policy_version": 7,
    "reserved_cost_usd": 0.001,
    "expires_at": "2030-01-01T00:00:00Z",
}


def fault(status: int, code: str, **headers: str) -> httpx.Response:
    error = {"message": "refused", "type": "t", "param": "prompt", "code": code}
    return httpx.Response(status, json={"error": error}, headers=headers)


class Wire:
    """A scripted transport: each answer is used once, the last answer again and again."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        # A response can be read once, so each use is a new one.
        return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)

    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]


def routed(**changes: Any) -> httpx.Response:
    return httpx.Response(200, json=DECISION | changes)


def client(wire: Wire, **options: Any) -> Client:
    return Client("http://router", transport=httpx.MockTransport(wire), **options)


Caller = Callable[..., Any]


def _sync(wire: Any, method: str, *args: Any, options: Any = None, **kwargs: Any) -> Any:
    with client(wire, **(options or {})) as router:
        return getattr(router, method)(*args, **kwargs)


def _async(wire: Any, method: str, *args: Any, options: Any = None, **kwargs: Any) -> Any:
    async def run() -> Any:
        transport = httpx.MockTransport(wire)
        async with AsyncClient("http://router", transport=transport, **(options or {})) as router:
            return await getattr(router, method)(*args, **kwargs)

    return asyncio.run(run())


CALLERS: dict[str, Caller] = {"sync": _sync, "async": _async}
"""Call a method of either client, so that each behaviour is checked on both."""

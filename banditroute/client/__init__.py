"""Clients of the HTTP API, for callers that want a decision and no ceremony.

`Client` blocks, `AsyncClient` is awaited; they differ in nothing else. Every request can be sent
twice without harm: routing carries an idempotency key, feedback is exactly-once by decision and
key. A client must never answer from its own opinion, except with the `default_model` that the
caller named. It imports nothing else of the daemon, so an application can take it alone.
"""

from banditroute.client.aio import AsyncClient
from banditroute.client.messages import (
    Ask,
    By,
    Call,
    Observed,
    Properties,
    Route,
    RouteError,
    RouterError,
    Verdict,
)
from banditroute.client.sync import Client

__all__ = [
    "Ask",
    "AsyncClient",
    "By",
    "Call",
    "Client",
    "Observed",
    "Properties",
    "Route",
    "RouteError",
    "RouterError",
    "Verdict",
]

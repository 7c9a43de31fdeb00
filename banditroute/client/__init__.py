"""Clients of the HTTP API: `Client` blocks, `AsyncClient` is for asyncio; all else is the same.

A request can be sent twice without harm: routing carries an idempotency key, and feedback counts
once per decision and key. A client must never choose a model itself; while the router is
unavailable it may return the `default_model` that the caller named. The folder imports nothing
else of the daemon, so that an application can take it alone.
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

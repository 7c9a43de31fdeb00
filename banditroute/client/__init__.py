"""Clients of the HTTP API: `Client` blocks, `AsyncClient` is for asyncio; all else is the same.

A request is sent again only where that does no harm: routing carries an idempotency key, feedback
counts once per decision and key, and a top-up of a budget is sent once. A client must never choose
a model itself; while the router is unavailable it may return the caller's `default_model`. The
folder imports nothing else of the daemon, so that an application can take it alone.
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

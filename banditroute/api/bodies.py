"""Bodies as bytes: read up to a limit, which each prompt of a batch must keep to by itself."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request

from banditroute.contract.schemas import RouteRequest, ScoredPrompt
from banditroute.core.errors import TooLarge


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Return the body; one that is larger than the limit is refused without reading all of it."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise _too_large("body", limit_bytes)
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit_bytes:
            raise _too_large("body", limit_bytes)
    return b"".join(chunks)


def check_texts(field: str, rows: Sequence[RouteRequest | ScoredPrompt], limit_bytes: int) -> None:
    """Refuse a prompt that would be too large in a request of its own."""
    for i, row in enumerate(rows):
        if len((row.text() or "").encode()) >= limit_bytes:
            raise _too_large(f"{field}[{i}].prompt", limit_bytes)


def _too_large(param: str, limit_bytes: int) -> TooLarge:
    return TooLarge(f"{param}: over {limit_bytes:,} bytes", param=param)

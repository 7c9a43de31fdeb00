"""Errors that reach a caller, in the OpenAI shape. Raise them anywhere; the app renders them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """An answer other than success.

    Parameters
    ----------
    status : HTTP status.
    message : one sentence for a person.
    code : a stable word for a program.
    param : the field that is to blame, as a path such as ``requests[17].prompt``.
    retry_after : seconds, for the header of the same name.
    detail : what a program may want beside the four usual keys, by name.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after: float | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after, self.detail = retry_after, dict(detail or {})

    def body(self) -> dict[str, dict[str, Any]]:
        """Return ``{"error": {"message", "type", "param", "code"}}``, and the detail if any."""
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, "invalid_request_error"),
                "param": self.param,
                "code": self.code,
                **self.detail,
            }
        }

    def within(self, path: str) -> ApiError:
        """Return the same error with its field below `path`."""
        param = f"{path}.{self.param}" if self.param else path
        return ApiError(self.status, self.message, code=self.code, param=param)


_TYPES = {
    404: "not_found_error",
    409: "conflict_error",
    429: "insufficient_quota",
    500: "server_error",
    503: "server_error",
}


def invalid(param: str, message: str) -> ApiError:
    """A field of the request does not hold up: HTTP 400."""
    return ApiError(400, message, code="invalid_value", param=param)


def unavailable(message: str) -> ApiError:
    """The daemon cannot answer now, try again: HTTP 503."""
    return ApiError(503, message, code="unavailable", retry_after=1.0)

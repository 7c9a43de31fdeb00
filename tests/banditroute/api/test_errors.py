"""The OpenAI shape of every error."""

from __future__ import annotations

import pytest

from banditroute.core.errors import ApiError, invalid, unavailable


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (409, "conflict_error"),
        (413, "invalid_request_error"),
        (422, "invalid_request_error"),
        (429, "insufficient_quota"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_the_type_follows_the_status(status: int, kind: str) -> None:
    body = ApiError(status, "no", code="word", param="field").body()
    assert body == {"error": {"message": "no", "type": kind, "param": "field", "code": "word"}}


def test_a_field_is_named_below_its_row() -> None:
    error = invalid("prompt", "holds no text")
    assert (error.status, error.code) == (400, "invalid_value")
    inner = error.within("requests[17]")
    assert (inner.param, inner.status, inner.message) == ("requests[17].prompt", 400, error.message)
    assert ApiError(400, "no", code="word").within("requests[0]").param == "requests[0]"


def test_what_may_work_later_says_when() -> None:
    error = unavailable("too many writes are waiting")
    assert (error.status, error.code, error.retry_after) == (503, "unavailable", 1.0)

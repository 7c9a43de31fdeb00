"""The OpenAI shape of every error, and the HTTP status of every fault."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from banditroute.api.errors import status_of
from banditroute.core.errors import (
    BudgetExceeded,
    CapBelowSpend,
    Conflict,
    Exists,
    IdempotencyConflict,
    InvalidJson,
    InvalidValue,
    NoEligibleModel,
    NotReady,
    RouterFault,
    TooLarge,
    Unavailable,
    UnknownBudget,
    UnknownDecision,
    UnknownModel,
    UnknownPool,
    UnknownSession,
)
from banditroute.service.views import fault_view
from banditroute.store.ledger import LeaseLost

FAULTS = [
    (InvalidValue("no"), 400, "invalid_request_error", "invalid_value"),
    (InvalidJson("no"), 400, "invalid_request_error", "invalid_json"),
    (TooLarge("no"), 413, "invalid_request_error", "too_large"),
    (NoEligibleModel("no"), 422, "invalid_request_error", "no_eligible_model"),
    (UnknownPool("p"), 404, "not_found_error", "unknown_pool"),
    (UnknownModel("p", "m"), 404, "not_found_error", "unknown_model"),
    (UnknownBudget("p", "b"), 404, "not_found_error", "unknown_budget"),
    (UnknownDecision("d"), 404, "not_found_error", "unknown_decision"),
    (UnknownSession("s"), 404, "not_found_error", "unknown_session"),
    (Conflict("no"), 409, "conflict_error", "conflict"),
    (Exists("no"), 409, "conflict_error", "exists"),
    (IdempotencyConflict("no"), 409, "conflict_error", "idempotency_conflict"),
    (CapBelowSpend("no"), 409, "conflict_error", "cap_below_spend"),
    (BudgetExceeded("no"), 429, "insufficient_quota", "budget_exceeded"),
    (Unavailable("no"), 503, "server_error", "unavailable"),
    (LeaseLost([1]), 503, "server_error", "unavailable"),
    (NotReady("no"), 503, "server_error", "not_ready"),
]


@pytest.mark.parametrize(("fault", "status", "kind", "code"), FAULTS)
def test_status_type_and_code_follow_the_class(
    fault: RouterFault, status: int, kind: str, code: str
) -> None:
    assert status_of(fault) == status
    assert fault_view(fault) == {
        "error": {"message": fault.message, "type": kind, "param": fault.param, "code": code}
    }


def test_every_class_of_fault_is_in_the_table() -> None:
    def leaves(kind: type[RouterFault]) -> Iterator[type[RouterFault]]:
        if hasattr(kind, "code"):
            yield kind
        for below in kind.__subclasses__():
            yield from leaves(below)

    assert set(leaves(RouterFault)) == {type(fault) for fault, *_ in FAULTS}


def test_an_error_names_its_field_and_adds_its_detail() -> None:
    fault = BudgetExceeded("no", param="pool", detail={"budget": {"name": "b"}})
    assert fault_view(fault) == {
        "error": {
            "message": "no",
            "type": "insufficient_quota",
            "param": "pool",
            "code": "budget_exceeded",
            "budget": {"name": "b"},
        }
    }


def test_what_may_work_later_says_when() -> None:
    assert Unavailable("too many writes are waiting").retry_after_s == 1.0
    assert BudgetExceeded("no", retry_after_s=5.0).retry_after_s == 5.0
    assert InvalidValue("no").retry_after_s is None

"""Faults: why the router does not do what was asked of it.

A fault knows nothing of HTTP: `banditroute.api.errors` has the table of statuses. It names the
field that is wrong; where a call has several rows, the caller that knows their place makes the
path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class RouterFault(Exception):
    """Base of all faults.

    Parameters
    ----------
    message : str
        One sentence for a person.
    param : str, optional
        The field that is wrong, as a path such as ``models[2]``.
    row : int, optional
        Position of the row that is wrong, in a list that was passed.
    retry_after_s : float, optional
        Seconds after which another try may succeed.
    detail : mapping, optional
        What a program may need beside the other keys of an error, by name.

    Attributes
    ----------
    code : str
        A stable word for a program.
    type : str
        The family that the code belongs to, in the words of the OpenAI API.
    """

    code: ClassVar[str]
    type: ClassVar[str]
    retry_after_s: float | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        row: int | None = None,
        retry_after_s: float | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.row = message, param, row
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s
        self.detail = dict(detail or {})


class InvalidRequest(RouterFault):
    """The request cannot be served as it stands."""

    type = "invalid_request_error"


class InvalidValue(InvalidRequest):
    """A field has a value that it cannot have."""

    code = "invalid_value"


class InvalidJson(InvalidRequest):
    """A body is not JSON."""

    code = "invalid_json"


class TooLarge(InvalidRequest):
    """A body or a prompt has too many bytes."""

    code = "too_large"


class NoEligibleModel(InvalidRequest):
    """No model of the pool satisfies the constraints of a request."""

    code = "no_eligible_model"


class NotFound(RouterFault):
    """The request names a thing that does not exist."""

    type = "not_found_error"


class UnknownPool(NotFound):
    """There is no pool of this name."""

    code = "unknown_pool"

    def __init__(self, pool: str, *, param: str = "pool") -> None:
        super().__init__(f"no pool {pool!r}", param=param)


class UnknownModel(NotFound):
    """The pool has no model of this name."""

    code = "unknown_model"

    def __init__(self, pool: str, model: str) -> None:
        super().__init__(f"pool {pool!r} has no model {model!r}", param="name")


class UnknownBudget(NotFound):
    """The pool has no budget of this name."""

    code = "unknown_budget"

    def __init__(self, pool: str, budget: str) -> None:
        super().__init__(f"pool {pool!r} has no budget {budget!r}", param="name")


class UnknownDecision(NotFound):
    """There is no decision with this id."""

    code = "unknown_decision"

    def __init__(self, decision_id: str, *, param: str = "id") -> None:
        super().__init__(f"no decision {decision_id!r}", param=param)


class UnknownSession(NotFound):
    """No decision of the pool belongs to this session."""

    code = "unknown_session"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"no session {session_id!r}", param="session_id")


class Conflict(RouterFault):
    """The request contradicts what is stored."""

    type = "conflict_error"
    code = "conflict"


class Exists(Conflict):
    """The name is taken."""

    code = "exists"


class IdempotencyConflict(Conflict):
    """An idempotency key was used with another payload."""

    code = "idempotency_conflict"


class CapBelowSpend(Conflict):
    """The cap of a budget would be less than what is spent, reserved and leased already."""

    code = "cap_below_spend"


class BudgetExceeded(RouterFault):
    """A budget has too little left for a request."""

    type = "insufficient_quota"
    code = "budget_exceeded"


class Unavailable(RouterFault):
    """The daemon cannot answer now; another try may succeed."""

    type = "server_error"
    code = "unavailable"
    retry_after_s = 1.0


class NotReady(Unavailable):
    """The daemon has not started completely, or a part of it has stopped."""

    code = "not_ready"

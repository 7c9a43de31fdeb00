"""Why no model was chosen, as errors that name the reason and when another try may succeed."""

from __future__ import annotations

from banditroute.contract.schemas import NewModel
from banditroute.core.budget import Budget
from banditroute.core.errors import BudgetExceeded, Exists, NoEligibleModel
from banditroute.core.pool import NANO
from banditroute.decide.columns import Decisions
from banditroute.decide.reasons import REASONS
from banditroute.service.views import budget_view, resets_at_us
from banditroute.store.ledger import BudgetSums

LEASED_S = 1.0
"""Seconds until another try, where other replicas may give back idle leases."""

RESERVED_S = 5.0
"""Seconds until another try, where answers may settle below their reservations."""

NEVER_S = 3_600.0
"""Seconds until another try, where only a changed setting can help."""


def no_models(pool: str) -> NoEligibleModel:
    """Return the error of a request whose pool has no models."""
    return NoEligibleModel(f"pool {pool!r} has no models", param="pool")


def no_eligible(decided: Decisions, row: int) -> NoEligibleModel:
    """Return the error of a request without an eligible model, with the reason of each model.

    Parameters
    ----------
    decided : Decisions
        The decisions of the request's pool.
    row : int
        The request's row in them.
    """
    names = (model.name for model in decided.scored.columns.models)
    why = ", ".join(
        f"{name}: {REASONS[code]}" for name, code in zip(names, decided.reasons[row], strict=True)
    )
    return NoEligibleModel(f"no eligible model ({why})", param="models")


def exceeded(budget: Budget, sums: BudgetSums, least_nano: int, *, now_us: int) -> BudgetExceeded:
    """Return the error of a request that a budget left without a model.

    Parameters
    ----------
    budget : Budget
        Of the budgets that apply, the one that leaves the least.
    sums : BudgetSums
        The sums of its window.
    least_nano : int
        Nano-dollars that the cheapest model it removed would have reserved.
    now_us : int
        The time.
    """
    view = budget_view(budget, sums, now_us=now_us)
    ceiling_nano, least_usd = budget.request_ceiling_nano, least_nano / NANO
    if ceiling_nano is not None and least_nano > ceiling_nano:
        return BudgetExceeded(
            f"budget {budget.name!r} lets a request reserve {ceiling_nano / NANO:.9g} US dollars; "
            f"the cheapest eligible model needs {least_usd:.9g}",
            param="max_output_tokens",
            retry_after_s=NEVER_S,
            detail={"budget": view},
        )
    resets = f"it resets at {view['resets_at']}" if view["resets_at"] else "it never resets"
    spent_usd = (sums.settled_nano + sums.expired_nano + sums.lost_nano) / NANO
    reserved_usd = (sums.reserved_nano + sums.leased_nano) / NANO
    return BudgetExceeded(
        f"budget {budget.name!r} has no room: of {sums.cap_nano / NANO:.9g} US dollars "
        f"{spent_usd:.9g} are spent and {reserved_usd:.9g} reserved, the cheapest eligible model "
        f"needs {least_usd:.9g}; {resets}",
        param="pool",
        retry_after_s=_retry_after_s(budget, sums, least_nano, now_us),
        detail={"budget": view},
    )


def _retry_after_s(budget: Budget, sums: BudgetSums, least_nano: int, now_us: int) -> float:
    """Return the seconds until the budget may have room for `least_nano` nano-dollars."""
    reset_us = resets_at_us(budget, sums, now_us)
    until_reset_s = NEVER_S if reset_us is None else max((reset_us - now_us) / 1e6, 1.0)
    obtainable_nano = sums.free_nano + sums.leased_nano
    if obtainable_nano >= least_nano:
        return min(until_reset_s, LEASED_S)
    if obtainable_nano + sums.reserved_nano >= least_nano:
        return min(until_reset_s, RESERVED_S)
    return until_reset_s


def exists(new: NewModel) -> Exists:
    """Return the error of a new model whose name the pool has already."""
    return Exists(f"pool {new.pool!r} has a model {new.name!r}", param="name")

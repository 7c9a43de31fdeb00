"""Why nobody could be chosen, as errors for whoever asked."""

from __future__ import annotations

from banditroute.contract.schemas import NewModel
from banditroute.core.budget import Budget
from banditroute.core.errors import BudgetExceeded, Exists, NoEligibleModel
from banditroute.core.pool import NANO
from banditroute.decide.columns import Decisions
from banditroute.decide.reasons import REASONS
from banditroute.service.views import budget_view, resets_at
from banditroute.store.ledger import BudgetSums

LEASED_S, RESERVED_S, NEVER_S = 1.0, 5.0, 3_600.0
"""When it is worth another try: other replicas give idle slices back, answers settle, or only a
person can help."""


def no_models(pool: str) -> NoEligibleModel:
    """Return the error of a row whose pool is empty."""
    return NoEligibleModel(f"pool {pool!r} has no models", param="pool")


def no_eligible(decided: Decisions, row: int) -> NoEligibleModel:
    """Return the error of a row that no model is eligible for, with every reason."""
    names = (model.name for model in decided.scored.columns.models)
    why = ", ".join(
        f"{name}: {REASONS[code]}" for name, code in zip(names, decided.reasons[row], strict=True)
    )
    return NoEligibleModel(f"no eligible model ({why})", param="models")


def exceeded(budget: Budget, sums: BudgetSums, least: int, *, now: int) -> BudgetExceeded:
    """Return the error of a row that a budget has left without a model.

    Parameters
    ----------
    budget : the one that leaves the least.
    sums : of its window.
    least : nano-dollars that the cheapest model it removed would have reserved.
    """
    shown = budget_view(budget, sums, now=now)
    ceiling = budget.request_ceiling_nano
    if ceiling is not None and least > ceiling:
        return BudgetExceeded(
            f"budget {budget.name!r} lets a request reserve {ceiling / NANO:.9g} US dollars; the "
            f"cheapest eligible model needs {least / NANO:.9g}",
            param="max_output_tokens",
            retry_after_s=NEVER_S,  # not unless somebody changes the ceiling or a price
            detail={"budget": shown},
        )
    resets = shown["resets_at"]
    spent = sums.settled_nano + sums.expired_nano + sums.lost_nano
    held = sums.reserved_nano + sums.leased_nano
    return BudgetExceeded(
        f"budget {budget.name!r} has no room: of {sums.cap_nano / NANO:.9g} US dollars "
        f"{spent / NANO:.9g} are spent and {held / NANO:.9g} reserved, the cheapest eligible model "
        f"needs {least / NANO:.9g}; " + (f"it resets at {resets}" if resets else "it never resets"),
        param="pool",
        retry_after_s=_wait(budget, sums, least, now),
        detail={"budget": shown},
    )


def _wait(budget: Budget, sums: BudgetSums, least: int, now: int) -> float:
    resets = resets_at(budget, sums, now)
    wait = NEVER_S if resets is None else max((resets - now) / 1e6, 1.0)
    obtainable_nano = sums.free_nano + sums.leased_nano
    if obtainable_nano >= least:
        return min(wait, LEASED_S)
    return min(wait, RESERVED_S) if obtainable_nano + sums.reserved_nano >= least else wait


def exists(new: NewModel) -> Exists:
    """Return the error of a model that is there already."""
    return Exists(f"pool {new.pool!r} has a model {new.name!r}", param="name")

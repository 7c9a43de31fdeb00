"""The multi-choice knapsack, offline: the best choice of a model for every request of a list.

Values and costs are all known here, so this is what nobody can do online: the simulator's oracle,
and what the online modes are held to in tests. Pure functions of arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.base import Bools, Float64

REFUSED = -1
"""The choice of a request that gets no model."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What each request gets; one request may be split between two models.

    Attributes
    ----------
    choice : int[n], column of the model, `REFUSED` for none.
    split : row of the request that gets a better model with probability `share`; -1 for none.
    better : column of that model.
    share : in [0, 1).
    value, cost : of the whole list, the split request by its expectation.
    """

    choice: NDArray[np.intp]
    split: int
    better: int
    share: float
    value: float
    cost: float


@dataclass(frozen=True, slots=True)
class Increments:
    """The corners of all requests' upper hulls, best increment first.

    Attributes
    ----------
    base : int[n], where each request starts: its cheapest eligible model, the best among equals.
    value, cost : of all bases together.
    row, model : int[m], which request an increment moves, and to which model.
    more_value, more_cost : float64[m], above 0; of one request in the order of its corners.
    """

    base: NDArray[np.intp]
    value: float
    cost: float
    row: NDArray[np.intp]
    model: NDArray[np.intp]
    more_value: Float64
    more_cost: Float64

    @classmethod
    def of(
        cls, value: Float64, cost: Float64, eligible: Bools | None = None, *, refusable: bool
    ) -> Increments:
        """Return the increments of value[n, K] and cost[n, K] >= 0.

        Parameters
        ----------
        eligible : bool[n, K]; None for all. A request without any is refused.
        refusable : whether each request may also have no model, of value and cost 0.
        """
        n, k = value.shape
        barred = np.zeros(value.shape, dtype=np.bool_) if eligible is None else ~eligible
        none = np.zeros((n, 1))
        closed = ~(barred.all(axis=1, keepdims=True) | refusable)
        worth = np.hstack([np.where(barred, -np.inf, value), np.where(closed, -np.inf, none)])
        price = np.hstack([np.where(barred, np.inf, cost), np.where(closed, np.inf, none)])
        order = np.lexsort((-worth, price), axis=1)
        at = order[:, 0]
        rows = np.arange(n)
        corners: list[tuple[float, int, int, int, float, float]] = []
        hulls = zip(
            order.tolist(),
            np.take_along_axis(worth, order, axis=1).tolist(),
            np.take_along_axis(price, order, axis=1).tolist(),
            strict=True,
        )
        for i, (models, values, costs) in enumerate(hulls):
            hull = _hull(values, costs)
            for step, (a, b) in enumerate(zip(hull, hull[1:], strict=False)):
                dv, dc = values[b] - values[a], costs[b] - costs[a]
                corners.append((-dv / dc, i, step, models[b], dv, dc))
        # Of equals the earlier request goes first, and of one request the earlier corner.
        corners.sort()
        columns = list(zip(*corners, strict=True)) if corners else [()] * 6
        return cls(
            base=np.where(at == k, REFUSED, at),
            value=float(worth[rows, at].sum()),
            cost=float(price[rows, at].sum()),
            row=np.array(columns[1], dtype=np.intp),
            model=np.array(columns[3], dtype=np.intp),
            more_value=np.array(columns[4], dtype=np.float64),
            more_cost=np.array(columns[5], dtype=np.float64),
        )

    def take(self, amount: float, of: Float64) -> Plan:
        """Return the plan that takes increments until they sum to `amount` of `of`[m]."""
        # A tolerance far below any increment: rounding must not take a part of one more.
        sums = of.cumsum()
        whole = int(np.searchsorted(sums, amount * (1.0 + 1e-12), side="right"))
        choice = self.base.copy()
        choice[self.row[:whole]] = self.model[:whole]
        share, split, better = 0.0, -1, -1
        value = self.value + float(self.more_value[:whole].sum())
        cost = self.cost + float(self.more_cost[:whole].sum())
        if whole < len(of):
            before = float(sums[whole - 1]) if whole else 0.0
            share = max(amount - before, 0.0) / float(of[whole])
            if share > 0.0:
                split, better = int(self.row[whole]), int(self.model[whole])
                value += share * float(self.more_value[whole])
                cost += share * float(self.more_cost[whole])
        return Plan(choice, split, better, share, value, cost)


def _hull(values: list[float], costs: list[float]) -> list[int]:
    """Return the corners of the upper left hull of points sorted by cost, from the first on."""
    corners = [0]
    for k in range(1, len(values)):
        if costs[k] == np.inf or values[k] <= values[corners[-1]]:
            continue
        if costs[k] <= costs[corners[-1]]:
            continue
        while len(corners) > 1:
            a, b = corners[-2], corners[-1]
            rise = (values[b] - values[a]) * (costs[k] - costs[a])
            if rise > (values[k] - values[a]) * (costs[b] - costs[a]):
                break
            corners.pop()
        corners.append(k)
    return corners


def best_value(
    value: Float64,
    cost: Float64,
    budget: float,
    eligible: Bools | None = None,
    *,
    refusable: bool = False,
) -> Plan:
    """Return the plan of the most value whose cost is within a budget.

    Parameters
    ----------
    value, cost : float64[n, K]; cost at least 0.
    budget : for the whole list, in the unit of cost.
    eligible : bool[n, K]; None for all. A request without any is refused.
    refusable : whether each request may also have no model, of value and cost 0.

    Raises
    ------
    ValueError
        When the cheapest models alone cost more than the budget; not where `refusable`.

    Notes
    -----
    The linear relaxation of the multi-choice knapsack [1]_. Per request the corners of the upper
    hull of (cost, value), from the cheapest eligible model on, are increments of falling
    efficiency ``dv / dc``; a corner that loses value is not on the hull. Increments of all requests
    are taken greedily, the last one in part. Without that part the plan is whole, and its value is
    short of the best whole plan's by at most that one increment.

    References
    ----------
    .. [1] Sinha, Zoltners (1979). The multiple-choice knapsack problem. Operations Research.

    Examples
    --------
    >>> value, cost = np.array([[0.5, 0.9], [0.5, 0.6]]), np.array([[1.0, 3.0], [1.0, 3.0]])
    >>> plan = best_value(value, cost, budget=5.0)
    >>> plan.choice.tolist(), plan.split, plan.share
    ([1, 0], 1, 0.5)
    """
    increments = Increments.of(value, cost, eligible, refusable=refusable)
    left = budget - increments.cost
    if left < -1e-12 * abs(budget):
        raise ValueError(f"budget: at least {increments.cost:g}, what the cheapest models cost")
    return increments.take(max(left, 0.0), increments.more_cost)


def least_cost(value: Float64, cost: Float64, floor: float, eligible: Bools | None = None) -> Plan:
    """Return the plan of the least cost whose value is at least a floor: the dual problem.

    Parameters
    ----------
    value, cost, eligible : see `best_value`.
    floor : for the whole list, in the unit of value.

    Raises
    ------
    ValueError
        When no plan has so much value.
    """
    increments = Increments.of(value, cost, eligible, refusable=False)
    short = floor - increments.value
    best = float(increments.more_value.sum())
    if short > best + 1e-12 * abs(floor):
        raise ValueError(f"floor: at most {increments.value + best:g}, the most that can be had")
    return increments.take(max(short, 0.0), increments.more_value)

"""The multiple-choice knapsack, offline: the best choice of a model for every request of a list.

It needs all values and costs in advance, so no online mode may use it. It is the simulator's
oracle, and tests compare the online modes with it. All are pure functions of arrays.

Values and costs have any unit; the simulator passes quality and US dollars.
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
    """The choice for each request; one request may be split between two models.

    Attributes
    ----------
    choice : int[n]
        Column of the model, `REFUSED` for none.
    split : int
        Row of the request that gets a better model with probability `share`; -1 for none.
    better : int
        Column of that model, -1 for none.
    share : float
        Probability in [0, 1).
    value : float
        Value of the whole list; the split request counts by its expectation.
    cost : float
        Cost of the whole list, likewise.
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
    base : int[n]
        First choice of each request: its cheapest eligible model, the best among equals.
    value : float
        Value of all first choices.
    cost : float
        Cost of all first choices.
    row : int[m]
        The request that an increment changes.
    model : int[m]
        The model that it changes to.
    more_value : float64[m]
        Value that it adds, above 0; increments of one request are in the order of its corners.
    more_cost : float64[m]
        Cost that it adds, above 0.
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
        """Return the increments of a list of requests.

        Parameters
        ----------
        value : float64[n, K]
            Value of each model for each request.
        cost : float64[n, K]
            Its cost, at least 0.
        eligible : bool[n, K] or None
            Models to choose from, None for all. A request without any is refused.
        refusable : bool
            Whether each request may also have no model, of value and cost 0.

        Returns
        -------
        Increments
            In order of falling efficiency.
        """
        n, k = value.shape
        barred = np.zeros(value.shape, dtype=np.bool_) if eligible is None else ~eligible
        closed = ~(barred.all(axis=1, keepdims=True) | refusable)
        worth = np.hstack([np.where(barred, -np.inf, value), np.where(closed, -np.inf, 0.0)])
        price = np.hstack([np.where(barred, np.inf, cost), np.where(closed, np.inf, 0.0)])
        order = np.lexsort((-worth, price), axis=1)
        first = order[:, 0]
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
        # Equal increments are sorted by request, and those of one request by corner.
        corners.sort()
        columns = list(zip(*corners, strict=True)) if corners else [()] * 6
        return cls(
            base=np.where(first == k, REFUSED, first),
            value=float(worth[rows, first].sum()),
            cost=float(price[rows, first].sum()),
            row=np.array(columns[1], dtype=np.intp),
            model=np.array(columns[3], dtype=np.intp),
            more_value=np.array(columns[4], dtype=np.float64),
            more_cost=np.array(columns[5], dtype=np.float64),
        )

    def take(self, amount: float, of: Float64) -> Plan:
        """Return the plan that takes increments in order, up to an amount.

        Parameters
        ----------
        amount : float
            Sum at which it stops, within an increment if need be.
        of : float64[m]
            What is summed, `more_value` or `more_cost`.

        Returns
        -------
        Plan
            The last increment is taken in part.
        """
        # The tolerance is far below any increment: rounding must not take a part of another one.
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
        last = corners[-1]
        if costs[k] == np.inf or values[k] <= values[last] or costs[k] <= costs[last]:
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
    value : float64[n, K]
        Value of each model for each request.
    cost : float64[n, K]
        Its cost, at least 0.
    budget : float
        Largest cost of the whole list.
    eligible : bool[n, K] or None
        Models to choose from, None for all. A request without any is refused.
    refusable : bool, default False
        Whether each request may also have no model, of value and cost 0.

    Returns
    -------
    Plan
        The choices.

    Raises
    ------
    ValueError
        When the cheapest models alone cost more than the budget; never where `refusable`.

    Notes
    -----
    The linear relaxation of the multiple-choice knapsack [1]_. For each request the corners of the
    upper hull of (cost, value), from the cheapest eligible model on, are increments of falling
    efficiency ``dv / dc``; a corner that loses value is not on the hull. Increments of all requests
    are taken greedily, the last one in part. Without that part every choice is whole, and the value
    is below that of the best whole plan by at most one increment.

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
    value : float64[n, K]
        See `best_value`.
    cost : float64[n, K]
        See `best_value`.
    floor : float
        Smallest value of the whole list.
    eligible : bool[n, K] or None
        See `best_value`.

    Returns
    -------
    Plan
        The choices.

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

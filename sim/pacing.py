"""The price of money that keeps the mean cost per request at a given rate.

It looks back at the last requests and solves for the price at which the policy's own law would
have spent the target on them, so there is no step size to tune. It sees what a router sees,
predicted costs and the bill of its own choices, and never the labels.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from banditroute.frame import Decisions
from policies.base import Float32, Float64

WINDOW = 256
HORIZON = 100.0
CARRY = 5.0
DEBT = 200.0
LEAST = 1.02
_WARM, _WARM_EVERY, _EVERY = 64, 4, 16
_NEAR, _FAR, _CLOSE = 1.25, 4.0, 0.01
_CHEAPEST, _DEAREST = 1e-3, 1e6


class Pacer:
    """Holds spend to `rate` US dollars per request; a soft cap that debts are paid back to.

    Parameters
    ----------
    rate : mean US dollars per request, above 0.

    Notes
    -----
    The target of the next requests is ``rate + balance / 100``, where the balance is unspent money
    of at most 5 requests and debt of at most 200 requests; but never less than 1.02 of what the
    cheapest choices are predicted to cost. No price can do better, and a router that pays any
    price not to try the others would never learn that one of them is cheaper.
    """

    def __init__(self, *, rate: float) -> None:
        self.rate = rate
        self.price = 0.0
        self._balance = 0.0
        self._bounds = (0.0, 0.0)
        self._count = 0
        self._recent: deque[tuple[dict[str, Float32], Float64, Float64]] = deque(maxlen=WINDOW)

    def observe(self, decisions: Decisions, cost: float) -> None:
        """Take in one decision and what it really cost, and set the `price` of the next."""
        self._recent.append((decisions.scores, decisions.penalty, decisions.cost))
        self._count += 1
        unspent = self._balance + self.rate - cost
        self._balance = min(max(unspent, -DEBT * self.rate), CARRY * self.rate)
        if self._count % (_WARM_EVERY if self._count <= _WARM else _EVERY) == 0:
            self._bounds = self._solve(decisions)
        # One step of the law may be too coarse to meet the target: the balance says which side.
        self.price = self._bounds[0] if self._balance > 0.0 else self._bounds[1]

    def _solve(self, decisions: Decisions) -> tuple[float, float]:
        """Return the prices just below and above which the target is met on the window."""
        law = type(decisions.frame.snapshot.policy).law
        scores = {
            name: np.concatenate([row[0][name] for row in self._recent])
            for name in decisions.scores
        }
        fine = np.concatenate([row[1] for row in self._recent])
        cost = np.concatenate([row[2] for row in self._recent])
        open_to = np.ones(cost.shape, dtype=np.bool_)
        cheapest = float(cost.min(axis=1).mean())
        target = max(self.rate + self._balance / HORIZON, LEAST * cheapest)

        def spend(price: float) -> float:
            return float((law(scores, open_to, fine + price * cost) * cost).sum(axis=1).mean())

        # The price seldom moves far, and a law may be slow to evaluate.
        limit = _DEAREST / self.rate
        low = self._bounds[0] / _NEAR
        high = min((self._bounds[1] or 1.0 / self.rate) * _NEAR, limit)
        while high < limit and spend(high) > target:
            low, high = high, min(_FAR * high, limit)
        while low > _CHEAPEST / self.rate and spend(low) <= target:
            low, high = low / _FAR, low
        if low <= _CHEAPEST / self.rate:
            low = 0.0
            if spend(low) <= target:
                return 0.0, 0.0
        while high - low > _CLOSE * high:
            middle = 0.5 * (low + high)
            low, high = (middle, high) if spend(middle) > target else (low, middle)
        return low, high

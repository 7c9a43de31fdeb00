"""Pacing: the price of money, set online from a budget and its recent requests.

No mode may know a clock, a ledger or a label. Its owner passes it the money left and the recent
requests, scored again, whenever `Pacing.due` is true or a price row changes.

The three modes are interchangeable. `history` finds the price at which the recent requests, as the
present snapshot sees them, would have cost what the next ones may cost. `zcl` filters models by a
threshold that rises with the money spent, for the worst case. `pacer` moves a price by every bill
and needs neither a horizon nor feedback.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from policies.base import Bools, Float32, Float64, Policy
from policies.pacing.price import PriceTerms, cheapest, priced

WINDOW = 128
"""Number of recent requests that an owner keeps for a window."""

WARM = 64
"""Number of first requests over which prices are solved more often than later."""

WARM_EVERY, _EVERY = 4, 16  # requests between two solves, among the first and later
_NEAR, _FAR = 1.1, 4.0  # factors by which a search for a price widens: near a guess, and beyond
_CLOSE = 0.1  # relative distance of two prices that are mixed
LEAST, MOST = 1e-4, 1e6
"""Prices of money are searched between these multiples of a scale, see `price_where`."""


@dataclass(frozen=True, slots=True)
class Money:
    """The money of a budget's window.

    Attributes
    ----------
    left_usd : float
        What may still be spent in the window: the cap minus settled costs and minus open
        reservations at their expected cost; inf where only a rate binds.
    cap_usd : float
        Cap of the window.
    requests : float
        Requests still to come in the window, including the next one; inf where it is unknown.
    rate_usd : float
        US dollars per request, NaN where none is set; it counts where `requests` is unknown.
    """

    left_usd: float
    cap_usd: float
    requests: float
    rate_usd: float


@dataclass(frozen=True, slots=True)
class Window:
    """Recent requests, scored with the present snapshot and price rows.

    Attributes
    ----------
    kind : type of Policy
        The policy's class, whose law turns scores into probabilities.
    scores : dict from str to float32[n, K]
        What the law reads.
    eligible : bool[n, K]
        Eligible models, before any budget.
    penalty : float64[n, K]
        Cost and latency in quality units, without the price of money.
    mean : float32[n, K]
        Expected quality.
    cost_usd : float64[n, K]
        Predicted cost.
    reservation_usd : float64[n, K]
        What would be reserved.
    """

    kind: type[Policy]
    scores: dict[str, Float32]
    eligible: Bools
    penalty: Float64
    mean: Float32
    cost_usd: Float64
    reservation_usd: Float64

    def law(self, price: float, eligible: Bools | None = None) -> Float64:
        """Return the law at a price of money.

        Parameters
        ----------
        price : float
            Quality units per US dollar.
        eligible : bool[n, K] or None
            Models to choose from; None for all eligible ones.

        Returns
        -------
        float64[n, K]
            Probability of every model.
        """
        eligible = self.eligible if eligible is None else eligible
        flat = PriceTerms(price, price).rows(len(self.cost_usd))
        return priced(self.kind, self.scores, eligible, self.penalty, self.cost_usd, flat)

    def expected_usd(self, price: float, eligible: Bools | None = None) -> float:
        """Return the expected cost of a request at a price of money.

        Parameters
        ----------
        price : float
            Quality units per US dollar.
        eligible : bool[n, K] or None
            Models to choose from; None for all eligible ones.

        Returns
        -------
        float
            US dollars per request.
        """
        return float((self.law(price, eligible) * self.cost_usd).sum() / len(self.cost_usd))

    def outcome(self, price: float, eligible: Bools) -> tuple[float, float]:
        """Return the expected utility and cost of a request at a price of money.

        Parameters
        ----------
        price : float
            Quality units per US dollar.
        eligible : bool[n, K]
            Models to choose from.

        Returns
        -------
        utility : float
            Mean of quality minus penalty, in quality units.
        cost_usd : float
            Mean cost in US dollars.
        """
        law = self.law(price, eligible)
        worth = np.clip(self.mean, 0.0, 1.0) - self.penalty
        return float((law * worth).sum() / len(law)), float((law * self.cost_usd).sum() / len(law))

    def quality(self, price: float) -> float:
        """Return the expected mean quality at a price of money.

        Parameters
        ----------
        price : float
            Quality units per US dollar.

        Returns
        -------
        float
            In [0, 1].
        """
        return float((self.law(price) * np.clip(self.mean, 0.0, 1.0)).sum() / len(self.cost_usd))

    def least_usd(self) -> Float64:
        """Return the lowest predicted cost[m] in US dollars of requests with an eligible model."""
        rows = self.eligible.any(axis=1)
        least: Float64 = np.where(self.eligible, self.cost_usd, np.inf)[rows].min(axis=1)
        return least

    def reserves(self) -> tuple[float, float]:
        """Return what reservations take and give back.

        Returns
        -------
        most_usd : float
            The largest reservation of a request's cheapest model.
        back_usd : float
            What a settled reservation of another model gives back: the smallest
            ``reservation_usd - cost_usd`` of each request, averaged over the requests.
        """
        least = self._cheapest()
        eligible, reservation_usd = self.eligible[least], self.reservation_usd[least]
        most_usd = float(np.where(eligible, reservation_usd, 0.0).max(initial=0.0))
        back_usd = np.where(self.eligible, self.reservation_usd - self.cost_usd, np.inf)
        back_usd[least] = np.inf
        smallest = back_usd.min(axis=1)
        some = smallest < np.inf
        return most_usd, float(smallest[some].mean()) if some.any() else 0.0

    def only(self, models: Bools) -> Bools:
        """Return which models are eligible when only some may be chosen.

        Parameters
        ----------
        models : bool[K] or bool[n, K]
            The models that may be chosen, beside the cheapest eligible one of each request.

        Returns
        -------
        bool[n, K]
            The eligible models among them.
        """
        least, remaining = self._cheapest(), self.eligible & models
        remaining[least] = self.eligible[least]
        return remaining

    def within(self, money_usd: float) -> Bools:
        """Return which models are eligible when a reservation may take so much money.

        Parameters
        ----------
        money_usd : float
            Largest reservation; the cheapest eligible model of each request may exceed it.

        Returns
        -------
        bool[n, K]
            The eligible models.
        """
        return self.only(self.reservation_usd <= money_usd)

    def _cheapest(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the index of each request's cheapest eligible model into arrays[n, K]."""
        return np.arange(len(self.cost_usd)), cheapest(self.cost_usd, self.eligible)


class Pacing(ABC):
    """Base of the modes: the money spent, and the money to keep for cheap answers.

    Attributes
    ----------
    mode : str
        Name of the mode in `PACINGS`.
    terms : PriceTerms
        Terms of the next decision. `solve` sets them; `charge` and `settle` may change them.
    count : int
        Decisions that were charged.

    Notes
    -----
    Let m and s be the mean and the standard deviation of the cost of a request's cheapest model, w
    the largest reservation of such a model, and n the number of requests after the next one. Then
    reservations of other models must leave ``m n + max(2 s sqrt(n) + w - r, 0)`` US dollars. The
    reason: a request at the end of the window without money for any model loses far more than a
    better model gains on another request. r is what a reservation of another model gives back when
    it is settled; no such model can spend that any more.

    Money spent is the sum of settled costs and of open reservations at their expected cost. That
    is the reserved amount times the mean ratio of predicted costs to reservations.
    """

    mode: ClassVar[str]
    moves: ClassVar[bool] = False
    """Whether every charge moves the price; if not, an owner may pass charges before a solve."""

    def __init__(self) -> None:
        self.terms = PriceTerms()
        self.count = 0
        self._floor_usd = 0.0
        self._settled_usd = self._open_usd = 0.0
        self._predicted_usd = self._reserved_usd = 0.0

    @abstractmethod
    def _solve(self, window: Window, money: Money) -> PriceTerms: ...

    def _cold(self, rate_usd: float) -> PriceTerms:
        """Return the terms before any request: a request's money is worth a quality of 1."""
        price = 1.0 / rate_usd if rate_usd > 0.0 and math.isfinite(rate_usd) else 0.0
        return PriceTerms(price, price)

    def _price_of_spending(
        self, window: Window, target_usd: float, left_usd: float
    ) -> tuple[float, float, float]:
        """Return the prices at which a request of the window costs a target, see `price_where`.

        Models whose reservation exceeds the money left are left out. The target is at least 1.02 of
        the cost of the cheapest models.
        """
        target_usd = max(target_usd, 1.02 * self._floor_usd)
        eligible = window.within(left_usd)
        return price_where(
            lambda price: window.expected_usd(price, eligible),
            target_usd,
            guess=self.terms.high,
            scale=1.0 / target_usd,
        )

    def due(self, count: int) -> bool:
        """Return whether to solve again.

        Parameters
        ----------
        count : int
            Number of decisions that were charged so far.

        Returns
        -------
        bool
            True every 4 decisions up to the 64th, then every 16.
        """
        return count % (WARM_EVERY if count <= WARM else _EVERY) == 0

    def solve(self, window: Window | None, money: Money) -> PriceTerms:
        """Return the terms of the next decisions.

        Parameters
        ----------
        window : Window or None
            At most the last `WINDOW` requests, or the next request before any was decided. None
            where there is no request: the price is then the highest that the rate allows, and
            nothing is learned.
        money : Money
            The money left now.

        Returns
        -------
        PriceTerms
            The terms, which `terms` keeps.
        """
        rate_usd = usd_per_request(money)
        if window is None or not window.eligible.any():
            self.terms = replace(self._cold(rate_usd), rate_usd=rate_usd)
            return self.terms
        floor = window.least_usd()
        self._floor_usd = float(floor.sum()) / len(window.cost_usd)
        keep_usd = 0.0
        if math.isfinite(money.requests) and math.isfinite(money.left_usd):
            after = max(money.requests - 1.0, 0.0)
            most_usd, back_usd = window.reserves()
            margin = 2.0 * float(floor.std()) * math.sqrt(after) + most_usd - back_usd
            keep_usd = self._floor_usd * after + max(margin, 0.0) * (after > 0.0)
        self.terms = replace(self._solve(window, money), rate_usd=rate_usd, keep_usd=keep_usd)
        return self.terms

    def charge(self, cost_usd: float, reserved_usd: float) -> None:
        """Add a decision.

        Parameters
        ----------
        cost_usd : float
            Its predicted cost.
        reserved_usd : float
            Its reservation.
        """
        self.count += 1
        self._predicted_usd += cost_usd
        self._reserved_usd += reserved_usd
        self._open_usd += reserved_usd
        if self.terms.keep_usd > 0.0:
            keep_usd = max(self.terms.keep_usd - self._floor_usd, 0.0)
            self.terms = replace(self.terms, keep_usd=keep_usd)

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
        """Add the true cost of a decision that was charged.

        Parameters
        ----------
        reserved_usd : float
            Its reservation.
        cost_usd : float
            Its cost; that of an expired decision is its reservation.
        """
        self._open_usd = max(self._open_usd - reserved_usd, 0.0)
        self._settled_usd += cost_usd

    @property
    def expected_share(self) -> float:
        """Part of a reservation that is expected to be paid, 1 before any charge."""
        return self._predicted_usd / self._reserved_usd if self._reserved_usd else 1.0

    @property
    def spent_usd(self) -> float:
        """US dollars spent on all charged decisions, open reservations at their expected cost."""
        return self._settled_usd + self._open_usd * self.expected_share


def usd_per_request(money: Money) -> float:
    """Return what a request may cost on the average.

    Parameters
    ----------
    money : Money
        The money of a budget's window.

    Returns
    -------
    float
        US dollars per request, NaN where neither the number of requests nor a rate is known.
    """
    if math.isfinite(money.requests) and math.isfinite(money.left_usd):
        return max(money.left_usd, 0.0) / max(money.requests, 1.0)
    return money.rate_usd


def price_where(
    value_at: Callable[[float], float], target: float, *, guess: float, scale: float
) -> tuple[float, float, float]:
    """Return two prices around the price at which a function meets a target.

    Parameters
    ----------
    value_at : callable
        A decreasing function of the price.
    target : float
        The value to meet.
    guess : float
        Price at which the search starts; 0 to start from `scale`.
    scale : float
        A high price: the search ends at 0 and at 1e6 times this price.

    Returns
    -------
    low : float
        A price at which the value is above the target.
    high : float
        A price at which it is at most the target.
    share : float
        Weight of `low` in the mixture of both values that meets the target. Where the search ends
        at a bound, `low` and `high` are that bound and the share is 1.
    """
    least, limit = LEAST * scale, MOST * scale
    start = min(max(guess or scale, least), limit)
    low = high = start
    above = below = value_at(start)
    step = _NEAR if guess else _FAR
    while below > target and high < limit:
        low, above = high, below
        high = min(step * high, limit)
        below, step = value_at(high), _FAR
    while above <= target and low > 0.0:
        high, below = low, above
        low = low / step if low > least else 0.0
        above, step = value_at(low), _FAR
    if above <= target:
        return low, low, 1.0
    if below > target:
        return high, high, 1.0
    while high - low > _CLOSE * high and high > least:
        middle = math.sqrt(low * high) if low > 0.0 else 0.5 * high
        value = value_at(middle)
        if value > target:
            low, above = middle, value
        else:
            high, below = middle, value
    return low, high, (target - below) / (above - below)

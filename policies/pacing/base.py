"""The price of money, set online: what a budget asks of the requests that it still has to serve.

Three interchangeable modes. `history` looks back: at which price would the recent requests, seen
with what is known now, have cost what the next ones may? `zcl` filters by a threshold that rises
with what is spent, for the worst case. `pacer` moves a price by every bill and needs neither a
horizon nor feedback. None knows a clock, a ledger or a label: its owner tells it what money is
left and hands it the recent requests, scored anew, whenever `due` says so or a price row changes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from policies.base import Bools, Float32, Float64, Policy
from policies.pacing.price import Price, cheapest, priced

WINDOW = 128
"""How many recent requests an owner keeps for a window."""

WARM = 64
"""Requests over which prices are solved more often than later."""

WARM_EVERY, _EVERY = 4, 16
_NEAR, _FAR, _CLOSE = 1.1, 4.0, 0.1
LEAST, MOST = 1e-4, 1e6
"""Prices of money are looked for between these multiples of a dear one."""


@dataclass(frozen=True, slots=True)
class Money:
    """What a budget knows, in US dollars.

    Attributes
    ----------
    left : what may still be spent in the window: the cap minus what is settled and minus open
        reservations at their expected cost; inf where only a rate binds.
    cap : of the window.
    requests : still to come in the window, the next one included; inf when not known.
    rate : per request, NaN when none was set; what counts where `requests` is not known.
    """

    left_usd: float
    cap_usd: float
    requests: float
    rate_usd: float


@dataclass(frozen=True, slots=True)
class PriceTerms:
    """What the next decisions have to pay; see `policies.pacing.price.Price` for the attributes.

    `keep` is what reservations of all models but the cheapest must leave in the budget, in US
    dollars, for the cheapest answers to requests still to come.
    """

    low: float = 0.0
    high: float = 0.0
    share: float = 1.0
    gain: float = 0.0
    rate_usd: float = math.nan
    keep_usd: float = 0.0

    def rows(self, n: int) -> Price:
        """Return these terms for n decisions."""
        return Price.flat(
            n, self.low, self.high, share=self.share, gain=self.gain, rate_usd=self.rate_usd
        )


@dataclass(frozen=True, slots=True)
class Window:
    """Recent requests, as the snapshot and the price rows of now see them.

    Attributes
    ----------
    kind : the policy's class, whose law turns scores into probabilities.
    scores, mean : float32[n, K], what the law reads, and expected quality.
    eligible : bool[n, K], before any budget.
    penalty : float64[n, K], in quality units, without money.
    cost, worst : float64[n, K], US dollars: predicted, and to be reserved.
    """

    kind: type[Policy]
    scores: dict[str, Float32]
    eligible: Bools
    penalty: Float64
    mean: Float32
    cost_usd: Float64
    reservation_usd: Float64

    def law(self, price: float, eligible: Bools | None = None) -> Float64:
        """Return the pmf[n, K] at a price in quality units per US dollar."""
        open_to = self.eligible if eligible is None else eligible
        flat = Price.flat(len(self.cost_usd), price)
        return priced(self.kind, self.scores, open_to, self.penalty, self.cost_usd, flat)

    def expected_usd(self, price: float, eligible: Bools | None = None) -> float:
        """Return the expected US dollars per request at a price."""
        return float((self.law(price, eligible) * self.cost_usd).sum() / len(self.cost_usd))

    def outcome(self, price: float, eligible: Bools) -> tuple[float, float]:
        """Return (quality less penalty, US dollars) that a request is expected to come to."""
        law = self.law(price, eligible)
        worth = np.clip(self.mean, 0.0, 1.0) - self.penalty
        return float((law * worth).sum() / len(law)), float((law * self.cost_usd).sum() / len(law))

    def quality(self, price: float) -> float:
        """Return the expected mean quality at a price."""
        return float((self.law(price) * np.clip(self.mean, 0.0, 1.0)).sum() / len(self.cost_usd))

    def least_usd(self) -> Float64:
        """Return the least predicted US dollars[m] of the requests that have a model."""
        rows = self.eligible.any(axis=1)
        least: Float64 = np.where(self.eligible, self.cost_usd, np.inf)[rows].min(axis=1)
        return least

    def reserves(self) -> tuple[float, float]:
        """Return what cheapest models reserve at most, and what others give back on the average.

        The first is the largest reservation in US dollars of a request's cheapest model; the
        second the mean over requests of ``worst - cost``, the least of the other models.
        """
        at = np.arange(len(self.cost_usd)), cheapest(self.cost_usd, self.eligible)
        most = float(np.where(self.eligible[at], self.reservation_usd[at], 0.0).max(initial=0.0))
        back = np.where(self.eligible, self.reservation_usd - self.cost_usd, np.inf)
        back[at] = np.inf
        least = back.min(axis=1)
        return most, float(least[least < np.inf].mean()) if (least < np.inf).any() else 0.0

    def only(self, models: Bools) -> Bools:
        """Return `eligible` for some models[K] alone; the cheapest of a request stays."""
        open_to = self.eligible & models
        at = np.arange(len(self.cost_usd)), cheapest(self.cost_usd, self.eligible)
        open_to[at] = self.eligible[at]
        return open_to

    def within(self, money_usd: float) -> Bools:
        """Return `eligible` without what `money` does not cover; the cheapest model stays."""
        open_to = self.eligible & (self.reservation_usd <= money_usd)
        at = np.arange(len(self.cost_usd)), cheapest(self.cost_usd, self.eligible)
        open_to[at] = self.eligible[at]
        return open_to


class Pacing(ABC):
    """Base of the modes: what was spent, and what must be kept for cheap answers.

    Attributes
    ----------
    terms : of the next decision. `solve` sets them; `charge` and `settle` may move them.

    Notes
    -----
    With m and s the mean and the deviation of what a request's cheapest model costs, n requests
    still to come after the next and w that model's largest reservation, other models must leave
    ``m n + max(2 s sqrt(n) + w - r, 0)``: a request at the end that finds no money for any model is
    worth far less than a better model for one of the others. r is what a reservation of another
    model gives back when it is settled, which is money that no such model can have any more.

    What was spent is what was settled, and for open reservations what was predicted of a dollar
    reserved on the average.
    """

    mode: ClassVar[str]
    moves: ClassVar[bool] = False
    """Whether every charge moves the price; else an owner may bring them before a solve."""

    def __init__(self) -> None:
        self.terms = PriceTerms()
        self.count = 0
        self._floor_usd = 0.0
        self._settled_usd = self._open_usd = 0.0
        self._predicted_usd = self._reserved_usd = 0.0

    @abstractmethod
    def _solve(self, window: Window, money: Money) -> PriceTerms: ...

    def _cold(self, rate_usd: float) -> PriceTerms:
        """Return the terms before any request was seen: a request's money for all of quality."""
        price = 1.0 / rate_usd if rate_usd > 0.0 and math.isfinite(rate_usd) else 0.0
        return PriceTerms(price, price)

    def due(self, count: int) -> bool:
        """Return whether to solve anew when `count` decisions were charged since this was made."""
        return count % (WARM_EVERY if count <= WARM else _EVERY) == 0

    def solve(self, window: Window | None, money: Money) -> PriceTerms:
        """Return the terms of the next decisions.

        Parameters
        ----------
        window : the last `WINDOW` requests or fewer, or before any the next one; None when there
            are none: money then is as dear as it can be at its rate, and nothing is learned of it.
        money : what is left now.
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
            most, back = window.reserves()
            margin = 2.0 * float(floor.std()) * math.sqrt(after) + most - back
            keep_usd = self._floor_usd * after + max(margin, 0.0) * (after > 0.0)
        self.terms = replace(self._solve(window, money), rate_usd=rate_usd, keep_usd=keep_usd)
        return self.terms

    def charge(self, cost_usd: float, reserved_usd: float) -> None:
        """Take in one decision, its predicted cost and its reservation in US dollars."""
        self.count += 1
        self._predicted_usd += cost_usd
        self._reserved_usd += reserved_usd
        self._open_usd += reserved_usd
        if self.terms.keep_usd > 0.0:
            self.terms = replace(
                self.terms, keep_usd=max(self.terms.keep_usd - self._floor_usd, 0.0)
            )

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
        """Take in the true cost of a decision that was charged; an expired one costs `reserved`."""
        self._open_usd = max(self._open_usd - reserved_usd, 0.0)
        self._settled_usd += cost_usd

    @property
    def expected_share(self) -> float:
        """How much of what is reserved is expected to be paid, 1 before anything was charged."""
        return self._predicted_usd / self._reserved_usd if self._reserved_usd else 1.0

    @property
    def spent_usd(self) -> float:
        """US dollars since this was made, open reservations at what they are expected to cost."""
        return self._settled_usd + self._open_usd * self.expected_share


def usd_per_request(money: Money) -> float:
    """Return the US dollars per request that may be spent, NaN where nothing says."""
    if math.isfinite(money.requests) and math.isfinite(money.left_usd):
        return max(money.left_usd, 0.0) / max(money.requests, 1.0)
    return money.rate_usd


def price_where(
    spend: Callable[[float], float], target: float, *, guess: float, scale: float
) -> tuple[float, float, float]:
    """Return (low, high, share): prices that enclose a target, and the mix that meets it.

    Parameters
    ----------
    spend : a falling function of the price.
    target : the value to meet.
    guess : where to look first, 0 for anywhere.
    scale : a price that is dear; nothing is looked for beyond 1e6 of it.
    """
    least, limit = LEAST * scale, MOST * scale
    at = min(max(guess or scale, least), limit)
    low = high = at
    above = below = spend(at)
    step = _NEAR if guess else _FAR
    while below > target and high < limit:
        low, above = high, below
        high = min(step * high, limit)
        below, step = spend(high), _FAR
    while above <= target and low > 0.0:
        high, below = low, above
        low = low / step if low > least else 0.0
        above, step = spend(low), _FAR
    if above <= target:
        return low, low, 1.0
    if below > target:
        return high, high, 1.0
    while high - low > _CLOSE * high and high > least:
        middle = math.sqrt(low * high) if low > 0.0 else 0.5 * high
        found = spend(middle)
        if found > target:
            low, above = middle, found
        else:
            high, below = middle, found
    return low, high, (target - below) / (above - below)

"""A detector of changes in the quality of arms, beside every policy.

An alarm must never change a policy by itself. It stands until the log has a reset event, or until
the evidence for it has gone.

The detector has its own regression of each arm's quality. It adds up the residuals in CUSUM
statistics, in both directions. Everything here is a fold over the log.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from policies.base import Arrays, ByArm, Outcome, grown
from policies.params import arm_prior
from policies.ridge import RidgeArms, next_position

FALSE_ALARM_EVERY = 10_000
"""Mean number of outcomes of an arm between false alarms, by Siegmund's formula; see `Drift`."""

TILTS = (-1.0, 1.0, -0.25, 0.25)
"""The t of the four statistics of an arm; below 0 for a change to the worse."""

_TILTS, _OVERSHOOT = len(TILTS), 1.166  # the second is of Siegmund's formula
_WARM, _CLIP = 20, 3.0  # outcomes before an arm is compared; largest z
_VARIANCE, _WEIGHT = 0.09, 4.0  # prior variance of residuals, and the outcomes that it is worth
_SLOPES, _LEVEL, _PRIOR = 100.0, 1.0, 0.7  # prior of the regression, see `params.arm_prior`
_WAVES = 50.0  # outcomes that the prior of exp(t z) is worth
_REGAINED = 2.0 / 3.0  # part of a fall whose return ends the suspicion
_MANY, _SOME = 512, 4  # from so many outcomes on, only one in so many updates the regression


def _threshold(tilt: float) -> float:
    """Return the threshold h of a tilt on normal residuals; it may raise 1/4 of false alarms."""
    k = 0.5 * abs(tilt)
    outcomes = _TILTS * FALSE_ALARM_EVERY

    def surplus(reach: float) -> float:
        power = 2.0 * k * (reach + _OVERSHOOT)
        return (math.exp(power) - power - 1.0) / (2.0 * k * k) - outcomes

    return abs(tilt) * float(brentq(surplus, 0.0, 40.0 / k))


THRESHOLDS = tuple(_threshold(tilt) for tilt in TILTS)


class Drift(ByArm):
    """Four CUSUM statistics of each arm's standardised residuals, for small and large changes.

    Parameters
    ----------
    dim : int
        Number of features d; the last one is the intercept.

    Notes
    -----
    With z a residual over its own standard deviation, clipped to [-3, 3], and tilts t of -+1 and
    -+1/4, the statistics are ``g = max(0, g + t z - k)`` and an alarm is ``g >= h``. The allowance
    is ``k = log(mean of exp(t z)) + |t| / sqrt(n)``. Its first term makes exp(g) a martingale for
    any distribution of the arm's rewards (for normal ones it is t^2 / 2). The second term is the
    uncertainty about the arm's level after n outcomes. [2]_ gives h: each tilt may raise one false
    alarm in 40,000 outcomes, so all four raise one in 10,000. The smaller tilts detect changes of
    half a deviation best, the larger ones those of one deviation and more.

    The expected quality, its deviation and k are updated when an arm has 4, 8, 16, 32, 64, .. of
    its outcomes, unless a statistic is above h / 2: otherwise a change would become the new
    expectation before it is detected. From 512 outcomes on every fourth one updates the regression.
    An arm is compared from its 20th outcome on, and at once after a reset.

    References
    ----------
    .. [1] Page (1954). Continuous inspection schemes. Biometrika.
    .. [2] Siegmund (1985). Sequential analysis. Springer. Chapter 2.

    Examples
    --------
    >>> drift, x = Drift(dim=1), np.ones(1, dtype=np.float32)
    >>> drift.add_arm("large")
    >>> rewards = [0.9, 0.8] * 50 + [0.6] * 8
    >>> for seq, reward in enumerate(rewards, start=1):
    ...     drift.learn(Outcome(seq, "d", "large", x, "quality", reward))
    >>> drift.alarms()
    {'large': 104}
    >>> shift, worth = drift.reset("large", trigger_seq=104)
    >>> round(shift, 2), worth, drift.alarms()
    (-0.23, 9.0, {})
    """

    SAVED = ("expected",)

    def __init__(self, *, dim: int) -> None:
        super().__init__(dim=dim)
        precision, mean = arm_prior(dim, ridge=_SLOPES, level=_LEVEL, prior=_PRIOR)
        self.ridge = RidgeArms(precision=precision, mean=mean)
        self.expected = np.zeros((0, dim), dtype=np.float32)
        self._watches: list[_Watch] = []

    def _grow(self) -> None:
        self.ridge.grow()
        self.expected = grown(self.expected)
        self._watches.append(_Watch())
        self._expect(len(self.arms) - 1)

    def learn(self, outcome: Outcome) -> None:
        """Compare one quality with the expected one, then learn from it.

        Parameters
        ----------
        outcome : Outcome
            Of field ``quality``.

        Raises
        ------
        KeyError
            For an arm that was not added.
        """
        arm = self._position(outcome.arm)
        watch = self._watches[arm]
        learns = watch.age < _MANY or watch.age % _SOME == 0
        error = outcome.value - float(self.expected[arm].dot(outcome.x))
        watch.compare(error, outcome.seq, learns=learns)
        if learns:
            self.ridge.update(arm, outcome.x, outcome.value, 0)
        if watch.age >= watch.due and watch.is_calm():
            watch.due = next_position(watch.age)
            self._expect(arm)

    def _expect(self, arm: int) -> None:
        """Update the expected quality of an arm, its deviation and the allowances."""
        self.expected[arm] = self.ridge.solve_one(arm, 0)[0]
        count = float(self.ridge.level_counts(0)[arm]) + _LEVEL
        self._watches[arm].update(float(self.expected[arm, -1]), count)

    def alarms(self) -> dict[str, int]:
        """Return the arms whose alarm stands, with the log position that raised it."""
        pairs = zip(self.arms, self._watches, strict=True)
        return {name: watch.trigger for name, watch in pairs if watch.trigger}

    def reset(self, name: str, trigger_seq: int = 0) -> tuple[float, float] | None:
        """Reset an arm: expect its present quality from now on.

        Parameters
        ----------
        name : str
            The arm.
        trigger_seq : int, default 0
            Log position of the alarm that the reset answers; 0 for a reset without an alarm.

        Returns
        -------
        tuple of float or None
            The shift and the worth for `Policy.reset_arm`. The shift is the mean residual since the
            statistic of the alarm was last 0, and its worth is the number of these outcomes.
            Without an alarm they are 0 and 2. None where the alarm does not stand any more; then
            nothing has changed.

        Raises
        ------
        KeyError
            For an arm that was not added.
        """
        arm = self._position(name)
        if trigger_seq and trigger_seq != self._watches[arm].trigger:
            return None
        shift, worth = self._watches[arm].restart(by_alarm=trigger_seq > 0)
        self.ridge.forget_level(arm, shift=shift, worth=worth, clock=0)
        self._watches[arm].fallen_to = float(self.ridge.solve_one(arm, 0)[0][-1])
        self._expect(arm)
        return shift, worth

    def withdraw(self) -> None:
        """Withdraw all alarms, and set all statistics to 0."""
        for watch in self._watches:
            watch.clear()

    def _state(self) -> Arrays:
        watches = [_Watch(), *self._watches]  # the first gives type and shape where there is no arm
        own = {name: np.array([getattr(w, name) for w in watches])[1:] for name in _Watch.__slots__}
        return own | self.ridge.state(prefix="ridge_")

    def _load(self, state: Mapping[str, NDArray[Any]]) -> None:
        columns = [state[name].tolist() for name in _Watch.__slots__]
        self._watches = [_Watch(*fields) for fields in zip(*columns, strict=True)]
        self.ridge.load(state, prefix="ridge_")

    def publish(self) -> Arrays:
        """Return what a router and an operator read of each arm.

        Returns
        -------
        dict from str to array
            ``level`` float64[K], the largest g / h, negative for a change to the worse; an alarm
            is at least 1 in size. ``trigger`` int64[K], the log position of the alarm that stands,
            0 for none. ``suspect`` bool[K], whether an alarm found the arm worse, and it has
            neither regained two thirds of the fall nor been found better since.
        """
        return {
            "level": np.array([watch.level() for watch in self._watches]),
            "trigger": np.array([watch.trigger for watch in self._watches], dtype=np.int64),
            "suspect": np.array([watch.suspect for watch in self._watches], dtype=np.bool_),
        }


@dataclass(slots=True)
class _Watch:
    """The statistics of one arm; plain numbers, since calls into numpy would take far longer.

    The names of its fields are the names of the arrays of `Drift.state`.

    Attributes
    ----------
    excess : list of float
        The statistic g of each tilt.
    run : list of float
        Outcomes since g of each tilt was last 0.
    moved : list of float
        Sum of the residuals of these outcomes.
    waves : list of float
        Sum of exp(t z) of each tilt.
    weight : float
        Number of outcomes in that sum.
    allow : list of float
        The allowance k of each tilt.
    square : float
        Sum of squared residuals.
    freedom : float
        Number of outcomes in that sum.
    deviation : float
        Standard deviation by which residuals are divided.
    age : int
        Outcomes so far.
    due : int
        Number of outcomes at which expectations are updated next.
    blind : int
        Number of further outcomes that are not compared.
    trigger : int
        Log position of the alarm that stands, 0 for none.
    suspect : bool
        Whether the arm was found worse, and not better since.
    fall : float
        By how much it became worse.
    fallen_to : float
        Its level after that.
    """

    excess: list[float] = field(default_factory=lambda: [0.0] * _TILTS)
    run: list[float] = field(default_factory=lambda: [0.0] * _TILTS)
    moved: list[float] = field(default_factory=lambda: [0.0] * _TILTS)
    waves: list[float] = field(
        default_factory=lambda: [_WAVES * math.exp(tilt * tilt / 2.0) for tilt in TILTS]
    )
    weight: float = _WAVES
    allow: list[float] = field(default_factory=lambda: [0.0] * _TILTS)
    square: float = _VARIANCE * _WEIGHT
    freedom: float = _WEIGHT
    deviation: float = 1.0
    age: int = 0
    due: int = next_position(0)
    blind: int = _WARM
    trigger: int = 0
    suspect: bool = False
    fall: float = 0.0
    fallen_to: float = 0.0

    def compare(self, error: float, seq: int, *, learns: bool) -> None:
        """Add the residual of one outcome to the statistics and, if it `learns`, to its scale."""
        self.age += 1
        if learns and self.age > _WEIGHT:
            self.square += error * error
            self.freedom += 1.0
        if self.blind:
            self.blind -= 1
            return
        z = min(max(error / self.deviation, -_CLIP), _CLIP)
        if learns:
            self.weight += 1.0
            for i, tilt in enumerate(TILTS):
                self.waves[i] += math.exp(tilt * z)
        alarm = False
        for i, tilt in enumerate(TILTS):
            g = self.excess[i] + tilt * z - self.allow[i]
            if g > 0.0:
                self.excess[i] = g
                self.run[i] += 1.0
                self.moved[i] += error
                alarm = alarm or g >= THRESHOLDS[i]
            elif self.run[i]:
                self.excess[i] = self.run[i] = self.moved[i] = 0.0
        if alarm and not self.trigger:
            self.trigger = seq
        elif self.trigger and self.is_calm():
            self.trigger = 0

    def is_calm(self) -> bool:
        """Return whether no statistic is above half its threshold."""
        return abs(self.level()) <= 0.5

    def update(self, level: float, count: float) -> None:
        """Update the deviation and the allowances, at a level that rests on `count` outcomes."""
        if self.suspect and level - self.fallen_to >= _REGAINED * self.fall:
            self.suspect = False  # so much of a fall is regained after a false alarm
        self.deviation = math.sqrt(self.square / self.freedom)
        for i, tilt in enumerate(TILTS):
            self.allow[i] = math.log(self.waves[i] / self.weight) + abs(tilt) / math.sqrt(count)

    def level(self) -> float:
        """Return the largest g / h, negative for a tilt to the worse."""
        i = self._largest()
        return self.excess[i] / THRESHOLDS[i] * (1.0 if TILTS[i] > 0.0 or not self.run[i] else -1.0)

    def _largest(self) -> int:
        return max(range(_TILTS), key=lambda i: self.excess[i] / THRESHOLDS[i])

    def restart(self, *, by_alarm: bool) -> tuple[float, float]:
        """Start again after a reset, and return its (shift, worth) as the alarm measured them."""
        shift, worth = 0.0, 2.0
        if by_alarm:
            i = self._largest()
            shift, worth = self.moved[i] / self.run[i], self.run[i]
            self.suspect, self.fall = TILTS[i] < 0.0, -shift
        self.clear()
        self.age, self.due, self.blind = 0, next_position(0), 0
        return shift, worth

    def clear(self) -> None:
        """Set the statistics to 0, and withdraw the alarm."""
        for statistic in (self.excess, self.run, self.moved):
            statistic[:] = [0.0] * _TILTS
        self.trigger = 0
